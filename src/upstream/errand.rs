//! One call of an operator's own, outside of all requests: does this key work there?
//!
//! An [`Errand`] is the proof that stands in for a caller's `Grant`: it is made for one operation that reads what is
//! nobody's, and commands make it, never the way of a request. In: a verified connection and a credential. Out: the
//! answer's head. The request is written into a buffer that is wiped, and the connection ends with it.

use std::{future::poll_fn, time::Duration};

use http::{HeaderMap, StatusCode};
use tokio::{io::AsyncWriteExt as _, time::timeout};
use zeroize::Zeroizing;

use super::{
    answer::AnswerReader,
    dial::{DialTarget, UpstreamStream},
};
use crate::{
    config,
    credential::Credential,
    gateway::refusal::Failure,
    mx::{
        catalogue::{Operation, catalogue},
        media,
    },
};

/// Institutions are the same for every client of MX, and reading them changes nothing.
const HARMLESS: &str = "listInstitutions";
const QUERY: &str = "records_per_page=10";

/// Leave for one harmless call.
#[derive(Debug)]
pub(crate) struct Errand {
    operation: &'static Operation,
}

/// What came back, without its body.
#[derive(Debug)]
pub(crate) struct Heard {
    pub(crate) status: StatusCode,
    pub(crate) fields: HeaderMap,
}

impl Errand {
    /// One harmless read at an environment; `None` where nothing is known to be harmless: another API than MX's.
    pub(crate) fn harmless_read(environment: &config::Environment) -> Option<Self> {
        match environment.api {
            config::Api::Platform => catalogue().by_id(HARMLESS).map(|operation| Self { operation }),
            config::Api::Paths(_) => None,
        }
    }

    /// What is called, for people.
    pub(crate) fn shown(&self) -> String {
        format!("{} {}", self.operation.method, self.operation.template)
    }

    /// Makes the call over a connection of `target`'s, and closes it.
    ///
    /// # Errors
    /// When the connection breaks, or no well-formed answer comes within `limit`.
    pub(crate) async fn run(
        &self,
        mut stream: UpstreamStream,
        target: &DialTarget,
        environment: &config::Environment,
        credential: &Credential,
        limit: Duration,
    ) -> Result<Heard, Failure> {
        let request = self.request(target, environment, credential);
        let exchange = async {
            let sent = async {
                stream.write_all(&request).await?;
                stream.flush().await
            };
            sent.await.map_err(|_| Failure::UpstreamClosed)?;
            let (mut reader, mut fields) = (AnswerReader::new(), HeaderMap::new());
            let status = poll_fn(|cx| reader.poll_head(cx, &mut stream, false, &mut fields)).await?;
            let _ = stream.shutdown().await;
            Ok(Heard { status, fields })
        };
        timeout(limit, exchange).await.unwrap_or(Err(Failure::FirstByteTimeout))
    }

    fn request(
        &self,
        target: &DialTarget,
        environment: &config::Environment,
        credential: &Credential,
    ) -> Zeroizing<Vec<u8>> {
        let Operation { method, template, .. } = self.operation;
        let (and, secret) = credential.query().map_or(("", ""), |query| ("&", query));
        let version = environment.accept_version.as_str();
        let accept = media::preferred(self.operation, version).as_str();
        let own: [(&str, &[u8]); 6] = [
            ("host", target.authority.as_bytes()),
            ("user-agent", concat!("mxgate/", env!("CARGO_PKG_VERSION")).as_bytes()),
            ("accept", accept.as_bytes()),
            ("accept-version", version.as_bytes()),
            ("accept-encoding", b"identity"),
            ("connection", b"close"),
        ];
        let credential = credential.headers().iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
        let start = [method.as_str(), " ", template, "?", QUERY, and, secret, " HTTP/1.1\r\n"];
        let fields: Vec<[&[u8]; 4]> = own
            .into_iter()
            .chain(credential)
            .map(|(name, value)| [name.as_bytes(), b": ", value, b"\r\n"])
            .collect();
        let parts = start.iter().map(|part| part.as_bytes()).chain(fields.iter().flatten().copied());
        let parts: Vec<&[u8]> = parts.chain([&b"\r\n"[..]]).collect();
        // Room for all of it beforehand: growing would leave an unwiped copy behind.
        let mut request = Zeroizing::new(Vec::with_capacity(parts.iter().map(|part| part.len()).sum()));
        parts.iter().for_each(|part| request.extend_from_slice(part));
        request
    }
}
