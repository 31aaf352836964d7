//! A tunnel through an HTTP proxy: CONNECT, and nothing that the proxy could read.
//!
//! In: a connection to the proxy. Out: the same connection, from whose next byte on it is the host's, or why not. The
//! request is written once, when a snapshot is built, into a buffer that is wiped; it names the host and holds the
//! proxy's password, never a credential of MX's. TLS with the host goes through the tunnel and is verified as without
//! one, so a proxy that lies gets nothing.
//!
//! What must never happen: a proxy's answer is waited for without end, is kept without bound, or is printed: it may
//! repeat the password. The password is sent after its time.

use std::{io, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use zeroize::Zeroizing;

use crate::{
    config::{Login, Proxy},
    credential,
    record::UsedCredential,
    vault::{
        Resolved,
        freshness::{Deadline, Moment},
        secret::Secret,
    },
};

/// Bytes of the head of a proxy's answer.
const ANSWER_BYTES_MAX: usize = 8 * 1024;

/// Fields of it.
const ANSWER_FIELDS_MAX: usize = 64;

/// What is said to a proxy.
pub(crate) struct Tunnel {
    request: Zeroizing<Vec<u8>>,
    /// The password's reference and fingerprint, if there is one.
    used: Option<UsedCredential>,
    deadline: Arc<Deadline>,
}

/// What a proxy's login needs, and when it may be sent no longer.
#[derive(Debug, Clone)]
pub(crate) struct Password {
    secret: Arc<Secret>,
    deadline: Arc<Deadline>,
}

impl From<Resolved> for Password {
    fn from(resolved: Resolved) -> Self {
        Self { secret: resolved.secret, deadline: resolved.deadline }
    }
}

impl PartialEq for Password {
    fn eq(&self, other: &Self) -> bool {
        // What is kept with another cell would hear of no revocation.
        self.secret == other.secret && Arc::ptr_eq(&self.deadline, &other.deadline)
    }
}

impl Eq for Password {}

/// Why a proxy did not let us through. Its own words are not repeated.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TunnelFault {
    #[error(
        "the proxy wants to know who we are (407): check `proxy.username` and the secret of `proxy.password`"
    )]
    Login,
    #[error("the proxy does not let us go there (403): whoever runs it has to allow it")]
    Forbidden,
    #[error("the proxy could not connect to the host, or did not find its name ({0})")]
    Unreached(u16),
    #[error("the proxy answered {0} to CONNECT")]
    Refused(u16),
    #[error("what the proxy answered is no answer of HTTP/1")]
    Malformed,
    #[error("the head of the proxy's answer is longer than {ANSWER_BYTES_MAX} bytes")]
    TooLong,
    #[error("the proxy sent something after its answer, before we had said anything to the host")]
    TooMuch,
    #[error("the proxy closed the connection without an answer")]
    Closed,
    #[error("the connection to the proxy broke: {0}")]
    Broken(#[from] io::Error),
    #[error("the proxy did not answer CONNECT in time")]
    Timeout,
    #[error(
        "the time of the secret of `proxy.password` is over, or it was revoked: the proxy was told nothing"
    )]
    PasswordOver,
}

impl Tunnel {
    /// To `host` and `port`; `password` belongs to the proxy's login.
    ///
    /// # Errors
    /// When the password is nothing that a header may carry.
    pub(crate) fn new(
        proxy: &Proxy,
        password: Option<&Password>,
        host: &str,
        port: u16,
    ) -> Result<Self, credential::Unusable> {
        let login = proxy.login.as_ref().zip(password);
        let authorization = login
            .map(|(login, password)| credential::basic(&login.username, &password.secret))
            .transpose()?;
        let start = format!("CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n");
        const NAME: &[u8] = b"Proxy-Authorization: ";
        let value = authorization.as_ref().map_or(&b""[..], |value| value.as_bytes());
        // Room for all of it beforehand: growing would leave an unwiped copy behind.
        let room = start.len() + NAME.len() + value.len() + "\r\n\r\n".len();
        let mut request = Zeroizing::new(Vec::with_capacity(room));
        request.extend_from_slice(start.as_bytes());
        if !value.is_empty() {
            [NAME, value, b"\r\n"].iter().for_each(|part| request.extend_from_slice(part));
        }
        request.extend_from_slice(b"\r\n");
        let used = |(login, password): (&Login, &Password)| {
            UsedCredential::new(&login.password.to_string(), password.secret.fingerprint())
        };
        let deadline = login.map(|(_, password)| password.deadline.clone());
        let deadline = deadline.unwrap_or_else(|| Arc::new(Deadline::never()));
        Ok(Self { request, used: login.map(used), deadline })
    }

    /// What tells this version of the password from others.
    pub(crate) fn used(&self) -> Option<&UsedCredential> {
        self.used.as_ref()
    }

    /// Asks the proxy at the other end of `stream` to connect, within `limit`.
    pub(crate) async fn open(&self, stream: &mut TcpStream, limit: Duration) -> Result<(), TunnelFault> {
        timeout(limit, self.exchange(stream)).await.unwrap_or(Err(TunnelFault::Timeout))
    }

    async fn exchange(&self, stream: &mut TcpStream) -> Result<(), TunnelFault> {
        if self.deadline.has_passed(Moment::now) {
            return Err(TunnelFault::PasswordOver);
        }
        stream.write_all(&self.request).await?;
        let mut answer = Zeroizing::new([0; ANSWER_BYTES_MAX]);
        let mut filled = 0;
        loop {
            match stream.read(&mut answer[filled..]).await? {
                0 => return Err(TunnelFault::Closed),
                more => filled += more,
            }
            if let Some((status, head)) = read_head(&answer[..filled])? {
                judge(status)?;
                // Nobody speaks before TLS's client does.
                return if head == filled { Ok(()) } else { Err(TunnelFault::TooMuch) };
            }
            if filled == answer.len() {
                return Err(TunnelFault::TooLong);
            }
        }
    }
}

/// Status and length of an answer's head; `None`: there is more to come.
fn read_head(bytes: &[u8]) -> Result<Option<(u16, usize)>, TunnelFault> {
    let mut fields = [httparse::EMPTY_HEADER; ANSWER_FIELDS_MAX];
    let mut answer = httparse::Response::new(&mut fields);
    match answer.parse(bytes) {
        Ok(httparse::Status::Complete(len)) => {
            answer.code.map(|code| Some((code, len))).ok_or(TunnelFault::Malformed)
        }
        Ok(httparse::Status::Partial) => Ok(None),
        Err(_) => Err(TunnelFault::Malformed),
    }
}

fn judge(status: u16) -> Result<(), TunnelFault> {
    match status {
        200..=299 => Ok(()),
        407 => Err(TunnelFault::Login),
        403 => Err(TunnelFault::Forbidden),
        502..=504 => Err(TunnelFault::Unreached(status)),
        _ => Err(TunnelFault::Refused(status)),
    }
}
