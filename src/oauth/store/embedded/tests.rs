//! A store on a real disk.

mod copies;
mod killed;
mod model;
mod pending;
mod refused;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use super::{Embedded, create};
use crate::{
    oauth::{
        connection::{Access, Connection, ConnectionId, Consent, Tokens},
        seal::Keys,
        store::{Committed, Kept, Lease, Store, Stored, Taken, Version},
    },
    redaction::held,
    vault::secret::Secret,
};

const KEY: &str = "0123456789abcdef0123456789abcdef";
const OTHER: &str = "fedcba9876543210fedcba9876543210";
const NOW: u64 = 1_700_000_000;
const LASTS: Duration = Duration::from_secs(10);

/// The store's folder, and where it is in there.
struct Folder(tempfile::TempDir);

impl Folder {
    fn with_store() -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        create(&folder.path(), &keys(KEY)).unwrap();
        folder
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("connections")
    }

    fn beside(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn open(&self) -> Embedded {
        Embedded::open(&self.path(), keys(KEY)).unwrap()
    }

    fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.0.path()).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

fn secret(text: &str) -> Arc<Secret> {
    Arc::new(Secret::new(text.into()).unwrap())
}

fn keys(sealing: &str) -> Keys {
    Keys::new(&secret(sealing), []).unwrap()
}

fn id(n: u8) -> ConnectionId {
    ConnectionId::from_bytes([n; 16])
}

/// One whose tokens are told apart by `generation`.
fn connection(id: ConnectionId, generation: u64) -> Connection {
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
        provider: "mx".into(),
        environment: "sandbox".into(),
        caller: "ledger".into(),
        user_guid: Some("USR-1".into()),
        scopes: vec!["read".into()],
        created: NOW,
        consent: Consent::Live(tokens),
    }
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

async fn lease(store: &Embedded, id: ConnectionId) -> Lease {
    match store.take_lease(id, "me", NOW, LASTS).await.unwrap() {
        Taken::Lease(lease) => lease,
        other => panic!("{other:?}"),
    }
}

async fn generation(store: &Embedded, id: ConnectionId, generation: u64) -> Option<Version> {
    let stored = store.load(id).await.unwrap()?;
    assert_eq!(stored.connection, connection(id, generation));
    Some(stored.version)
}

/// Whether `path` holds a token, as it is or in base64 at any offset.
fn shows_a_token(path: &Path) -> bool {
    use base64::{Engine, prelude::BASE64_STANDARD as BASE64};
    let bytes = std::fs::read(path).unwrap();
    let holds = |part: &[u8]| bytes.windows(part.len()).any(|window| window == part);
    let encoded = |lead: usize| {
        let text = BASE64.encode([&vec![b'.'; lead], b"canary-" as &[u8]].concat());
        text[(lead * 8).div_ceil(6)..(lead + 7) * 8 / 6].to_owned()
    };
    holds(b"canary-") || (0..3).any(|lead| holds(encoded(lead).as_bytes()))
}

#[test]
fn what_was_stored_is_loaded_also_by_the_next_process_and_lists_show_no_token() {
    let folder = Folder::with_store();
    run(async {
        let store = folder.open();
        store.insert(&connection(id(1), 1)).await.unwrap();
        let lease = lease(&store, id(1)).await;
        let next = connection(id(1), 2);
        let stored = store.commit(&lease, Version(1), &next).await.unwrap();
        assert_eq!(stored, Committed::Stored(Version(2)));
        drop(store);
        let store = folder.open();
        assert_eq!(generation(&store, id(1), 2).await, Some(Version(2)));
        assert_eq!(store.load(id(2)).await.unwrap(), None);
        let list = store.list().await.unwrap();
        assert_eq!(list, [next.summary()]);
        assert!(!format!("{list:?}").contains("canary"));
    });
    assert!(!shows_a_token(&folder.path()));
    let written = folder.beside("token");
    std::fs::write(&written, b"..canary-access-1").unwrap();
    assert!(shows_a_token(&written), "the check finds one");
    assert_eq!(folder.names(), ["connections", "connections.lock", "token"]);
}

#[test]
fn tokens_are_masked_once_they_were_loaded() {
    let folder = Folder::with_store();
    run(async {
        let store = folder.open();
        let mut connection = connection(id(1), 1);
        connection.consent = Consent::Live(Tokens {
            access: None,
            refresh: Some(secret("canary-that-no-other-test-has")),
            ends: Some(NOW),
        });
        store.insert(&connection).await.unwrap();
        store.list().await.unwrap();
        let is_masked = || held().masker().is_hit(b"canary-that-no-other-test-has");
        assert!(!is_masked());
        let stored = store.load(id(1)).await.unwrap();
        assert_eq!(stored, Some(Stored { connection, version: Version(1) }));
        assert!(is_masked());
    });
}

#[test]
fn a_lost_lease_writes_nothing_and_renews_nothing() {
    let folder = Folder::with_store();
    run(async {
        let store = folder.open();
        store.insert(&connection(id(1), 1)).await.unwrap();
        let old = lease(&store, id(1)).await;
        let over = NOW + LASTS.as_secs();
        let Taken::Lease(new) = store.take_lease(id(1), "other", over, LASTS).await.unwrap() else {
            panic!("it has ended");
        };
        assert_eq!(new.abandoned_by.as_ref().map(|holder| holder.owner.as_str()), Some("me"));
        let next = connection(id(1), 2);
        assert_eq!(store.commit(&old, Version(1), &next).await.unwrap(), Committed::Lost);
        assert_eq!(store.renew(&old, over, LASTS).await.unwrap(), Kept::Lost);
        assert_eq!(store.remove(&old).await.unwrap(), Kept::Lost);
        store.give_back(&old).await.unwrap();
        assert_eq!(generation(&store, id(1), 1).await, Some(Version(1)));
        // Of the wrong version, and of another connection.
        assert_eq!(store.commit(&new, Version(2), &next).await.unwrap(), Committed::Lost);
        let foreign = connection(id(2), 2);
        assert_eq!(store.commit(&new, Version(1), &foreign).await.unwrap(), Committed::Lost);
        assert_eq!(store.commit(&new, Version(1), &next).await.unwrap(), Committed::Stored(Version(2)));
        assert_eq!(
            store.commit(&new, Version(2), &next).await.unwrap(),
            Committed::Lost,
            "it was given back"
        );
    });
}

#[test]
fn an_id_is_inserted_once_and_a_removed_one_is_gone() {
    let folder = Folder::with_store();
    run(async {
        let store = folder.open();
        store.insert(&connection(id(1), 1)).await.unwrap();
        let again = store.insert(&connection(id(1), 2)).await.unwrap_err();
        assert!(matches!(again, crate::oauth::store::Error::Exists { .. }));
        assert_eq!(generation(&store, id(1), 1).await, Some(Version(1)));
        let lease = lease(&store, id(1)).await;
        assert_eq!(store.remove(&lease).await.unwrap(), Kept::Done);
        assert_eq!(store.load(id(1)).await.unwrap(), None);
        assert_eq!(store.take_lease(id(1), "me", NOW, LASTS).await.unwrap(), Taken::Absent);
        assert_eq!(store.commit(&lease, Version(1), &connection(id(1), 2)).await.unwrap(), Committed::Lost);
        assert_eq!(store.list().await.unwrap(), []);
    });
}
