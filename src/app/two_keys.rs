//! Looks after the keys of environments that have two.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::time::timeout;

use crate::{
    control::suspension::{Subject, Suspensions},
    credential::{Prepared, confirm, preference::Which},
    refusal::Failure,
    snapshot::Environment,
    upstream::errand::{Addressee, Errand, Heard, Word},
};

/// For one read, from the first connection on; the environment's own waits hold as well.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Confirms what requests are told about `environment`'s keys, for as long as it is let. There is nothing to do for one
/// key, nor for a host of which no harmless read is known.
pub(super) async fn watch_over(environment: Arc<Environment>, suspensions: Arc<Suspensions>) {
    let (Some(second), Some(errand)) = (&environment.second, Errand::read(environment.api)) else {
        return std::future::pending().await;
    };
    let ask = |which| ask(&errand, &environment, which, &suspensions);
    match confirm::watch_over(&environment.name, &second.preference, ask).await {}
}

async fn ask(errand: &Errand, environment: &Environment, which: Which, suspensions: &Suspensions) -> Word {
    let subject =
        Subject { environment: Some(&environment.name), operation: Some(Errand::READ), ..Subject::default() };
    if suspensions.applies(&subject, Instant::now()) {
        return Word::Nothing;
    }
    let Some(key) = environment.key(which).filter(|key| !key.is_over()) else { return Word::Refused };
    let heard = timeout(TIMEOUT, send(errand, environment, key)).await;
    let heard = heard.unwrap_or(Err(Failure::FirstByteTimeout));
    let word = word(&heard);
    let answered = heard.map_or_else(|failure| failure.code().to_owned(), |heard| heard.status.to_string());
    tracing::info!(environment = &*environment.name, ?which, answered, "asked MX whether it takes this key");
    word
}

/// Over a connection that no request has used and none will use.
async fn send(errand: &Errand, environment: &Environment, key: &Prepared) -> Result<Heard, Failure> {
    let timeouts = &environment.timeouts;
    let stream = environment.dial.dial(timeouts.connect, timeouts.tls).await?;
    let to = Addressee {
        authority: &environment.dial.authority,
        accept_version: environment.accept_version.to_str().unwrap_or_default(),
    };
    errand.run(stream, to, key, timeouts.first_byte).await
}

/// Without an answer there is nothing to be learnt.
fn word(heard: &Result<Heard, Failure>) -> Word {
    heard.as_ref().map_or(Word::Nothing, Heard::word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_answered_says_nothing_about_a_key() {
        assert_eq!(word(&Err(Failure::UpstreamClosed)), Word::Nothing);
    }
}
