//! Several recipients: who opens the vault, who can write it, and who cannot any more.

use super::{member::MEMBERS_MAX, *};

fn rekeyed(folder: &Folder, change: &Change<'_>) -> Result<Vec<Member>, Error> {
    rekey(&folder.vault(), &folder.identity, change)
}

fn joining(identity: &Identity) -> Change<'_> {
    Change { join: vec![identity], ..Change::default() }
}

fn removing(identity: &Identity) -> Change<'static> {
    Change { remove: vec![identity.recipient().clone()], ..Change::default() }
}

fn author(folder: &Folder) -> AuthorId {
    folder.open().unwrap().author().unwrap()
}

/// What a removed recipient, who kept what it once opened, can make: a vault with the author of that time.
fn forged_by(old: Document, folder: &Folder) -> Vec<u8> {
    let mut document = old;
    document.generation = 1000;
    document.entries.clear();
    document.authors.renew().unwrap();
    document.members.retain(|member| member.recipient == *folder.identity.recipient());
    document.seal(&[]).unwrap()
}

#[test]
fn rekey_moves_every_entry_to_the_new_identity_and_away_from_the_old() {
    let folder = Folder::new();
    let new = folder.identity("new");
    let before = author(&folder);
    let members = rekeyed(&folder, &Change { replace: Some(&new), ..Change::default() }).unwrap();
    assert_eq!(members.len(), 1);
    let opened = open(&folder.vault(), &new).unwrap();
    assert!(*opened.entries["production/api_key"].secret == secret("first-value"));
    assert!(opened.notices.is_empty());
    assert!(opened.authors.contains(&before) && opened.author() != Some(before));
    folder.assert_unusable(|error| matches!(error, Error::Unsound { source: Fault::WrongIdentity, .. }));
    let again = rekey(&folder.vault(), &new, &Change { replace: Some(&new), ..Change::default() });
    assert!(matches!(again, Err(Error::SameIdentity)));
}

#[test]
fn a_crash_in_the_middle_of_rekey_leaves_a_vault_that_opens() {
    let folder = Folder::new();
    let new = folder.identity("new");
    let last_seen = fs::read(folder.path("vault.age.generation")).unwrap();
    rekeyed(&folder, &Change { replace: Some(&new), ..Change::default() }).unwrap();
    // The vault was written, and what is seen here was not yet.
    fs::write(folder.path("vault.age.generation"), last_seen).unwrap();
    assert_eq!(open(&folder.vault(), &new).unwrap().generation, 3);
}

#[test]
fn everybody_who_opens_the_vault_also_writes_it() {
    let folder = Folder::new();
    let recovery = folder.identity("recovery");
    rekeyed(&folder, &joining(&recovery)).unwrap();
    set(&folder.vault(), &recovery, "production/other", secret("other-value"), None).unwrap();
    folder.set("production/api_key", "second-value").unwrap();
    let opened = open(&folder.vault(), &recovery).unwrap();
    assert_eq!((opened.entries.len(), opened.generation), (2, 5));
    assert!(opened.members.iter().all(Member::has_accepted));
}

#[test]
fn who_was_removed_opens_the_new_file_no_more_and_the_rest_still_do() {
    let folder = Folder::new();
    let (gone, recovery) = (folder.identity("gone"), folder.identity("recovery"));
    rekeyed(&folder, &Change { join: vec![&gone, &recovery], ..Change::default() }).unwrap();
    let before = author(&folder);
    rekeyed(&folder, &removing(&gone)).unwrap();
    let refused = open(&folder.vault(), &gone).unwrap_err();
    assert!(matches!(refused, Error::Unsound { source: Fault::WrongIdentity, .. }));
    assert_ne!(author(&folder), before);
    // It has not written since, so it follows from the old author to the new one.
    assert!(open(&folder.vault(), &recovery).is_ok());
}

#[test]
fn a_vault_that_a_removed_recipient_forges_is_refused_by_who_saw_the_removal() {
    let folder = Folder::new();
    let gone = folder.identity("gone");
    rekeyed(&folder, &joining(&gone)).unwrap();
    let kept = load(&folder.vault(), &gone).unwrap().document;
    rekeyed(&folder, &removing(&gone)).unwrap();
    fs::write(folder.vault(), forged_by(kept, &folder)).unwrap();
    folder.assert_unusable(|error| matches!(error, Error::OtherVault { .. }));
}

#[test]
fn a_vault_that_a_removed_recipient_forges_is_refused_by_an_identity_that_is_new_since() {
    let folder = Folder::new();
    let (gone, new) = (folder.identity("gone"), folder.identity("new"));
    rekeyed(&folder, &joining(&gone)).unwrap();
    let mut kept = load(&folder.vault(), &gone).unwrap().document;
    let change = Change { replace: Some(&new), ..removing(&gone) };
    rekeyed(&folder, &change).unwrap();
    let now = kept.members[0].added.clone();
    kept.members =
        vec![Member { proof: kept.members[0].proof.clone(), ..Member::new(new.recipient().clone(), now) }];
    fs::write(folder.vault(), kept.seal(&[]).unwrap()).unwrap();
    // Also when nothing is remembered here.
    fs::remove_file(folder.path("vault.age.generation")).unwrap();
    let refused = open(&folder.vault(), &new).unwrap_err();
    assert!(matches!(refused, Error::Unsound { source: Fault::Forged, .. }), "{refused}");
}

#[test]
fn a_running_process_refuses_another_author_without_a_last_seen_file() {
    let folder = Folder::new();
    let gone = folder.identity("gone");
    rekeyed(&folder, &joining(&gone)).unwrap();
    let kept = load(&folder.vault(), &gone).unwrap().document;
    rekeyed(&folder, &removing(&gone)).unwrap();
    let running = folder.open().unwrap();
    fs::write(folder.vault(), forged_by(kept, &folder)).unwrap();
    fs::remove_file(folder.path("vault.age.generation")).unwrap();
    // What nobody can help: a new process, which knows nothing of the removal, believes it.
    let forged = folder.open().unwrap();
    assert!(matches!(forged.check_follows(&running, &folder.vault()), Err(Error::OtherVault { .. })));
    assert!(running.check_follows(&running, &folder.vault()).is_ok());
}

#[test]
fn another_vault_of_the_same_identity_is_not_taken_for_this_one() {
    let folder = Folder::new();
    let other = folder.path("other.age");
    create(&other, &folder.identity).unwrap();
    for name in ["a", "b", "c"] {
        set(&other, &folder.identity, &format!("sandbox/{name}"), secret("some-value"), None).unwrap();
    }
    fs::copy(&other, folder.vault()).unwrap();
    folder.assert_unusable(|error| matches!(error, Error::OtherVault { .. }));
}

#[test]
fn the_identity_in_use_is_not_removed_and_nobody_is_added_twice_or_removed_without_being_there() {
    let folder = Folder::new();
    let (other, stranger) = (folder.identity("other"), folder.identity("stranger"));
    rekeyed(&folder, &joining(&other)).unwrap();
    assert!(matches!(rekeyed(&folder, &removing(&folder.identity)), Err(Error::RemovesInUse)));
    assert!(matches!(rekeyed(&folder, &joining(&other)), Err(Error::AlreadyRecipient { .. })));
    assert!(matches!(rekeyed(&folder, &removing(&stranger)), Err(Error::NoRecipient { .. })));
    assert_eq!(folder.open().unwrap().generation, 3, "a change that failed writes nothing");
    // Somebody else may.
    rekey(&folder.vault(), &other, &removing(&folder.identity)).unwrap();
}

#[test]
fn the_number_of_recipients_is_bounded() {
    let folder = Folder::new();
    let add: Vec<Recipient> =
        (0..MEMBERS_MAX).map(|number| folder.identity(&number.to_string()).recipient().clone()).collect();
    let few = Change { add: add[1..].to_vec(), ..Change::default() };
    let many = rekeyed(&folder, &Change { add, ..Change::default() });
    assert!(matches!(many, Err(Error::TooManyRecipients)));
    assert_eq!(rekeyed(&folder, &few).unwrap().len(), MEMBERS_MAX);
}

#[test]
fn who_was_added_by_its_public_half_accepts_the_author_once() {
    let folder = Folder::new();
    let added = folder.identity("added");
    let change = Change { add: vec![added.recipient().clone()], ..Change::default() };
    rekeyed(&folder, &change).unwrap();
    let reload = || Identity::load(&Reference::file(folder.path("added"))).unwrap();
    for refused in [open(&folder.vault(), &added).map(drop), accept(&folder.vault(), &added)] {
        assert!(matches!(refused, Err(Error::Unsound { source: Fault::Unproven, .. })));
    }
    accept(&folder.vault(), &reload().trusting(Trust::Author(author(&folder)))).unwrap();
    assert!(open(&folder.vault(), &reload()).is_ok());
    assert!(folder.open().unwrap().members.iter().all(Member::has_accepted));
}

#[test]
fn a_lost_vault_is_restored_with_the_recovery_key_alone() {
    let folder = Folder::new();
    let recovery = folder.identity("recovery");
    rekeyed(&folder, &joining(&recovery)).unwrap();
    let copy = folder.path("copy.age");
    backup(&folder.vault(), &folder.identity, &copy).unwrap();
    for name in ["identity", "vault.age", "vault.age.generation", "vault.age.lock"] {
        fs::remove_file(folder.path(name)).unwrap();
    }
    let restored = restore(&folder.vault(), &recovery, &copy, false).unwrap();
    assert!(restored.members_of_backup && restored.members.len() == 2);
    let gateway = folder.identity("gateway");
    let change = Change { join: vec![&gateway], ..removing(&folder.identity) };
    rekey(&folder.vault(), &recovery, &change).unwrap();
    let opened = open(&folder.vault(), &gateway).unwrap();
    assert!(*opened.entries["production/api_key"].secret == secret("first-value"));
}

#[test]
fn a_backup_from_before_a_removal_does_not_bring_the_removed_back() {
    let folder = Folder::new();
    let gone = folder.identity("gone");
    rekeyed(&folder, &joining(&gone)).unwrap();
    let copy = folder.path("copy.age");
    backup(&folder.vault(), &folder.identity, &copy).unwrap();
    rekeyed(&folder, &removing(&gone)).unwrap();
    let present = author(&folder);
    let restored = restore(&folder.vault(), &folder.identity, &copy, true).unwrap();
    assert!(!restored.members_of_backup && restored.members.len() == 1);
    assert_eq!(author(&folder), present);
    assert!(open(&folder.vault(), &gone).is_err());
    // The vault lost, nothing but the last-seen file tells of the removal: that takes an operator's word.
    fs::remove_file(folder.vault()).unwrap();
    let refused = restore(&folder.vault(), &folder.identity, &copy, false).unwrap_err();
    let Error::PresentUnusable { source } = refused else { panic!("{refused}") };
    assert!(matches!(*source, Error::OtherVault { .. }));
    assert!(restore(&folder.vault(), &folder.identity, &copy, true).unwrap().members_of_backup);
}

#[test]
fn a_recovery_file_opens_for_every_recipient_and_becomes_an_entry() {
    let folder = Folder::new();
    let recovery = folder.identity("recovery");
    rekeyed(&folder, &joining(&recovery)).unwrap();
    let opened = folder.open().unwrap();
    let aside = folder.path("aside.age");
    let seal = |name: &str, hosts| opened.seal_aside(&aside, name, Arc::new(secret("rescued-value")), hosts);
    assert!(matches!(seal("a b", None), Err(Error::BadName)));
    assert!(matches!(seal("partner", None), Err(Error::NoHosts { .. })));
    // Of the vault itself nothing is needed.
    fs::rename(folder.vault(), folder.path("away")).unwrap();
    seal("production/secondary", None).unwrap();
    assert!(matches!(seal("production/secondary", None), Err(Error::Exists { .. })));
    assert_eq!(aside.metadata().unwrap().permissions().mode() & 0o7777, 0o600);
    fs::rename(folder.path("away"), folder.vault()).unwrap();

    let (name, entry) = recover(&folder.vault(), &recovery, &aside, None).unwrap();
    assert_eq!((name.as_str(), entry.version), ("production/secondary", 1));
    assert_eq!(entry.hosts, ["api.mx.com"]);
    assert!(*folder.open().unwrap().entries["production/secondary"].secret == secret("rescued-value"));
    let (name, entry) = recover(&folder.vault(), &recovery, &aside, Some("production/api_key")).unwrap();
    assert_eq!((name.as_str(), entry.version), ("production/api_key", 2));
}

#[test]
fn a_recovery_file_is_still_believed_after_a_removal_and_one_of_another_vault_never() {
    let folder = Folder::new();
    let (gone, aside) = (folder.identity("gone"), folder.path("aside.age"));
    rekeyed(&folder, &joining(&gone)).unwrap();
    let opened = folder.open().unwrap();
    opened.seal_aside(&aside, "production/key", Arc::new(secret("rescued-value")), None).unwrap();
    rekeyed(&folder, &removing(&gone)).unwrap();
    recover(&folder.vault(), &folder.identity, &aside, None).unwrap();

    let other = folder.path("other.age");
    create(&other, &folder.identity).unwrap();
    let before = fs::read(&other).unwrap();
    let refused = recover(&other, &folder.identity, &aside, None).unwrap_err();
    assert!(matches!(refused, Error::RecoveryFile { source: Fault::OtherAuthor, .. }), "{refused}");

    let plaintext = folder.identity.decrypt(&fs::read(&aside).unwrap()).unwrap();
    let text = String::from_utf8(plaintext.to_vec()).unwrap();
    let author = text.find("\"author\"").unwrap();
    for forged in [
        text.replace("api.mx.com", "evil.example"),
        text.replace(&text[author..author + 51], ""),
        text[..text.find(",\"mac\"").unwrap()].to_owned() + "}",
    ] {
        folder.plant(&aside, forged.as_bytes());
        let refused = recover(&folder.vault(), &folder.identity, &aside, None).unwrap_err();
        assert!(matches!(refused, Error::RecoveryFile { source: Fault::Forged, .. }), "{refused} {forged}");
    }
    assert_eq!(fs::read(&other).unwrap(), before);
}
