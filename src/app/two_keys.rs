//! Looks after the keys of environments that have two.

use std::{sync::Arc, time::Instant};

use http::StatusCode;

use crate::{
    control::suspension::{Subject, Suspensions},
    credential::{
        confirm::{self, Word},
        preference::Which,
    },
    gateway::refusal::Failure,
    policy::Api,
    snapshot::Environment,
    upstream::harmless,
};

/// Confirms what requests are told about `environment`'s keys, for as long as it is let. There is nothing to do for one
/// key, nor for a host of which no harmless read is known.
pub(super) async fn watch_over(environment: Arc<Environment>, suspensions: Arc<Suspensions>) {
    let Some(second) = environment.second.as_ref().filter(|_| environment.api == Api::Platform) else {
        return std::future::pending().await;
    };
    let ask = |which| ask(environment.clone(), which, suspensions.clone());
    match confirm::watch_over(&environment.name, &second.preference, ask).await {}
}

async fn ask(environment: Arc<Environment>, which: Which, suspensions: Arc<Suspensions>) -> Word {
    let subject = Subject {
        environment: Some(&environment.name),
        operation: Some(harmless::OPERATION),
        ..Subject::default()
    };
    if suspensions.applies(&subject, Instant::now()) {
        return Word::Nothing;
    }
    if environment.key(which).is_over() {
        return Word::Refused;
    }
    let answered = harmless::ask(&environment, environment.key(which)).await;
    let word = word(&answered);
    let answered = answered.map_or_else(|failure| failure.code().to_owned(), |status| status.to_string());
    tracing::info!(environment = &*environment.name, ?which, answered, "asked MX whether it takes this key");
    word
}

/// What an answer says about the key. A host that is busy, broken or somebody else's says nothing.
fn word(answered: &Result<StatusCode, Failure>) -> Word {
    use StatusCode as S;
    match answered {
        Ok(S::UNAUTHORIZED) => Word::Refused,
        Ok(S::PROXY_AUTHENTICATION_REQUIRED | S::REQUEST_TIMEOUT | S::TOO_MANY_REQUESTS) => Word::Nothing,
        // 403 is about an address or a feature, 406 about the version: the key was known.
        Ok(status) if status.is_success() || status.is_client_error() => Word::Taken,
        Ok(_) | Err(_) => Word::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_401_refuses_a_key_and_only_mx_itself_takes_it() {
        for (status, expected) in [
            (200, Word::Taken),
            (403, Word::Taken),
            (404, Word::Taken),
            (406, Word::Taken),
            (401, Word::Refused),
            (302, Word::Nothing),
            (407, Word::Nothing),
            (408, Word::Nothing),
            (429, Word::Nothing),
            (500, Word::Nothing),
            (503, Word::Nothing),
        ] {
            assert_eq!(
                word(&StatusCode::from_u16(status).map_err(|_| Failure::Internal)),
                expected,
                "{status}"
            );
        }
        assert_eq!(word(&Err(Failure::UpstreamClosed)), Word::Nothing);
    }
}
