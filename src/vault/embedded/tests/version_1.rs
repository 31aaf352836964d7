//! Vaults of format 1, as mxgate 0.1 wrote them before a vault had authors (`tests/vault-v1`).

use super::*;

/// A vault at generation 2 with one entry, its identity, and what was last seen of it.
fn folder() -> Folder {
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str, bytes: &[u8]| {
        fs::write(folder.path().join(name), bytes).unwrap();
        fs::set_permissions(folder.path().join(name), fs::Permissions::from_mode(0o600)).unwrap();
    };
    place("identity", include_bytes!("../../../../tests/vault-v1/identity"));
    place("vault.age", include_bytes!("../../../../tests/vault-v1/vault.age"));
    place("vault.age.generation", include_bytes!("../../../../tests/vault-v1/vault.age.generation"));
    let identity = Identity::load(&Reference::file(folder.path().join("identity"))).unwrap();
    Folder { folder, identity }
}

#[test]
fn it_is_read_and_stays_as_it_is() {
    let folder = folder();
    let before = fs::read(folder.vault()).unwrap();
    let opened = folder.open().unwrap();
    assert!(*opened.entries["production/api_key"].secret == secret("canary-secret-value"));
    assert_eq!((opened.generation, opened.author(), opened.members.len()), (2, None, 1));
    assert!(opened.notices.is_empty());
    assert_eq!(fs::read(folder.vault()).unwrap(), before);
}

#[test]
fn first_use_of_it_is_noted_in_its_own_form() {
    let folder = folder();
    let before = fs::read(folder.path("vault.age.generation")).unwrap();
    fs::remove_file(folder.path("vault.age.generation")).unwrap();
    assert!(matches!(folder.open().unwrap().notices[..], [Notice::FirstUse { .. }]));
    assert_eq!(fs::read(folder.path("vault.age.generation")).unwrap(), before);
}

#[test]
fn the_next_write_gives_it_an_author_and_it_is_not_put_back() {
    let folder = folder();
    let before = fs::read(folder.vault()).unwrap();
    let last_seen = fs::read(folder.path("vault.age.generation")).unwrap();
    folder.set("production/api_key", "second-value").unwrap();
    let opened = folder.open().unwrap();
    assert!(opened.author().is_some() && opened.members[0].has_accepted());
    assert_eq!(opened.entries["production/api_key"].version, 2);
    // A crash before the last-seen file was written.
    fs::write(folder.path("vault.age.generation"), last_seen).unwrap();
    assert!(folder.open().is_ok());
    fs::write(folder.vault(), before).unwrap();
    folder.assert_unusable(|error| matches!(error, Error::Older { generation: 2, seen: 3, .. }));
}

#[test]
fn its_identity_is_replaced_without_a_moment_in_which_neither_opens_it() {
    let folder = folder();
    let (new, last_seen) = (folder.identity("new"), folder.path("vault.age.generation"));
    let before = fs::read(&last_seen).unwrap();
    rekey(&folder.vault(), &folder.identity, &Change { replace: Some(&new), ..Change::default() }).unwrap();
    assert_eq!(open(&folder.vault(), &new).unwrap().generation, 4);
    folder.assert_unusable(|error| matches!(error, Error::Unsound { source: Fault::WrongIdentity, .. }));
    // It was brought up to date first: beside a vault that is the new identity's, nobody reads this one.
    fs::write(&last_seen, before).unwrap();
    let refused = open(&folder.vault(), &new).unwrap_err();
    assert!(matches!(refused, Error::LastSeen { source: generation::Error::Forged, .. }));
}

#[test]
fn it_has_no_author_that_could_be_named() {
    let folder = folder();
    let author = self::Folder::new().open().unwrap().author().unwrap();
    let identity = Identity::load(&Reference::file(folder.path("identity"))).unwrap();
    let refused = open(&folder.vault(), &identity.trusting(Trust::Author(author))).unwrap_err();
    assert!(matches!(refused, Error::Unsound { source: Fault::OtherAuthor, .. }), "{refused}");
}

#[test]
fn a_forged_one_is_refused() {
    let folder = folder();
    let plaintext = folder.identity.decrypt(&fs::read(folder.vault()).unwrap()).unwrap();
    let text = String::from_utf8(plaintext.to_vec()).unwrap();
    folder.plant(&folder.vault(), text.as_bytes());
    assert!(folder.open().is_ok());
    folder.plant(&folder.vault(), text.replace("api.mx.com", "evil.example").as_bytes());
    folder.assert_unusable(|error| matches!(error, Error::Unsound { source: Fault::Forged, .. }));
    folder.plant(&folder.vault(), text.replace("\"version\":1,\"g", "\"version\":2,\"g").as_bytes());
    folder.assert_unusable(|error| matches!(error, Error::Unsound { source: Fault::NotAVault { .. }, .. }));
}

#[test]
fn a_backup_of_it_is_restored_over_what_it_became() {
    let folder = folder();
    let copy = folder.path("copy.age");
    backup(&folder.vault(), &folder.identity, &copy).unwrap();
    folder.set("production/api_key", "second-value").unwrap();
    let recovery = folder.identity("recovery");
    let change = Change { join: vec![&recovery], ..Change::default() };
    rekey(&folder.vault(), &folder.identity, &change).unwrap();
    let restored = restore(&folder.vault(), &folder.identity, &copy, true).unwrap();
    assert_eq!((restored.generation, restored.members.len()), (5, 2));
    let opened = open(&folder.vault(), &recovery).unwrap();
    assert!(*opened.entries["production/api_key"].secret == secret("canary-secret-value"));
}

#[test]
fn a_recovery_file_beside_it_is_its_identitys() {
    let folder = folder();
    let aside = folder.path("aside.age");
    let opened = folder.open().unwrap();
    opened.seal_aside(&aside, "production/key", Arc::new(secret("rescued-value")), None).unwrap();
    assert_eq!(recover(&folder.vault(), &folder.identity, &aside, None).unwrap().1.version, 1);
}
