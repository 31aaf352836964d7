//! What a rotation asks of MX: a new key, the end of an old one, and one harmless read.
//!
//! In goes a key; out comes what MX did, in three grades: done, surely not done, or nobody can tell. Each is an `Errand`
//! over a connection of its own, within one time-out, and none is ever repeated here.
//!
//! What must never happen: an answer that nobody can be sure of is taken for a no; a key goes to a host that it is not
//! sealed for (`store` has looked); a new key is shown or logged before the masker knows it.

use std::{sync::Arc, time::Duration};

use http::StatusCode;
use serde::Deserialize;
use tokio::time::timeout;

use super::Doing;
use crate::{
    config::Environment,
    credential::Prepared,
    redaction,
    refusal::Failure,
    upstream::{
        dial::{DialTarget, UpstreamStream},
        errand::{Addressee, Errand, Heard, Word},
    },
    vault::secret::Secret,
};

/// MX, as a rotation needs it.
pub(crate) trait Mx: Send + Sync {
    /// Asks for a new key, once.
    fn rotate<'a>(&'a self, key: &'a Arc<Secret>) -> Doing<'a, Asked>;

    /// Asks for the end of the original key, once.
    fn retire<'a>(&'a self, key: &'a Arc<Secret>) -> Doing<'a, Retired>;

    /// Whether MX takes `key`.
    fn read<'a>(&'a self, key: &'a Arc<Secret>) -> Doing<'a, Taken>;
}

/// What came of asking for a new key. Texts are for people and hold nothing of an answer but its status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Asked {
    /// Here it is.
    Made(Arc<Secret>),
    /// MX surely made none.
    Refused(String),
    /// It may have made one.
    Unclear(String),
}

/// What came of asking for the end of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Retired {
    /// It is dead.
    Done,
    /// Surely nothing was done.
    Refused(String),
    /// Nobody can tell.
    Unclear(String),
}

/// Whether MX takes a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Taken {
    /// It answered.
    Yes,
    /// 401.
    No,
    /// Something else, which says nothing about the key.
    Unclear(String),
}

/// MX's API at one environment.
#[derive(Debug)]
pub(crate) struct Api {
    environment: Arc<Environment>,
    dial: Arc<DialTarget>,
    client_guid: String,
    timeout: Duration,
}

/// Why there is no answer.
enum Unanswered {
    /// Nothing was sent.
    Unsent(String),
    /// Something may have been.
    Broken(String),
}

impl Api {
    /// `timeout` is for each request, from the look-up of the name to the last byte of the answer.
    pub(crate) fn new(
        environment: Arc<Environment>,
        dial: Arc<DialTarget>,
        client_guid: String,
        timeout: Duration,
    ) -> Self {
        Self { environment, dial, client_guid, timeout }
    }

    async fn ask(&self, errand: Option<Errand>, key: &Secret) -> Result<Heard, Unanswered> {
        let unsent = |why: &str| Unanswered::Unsent(why.to_owned());
        let errand = errand.ok_or_else(|| unsent("the request cannot be made"))?;
        let kind = &self.environment.credential;
        let reference = kind.reference().ok_or_else(|| unsent("the environment has no key"))?;
        let key = Prepared::prepare(kind, reference, key);
        let key = key.map_err(|why| unsent(&format!("the key {why}")))?;
        let late = || format!("no answer within {} ms", self.timeout.as_millis());
        let connected = timeout(self.timeout, self.connect()).await;
        let stream = connected.map_err(|_| Unanswered::Unsent(late()))?.map_err(Unanswered::Unsent)?;
        // Whatever happens from here on may happen after MX has read the request.
        let to =
            Addressee { authority: &self.dial.authority, accept_version: &self.environment.accept_version };
        let heard = errand.run(stream, to, &key, self.timeout).await;
        heard.map_err(|failure| match failure {
            Failure::FirstByteTimeout => Unanswered::Broken(late()),
            failure => Unanswered::Broken(format!("no proper answer ({})", failure.code())),
        })
    }

    async fn connect(&self) -> Result<UpstreamStream, String> {
        self.dial.addresses.refresh().await;
        let timeouts = &self.environment.timeouts;
        let dialled = self.dial.dial(timeouts.connect, timeouts.tls).await;
        dialled.map_err(|failure| format!("no connection to {} ({})", self.environment.host, failure.code()))
    }
}

impl Mx for Api {
    fn rotate<'a>(&'a self, key: &'a Arc<Secret>) -> Doing<'a, Asked> {
        Box::pin(async move {
            match self.ask(Errand::rotate_key(&self.client_guid), key).await {
                Err(Unanswered::Unsent(why)) => Asked::Refused(why),
                Err(Unanswered::Broken(why)) => Asked::Unclear(why),
                Ok(answer) if answer.status.is_success() => match new_key(&answer.body, key) {
                    Some(new) => Asked::Made(new),
                    None => Asked::Unclear(format!("MX answered {} without a usable key", answer.status)),
                },
                Ok(answer) if is_refusal(answer.status) => Asked::Refused(answered(answer.status)),
                Ok(answer) => Asked::Unclear(answered(answer.status)),
            }
        })
    }

    fn retire<'a>(&'a self, key: &'a Arc<Secret>) -> Doing<'a, Retired> {
        Box::pin(async move {
            match self.ask(Errand::retire_key(&self.client_guid), key).await {
                Err(Unanswered::Unsent(why)) => Retired::Refused(why),
                Err(Unanswered::Broken(why)) => Retired::Unclear(why),
                Ok(answer) if answer.status.is_success() => Retired::Done,
                Ok(answer) if is_refusal(answer.status) => Retired::Refused(answered(answer.status)),
                Ok(answer) => Retired::Unclear(answered(answer.status)),
            }
        })
    }

    fn read<'a>(&'a self, key: &'a Arc<Secret>) -> Doing<'a, Taken> {
        Box::pin(async move {
            // What breaks off is unclear, and is asked again.
            let errand = Errand::read(self.environment.api.kind()).map(Errand::whole);
            match self.ask(errand, key).await {
                Err(Unanswered::Unsent(why) | Unanswered::Broken(why)) => Taken::Unclear(why),
                Ok(answer) => taken(&answer),
            }
        })
    }
}

/// More is asked here than of a cut-over: a key counts as good when MX answers with what it was asked for.
fn taken(answer: &Heard) -> Taken {
    match answer.word() {
        Word::Answered => Taken::Yes,
        Word::Refused => Taken::No,
        Word::Known | Word::Nothing => Taken::Unclear(answered(answer.status)),
    }
}

/// Statuses with which a server says that it did not do what it was asked for. A 5xx, a redirect or a 408 may come
/// after the deed, and so may statuses that nobody expects here.
fn is_refusal(status: StatusCode) -> bool {
    matches!(status.as_u16(), 400 | 401 | 403 | 404 | 405 | 406 | 409 | 411 | 415 | 422 | 429)
}

fn answered(status: StatusCode) -> String {
    let hint = match status.as_u16() {
        401 => ": it does not take this key or client id",
        403 => ": this address is not on its allowlist, or the contract has no rotation by API",
        404 => ": client_guid is none that it knows, or the contract has no rotation by API",
        422 => ": no rotation is in progress, or the request is not as it wants it",
        429 => ": too many requests",
        _ => "",
    };
    format!("MX answered {}{hint}", status.as_u16())
}

/// The key in MX's answer; `None` when it is none that could be used, or the one that was used to ask.
fn new_key(body: &[u8], old: &Arc<Secret>) -> Option<Arc<Secret>> {
    /// Borrowed from the body that is wiped: a key with an escape in it is refused rather than copied.
    #[derive(Deserialize)]
    struct Wire<'a> {
        #[serde(borrow)]
        api_key: Inner<'a>,
    }
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Inner<'a> {
        Described { api_key: &'a str },
        Bare(&'a str),
    }
    let wire: Wire<'_> = serde_json::from_slice(body).ok()?;
    let (Inner::Described { api_key: key } | Inner::Bare(key)) = wire.api_key;
    let new = Arc::new(Secret::new(key.as_bytes().to_vec()).ok()?);
    // Before anything can be said about it.
    redaction::held().remember([&new]);
    Some(new).filter(|new| new != old)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> Arc<Secret> {
        Arc::new(Secret::new(text.into()).unwrap())
    }

    #[test]
    fn the_key_is_found_in_the_answers_that_mx_documents() {
        let old = secret("the-old-key");
        let new = Some(secret("the-new-key"));
        let described =
            br#"{"api_key":{"guid":"APK-1","api_key":"the-new-key","client_guid":"CLT-1","client_id":"c"}}"#;
        assert_eq!(new_key(described, &old), new);
        assert_eq!(new_key(br#"{"api_key":"the-new-key"}"#, &old), new);
        for unusable in [
            &br#"{"api_key":"the-old-key"}"#[..],
            br#"{"api_key":"short"}"#,
            br#"{"api_key":"the\nnew-key"}"#,
            br#"{"api_key":null}"#,
            br#"{"api_key":{"guid":"APK-1"}}"#,
            br#"{"api_key":"the-new-"#,
            b"",
        ] {
            assert_eq!(new_key(unusable, &old), None, "{}", String::from_utf8_lossy(unusable));
        }
    }

    #[test]
    fn the_masker_knows_a_new_key_before_anybody_else() {
        let new = new_key(br#"{"api_key":"key-of-the-masker-test"}"#, &secret("the-old-key"));
        assert!(new.is_some() && redaction::held().masker().is_hit(b"a key-of-the-masker-test b"));
    }

    #[test]
    fn only_what_was_asked_for_says_yes_and_only_a_401_says_no() {
        for status in 200..600 {
            let status = StatusCode::from_u16(status).unwrap();
            let taken = taken(&Heard { status, fields: http::HeaderMap::new(), body: Default::default() });
            match status.as_u16() {
                200..300 => assert_eq!(taken, Taken::Yes, "{status}"),
                401 => assert_eq!(taken, Taken::No),
                _ => assert!(matches!(taken, Taken::Unclear(_)), "{status}"),
            }
        }
    }

    #[test]
    fn what_may_have_been_done_is_no_refusal() {
        let of = |status| is_refusal(StatusCode::from_u16(status).unwrap());
        assert!([400, 401, 403, 404, 406, 409, 422, 429].into_iter().all(of));
        assert!(![302, 307, 408, 425, 499, 500, 502, 503, 504].into_iter().any(of));
    }
}
