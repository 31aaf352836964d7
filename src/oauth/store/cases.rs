//! What every kind of store must show: the cases of their tests, and what these are made of.

pub(super) mod model;
pub(super) mod pending;

use std::{sync::Arc, time::Duration};

use super::{
    Committed, Doing, Error, Kept, Lease, Store, Stored, Taken, Version, embedded::Embedded,
    postgres::Postgres,
};
use crate::{
    oauth::{
        connection::{Access, Connection, ConnectionId, Consent, Purpose, Tokens},
        seal::Keys,
    },
    redaction::held,
    vault::secret::Secret,
};

pub(super) const KEY: &str = "0123456789abcdef0123456789abcdef";
pub(super) const OTHER: &str = "fedcba9876543210fedcba9876543210";
pub(super) const NOW: u64 = 1_700_000_000;

/// A kind of store, with one store of it.
pub(super) trait Kind: Send {
    /// As a process opens it. Where one process alone may have it, the one before was dropped.
    fn open(&self, keys: Keys) -> Doing<'_, Arc<dyn Opened>>;

    /// As its callers tell.
    fn now(&self) -> u64;

    /// So much later.
    fn pass(&mut self, time: Duration) -> Doing<'_, ()>;

    /// What the tests' steps of time are. Where time passes by itself as well, they are so long that it does not matter.
    fn unit(&self) -> Duration;

    /// Whether several processes use it at once: it does not know that one has died, nor believes its callers' clocks.
    fn is_shared(&self) -> bool;

    /// Puts pending records there that end after so many units. No process has the store open.
    fn fill_pending(&self, count: u64, units: u64);

    /// How many there are, taken or not. No process has the store open.
    fn pending_count(&self) -> u64;

    /// How long leases are taken for.
    fn lasts(&self) -> Duration {
        10 * self.unit()
    }
}

/// A store, and what the seam does not have.
pub(super) trait Opened: Store {
    fn reseal(&self) -> Doing<'_, Result<usize, Error>>;
}

impl Opened for Embedded {
    fn reseal(&self) -> Doing<'_, Result<usize, Error>> {
        Box::pin(self.reseal())
    }
}

impl Opened for Postgres {
    fn reseal(&self) -> Doing<'_, Result<usize, Error>> {
        Box::pin(self.reseal())
    }
}

pub(super) fn secret(text: &str) -> Arc<Secret> {
    Arc::new(Secret::new(text.into()).unwrap())
}

pub(super) fn keys(sealing: &str) -> Keys {
    Keys::new(&secret(sealing), []).unwrap()
}

pub(super) fn id(n: u8) -> ConnectionId {
    ConnectionId::from_bytes([n; 16])
}

/// One whose tokens are told apart by `generation`.
pub(super) fn connection(id: ConnectionId, generation: u64) -> Connection {
    let tokens = Tokens {
        access: Some(Access {
            token: secret(&format!("canary-access-{generation}")),
            expires: Some(NOW + generation),
        }),
        refresh: Some(secret(&format!("canary-refresh-{generation}"))),
        ends: None,
    };
    Connection {
        id,
        purpose: Purpose::of_user(),
        issuer: "bank".into(),
        created: NOW,
        consent: Consent::Live(tokens),
    }
}

pub(super) fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

pub(super) async fn lease(store: &dyn Store, id: ConnectionId, now: u64, lasts: Duration) -> Lease {
    match store.take_lease(id, "me", now, lasts).await.unwrap() {
        Taken::Lease(lease) => lease,
        other => panic!("{other:?}"),
    }
}

pub(super) async fn generation(store: &dyn Store, id: ConnectionId, generation: u64) -> Option<Version> {
    let stored = store.load(id).await.unwrap()?;
    assert_eq!(stored.connection, connection(id, generation));
    Some(stored.version)
}

/// Whether `bytes` hold a token, as it is or in base64 at any offset.
pub(super) fn holds_a_token(bytes: &[u8]) -> bool {
    use base64::{Engine, prelude::BASE64_STANDARD as BASE64};
    let holds = |part: &[u8]| bytes.windows(part.len()).any(|window| window == part);
    let encoded = |lead: usize| {
        let text = BASE64.encode([&vec![b'.'; lead], b"canary-" as &[u8]].concat());
        text[(lead * 8).div_ceil(6)..(lead + 7) * 8 / 6].to_owned()
    };
    holds(b"canary-") || (0..3).any(|lead| holds(encoded(lead).as_bytes()))
}

pub(super) async fn what_was_stored_is_loaded_also_by_the_next_process_and_lists_show_no_token(
    kind: &dyn Kind,
) {
    let store = kind.open(keys(KEY)).await;
    store.insert(&connection(id(1), 1)).await.unwrap();
    let lease = lease(&*store, id(1), kind.now(), kind.lasts()).await;
    let next = connection(id(1), 2);
    let stored = store.commit(&lease, Version(1), &next).await.unwrap();
    assert_eq!(stored, Committed::Stored(Version(2)));
    drop(store);
    let store = kind.open(keys(KEY)).await;
    assert_eq!(generation(&*store, id(1), 2).await, Some(Version(2)));
    assert_eq!(store.load(id(2)).await.unwrap(), None);
    let list = store.list().await.unwrap();
    assert_eq!(list, [next.summary()]);
    assert!(!format!("{list:?}").contains("canary"));
}

/// `canary`: a token that no other test has.
pub(super) async fn tokens_are_masked_once_they_were_loaded(kind: &dyn Kind, canary: &str) {
    let store = kind.open(keys(KEY)).await;
    let mut connection = connection(id(1), 1);
    let refresh = Some(secret(canary));
    connection.consent = Consent::Live(Tokens { access: None, refresh, ends: Some(NOW) });
    store.insert(&connection).await.unwrap();
    store.list().await.unwrap();
    let is_masked = || held().masker().is_hit(canary.as_bytes());
    assert!(!is_masked());
    let stored = store.load(id(1)).await.unwrap();
    assert_eq!(stored, Some(Stored { connection, version: Version(1) }));
    assert!(is_masked());
}

pub(super) async fn a_lost_lease_writes_nothing_and_renews_nothing(kind: &mut dyn Kind) {
    let store = kind.open(keys(KEY)).await;
    let lasts = kind.lasts();
    store.insert(&connection(id(1), 1)).await.unwrap();
    let old = lease(&*store, id(1), kind.now(), lasts).await;
    let held = store.take_lease(id(1), "other", kind.now(), lasts).await.unwrap();
    assert!(matches!(&held, Taken::Held(holder) if holder.owner == "me"), "{held:?}");
    kind.pass(lasts).await;
    let Taken::Lease(new) = store.take_lease(id(1), "other", kind.now(), lasts).await.unwrap() else {
        panic!("it has ended");
    };
    assert_eq!(new.abandoned_by.as_ref().map(|holder| holder.owner.as_str()), Some("me"));
    let next = connection(id(1), 2);
    assert_eq!(store.commit(&old, Version(1), &next).await.unwrap(), Committed::Lost);
    assert_eq!(store.renew(&old, kind.now(), lasts).await.unwrap(), Kept::Lost);
    assert_eq!(store.remove(&old).await.unwrap(), Kept::Lost);
    store.give_back(&old).await.unwrap();
    assert_eq!(generation(&*store, id(1), 1).await, Some(Version(1)));
    // Of the wrong version, and of another connection.
    assert_eq!(store.commit(&new, Version(2), &next).await.unwrap(), Committed::Lost);
    let foreign = connection(id(2), 2);
    assert_eq!(store.commit(&new, Version(1), &foreign).await.unwrap(), Committed::Lost);
    // Over by the clock, and nobody took over.
    kind.pass(2 * lasts).await;
    assert_eq!(store.commit(&new, Version(1), &next).await.unwrap(), Committed::Stored(Version(2)));
    assert_eq!(store.commit(&new, Version(2), &next).await.unwrap(), Committed::Lost, "it was given back");
}

pub(super) async fn an_id_is_inserted_once_and_a_removed_one_is_gone(kind: &dyn Kind) {
    let store = kind.open(keys(KEY)).await;
    store.insert(&connection(id(1), 1)).await.unwrap();
    let again = store.insert(&connection(id(1), 2)).await.unwrap_err();
    assert!(matches!(again, Error::Exists { .. }));
    assert_eq!(generation(&*store, id(1), 1).await, Some(Version(1)));
    let lease = lease(&*store, id(1), kind.now(), kind.lasts()).await;
    assert_eq!(store.remove(&lease).await.unwrap(), Kept::Done);
    assert_eq!(store.load(id(1)).await.unwrap(), None);
    assert_eq!(store.take_lease(id(1), "me", kind.now(), kind.lasts()).await.unwrap(), Taken::Absent);
    assert_eq!(store.commit(&lease, Version(1), &connection(id(1), 2)).await.unwrap(), Committed::Lost);
    assert_eq!(store.list().await.unwrap(), []);
}
