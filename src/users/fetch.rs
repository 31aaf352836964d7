//! Fetching a key set over verified TLS, from the control plane.
//!
//! In: where it is and whom to believe. Out: the bytes of one answer, within a time and a size, or why not. No
//! redirect is followed, nothing is sent but the request line and what HTTP asks for.

use std::{path::Path, time::Duration};

use bytes::Bytes;
use http::{Request, StatusCode, header::ACCEPT};
use http_body_util::Full;
use zeroize::Zeroizing;

use super::keys::{SET_BYTES_MAX, SetFault};
use crate::{
    https::{self, Bounds, Server},
    tls::TlsFault,
};

/// For the connection, and for the exchange on it.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Fetches one document.
pub(super) struct Fetcher {
    server: Server,
    path: String,
}

/// Why a document could not be had. Messages hold nothing of an answer but its status.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error(transparent)]
    Exchange(#[from] https::Error),
    #[error("the request cannot be made: {0}")]
    Request(#[from] http::Error),
    #[error("it answered {0}, and redirects are not followed")]
    Status(StatusCode),
    #[error("what it answered {0}")]
    Set(#[from] SetFault),
}

impl Fetcher {
    /// `authority`: a PEM file and its text, instead of the system's roots.
    pub(super) fn new(
        host: &str,
        port: u16,
        path: &str,
        authority: Option<(&Path, &[u8])>,
    ) -> Result<Self, TlsFault> {
        let answer_bytes_max = usize::try_from(SET_BYTES_MAX).unwrap_or(usize::MAX);
        let bounds = Bounds { connect: TIMEOUT, answer: TIMEOUT, answer_bytes_max };
        Ok(Self { server: Server::over_tls(host, port, authority, bounds)?, path: path.to_owned() })
    }

    pub(super) async fn fetch(&self) -> Result<Zeroizing<Vec<u8>>, Error> {
        let request = Request::get(&self.path)
            .header(ACCEPT, "application/json, application/jwk-set+json")
            .body(Full::<Bytes>::default())?;
        let answer = self.server.exchange(request).await?;
        if answer.status != StatusCode::OK {
            return Err(Error::Status(answer.status));
        }
        Ok(answer.body)
    }
}
