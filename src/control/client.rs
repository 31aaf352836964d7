//! The other end of the control socket, for the commands that act on a running gateway.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use tokio::net::UnixStream;

use super::{
    consents::{Backup, Import, Imported, IssuedTicket, TicketOrder},
    messages::{Done, Fault, Resume, SetLogLevel, Suspend},
};
use crate::{
    https::Stream,
    status::{ReloadReport, ShownConnections, Status, VersionReport},
};

/// Longer than the server's own bound, so that its answer comes first.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(130);

const ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Speaks with the gateway whose control socket is at a path. One connection a command.
#[derive(Debug, Clone)]
pub struct Client {
    path: PathBuf,
}

/// Why a command has no result.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing listens at the path.
    #[error(
        "no mxgate answers at the control socket {path} ({why}); is it running, and is this the `socket` of its [control]? \
         --socket PATH names another, and --config FILE reads it there"
    )]
    NobodyThere {
        /// The socket.
        path: PathBuf,
        /// "no such file", or "nothing listens".
        why: &'static str,
    },
    /// The socket is another user's.
    #[error("the control socket {0} is for root and the gateway's own user; run the command as one of them")]
    NotAllowed(PathBuf),
    /// The gateway answered that it was not done.
    #[error("{text}")]
    Refused {
        /// The answer's status.
        status: u16,
        /// Why, in the gateway's words.
        text: String,
    },
    /// The connection or the answer is not what was expected.
    #[error("the control socket {path} gave no proper answer: {why}")]
    Broken {
        /// The socket.
        path: PathBuf,
        /// What happened.
        why: String,
    },
}

impl Client {
    /// For the gateway at `path`; connects with each command.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self { path: path.into() }
    }

    /// What is running.
    ///
    /// # Errors
    /// See [`Error`]; so for all commands.
    pub async fn status(&self) -> Result<Status, Error> {
        self.send(Method::GET, "/status", None::<&()>).await
    }

    /// Who uses what MX leaves behind.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn versions(&self) -> Result<VersionReport, Error> {
        self.send(Method::GET, "/versions", None::<&()>).await
    }

    /// Loads the configuration again.
    ///
    /// # Errors
    /// [`Error::Refused`] when the old configuration was kept.
    pub async fn reload(&self) -> Result<ReloadReport, Error> {
        self.send(Method::POST, "/reload", None::<&()>).await
    }

    /// Sets or resets the log filter.
    ///
    /// # Errors
    /// [`Error::Refused`] when the filter or its time is not acceptable.
    pub async fn set_log_level(&self, command: &SetLogLevel) -> Result<Done, Error> {
        self.send(Method::POST, "/log-level", Some(command)).await
    }

    /// Stops a caller, an operation, an environment or a network.
    ///
    /// # Errors
    /// [`Error::Refused`] when there is no such thing.
    pub async fn suspend(&self, command: &Suspend) -> Result<Done, Error> {
        self.send(Method::POST, "/suspend", Some(command)).await
    }

    /// Serves it again.
    ///
    /// # Errors
    /// [`Error::Refused`] when it is not suspended.
    pub async fn resume(&self, command: &Resume) -> Result<Done, Error> {
        self.send(Method::POST, "/resume", Some(command)).await
    }

    /// Users' connections.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn consents(&self) -> Result<ShownConnections, Error> {
        self.send(Method::GET, "/connections", None::<&()>).await
    }

    /// Makes a connection of a refresh token that was had elsewhere.
    ///
    /// # Errors
    /// [`Error::Refused`] when something about it is wrong.
    pub async fn import_consent(&self, import: &Import) -> Result<Imported, Error> {
        self.send(Method::POST, "/connections", Some(import)).await
    }

    /// Asks for a ticket.
    ///
    /// # Errors
    /// [`Error::Refused`] when something about it is wrong.
    pub async fn ticket(&self, order: &TicketOrder) -> Result<IssuedTicket, Error> {
        self.send(Method::POST, "/connections/ticket", Some(order)).await
    }

    /// Ends a connection; with `force` also when its provider does not take its tokens back.
    ///
    /// # Errors
    /// [`Error::Refused`] when there is none, or its provider did not.
    pub async fn end_consent(&self, id: &str, force: bool) -> Result<Done, Error> {
        let query = if force { "?force=true" } else { "" };
        self.send(Method::DELETE, &format!("/connections/{id}{query}"), None::<&()>).await
    }

    /// Copies the connections of a store in a file.
    ///
    /// # Errors
    /// [`Error::Refused`] when it could not be written.
    pub async fn back_up_consents(&self, backup: &Backup) -> Result<Done, Error> {
        self.send(Method::POST, "/connections/backup", Some(backup)).await
    }

    async fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        target: &str,
        command: Option<&impl Serialize>,
    ) -> Result<T, Error> {
        let body = match command {
            Some(command) => serde_json::to_vec(command).map_err(|error| self.broken(&error))?,
            None => Vec::new(),
        };
        let request = Request::builder()
            .method(method)
            .uri(target)
            .header(http::header::HOST, "localhost")
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| self.broken(&error))?;
        let (status, body) = tokio::time::timeout(ANSWER_TIMEOUT, self.exchange(request))
            .await
            .map_err(|_| self.broken(&"it took too long"))??;
        if status.is_success() {
            return serde_json::from_slice(&body).map_err(|error| self.broken(&error));
        }
        match serde_json::from_slice::<Fault>(&body) {
            Ok(fault) => Err(Error::Refused { status: status.as_u16(), text: fault.error }),
            Err(_) => Err(self.broken(&format_args!("status {status}"))),
        }
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<(StatusCode, Bytes), Error> {
        let stream = UnixStream::connect(&self.path).await.map_err(|error| self.unreachable(&error))?;
        let stream: Box<dyn Stream> = Box::new(stream);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| self.broken(&error))?;
        let answer = async {
            let answer = sender.send_request(request).await.map_err(|error| self.broken(&error))?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
            Ok((status, body.map_err(|error| self.broken(&error))?.to_bytes()))
        };
        // Driven beside the exchange; when it ends first, the exchange says why.
        let drive = async {
            let _ = connection.await;
            std::future::pending().await
        };
        tokio::select! {
            answer = answer => answer,
            never = drive => never,
        }
    }

    fn unreachable(&self, error: &io::Error) -> Error {
        let path = self.path.clone();
        match error.kind() {
            io::ErrorKind::NotFound => Error::NobodyThere { path, why: "no such file" },
            io::ErrorKind::ConnectionRefused => Error::NobodyThere { path, why: "nothing listens" },
            io::ErrorKind::PermissionDenied => Error::NotAllowed(path),
            _ => self.broken(error),
        }
    }

    fn broken(&self, why: &dyn std::fmt::Display) -> Error {
        Error::Broken { path: self.path.clone(), why: why.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::UnixListener,
    };

    use super::*;

    #[tokio::test]
    async fn a_missing_socket_and_a_dead_one_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control.sock");
        let missing = Client::new(&path).status().await.unwrap_err();
        assert!(matches!(missing, Error::NobodyThere { why: "no such file", .. }), "{missing}");
        assert!(missing.to_string().contains(&path.display().to_string()));
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let dead = Client::new(&path).status().await.unwrap_err();
        assert!(matches!(dead, Error::NobodyThere { why: "nothing listens", .. }), "{dead}");
    }

    #[tokio::test]
    async fn an_answer_that_is_no_gateways_is_an_error() {
        for answer in [
            "",
            "nonsense\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
            "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{\"",
            "HTTP/1.1 500 Oh\r\nContent-Length: 2\r\n\r\nno",
        ] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("control.sock");
            let listener = UnixListener::bind(&path).unwrap();
            let server = async {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut head = [0; 1024];
                let _ = stream.read(&mut head).await.unwrap();
                stream.write_all(answer.as_bytes()).await.unwrap();
            };
            let client = Client::new(&path);
            let (result, ()) = tokio::join!(client.status(), server);
            assert!(matches!(result, Err(Error::Broken { .. })), "{answer}: {result:?}");
        }
    }
}
