//! What is refused, and left as it was, byte for byte.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
};

use redb::ReadableTable;

use super::{
    super::{
        Error,
        file::{ABOUT, ABOUT_NAME, CONNECTIONS, text},
    },
    *,
};
use crate::{
    oauth::store::record::Record,
    vault::{self, permissions::Refused},
};

/// A store with one connection, which was not closed in order, so that opening it would mend it.
fn unclosed() -> Folder {
    let folder = Folder::with_store();
    let store = folder.open();
    run(store.insert(&connection(id(1), 1))).unwrap();
    let bytes = fs::read(folder.path()).unwrap();
    drop(store);
    assert_ne!(fs::read(folder.path()).unwrap(), bytes, "closing writes");
    fs::write(folder.path(), bytes).unwrap();
    folder
}

/// Why `folder`'s store is refused with `keys`; and its bytes stay.
fn refusal(folder: &Folder, keys: Keys) -> Error {
    let before = fs::read(folder.path()).unwrap();
    let error = Embedded::open(&folder.path(), keys).expect_err("it is refused");
    assert_eq!(fs::read(folder.path()).unwrap(), before);
    error
}

#[test]
fn a_wrong_key() {
    let folder = unclosed();
    let error = refusal(&folder, keys(OTHER));
    assert!(matches!(error, Error::WrongKey { .. }), "{error}");
    assert!(vault::chain(&error).contains(&keys(KEY).sealing().to_string()), "{error}");
    let store = folder.open();
    run(async { assert_eq!(generation(&store, id(1), 1).await, Some(Version(1))) });
    // An empty store knows its key, too.
    let empty = Folder::with_store();
    assert!(matches!(refusal(&empty, keys(OTHER)), Error::WrongKey { .. }));
}

#[test]
fn a_record_of_a_key_that_is_not_known() {
    let folder = unclosed();
    let both = Keys::new(&secret(OTHER), &[secret(KEY)]).unwrap();
    drop(Embedded::open(&folder.path(), both).unwrap());
    // The store is the new key's now, and its record the old one's still.
    let error = refusal(&folder, keys(OTHER));
    assert!(vault::chain(&error).contains(&keys(KEY).sealing().to_string()), "{error}");
}

pub(super) fn edit(folder: &Folder, f: impl FnOnce(&redb::WriteTransaction)) {
    let database = redb::Database::open(folder.path()).unwrap();
    let write = database.begin_write().unwrap();
    f(&write);
    write.commit().unwrap();
}

#[test]
fn a_later_format() {
    let folder = unclosed();
    edit(&folder, |write| {
        let mut about = write.open_table(ABOUT).unwrap();
        about.insert(ABOUT_NAME, text(r#"{"format":2,"new":"unheard of"}"#)).unwrap();
    });
    let error = refusal(&folder, keys(KEY));
    assert!(matches!(error, Error::Newer { found: 2, .. }), "{error}");
    edit(&folder, |write| {
        write.open_table(ABOUT).unwrap().insert(ABOUT_NAME, text("{}")).unwrap();
    });
    assert!(matches!(refusal(&folder, keys(KEY)), Error::NotAStore { .. }));
}

#[test]
fn a_header_that_was_edited() {
    let folder = unclosed();
    edit(&folder, |write| {
        let mut table = write.open_table(CONNECTIONS).unwrap();
        let Record { header, sealed } =
            super::super::work::owned(table.get(id(1).to_bytes().as_slice()).unwrap().unwrap().value());
        let header = header.replace("ledger", "thieves");
        table.insert(id(1).to_bytes().as_slice(), (0, header.as_str(), sealed.as_slice())).unwrap();
    });
    let store = folder.open();
    run(async {
        let error = store.load(id(1)).await.unwrap_err();
        assert!(matches!(error, crate::oauth::store::Error::Unusable { .. }), "{error}");
        let lease = lease(&store, id(1)).await;
        assert!(store.commit(&lease, Version(1), &connection(id(1), 2)).await.is_err(), "nor overwritten");
        assert_eq!(store.remove(&lease).await.unwrap(), Kept::Done);
    });
}

#[test]
fn an_id_of_another_length() {
    let folder = unclosed();
    edit(&folder, |write| {
        let mut table = write.open_table(CONNECTIONS).unwrap();
        table.insert([1; 15].as_slice(), text("{}")).unwrap();
    });
    assert!(matches!(refusal(&folder, keys(KEY)), Error::Damaged { .. }));
}

#[test]
fn what_is_no_store_or_a_damaged_one() {
    let folder = unclosed();
    let whole = fs::read(folder.path()).unwrap();
    for bytes in
        [b"".to_vec(), b"not a database".to_vec(), vec![0; 100_000], whole[..whole.len() / 2].to_vec()]
    {
        fs::write(folder.path(), &bytes).unwrap();
        let error = refusal(&folder, keys(KEY));
        assert!(matches!(error, Error::NotAStore { .. } | Error::Damaged { .. }), "{error:?}");
    }
    fs::remove_file(folder.path()).unwrap();
    let absent = Embedded::open(&folder.path(), keys(KEY)).unwrap_err();
    assert!(matches!(absent, Error::Absent { .. }));
    fs::create_dir(folder.path()).unwrap();
    assert!(Embedded::open(&folder.path(), keys(KEY)).is_err());
}

#[test]
fn a_changed_byte_anywhere_is_refused_or_means_nothing() {
    let folder = unclosed();
    let whole = fs::read(folder.path()).unwrap();
    let mut refused = 0;
    for place in (0..whole.len()).step_by(whole.len() / 97) {
        let mut bytes = whole.clone();
        bytes[place] ^= 0xff;
        fs::write(folder.path(), &bytes).unwrap();
        match Embedded::open(&folder.path(), keys(KEY)) {
            Ok(store) => run(async { assert_eq!(generation(&store, id(1), 1).await, Some(Version(1))) }),
            Err(_) => refused += 1,
        }
    }
    assert!(refused > 0);
}

#[test]
fn a_file_that_others_may_use_and_a_folder_that_everybody_may_write() {
    let folder = unclosed();
    let mode = |mode| fs::set_permissions(folder.path(), Permissions::from_mode(mode)).unwrap();
    assert_eq!(fs::metadata(folder.path()).unwrap().permissions().mode() & 0o7777, 0o600);
    mode(0o620);
    let error = refusal(&folder, keys(KEY));
    assert!(matches!(error, Error::Untrusted { source: Refused::Writable { .. }, .. }));
    mode(0o604);
    assert!(matches!(refusal(&folder, keys(KEY)), Error::Untrusted { source: Refused::Readable { .. }, .. }));
    mode(0o600);
    let of_folder = |mode| fs::set_permissions(folder.folder.path(), Permissions::from_mode(mode)).unwrap();
    of_folder(0o777);
    assert!(matches!(refusal(&folder, keys(KEY)), Error::Folder { mode: 0o777, .. }));
    of_folder(0o1777);
    drop(folder.open());
    of_folder(0o770);
    drop(folder.open());
}

#[test]
fn a_second_user_of_the_file() {
    let folder = unclosed();
    let store = folder.open();
    assert!(matches!(refusal(&folder, keys(KEY)), Error::InUse { .. }));
    assert!(matches!(create(&folder.path(), &keys(KEY)), Err(Error::InUse { .. })));
    // Also without the lock beside it, which somebody may have removed.
    fs::remove_file(folder.beside("connections.lock")).unwrap();
    assert!(matches!(refusal(&folder, keys(KEY)), Error::InUse { .. }));
    drop(store);
    drop(folder.open());
    assert!(matches!(create(&folder.path(), &keys(KEY)), Err(Error::Exists { .. })));
}
