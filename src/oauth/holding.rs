//! Holding a connection's lease: for how long, how it is kept while something takes its time, and how it is left.
//!
//! In: a lease, and work that needs it. Out: what the work gave.
//!
//! What must never happen: a lease that tells of a doubt is given back by somebody who has not ended that doubt.

use std::{convert::Infallible, time::Duration};

use super::{
    refresh::Clock,
    store::{Lease, Store},
};

/// How long a replica that died keeps others from its connections.
pub(super) const LEASE: Duration = Duration::from_secs(10);

/// How often a lease is renewed while its holder is at work: it may fail to twice.
const RENEWAL: Duration = Duration::from_secs(3);

/// How often is looked whether somebody else is done.
pub(super) const LOOK: Duration = Duration::from_millis(500);

/// How often. By then a lease has ended twice.
pub(super) const LOOKS_MAX: u32 = 48;

/// Does `work` while the lease is renewed. Losing it does not end the work: what comes of it is nobody else's.
pub(super) async fn leased<T>(
    store: &dyn Store,
    clock: &dyn Clock,
    lease: &Lease,
    work: impl Future<Output = T>,
) -> T {
    tokio::select! {
        biased;
        done = work => done,
        never = renewals(store, clock, lease) => match never {},
    }
}

async fn renewals(store: &dyn Store, clock: &dyn Clock, lease: &Lease) -> Infallible {
    loop {
        clock.sleep(RENEWAL).await;
        // A failure is no end yet: the next one may succeed, and the fence stops whoever lost it.
        let _ = store.renew(lease, clock.now(), LEASE).await;
    }
}

/// Gives a lease back under which nothing happened. One that somebody left before ends by itself, so that its next holder
/// is told of that, too.
pub(super) async fn leave(store: &dyn Store, lease: &Lease) {
    if lease.abandoned_by.is_none() {
        // It ends by itself otherwise, only later.
        let _ = store.give_back(lease).await;
    }
}
