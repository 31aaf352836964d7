//! What is used once.

use super::*;
use crate::oauth::store::{PENDING_MAX, Pending, PendingName, pending};

pub(in crate::oauth::store) fn name(shown: &str) -> PendingName {
    PendingName::of(pending::Kind::Ticket, &secret(shown))
}

/// What `shown`, which is in no store, is good for.
pub(in crate::oauth::store) fn pending(shown: &str, ends: u64) -> Pending {
    Pending { name: name(shown), ends, content: secret(&format!("canary-of-{shown}")) }
}

pub(in crate::oauth::store) fn content(shown: &str) -> Option<Arc<Secret>> {
    Some(pending(shown, 0).content)
}

/// So many of the kind's units from now.
fn ends(kind: &dyn Kind, units: u64) -> u64 {
    kind.now() + units * kind.unit().as_secs()
}

async fn put(kind: &dyn Kind, store: &dyn Store, shown: &str, units: u64) -> Result<(), Error> {
    store.put_pending(&pending(shown, ends(kind, units)), kind.now()).await
}

async fn look(kind: &dyn Kind, store: &dyn Store, shown: &str) -> Option<Arc<Secret>> {
    store.look_pending(name(shown), kind.now()).await.unwrap()
}

async fn take(kind: &dyn Kind, store: &dyn Store, shown: &str) -> Option<Arc<Secret>> {
    store.take_pending(name(shown), kind.now()).await.unwrap()
}

pub(in crate::oauth::store) async fn it_is_looked_at_as_often_as_one_likes_and_taken_once_also_by_the_next_process(
    kind: &dyn Kind,
) {
    let store = kind.open(keys(KEY)).await;
    put(kind, &*store, "ticket-1", 10).await.unwrap();
    put(kind, &*store, "ticket-2", 10).await.unwrap();
    for _ in 0..2 {
        assert_eq!(look(kind, &*store, "ticket-1").await, content("ticket-1"));
    }
    assert_eq!(take(kind, &*store, "ticket-1").await, content("ticket-1"));
    drop(store);
    let store = kind.open(keys(KEY)).await;
    assert_eq!(take(kind, &*store, "ticket-1").await, None);
    assert_eq!(look(kind, &*store, "ticket-1").await, None);
    assert_eq!(take(kind, &*store, "ticket-2").await, content("ticket-2"));
    assert_eq!(take(kind, &*store, "ticket-3").await, None, "never there");
}

/// Each by one of `stores`, which lead to the same.
pub(in crate::oauth::store) async fn of_many_who_ask_at_once_one_gets_it(
    kind: &dyn Kind,
    stores: &[Arc<dyn Opened>],
) {
    for round in 0..10 {
        let shown = format!("ticket-{round}");
        put(kind, &*stores[0], &shown, 10).await.unwrap();
        let takers: Vec<_> = (0..16)
            .map(|n| {
                let (store, name, now) = (stores[n % stores.len()].clone(), name(&shown), kind.now());
                tokio::spawn(async move { store.take_pending(name, now).await.unwrap() })
            })
            .collect();
        let mut got = 0;
        for taker in takers {
            got += usize::from(taker.await.unwrap().is_some());
        }
        assert_eq!(got, 1);
    }
}

pub(in crate::oauth::store) async fn its_time_ends_and_what_is_over_is_forgotten_with_the_next(
    kind: &mut dyn Kind,
) {
    let store = kind.open(keys(KEY)).await;
    put(kind, &*store, "ticket-1", 10).await.unwrap();
    put(kind, &*store, "ticket-2", 12).await.unwrap();
    kind.pass(9 * kind.unit()).await;
    assert_eq!(look(kind, &*store, "ticket-1").await, content("ticket-1"));
    kind.pass(kind.unit()).await;
    assert_eq!(look(kind, &*store, "ticket-1").await, None);
    assert_eq!(take(kind, &*store, "ticket-1").await, None);
    assert_eq!(look(kind, &*store, "ticket-2").await, content("ticket-2"));
    drop(store);
    assert_eq!(kind.pending_count(), 2);
    let store = kind.open(keys(KEY)).await;
    put(kind, &*store, "ticket-3", 10).await.unwrap();
    assert_eq!(take(kind, &*store, "ticket-2").await, content("ticket-2"));
    drop(store);
    assert_eq!(kind.pending_count(), 1);
}

pub(in crate::oauth::store) async fn they_are_bounded_in_number_and_in_size_and_room_comes_back(
    kind: &mut dyn Kind,
) {
    drop(kind.open(keys(KEY)).await);
    kind.fill_pending(PENDING_MAX - 1, 10);
    let store = kind.open(keys(KEY)).await;
    let huge = Pending { content: secret(&"x".repeat(10_000)), ..pending("ticket-0", ends(kind, 20)) };
    assert!(matches!(store.put_pending(&huge, kind.now()).await, Err(Error::TooLarge)));
    put(kind, &*store, "ticket-1", 20).await.unwrap();
    let full = put(kind, &*store, "ticket-2", 20).await.unwrap_err();
    assert!(matches!(full, Error::Full { .. }), "{full}");
    assert!(full.to_string().contains("10000"), "{full}");
    take(kind, &*store, "ticket-1").await.unwrap();
    put(kind, &*store, "ticket-2", 20).await.unwrap();
    assert!(put(kind, &*store, "ticket-3", 20).await.is_err());
    kind.pass(10 * kind.unit()).await;
    put(kind, &*store, "ticket-3", 20).await.unwrap();
    drop(store);
    assert_eq!(kind.pending_count(), 2);
}

pub(in crate::oauth::store) async fn another_key_leaves_it_as_it_is(kind: &dyn Kind) {
    let both = || Keys::new(&secret(OTHER), &[secret(KEY)]).unwrap();
    put(kind, &*kind.open(keys(KEY)).await, "ticket-1", 10).await.unwrap();
    let store = kind.open(both()).await;
    assert_eq!(store.reseal().await.unwrap(), 0);
    assert_eq!(look(kind, &*store, "ticket-1").await, content("ticket-1"));
    drop(store);
    let store = kind.open(keys(OTHER)).await;
    let unknown = store.take_pending(name("ticket-1"), kind.now()).await.unwrap_err();
    assert!(matches!(unknown, Error::PendingUnusable { .. }), "{unknown}");
    drop(store);
    let store = kind.open(both()).await;
    assert_eq!(take(kind, &*store, "ticket-1").await, content("ticket-1"));
}
