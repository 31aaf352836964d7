//! Why OpenBao gave no document.
//!
//! Every way to fail is told apart, and only [`Fault::Absent`] means that the document is not there: all others pass,
//! or are repaired, while the last good value serves within its grace. No text repeats what the server said.

use http::StatusCode;
use serde::Deserialize;

use crate::{
    https::{self, Answer},
    tls::TlsFault,
    vault::{
        self,
        reference::Reference,
        source::{Error, Reason},
    },
};

#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    /// No such entry, or its newest version is deleted or destroyed.
    #[error("there is no such entry, or its newest version is deleted or destroyed")]
    Absent,
    #[error("the server cannot be asked")]
    Setup(#[from] TlsFault),
    #[error("the server is not reached")]
    Down(#[from] https::Error),
    #[error("the server is sealed (503); unseal it")]
    Sealed,
    #[error(
        "the server is a standby that does not pass requests on ({0}); name the active one, or a name that follows it"
    )]
    Standby(StatusCode),
    #[error("the server has no mount or namespace of that name (404)")]
    NoMount,
    #[error(
        "the server denies it (403): a policy of the login must allow read on MOUNT/data/PATH, and create and update to rotate"
    )]
    Denied,
    #[error("the server takes no more requests for now (429)")]
    Busy,
    #[error("the server failed ({0})")]
    Failed(StatusCode),
    #[error("the server answered {0}, which no KV v2 engine does")]
    Unexpected(StatusCode),
    #[error("the server's answer to {0} has not the form that it should have")]
    Malformed(&'static str),
    #[error("{reference}, which the login needs, cannot be had")]
    LoginSecret { reference: Reference, source: Box<vault::Error> },
    #[error("the login is refused ({0}): check its mount, its role, and the secret that it sends")]
    LoginRefused(StatusCode),
    #[error("what the login sends is no text")]
    LoginText,
    #[error("the token is not, or no longer, taken, or may not look itself up (403)")]
    TokenRefused,
    #[error("the path is not one that an entry can have: {0}")]
    Path(&'static str),
    #[error("the document is no JSON object, or larger than an entry may be")]
    Unwritable,
}

/// What a server says beside a status. Texts are compared and never repeated.
#[derive(Deserialize)]
struct Said {
    #[serde(default)]
    errors: Option<Vec<String>>,
}

impl Fault {
    /// What an answer means that is neither a success nor about the entry itself.
    pub(super) fn of(answer: &Answer) -> Self {
        let said = said(&answer.body);
        let has = |text: &str| said.iter().flatten().any(|error| error.contains(text));
        match answer.status.as_u16() {
            // With an empty list the engine speaks; with a text, the router before it did.
            404 if said.as_ref().is_some_and(Vec::is_empty) => Self::Absent,
            404 if said.is_some() => Self::NoMount,
            403 => Self::Denied,
            429 => Self::Busy,
            503 if has("sealed") => Self::Sealed,
            // 307 names the active server, which could be any: it is not followed. 472 and 473 are Vault's own.
            307 | 472 | 473 => Self::Standby(answer.status),
            500 if has("not active") => Self::Standby(answer.status),
            500..=599 => Self::Failed(answer.status),
            _ => Self::Unexpected(answer.status),
        }
    }

    /// The same for an answer to a login.
    pub(super) fn of_login(answer: &Answer) -> Self {
        match (answer.status.as_u16(), Self::of(answer)) {
            (400 | 401 | 403 | 404, _) => Self::LoginRefused(answer.status),
            // The method `kubernetes` says so of a service account that is not let in.
            (500, Self::Failed(status)) if said(&answer.body).is_some() => Self::LoginRefused(status),
            (_, other) => other,
        }
    }

    /// The same for an answer to a token about itself.
    pub(super) fn of_token(answer: &Answer) -> Self {
        match answer.status.as_u16() {
            400 | 401 | 403 | 404 => Self::TokenRefused,
            _ => Self::of(answer),
        }
    }
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        let reason = match &fault {
            Fault::Absent => return Self::Absent,
            Fault::Down(https::Error::ConnectTimeout(_) | https::Error::AnswerTimeout(_)) => Reason::Timeout,
            Fault::Down(https::Error::Untrusted(_)) => Reason::Untrusted,
            Fault::Down(https::Error::TooLarge(_)) => Reason::TooLarge,
            Fault::Setup(_)
            | Fault::Down(_)
            | Fault::Standby(_)
            | Fault::Busy
            | Fault::Failed(_)
            | Fault::NoMount
            | Fault::Path(_) => Reason::Unreachable,
            Fault::Sealed => Reason::Sealed,
            Fault::Denied => Reason::Denied,
            Fault::Unexpected(_) | Fault::Malformed(_) | Fault::Unwritable => Reason::Malformed,
            Fault::LoginSecret { .. } | Fault::LoginText | Fault::LoginRefused(_) | Fault::TokenRefused => {
                Reason::Login
            }
        };
        Self::unreachable(reason, fault)
    }
}

fn said(body: &[u8]) -> Option<Vec<String>> {
    serde_json::from_slice::<Said>(body).ok()?.errors
}

/// Whether a write was refused because somebody else has written since.
pub(super) fn is_conflict(answer: &Answer) -> bool {
    answer.status == StatusCode::BAD_REQUEST
        && said(&answer.body).iter().flatten().any(|error| error.contains("check-and-set"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(status: u16, body: &str) -> Fault {
        let status = StatusCode::from_u16(status).unwrap();
        Fault::of(&Answer { status, body: body.as_bytes().to_vec().into() })
    }

    #[test]
    fn only_the_engines_own_word_means_that_an_entry_is_absent() {
        assert!(matches!(fault(404, r#"{"errors":[]}"#), Fault::Absent));
        for body in ["", "{}", "<html>not here</html>", r#"{"errors":null}"#] {
            assert!(matches!(fault(404, body), Fault::Unexpected(_)), "{body}");
        }
        for text in ["no handler for route \\\"a/data/b\\\". route entry not found.", "namespace not found"] {
            assert!(matches!(fault(404, &format!(r#"{{"errors":["{text}"]}}"#)), Fault::NoMount), "{text}");
        }
    }

    #[test]
    fn each_state_of_a_server_has_its_own_word() {
        let sealed = r#"{"errors":["Vault is sealed"]}"#;
        let standby = r#"{"errors":["local node not active but active cluster node not found"]}"#;
        assert!(matches!(fault(503, sealed), Fault::Sealed));
        assert!(matches!(fault(503, "overloaded"), Fault::Failed(_)));
        assert!(matches!(fault(500, standby), Fault::Standby(_)));
        assert!(matches!(fault(500, "{}"), Fault::Failed(_)));
        for status in [307, 472, 473] {
            assert!(matches!(fault(status, ""), Fault::Standby(_)), "{status}");
        }
        assert!(matches!(fault(403, r#"{"errors":["permission denied"]}"#), Fault::Denied));
        assert!(matches!(fault(429, ""), Fault::Busy));
        for status in [301, 302, 400, 405, 418] {
            assert!(matches!(fault(status, sealed), Fault::Unexpected(_)), "{status}");
        }
    }

    #[test]
    fn a_refused_login_is_told_from_a_server_that_cannot_log_in() {
        let answer = |status: u16, body: &str| Answer {
            status: StatusCode::from_u16(status).unwrap(),
            body: body.as_bytes().to_vec().into(),
        };
        let no = r#"{"errors":["no"]}"#;
        for status in [400, 401, 403, 404, 500] {
            assert!(matches!(Fault::of_login(&answer(status, no)), Fault::LoginRefused(_)), "{status}");
        }
        assert!(matches!(Fault::of_login(&answer(500, "<html>")), Fault::Failed(_)));
        assert!(matches!(Fault::of_login(&answer(502, no)), Fault::Failed(_)));
        assert!(matches!(Fault::of_login(&answer(503, r#"{"errors":["Vault is sealed"]}"#)), Fault::Sealed));
        let standby = r#"{"errors":["local node not active but active cluster node not found"]}"#;
        assert!(matches!(Fault::of_login(&answer(500, standby)), Fault::Standby(_)));
        for status in [400, 403] {
            assert!(matches!(Fault::of_token(&answer(status, no)), Fault::TokenRefused), "{status}");
        }
        assert!(matches!(Fault::of_token(&answer(500, no)), Fault::Failed(_)));
    }

    #[test]
    fn no_text_repeats_what_a_server_said() {
        let body = r#"{"errors":["the-secret-itself is sealed"]}"#;
        for status in [200, 307, 400, 403, 404, 429, 500, 503] {
            let fault = fault(status, body);
            assert!(!format!("{fault} {fault:?}").contains("the-secret"), "{status}");
        }
    }

    #[test]
    fn a_conflict_is_no_other_bad_request() {
        let answer =
            |body: &str| Answer { status: StatusCode::BAD_REQUEST, body: body.as_bytes().to_vec().into() };
        let said = r#"{"errors":["check-and-set parameter did not match the current version"]}"#;
        assert!(is_conflict(&answer(said)));
        assert!(!is_conflict(&answer(r#"{"errors":["missing data"]}"#)));
    }
}
