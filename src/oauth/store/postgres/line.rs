//! The connection to the database: one, that all calls share, and that is made anew when it is lost.
//!
//! In: where the database is, and statements. Out: rows, or why not, always within a time. Statements of several calls
//! are on their way at once; each stands for itself, since a transaction would mix with what others send. None is
//! prepared, so there is nothing to prepare again. Sessions have the same settings whatever the role's defaults are.
//!
//! TLS is verified in full. There is none on a Unix socket, nor for a loopback address without a `ca_file`, which no
//! authority would vouch for. The password is asked for with each new connection; the client's copy of it is not wiped.
//!
//! What must never happen: a token or a password goes over a network without TLS; a call waits without end; a connection
//! that missed its time is used again, whose next answer would belong to an earlier question.

use std::{
    net::IpAddr,
    path::PathBuf,
    sync::{Arc, OnceLock},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    task::AbortHandle,
    time::timeout,
};
use tokio_postgres::{
    Client, Config, Connection, NoTls, Row, Socket,
    config::{SslMode, TargetSessionAttrs},
    types::{ToSql, Type},
};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{
    super::Doing,
    error::{Error, Fault},
    schema,
};
use crate::{
    oauth::seal::StoreId,
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

    fn is_plain(&self) -> bool {
        let is_loopback = |address: IpAddr| address.to_canonical().is_loopback();
        self.host.starts_with('/')
            || self.ca_file.is_none() && self.bare_host().parse().is_ok_and(is_loopback)
    }

    /// It stands in statements and options as it is.
    fn check_schema(&self) -> Result<(), Error> {
        let is_legal = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_');
        let name = self.schema.as_bytes();
        let begins = name.first().is_some_and(|first| !first.is_ascii_digit());
        if begins && name.len() <= 63 && name.iter().copied().all(is_legal) {
            return Ok(());
        }
        Err(Error::Schema { schema: self.schema.clone() })
    }

    fn config(&self) -> Config {
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

    fn answer_timeout(&self) -> Duration {
        self.statement_timeout.saturating_add(ANSWER_GRACE)
    }
}

/// A value, and its type there.
pub(super) type Parameter<'a> = (&'a (dyn ToSql + Sync), Type);

pub(super) struct Line {
    settings: Settings,
    /// `None`: plain.
    tls: Option<MakeRustlsConnect>,
    /// The store that was opened.
    id: OnceLock<StoreId>,
    session: tokio::sync::Mutex<Option<Arc<Session>>>,
}

/// A connection, and the task that moves its bytes.
pub(super) struct Session {
    pub(super) client: Client,
    driver: AbortHandle,
}

impl Line {
    pub(super) fn new(settings: Settings) -> Result<Self, Error> {
        settings.check_schema()?;
        let tls = if settings.is_plain() { None } else { Some(tls_of(&settings)?) };
        Ok(Self { settings, tls, id: OnceLock::new(), session: tokio::sync::Mutex::default() })
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The session that the store was opened with is used from now on, and later ones must lead to the same store.
    pub(super) async fn adopt(&self, id: StoreId, session: Session) {
        // Once: a line belongs to one store.
        let _ = self.id.set(id);
        *self.session.lock().await = Some(Arc::new(session));
    }

    /// What one statement gives.
    pub(super) async fn rows(&self, sql: &str, values: &[Parameter<'_>]) -> Result<Vec<Row>, Fault> {
        let session = self.session().await?;
        session.within(self.settings.answer_timeout(), session.client.query_typed(sql, values)).await
    }

    /// The only row, if there is one.
    pub(super) async fn row(&self, sql: &str, values: &[Parameter<'_>]) -> Result<Option<Row>, Fault> {
        Ok(self.rows(sql, values).await?.into_iter().next())
    }

    /// Whether one statement changed anything.
    pub(super) async fn changed(&self, sql: &str, values: &[Parameter<'_>]) -> Result<bool, Fault> {
        let session = self.session().await?;
        let done = session.client.execute_typed(sql, values);
        Ok(session.within(self.settings.answer_timeout(), done).await? > 0)
    }

    /// The one that is there, or a new one. Whoever comes meanwhile waits for it.
    async fn session(&self) -> Result<Arc<Session>, Fault> {
        let limit = self.settings.connect_timeout;
        let session = timeout(limit, async {
            let mut kept = self.session.lock().await;
            if let Some(session) = kept.as_ref().filter(|session| !session.client.is_closed()) {
                return Ok(session.clone());
            }
            *kept = None;
            let session = self.dial().await?;
            if let Some(id) = self.id.get() {
                schema::check(&session.client, *id).await?;
            }
            let session = Arc::new(session);
            *kept = Some(session.clone());
            Ok(session)
        });
        session.await.unwrap_or(Err(Fault::ConnectTimeout(limit)))
    }

    /// A new connection, for whoever opens the store.
    pub(super) async fn first(&self) -> Result<Session, Fault> {
        let limit = self.settings.connect_timeout;
        timeout(limit, self.dial()).await.unwrap_or(Err(Fault::ConnectTimeout(limit)))
    }

    #[expect(clippy::disallowed_methods, reason = "the database asks for its password")]
    async fn dial(&self) -> Result<Session, Fault> {
        let mut config = self.settings.config();
        if let Some(look_up) = &self.settings.password {
            config.password(look_up().await.map_err(Fault::Password)?.expose());
        }
        Ok(match &self.tls {
            Some(tls) => driven(config.connect(tls.clone()).await?),
            None => driven(config.connect(NoTls).await?),
        })
    }
}

impl Session {
    /// `statement`'s answer. A connection that owes one for too long is given up, with all that is on its way.
    pub(super) async fn within<T>(
        &self,
        limit: Duration,
        statement: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, Fault> {
        match timeout(limit, statement).await {
            Ok(done) => Ok(done?),
            Err(_) => {
                self.driver.abort();
                Err(Fault::AnswerTimeout(limit))
            }
        }
    }
}

/// Whoever waits for an answer has the session; without any, nothing is worth waiting for.
impl Drop for Session {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

fn driven<T>((client, connection): (Client, Connection<Socket, T>)) -> Session
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let driver = tokio::spawn(async move {
        if let Err(error) = connection.await {
            let reason = vault::chain(&Fault::from(error));
            tracing::warn!(reason, "the connection to the database of connections ended");
        }
    });
    Session { client, driver: driver.abort_handle() }
}

fn tls_of(settings: &Settings) -> Result<MakeRustlsConnect, TlsFault> {
    let pem = settings.ca_file.as_deref().map(tls::read).transpose()?;
    let authority = settings.ca_file.as_deref().zip(pem.as_deref());
    let config = tls::client()?.with_root_certificates(tls::roots(authority)?).with_no_client_auth();
    Ok(MakeRustlsConnect::new(config))
}

impl std::fmt::Debug for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.settings.place())
    }
}
