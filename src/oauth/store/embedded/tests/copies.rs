//! Backups, and records under a new key.

use super::{
    super::{Error, Restored, restore},
    *,
};

#[test]
fn a_backup_is_as_of_its_time_and_says_how_old_it_is() {
    let folder = Folder::with_store();
    let (backup, other) = (folder.beside("backup"), folder.beside("other"));
    run(async {
        let store = folder.open();
        store.insert(&connection(id(1), 1)).await.unwrap();
        store.insert(&connection(id(2), 1)).await.unwrap();
        assert_eq!(store.backup(&backup, NOW + 5).unwrap(), 2);
        assert!(matches!(store.backup(&backup, NOW), Err(Error::Exists { .. })));
        let lease = lease(&store, id(1)).await;
        store.commit(&lease, Version(1), &connection(id(1), 2)).await.unwrap();
        // Neither over a store that is used, nor over one that is not.
        assert!(matches!(restore(&folder.path(), &backup, &keys(KEY)), Err(Error::InUse { .. })));
        drop(store);
        assert!(matches!(restore(&folder.path(), &backup, &keys(KEY)), Err(Error::Exists { .. })));
        assert_eq!(generation(&folder.open(), id(1), 2).await, Some(Version(2)));
        assert!(matches!(restore(&other, &backup, &keys(OTHER)), Err(Error::WrongKey { .. })));
        assert!(!other.exists());
        let restored = restore(&other, &backup, &keys(KEY)).unwrap();
        assert_eq!(restored, Restored { connections: 2, made: Some(NOW + 5) });
        let store = Embedded::open(&other, keys(KEY)).unwrap();
        assert_eq!(generation(&store, id(1), 1).await, Some(Version(1)));
        assert_eq!(generation(&store, id(2), 1).await, Some(Version(1)));
        // What was restored is no backup any more.
        drop(store);
        let third = folder.beside("third");
        assert_eq!(restore(&third, &other, &keys(KEY)).unwrap(), Restored { connections: 2, made: None });
    });
    assert!(!shows_a_token(&backup) && !shows_a_token(&other));
}

#[test]
fn a_new_key_takes_the_records_over_one_by_one_and_can_be_interrupted() {
    let folder = Folder::with_store();
    let both = || Keys::new(&secret(OTHER), &[secret(KEY)]).unwrap();
    run(async {
        let store = folder.open();
        for n in 1..=3 {
            store.insert(&connection(id(n), 1)).await.unwrap();
        }
        drop(store);
        let store = Embedded::open(&folder.path(), both()).unwrap();
        // One by a write, one by itself, the last not yet.
        let lease_1 = lease(&store, id(1)).await;
        store.commit(&lease_1, Version(1), &connection(id(1), 2)).await.unwrap();
        let lease_2 = lease(&store, id(2)).await;
        store.0.reseal(id(2)).unwrap();
        assert_eq!(store.0.sealed_before().unwrap(), [id(3)]);
        // Whoever had a lease and a version meanwhile writes as if nothing had been.
        let next = connection(id(2), 2);
        assert_eq!(store.commit(&lease_2, Version(1), &next).await.unwrap(), Committed::Stored(Version(2)));
        drop(store);
        let refused = Embedded::open(&folder.path(), keys(OTHER)).unwrap_err();
        assert!(matches!(refused, Error::WrongKey { .. }), "{refused}");
        let store = Embedded::open(&folder.path(), both()).unwrap();
        assert_eq!(store.reseal().await.unwrap(), 1);
        assert_eq!(store.reseal().await.unwrap(), 0);
        drop(store);
        let store = Embedded::open(&folder.path(), keys(OTHER)).unwrap();
        assert_eq!(generation(&store, id(1), 2).await, Some(Version(2)));
        assert_eq!(generation(&store, id(2), 2).await, Some(Version(2)));
        assert_eq!(generation(&store, id(3), 1).await, Some(Version(1)));
    });
    assert!(Embedded::open(&folder.path(), keys(KEY)).is_err());
}
