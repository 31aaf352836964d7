//! What is used once.

use redb::{Database, ReadableDatabase, ReadableTableMetadata};

use super::{
    super::{file::PENDING, restore},
    *,
};
use crate::oauth::store::{Error, PENDING_MAX, Pending, PendingName, pending::Kind};

pub(super) fn name(shown: &str) -> PendingName {
    PendingName::of(Kind::Ticket, &secret(shown))
}

/// What `shown`, which is in no store, is good for.
pub(super) fn pending(shown: &str, ends: u64) -> Pending {
    Pending { name: name(shown), ends, content: secret(&format!("canary-of-{shown}")) }
}

fn content(shown: &str) -> Option<Arc<Secret>> {
    Some(pending(shown, 0).content)
}

/// How many there are, taken or not.
fn count(folder: &Folder) -> u64 {
    let database = Database::open(folder.path()).unwrap();
    database.begin_read().unwrap().open_table(PENDING).unwrap().len().unwrap()
}

#[test]
fn it_is_looked_at_as_often_as_one_likes_and_taken_once_also_by_the_next_process() {
    let folder = Folder::with_store();
    run(async {
        let store = folder.open();
        store.put_pending(&pending("ticket-1", NOW + 10), NOW).await.unwrap();
        store.put_pending(&pending("ticket-2", NOW + 10), NOW).await.unwrap();
        for _ in 0..2 {
            assert_eq!(store.look_pending(name("ticket-1"), NOW).await.unwrap(), content("ticket-1"));
        }
        assert_eq!(store.take_pending(name("ticket-1"), NOW).await.unwrap(), content("ticket-1"));
        drop(store);
        let store = folder.open();
        assert_eq!(store.take_pending(name("ticket-1"), NOW).await.unwrap(), None);
        assert_eq!(store.look_pending(name("ticket-1"), NOW).await.unwrap(), None);
        assert_eq!(store.take_pending(name("ticket-2"), NOW).await.unwrap(), content("ticket-2"));
        assert_eq!(store.take_pending(name("ticket-3"), NOW).await.unwrap(), None, "never there");
    });
    let bytes = std::fs::read(folder.path()).unwrap();
    assert!(!shows_a_token(&folder.path()) && !bytes.windows(8).any(|window| window == b"ticket-1"));
}

#[test]
fn of_many_who_ask_at_once_one_gets_it() {
    let folder = Folder::with_store();
    let got = run(async {
        let store = folder.open();
        store.put_pending(&pending("ticket-1", NOW + 10), NOW).await.unwrap();
        let takers: Vec<_> = (0..16)
            .map(|_| {
                let store = store.clone();
                tokio::spawn(async move { store.take_pending(name("ticket-1"), NOW).await.unwrap() })
            })
            .collect();
        let mut got = 0;
        for taker in takers {
            got += usize::from(taker.await.unwrap().is_some());
        }
        got
    });
    assert_eq!(got, 1);
}

#[test]
fn its_time_ends_and_what_is_over_is_forgotten_with_the_next() {
    let folder = Folder::with_store();
    run(async {
        let store = folder.open();
        store.put_pending(&pending("ticket-1", NOW + 10), NOW).await.unwrap();
        store.put_pending(&pending("ticket-2", NOW + 11), NOW).await.unwrap();
        assert_eq!(store.look_pending(name("ticket-1"), NOW + 9).await.unwrap(), content("ticket-1"));
        assert_eq!(store.look_pending(name("ticket-1"), NOW + 10).await.unwrap(), None);
        assert_eq!(store.take_pending(name("ticket-1"), NOW + 10).await.unwrap(), None);
        assert_eq!(store.look_pending(name("ticket-2"), NOW + 10).await.unwrap(), content("ticket-2"));
        drop(store);
        assert_eq!(count(&folder), 2);
        let store = folder.open();
        store.put_pending(&pending("ticket-3", NOW + 20), NOW + 10).await.unwrap();
        assert_eq!(store.take_pending(name("ticket-2"), NOW + 10).await.unwrap(), content("ticket-2"));
    });
    assert_eq!(count(&folder), 1);
}

#[test]
fn they_are_bounded_in_number_and_in_size_and_room_comes_back() {
    let folder = Folder::with_store();
    super::refused::edit(&folder, |write| {
        let mut table = write.open_table(PENDING).unwrap();
        for n in 0..PENDING_MAX - 1 {
            let mut name = [0; 32];
            name[..8].copy_from_slice(&n.to_be_bytes());
            table.insert(&name, (NOW + 10, "key", b"sealed" as &[u8])).unwrap();
        }
    });
    run(async {
        let store = folder.open();
        let huge = Pending { content: secret(&"x".repeat(10_000)), ..pending("ticket-0", NOW + 20) };
        assert!(matches!(store.put_pending(&huge, NOW).await, Err(Error::TooLarge)));
        store.put_pending(&pending("ticket-1", NOW + 20), NOW).await.unwrap();
        let full = store.put_pending(&pending("ticket-2", NOW + 20), NOW).await.unwrap_err();
        assert!(matches!(full, Error::Full { .. }), "{full}");
        assert!(full.to_string().contains("10000"), "{full}");
        store.take_pending(name("ticket-1"), NOW).await.unwrap();
        store.put_pending(&pending("ticket-2", NOW + 20), NOW).await.unwrap();
        assert!(store.put_pending(&pending("ticket-3", NOW + 20), NOW).await.is_err());
        store.put_pending(&pending("ticket-3", NOW + 20), NOW + 10).await.unwrap();
    });
    assert_eq!(count(&folder), 2);
}

#[test]
fn a_store_of_before_gets_its_table_when_it_is_opened() {
    let folder = Folder::with_store();
    super::refused::edit(&folder, |write| assert!(write.delete_table(PENDING).unwrap()));
    run(async {
        let store = folder.open();
        assert_eq!(store.look_pending(name("ticket-1"), NOW).await.unwrap(), None);
        store.put_pending(&pending("ticket-1", NOW + 10), NOW).await.unwrap();
        assert_eq!(store.take_pending(name("ticket-1"), NOW).await.unwrap(), content("ticket-1"));
    });
}

#[test]
fn another_key_leaves_it_as_it_is() {
    let folder = Folder::with_store();
    let both = || Keys::new(&secret(OTHER), &[secret(KEY)]).unwrap();
    run(async {
        folder.open().put_pending(&pending("ticket-1", NOW + 10), NOW).await.unwrap();
        let store = Embedded::open(&folder.path(), both()).unwrap();
        assert_eq!(store.reseal().await.unwrap(), 0);
        assert_eq!(store.look_pending(name("ticket-1"), NOW).await.unwrap(), content("ticket-1"));
        drop(store);
        let store = Embedded::open(&folder.path(), keys(OTHER)).unwrap();
        let unknown = store.take_pending(name("ticket-1"), NOW).await.unwrap_err();
        assert!(matches!(unknown, Error::PendingUnusable { .. }), "{unknown}");
        drop(store);
        let store = Embedded::open(&folder.path(), both()).unwrap();
        assert_eq!(store.take_pending(name("ticket-1"), NOW).await.unwrap(), content("ticket-1"));
    });
}

#[test]
fn no_copy_has_it() {
    let folder = Folder::with_store();
    let (backup, other) = (folder.beside("backup"), folder.beside("other"));
    run(async {
        let store = folder.open();
        store.put_pending(&pending("ticket-1", NOW + 10), NOW).await.unwrap();
        store.backup(&backup, NOW).unwrap();
        restore(&other, &backup, &keys(KEY)).unwrap();
        let restored = Embedded::open(&other, keys(KEY)).unwrap();
        assert_eq!(restored.look_pending(name("ticket-1"), NOW).await.unwrap(), None);
        assert_eq!(store.look_pending(name("ticket-1"), NOW).await.unwrap(), content("ticket-1"));
    });
}
