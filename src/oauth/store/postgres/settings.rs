//! Where the database is, how a session there begins, and whom to believe.
//!
//! In: settings as the configuration gives them. Out: what a connection is made with. TLS is verified in full. There is
//! none on a Unix socket, nor for a loopback address without a `ca_file`, which no authority would vouch for. Sessions
//! have the same settings whatever the defaults of a role or a database are.
//!
//! What must never happen: a token or a password goes over a network without TLS.

use std::{net::IpAddr, path::PathBuf, sync::Arc, time::Duration};

use rustls::RootCertStore;
use tokio_postgres::{
    Config,
    config::{SslMode, TargetSessionAttrs},
};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{super::Doing, error::Error, schema};
use crate::{
    tls::{self, TlsFault},
    vault::{self, secret::Secret},
};

/// What the server has time for beyond its own limit, so that it is mostly the one that gives a statement up: that
/// costs no connection.
const ANSWER_GRACE: Duration = Duration::from_secs(1);

/// A network that drops idle connections, or lost its way, is noticed before the next call.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// Reads the password as it is now.
pub(crate) type PasswordLookUp =
    Arc<dyn Fn() -> Doing<'static, Result<Arc<Secret>, vault::Error>> + Send + Sync>;

/// Where the database is, and how it is used.
#[derive(Clone)]
pub(crate) struct Settings {
    /// A name, an address (an IPv6 one in brackets or not), or the folder of a Unix socket: an absolute path.
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) database: String,
    pub(crate) user: String,
    /// `None`: the server lets this role in without one, as it may on a Unix socket.
    pub(crate) password: Option<PasswordLookUp>,
    /// Whom to believe, instead of the system's roots.
    pub(crate) ca_file: Option<PathBuf>,
    /// From the look-up of the name to a session that can be used. Whoever waits for a lease's renewal waits for this and
    /// the next, and the second that is added to it: all of it should be less than half of a lease.
    pub(crate) connect_timeout: Duration,
    /// For one statement at the server.
    pub(crate) statement_timeout: Duration,
    /// Where the tables are.
    pub(crate) schema: String,
}

impl Settings {
    /// For messages.
    pub(super) fn place(&self) -> String {
        let Self { host, port, database, schema, .. } = self;
        format!("PostgreSQL at {host}:{port}, database {database}, schema {schema}")
    }

    fn bare_host(&self) -> &str {
        self.host.trim_matches(['[', ']'])
    }

    pub(super) fn is_plain(&self) -> bool {
        let is_loopback = |address: IpAddr| address.to_canonical().is_loopback();
        self.host.starts_with('/')
            || self.ca_file.is_none() && self.bare_host().parse().is_ok_and(is_loopback)
    }

    /// It stands in statements and options as it is.
    pub(super) fn check_schema(&self) -> Result<(), Error> {
        let is_legal = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_');
        let name = self.schema.as_bytes();
        let begins = name.first().is_some_and(|first| !first.is_ascii_digit());
        if begins && name.len() <= 63 && name.iter().copied().all(is_legal) {
            return Ok(());
        }
        Err(Error::Schema { schema: self.schema.clone() })
    }

    pub(super) fn config(&self) -> Config {
        let mut config = Config::new();
        config
            .host(self.bare_host())
            .port(self.port)
            .dbname(&self.database)
            .user(&self.user)
            .application_name("mxgate")
            .options(self.options())
            .ssl_mode(if self.is_plain() { SslMode::Disable } else { SslMode::Require })
            // Of a pair, the one that was promoted.
            .target_session_attrs(TargetSessionAttrs::ReadWrite)
            .keepalives_idle(KEEPALIVE)
            .keepalives_interval(KEEPALIVE / 3)
            .keepalives_retries(3)
            .tcp_user_timeout(self.answer_timeout());
        config
    }

    /// What a session must not have from the defaults of a role or a database: an answer that is not durable, and a
    /// write that fails because of another one instead of seeing what that did.
    fn options(&self) -> String {
        format!(
            "-c search_path={} -c statement_timeout={} -c synchronous_commit=on \
             -c default_transaction_isolation=read\\ committed -c idle_in_transaction_session_timeout={}",
            self.schema,
            self.statement_timeout.as_millis().max(1),
            schema::TIMEOUT.as_millis(),
        )
    }

    pub(super) fn answer_timeout(&self) -> Duration {
        self.statement_timeout.saturating_add(ANSWER_GRACE)
    }

    /// How a session is protected. One that is plain has no use for it, and it would believe nobody.
    pub(super) fn tls(&self) -> Result<MakeRustlsConnect, TlsFault> {
        let roots = if self.is_plain() {
            RootCertStore::empty()
        } else {
            let pem = self.ca_file.as_deref().map(tls::read).transpose()?;
            tls::roots(self.ca_file.as_deref().zip(pem.as_deref()))?
        };
        Ok(MakeRustlsConnect::new(tls::client()?.with_root_certificates(roots).with_no_client_auth()))
    }
}
