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
use crate::oauth::{
    connection::{Connection, ConnectionId},
    seal::Keys,
    store::{
        Committed, Doing, Kept, Lease, Store, Taken, Version,
        cases::{
            self, KEY, Kind, NOW, OTHER, Opened, connection, generation, holds_a_token, id, keys, run, secret,
        },
    },
};

/// The store's folder, and what time it is.
struct Folder {
    folder: tempfile::TempDir,
    now: u64,
}

impl Folder {
    fn with_store() -> Self {
        let folder = Self { folder: tempfile::tempdir().unwrap(), now: NOW };
        create(&folder.path(), &keys(KEY)).unwrap();
        folder
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("connections")
    }

    fn beside(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn open(&self) -> Embedded {
        Embedded::open(&self.path(), keys(KEY)).unwrap()
    }

    fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.folder.path()).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

/// Time is what the callers say.
impl Kind for Folder {
    fn open(&self, keys: Keys) -> Doing<'_, Arc<dyn Opened>> {
        let store = Embedded::open(&self.path(), keys).unwrap();
        Box::pin(async { Arc::new(store) as Arc<dyn Opened> })
    }

    fn now(&self) -> u64 {
        self.now
    }

    fn pass(&mut self, time: Duration) -> Doing<'_, ()> {
        self.now += time.as_secs();
        Box::pin(async {})
    }

    fn unit(&self) -> Duration {
        Duration::from_secs(1)
    }

    fn is_shared(&self) -> bool {
        false
    }

    fn fill_pending(&self, count: u64, units: u64) {
        pending::fill(self, count, self.now + units);
    }

    fn pending_count(&self) -> u64 {
        pending::count(self)
    }
}

async fn lease(store: &Embedded, id: ConnectionId) -> Lease {
    cases::lease(store, id, NOW, Duration::from_secs(10)).await
}

/// Whether the file at `path` holds a token.
fn shows_a_token(path: &Path) -> bool {
    holds_a_token(&std::fs::read(path).unwrap())
}

#[test]
fn what_was_stored_is_loaded_also_by_the_next_process_and_lists_show_no_token() {
    let folder = Folder::with_store();
    run(cases::what_was_stored_is_loaded_also_by_the_next_process_and_lists_show_no_token(&folder));
    assert!(!shows_a_token(&folder.path()));
    let written = folder.beside("token");
    std::fs::write(&written, b"..canary-access-1").unwrap();
    assert!(shows_a_token(&written), "the check finds one");
    assert_eq!(folder.names(), ["connections", "connections.lock", "token"]);
}

#[test]
fn tokens_are_masked_once_they_were_loaded() {
    let folder = Folder::with_store();
    run(cases::tokens_are_masked_once_they_were_loaded(&folder, "canary-that-no-other-test-has"));
}

#[test]
fn a_lost_lease_writes_nothing_and_renews_nothing() {
    run(cases::a_lost_lease_writes_nothing_and_renews_nothing(&mut Folder::with_store()));
}

#[test]
fn an_id_is_inserted_once_and_a_removed_one_is_gone() {
    run(cases::an_id_is_inserted_once_and_a_removed_one_is_gone(&Folder::with_store()));
}
