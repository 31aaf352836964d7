//! What is used once.

use redb::{Database, ReadableDatabase, ReadableTableMetadata};

use super::{
    super::{file::PENDING, restore},
    *,
};
use crate::oauth::store::cases::pending as cases;
pub(super) use crate::oauth::store::cases::pending::{content, name, pending};

pub(super) fn count(folder: &Folder) -> u64 {
    let database = Database::open(folder.path()).unwrap();
    database.begin_read().unwrap().open_table(PENDING).unwrap().len().unwrap()
}

pub(super) fn fill(folder: &Folder, count: u64, ends: u64) {
    super::refused::edit(folder, |write| {
        let mut table = write.open_table(PENDING).unwrap();
        for n in 0..count {
            let mut name = [0; 32];
            name[..8].copy_from_slice(&n.to_be_bytes());
            table.insert(name.as_slice(), (ends, "key", b"sealed" as &[u8])).unwrap();
        }
    });
}

#[test]
fn it_is_looked_at_as_often_as_one_likes_and_taken_once_also_by_the_next_process() {
    let folder = Folder::with_store();
    run(cases::it_is_looked_at_as_often_as_one_likes_and_taken_once_also_by_the_next_process(&folder));
    let bytes = std::fs::read(folder.path()).unwrap();
    assert!(!shows_a_token(&folder.path()) && !bytes.windows(8).any(|window| window == b"ticket-1"));
}

#[test]
fn of_many_who_ask_at_once_one_gets_it() {
    let folder = Folder::with_store();
    let store: Arc<dyn Opened> = Arc::new(folder.open());
    run(cases::of_many_who_ask_at_once_one_gets_it(&folder, &[store]));
}

#[test]
fn its_time_ends_and_what_is_over_is_forgotten_with_the_next() {
    run(cases::its_time_ends_and_what_is_over_is_forgotten_with_the_next(&mut Folder::with_store()));
}

#[test]
fn they_are_bounded_in_number_and_in_size_and_room_comes_back() {
    run(cases::they_are_bounded_in_number_and_in_size_and_room_comes_back(&mut Folder::with_store()));
}

#[test]
fn another_key_leaves_it_as_it_is() {
    run(cases::another_key_leaves_it_as_it_is(&Folder::with_store()));
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
