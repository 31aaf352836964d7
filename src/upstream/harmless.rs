//! The one read that the gateway makes itself, to learn whether MX takes a key.
//!
//! In: an environment of MX's Platform API and one of its keys. Out: the status of the answer, whose body nobody reads.
//! It lists institutions: it is about no user, has no effect and is cheap. It goes over a connection of its own,
//! which no request has used and none will use, and counts for no budget: whoever asks keeps to a pace.
//! What must never happen: another operation is asked for, or another host; nothing here comes from a caller.

use std::{future::poll_fn, time::Duration};

use http::{HeaderMap, StatusCode};
use tokio::{io::AsyncWriteExt as _, time::timeout};

use super::{answer::AnswerReader, headers};
use crate::{
    credential::Prepared,
    gateway::refusal::Failure,
    mx::catalogue::{Operation, catalogue},
    snapshot::Environment,
};

/// What is asked for; its id in the catalogue, for those who suspend it.
pub(crate) const OPERATION: &str = "listInstitutions";

/// MX takes pages of 10 to 1,000.
const TARGET: &str = "/institutions?page=1&records_per_page=10";

/// For all of it; the environment's own waits hold as well.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Asks with `key`, which is one of `environment`'s.
pub(crate) async fn ask(environment: &Environment, key: &Prepared) -> Result<StatusCode, Failure> {
    let Some(operation) = catalogue().by_id(OPERATION) else { return Err(Failure::Internal) };
    timeout(TIMEOUT, exchange(environment, key, operation)).await.unwrap_or(Err(Failure::FirstByteTimeout))
}

async fn exchange(
    environment: &Environment,
    key: &Prepared,
    operation: &Operation,
) -> Result<StatusCode, Failure> {
    let timeouts = &environment.timeouts;
    let mut stream = environment.dial.dial(timeouts.connect, timeouts.tls).await?;
    let head = {
        let key = key.for_worker();
        let target = key.query().map_or([TARGET, "", ""], |query| [TARGET, "&", query]);
        headers::of_own_read(target, operation, environment, key.headers())
    };
    let closed = |_| Failure::UpstreamClosed;
    stream.write_all(&head).await.map_err(closed)?;
    stream.flush().await.map_err(closed)?;
    drop(head);
    let (mut reader, mut fields) = (AnswerReader::new(), HeaderMap::new());
    let answered = poll_fn(|cx| reader.poll_head(cx, &mut stream, false, &mut fields));
    timeout(timeouts.first_byte, answered).await.unwrap_or(Err(Failure::FirstByteTimeout))
}
