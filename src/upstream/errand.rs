//! What is asked of MX without a caller: whether it takes a key, a new key, and the end of an old one.
//!
//! An [`Errand`] is the proof that stands in for a caller's `Grant`. In: a verified connection of its own to the
//! environment's host, and one of its keys. Out: the answer, read as strictly as any upstream's, or why there is none.
//! The request lies in a buffer that is wiped, and so does an answer's body, which may hold a new key; TLS's own
//! buffers are outside that promise. The connection ends with the errand, and no budget counts it: whoever sends one
//! keeps to a pace.
//!
//! What must never happen: something of a caller's gets into an errand; one is sent twice, or follows a redirect.

use std::{future::poll_fn, time::Duration};

use http::{HeaderMap, HeaderValue, StatusCode};
use tokio::{
    io::{AsyncBufRead, AsyncWrite, AsyncWriteExt as _},
    time::timeout,
};
use zeroize::Zeroizing;

use super::{answer::AnswerReader, dial::UpstreamStream, headers, pool};
use crate::{
    config::client_guid,
    credential::Prepared,
    mx::catalogue::{Operation, catalogue},
    policy::Api,
    refusal::Failure,
};

/// Far more than the body of any of these answers has.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Leave to ask MX without a caller. Only the three functions here make one.
#[derive(Debug)]
pub(crate) struct Errand {
    pub(super) operation: &'static Operation,
    pub(super) target: String,
    /// Of the answer's body; 0: its head is enough.
    answer_bytes_max: usize,
}

/// Whom an errand goes to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Addressee<'a> {
    /// `Host`.
    pub(crate) authority: &'a HeaderValue,
    pub(crate) accept_version: &'a str,
}

/// An answer. There is no `Debug`, since its body may hold a key.
pub(crate) struct Heard {
    pub(crate) status: StatusCode,
    pub(crate) fields: HeaderMap,
    /// Empty where the head was enough.
    pub(crate) body: Zeroizing<Vec<u8>>,
}

/// What an answer says about the key that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Word {
    /// MX did what it was asked for.
    Answered,
    /// MX knew the key, and did not do it: 403 is about an address or a feature, 406 about the version.
    Known,
    /// 401.
    Refused,
    /// Nothing: a host that is busy, broken or somebody else's.
    Nothing,
}

impl Errand {
    /// The operation that reads, for those who suspend it. Institutions are the same for every client of MX, reading
    /// them changes nothing, and it is cheap.
    pub(crate) const READ: &str = "listInstitutions";

    /// A read that harms nobody, of which the head of the answer says enough; `None` where none is known: at another
    /// API than MX's.
    pub(crate) fn read(api: Api) -> Option<Self> {
        let operation = match api {
            Api::Platform => catalogue().by_id(Self::READ)?,
            Api::Paths => return None,
        };
        // MX takes pages of 10 to 1,000.
        Some(Self {
            operation,
            target: format!("{}?records_per_page=10", operation.template),
            answer_bytes_max: 0,
        })
    }

    /// A new key for a client of MX's; `None` when that is no guid.
    pub(crate) fn rotate_key(client_guid: &str) -> Option<Self> {
        Self::of_keys("rotateApiKey", client_guid)
    }

    /// The end of its original key; `None` when that is no guid.
    pub(crate) fn retire_key(client_guid: &str) -> Option<Self> {
        Self::of_keys("retireApiKey", client_guid)
    }

    fn of_keys(id: &str, guid: &str) -> Option<Self> {
        let operation = catalogue().by_id(id)?;
        let target = operation.template.replace("{client_guid}", &client_guid(guid).ok()?);
        Some(Self { operation, target, answer_bytes_max: ANSWER_BYTES_MAX })
    }

    /// The same, with an answer that counts only when all of it has come.
    pub(crate) fn whole(self) -> Self {
        Self { answer_bytes_max: ANSWER_BYTES_MAX, ..self }
    }

    /// What is called, for people.
    pub(crate) fn shown(&self) -> String {
        format!("{} {}", self.operation.method, self.operation.template)
    }

    /// Asks with `key` over a connection that nothing has gone over yet, and closes it.
    ///
    /// # Errors
    /// When it breaks, or no well-formed answer comes within `limit`. MX may have read the request by then; after an
    /// error of `dial`, which comes before, it surely has not.
    pub(crate) async fn run(
        &self,
        mut stream: UpstreamStream,
        to: Addressee<'_>,
        key: &Prepared,
        limit: Duration,
    ) -> Result<Heard, Failure> {
        let exchange = async {
            pool::settled(&mut stream, pool::is_even).await?;
            self.exchange(stream, to, key).await
        };
        timeout(limit, exchange).await.unwrap_or(Err(Failure::FirstByteTimeout))
    }

    async fn exchange<S: AsyncBufRead + AsyncWrite + Unpin>(
        &self,
        mut stream: S,
        to: Addressee<'_>,
        key: &Prepared,
    ) -> Result<Heard, Failure> {
        let head = headers::of_errand(self, to, &key.for_worker());
        let closed = |_| Failure::UpstreamClosed;
        stream.write_all(&head).await.map_err(closed)?;
        stream.flush().await.map_err(closed)?;
        drop(head);
        let (mut reader, mut fields) = (AnswerReader::new(), HeaderMap::new());
        let status = poll_fn(|cx| reader.poll_head(cx, &mut stream, false, &mut fields)).await?;
        let mut body = Zeroizing::new(Vec::with_capacity(self.answer_bytes_max));
        if self.answer_bytes_max > 0 {
            poll_fn(|cx| reader.poll_rest(cx, &mut stream, &mut body)).await?;
        }
        pool::say_goodbye(&mut stream);
        Ok(Heard { status, fields, body })
    }
}

impl Heard {
    /// What it says about the key.
    pub(crate) fn word(&self) -> Word {
        match self.status {
            StatusCode::UNAUTHORIZED => Word::Refused,
            StatusCode::PROXY_AUTHENTICATION_REQUIRED
            | StatusCode::REQUEST_TIMEOUT
            | StatusCode::TOO_MANY_REQUESTS => Word::Nothing,
            status if status.is_success() => Word::Answered,
            status if status.is_client_error() => Word::Known,
            _ => Word::Nothing,
        }
    }
}

impl Word {
    /// Whether MX knows the key.
    pub(crate) fn takes_key(self) -> bool {
        matches!(self, Self::Answered | Self::Known)
    }
}

#[cfg(test)]
mod tests;
