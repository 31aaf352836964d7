//! Why AWS gave no document.
//!
//! Every way to fail is told apart, and only [`Fault::Absent`] means that the secret is not there: all others pass, or
//! are repaired, while the last good value serves within its grace. Errors of the SDK hold whole answers, and lines of
//! AWS's files with keys in them; so none of their texts is repeated, and a code only where it is one that is listed here.

use std::{error::Error as StdError, sync::Arc};

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_secretsmanager::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_runtime_api::http::Response;

use super::wire::NoAnswer;
use crate::{
    https,
    tls::TlsFault,
    vault::source::{Error, Reason},
};

#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    #[error("there is no such secret or version, or it is marked for deletion")]
    Absent,
    #[error("AWS cannot be asked")]
    Setup(#[source] Arc<TlsFault>),
    #[error("AWS is not reached")]
    Down(#[source] Arc<https::Error>),
    #[error("AWS has not answered in time, with the login before it")]
    Slow,
    #[error("{0}")]
    NotSent(NoAnswer),
    #[error("no credentials for AWS: {0}")]
    NoCredentials(&'static str),
    #[error("AWS does not take the credentials ({0}); they are looked for anew")]
    CredentialsRefused(&'static str),
    #[error(
        "AWS denies it: a policy must allow secretsmanager:GetSecretValue for the secret, and kms:Decrypt for a key of its own"
    )]
    Denied,
    #[error("AWS cannot decrypt or encrypt the secret: its KMS key is disabled, deleted, or not ours to use")]
    Key,
    #[error("AWS takes no more requests for now")]
    Busy,
    #[error("AWS failed ({0})")]
    Failed(u16),
    #[error("AWS refuses the request in the state that the secret is in")]
    State,
    #[error("AWS takes the name, the version or the value for malformed")]
    Parameter,
    #[error("AWS answered {0}, which Secrets Manager does not")]
    Unexpected(u16),
    #[error("AWS's answer has not the form that it should have")]
    Malformed,
    #[error("the secret is larger than {0} bytes")]
    TooLarge(usize),
    #[error("it cannot be written: {0}")]
    Unwritable(&'static str),
}

impl Fault {
    /// What an error of the SDK means.
    pub(super) fn of<E>(error: &SdkError<E, Response>) -> Self
    where
        E: StdError + ProvideErrorMetadata + 'static,
    {
        if matches!(error, SdkError::TimeoutError(_)) {
            return Self::Slow;
        }
        match error.raw_response().map(|answer| answer.status().as_u16()) {
            Some(status) => {
                Self::said(status, error.code().unwrap_or_default(), error.message().unwrap_or_default())
            }
            None => Self::without_answer(error),
        }
    }

    /// What an answer means that is no success. Codes are those of Secrets Manager, and of AWS's services in common.
    fn said(status: u16, code: &str, message: &str) -> Self {
        match code {
            "ResourceNotFoundException" => Self::Absent,
            "InvalidRequestException" if is_about_deletion(message) => Self::Absent,
            "InvalidRequestException" => Self::State,
            "InvalidParameterException" | "ValidationException" => Self::Parameter,
            "AccessDeniedException" | "AccessDenied" | "NotAuthorized" => Self::Denied,
            "DecryptionFailure" | "EncryptionFailure" => Self::Key,
            "ExpiredTokenException" | "ExpiredToken" => Self::CredentialsRefused("they have expired"),
            "RequestExpired" | "RequestTimeTooSkewed" | "RequestInTheFuture" => {
                Self::CredentialsRefused("this machine's clock differs from AWS's")
            }
            "InvalidSignatureException"
            | "SignatureDoesNotMatch"
            | "IncompleteSignature"
            | "IncompleteSignatureException" => {
                Self::CredentialsRefused("wrong signature: is the secret access key right, and the clock?")
            }
            "UnrecognizedClientException"
            | "InvalidClientTokenId"
            | "InvalidAccessKeyId"
            | "AuthFailure"
            | "MissingAuthenticationToken"
            | "MissingAuthenticationTokenException"
            | "OptInRequired" => Self::CredentialsRefused("unknown or inactive"),
            "ThrottlingException"
            | "Throttling"
            | "ThrottledException"
            | "RequestThrottled"
            | "RequestThrottledException"
            | "RequestLimitExceeded"
            | "TooManyRequestsException"
            | "SlowDown" => Self::Busy,
            _ => Self::of_status(status),
        }
    }

    fn of_status(status: u16) -> Self {
        match status {
            200..=299 => Self::Malformed,
            429 => Self::Busy,
            500..=599 => Self::Failed(status),
            _ => Self::Unexpected(status),
        }
    }

    /// Nothing came back, or nothing was sent.
    fn without_answer(error: &(dyn StdError + 'static)) -> Self {
        if let Some(credentials) = caused_by::<CredentialsError>(error) {
            return Self::NoCredentials(why_none(credentials));
        }
        match caused_by::<NoAnswer>(error) {
            Some(NoAnswer::Exchange(error)) => Self::Down(error.clone()),
            Some(NoAnswer::Tls(fault)) => Self::Setup(fault.clone()),
            Some(other) => Self::NotSent(other.clone()),
            None => Self::Malformed,
        }
    }

    /// Whether other credentials may be had by looking for them anew.
    pub(super) fn is_of_credentials(&self) -> bool {
        matches!(self, Self::NoCredentials(_) | Self::CredentialsRefused(_))
    }
}

/// The first of its causes that is a `T`.
fn caused_by<'a, T: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a T> {
    let mut next = Some(error);
    while let Some(error) = next {
        match error.downcast_ref() {
            Some(found) => return Some(found),
            None => next = error.source(),
        }
    }
    None
}

/// One code says of several states that they forbid a request, and only its text tells which. Where the text should
/// change one day, the secret serves within its grace, and then no longer.
fn is_about_deletion(message: &str) -> bool {
    ["marked for deletion", "marked deleted", "scheduled for deletion"]
        .iter()
        .any(|said| message.contains(said))
}

fn why_none(error: &CredentialsError) -> &'static str {
    match error {
        CredentialsError::CredentialsNotLoaded(_) => {
            "none are in variables, profiles, a web identity, the container or the instance"
        }
        CredentialsError::ProviderTimedOut(_) => "whoever gives them does not answer in time",
        CredentialsError::InvalidConfiguration(_) => "AWS's variables or files are faulty",
        CredentialsError::ProviderError(_) => {
            "whoever gives them fails or refuses: the role, its trust, the token"
        }
        _ => "what came is none",
    }
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        let reason = match &fault {
            Fault::Absent => return Self::Absent,
            Fault::Slow => Reason::Timeout,
            Fault::Down(error) => match &**error {
                https::Error::ConnectTimeout(_) | https::Error::AnswerTimeout(_) => Reason::Timeout,
                https::Error::Untrusted(_) => Reason::Untrusted,
                https::Error::TooLarge(_) => Reason::TooLarge,
                _ => Reason::Unreachable,
            },
            Fault::NoCredentials(_) | Fault::CredentialsRefused(_) => Reason::Login,
            Fault::Denied | Fault::Key => Reason::Denied,
            Fault::Setup(_)
            | Fault::NotSent(_)
            | Fault::Busy
            | Fault::Failed(_)
            | Fault::State
            | Fault::Parameter => Reason::Unreachable,
            Fault::Unexpected(_) | Fault::Malformed | Fault::Unwritable(_) => Reason::Malformed,
            Fault::TooLarge(_) => Reason::TooLarge,
        };
        Self::unreachable(reason, fault)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(status: u16, code: &str, message: &str) -> Reason {
        Error::from(Fault::said(status, code, message)).reason()
    }

    #[test]
    fn only_aws_own_word_means_that_a_secret_is_absent() {
        assert_eq!(reason(400, "ResourceNotFoundException", ""), Reason::Absent);
        for message in [
            "You can't perform this operation on the secret because it was marked for deletion.",
            "You tried to perform the operation on a secret that's currently marked deleted.",
            "You can't create this secret because a secret with this name is already scheduled for deletion.",
        ] {
            assert_eq!(reason(400, "InvalidRequestException", message), Reason::Absent, "{message}");
            assert_eq!(reason(400, "InvalidParameterException", message), Reason::Unreachable, "{message}");
            assert_eq!(reason(400, "", message), Reason::Malformed, "{message}");
        }
        // A key that is to be deleted can be kept.
        let of_the_key = "You can't access a secret whose KMS key is pending deletion.";
        assert_eq!(reason(400, "InvalidRequestException", of_the_key), Reason::Unreachable);
        assert_eq!(reason(404, "", "<html>not here</html>"), Reason::Malformed);
    }

    #[test]
    fn denied_login_busy_and_broken_are_told_apart() {
        for (status, code, expected) in [
            (400, "AccessDeniedException", Reason::Denied),
            (400, "DecryptionFailure", Reason::Denied),
            (400, "ExpiredTokenException", Reason::Login),
            (400, "UnrecognizedClientException", Reason::Login),
            (403, "InvalidSignatureException", Reason::Login),
            (403, "InvalidClientTokenId", Reason::Login),
            (400, "ThrottlingException", Reason::Unreachable),
            (500, "InternalServiceError", Reason::Unreachable),
            (503, "", Reason::Unreachable),
            (429, "", Reason::Unreachable),
            (403, "", Reason::Malformed),
            (200, "", Reason::Malformed),
        ] {
            assert_eq!(reason(status, code, ""), expected, "{status} {code}");
        }
    }

    #[test]
    fn no_text_repeats_what_aws_said() {
        const SAID: &str = "the-secret-itself marked for deletion";
        for code in ["", "InvalidRequestException", "AccessDeniedException", "the-secret-itself"] {
            for status in [200, 400, 403, 429, 500] {
                let fault = Fault::said(status, code, SAID);
                assert!(!format!("{fault} {fault:?}").contains("the-secret"), "{status} {code}");
            }
        }
    }
}
