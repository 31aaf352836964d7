use std::{os::unix::fs::PermissionsExt, path::PathBuf, thread};

use super::*;
use crate::vault::source::file;

mod recipients;
mod version_1;

struct Folder {
    folder: tempfile::TempDir,
    identity: Identity,
}

impl Folder {
    /// A vault with one entry, at generation 2.
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let identity = Identity::create(&folder.path().join("identity")).unwrap();
        let this = Self { folder, identity };
        create(&this.vault(), &this.identity).unwrap();
        this.set("production/api_key", "first-value").unwrap();
        this
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn vault(&self) -> PathBuf {
        self.path("vault.age")
    }

    fn set(&self, name: &str, value: &str) -> Result<Entry, Error> {
        set(&self.vault(), &self.identity, name, secret(value), None)
    }

    fn open(&self) -> Result<Opened, Error> {
        open(&self.vault(), &self.identity)
    }

    /// Encrypts as anybody can who knows the recipient.
    fn plant(&self, path: &Path, plaintext: &[u8]) {
        let member = Member::new(self.identity.recipient().clone(), String::new());
        fs::write(path, document::encrypt([member].iter(), plaintext).unwrap()).unwrap();
    }

    fn identity(&self, name: &str) -> Identity {
        Identity::create(&self.path(name)).unwrap()
    }

    /// Every way to use the vault fails with `expected`, and the file stays as it is.
    fn assert_unusable(&self, expected: fn(&Error) -> bool) {
        let before = fs::read(self.vault()).ok();
        let answers = [
            self.open().map(drop),
            self.set("production/other", "other-value").map(drop),
            remove(&self.vault(), &self.identity, "production/api_key"),
            backup(&self.vault(), &self.identity, &self.path("backup")).map(drop),
        ];
        for answer in answers {
            let error = answer.unwrap_err();
            assert!(expected(&error), "{error:?}");
        }
        assert_eq!(fs::read(self.vault()).ok(), before);
    }
}

fn secret(text: &str) -> Secret {
    Secret::new(text.into()).unwrap()
}

#[test]
fn set_raises_versions_and_generation_and_keeps_hosts() {
    let folder = Folder::new();
    let hosts = Some(vec!["other.example".to_owned()]);
    set(&folder.vault(), &folder.identity, "production/api_key", secret("second-value"), hosts).unwrap();
    assert_eq!(folder.set("production/api_key", "third-value").unwrap().version, 3);
    let opened = folder.open().unwrap();
    let entry = &opened.entries["production/api_key"];
    assert_eq!((opened.generation, entry.version), (4, 3));
    assert_eq!(entry.hosts, ["other.example"]);
    assert!(*entry.secret == secret("third-value"));
}

#[test]
fn a_new_entry_needs_hosts_and_a_usable_name() {
    let folder = Folder::new();
    assert!(matches!(folder.set("other/key", "some-value"), Err(Error::NoHosts { .. })));
    let none = set(&folder.vault(), &folder.identity, "sandbox/key", secret("some-value"), Some(vec![]));
    assert!(matches!(none, Err(Error::NoHosts { .. })));
    for name in ["", "a b", "a:b", &"x".repeat(NAME_BYTES_MAX + 1)] {
        assert!(matches!(folder.set(name, "some-value"), Err(Error::BadName)), "{name}");
    }
    folder.set("sandbox/key", "some-value").unwrap();
    assert_eq!(folder.open().unwrap().entries["sandbox/key"].hosts, ["int-api.mx.com"]);
}

#[test]
fn remove_takes_an_entry_away_and_refuses_one_that_is_not_there() {
    let folder = Folder::new();
    remove(&folder.vault(), &folder.identity, "production/api_key").unwrap();
    assert!(folder.open().unwrap().entries.is_empty());
    let again = remove(&folder.vault(), &folder.identity, "production/api_key");
    assert!(matches!(again, Err(Error::NoEntry { .. })));
    assert_eq!(folder.open().unwrap().generation, 3, "a change that failed writes nothing");
}

#[test]
fn an_update_changes_several_entries_in_one_write_or_none() {
    let folder = Folder::new();
    let swap = |entries: &mut Entries<'_>| -> Result<u64, Error> {
        let old = Arc::clone(&entries.get("production/api_key").unwrap().secret);
        entries.put("production/api_key", Arc::new(secret("second-value")), None)?;
        entries.put("production/secondary", old, Some(vec!["api.mx.com".into()]))?;
        Ok(entries.note("rotation/production", Arc::new(secret(r#"{"step":"made"}"#)))?.version)
    };
    let stale = update(&folder.vault(), &folder.identity, Some(1), swap);
    assert!(matches!(stale, Err(Error::Moved { expected: 1, found: 2 })));
    assert_eq!(folder.open().unwrap().entries.len(), 1);
    assert_eq!(update(&folder.vault(), &folder.identity, Some(2), swap).unwrap(), (3, 1));

    let opened = folder.open().unwrap();
    assert_eq!(opened.generation, 3);
    let entry = |name: &str| &opened.entries[name];
    assert!(*entry("production/api_key").secret == secret("second-value"));
    assert_eq!((entry("production/api_key").version, entry("production/secondary").version), (2, 1));
    assert!(*entry("production/secondary").secret == secret("first-value"));
    assert!(entry("rotation/production").hosts.is_empty());

    let failed = update(&folder.vault(), &folder.identity, None, |entries| {
        entries.remove("production/api_key")?;
        entries.remove("production/none")
    });
    assert!(matches!(failed, Err(Error::NoEntry { .. })));
    assert_eq!(folder.open().unwrap().generation, 3, "nothing was written");
}

#[test]
fn what_an_update_puts_in_can_be_read_again() {
    let folder = Folder::new();
    let put = |name: &str, host: &str| {
        update(&folder.vault(), &folder.identity, None, |entries| {
            entries.put(name, Arc::new(secret("some-value")), Some(vec![host.into()])).map(drop)
        })
    };
    assert!(matches!(put("a b", "a.example"), Err(Error::BadName)));
    assert!(matches!(put("partner", "A.example"), Err(Error::BadHost { .. })));
    put("partner", "a.example").unwrap();
    assert!(folder.open().is_ok());
}

#[test]
fn create_overwrites_neither_a_vault_nor_the_trace_of_one() {
    let folder = Folder::new();
    let before = fs::read(folder.vault()).unwrap();
    assert!(matches!(create(&folder.vault(), &folder.identity), Err(Error::Exists { .. })));
    assert_eq!(fs::read(folder.vault()).unwrap(), before);
    fs::remove_file(folder.vault()).unwrap();
    assert!(matches!(create(&folder.vault(), &folder.identity), Err(Error::Leftover { .. })));
    fs::remove_file(folder.path("vault.age.generation")).unwrap();
    create(&folder.vault(), &folder.identity).unwrap();
}

#[test]
fn an_absent_vault_says_so() {
    let folder = Folder::new();
    fs::remove_file(folder.vault()).unwrap();
    folder.assert_unusable(|error| matches!(error, Error::Absent { .. }));
}

#[test]
fn a_damaged_vault_is_not_used_and_not_touched() {
    let folder = Folder::new();
    let half = fs::read(folder.vault()).unwrap();
    fs::write(folder.vault(), &half[..half.len() / 2]).unwrap();
    folder.assert_unusable(|error| matches!(error, Error::Unsound { source: Fault::Damaged, .. }));
}

#[test]
fn a_vault_of_another_identity_is_not_used_and_not_touched() {
    let folder = Folder::new();
    let other = Folder::new();
    fs::copy(other.vault(), folder.vault()).unwrap();
    folder.assert_unusable(|error| matches!(error, Error::Unsound { source: Fault::WrongIdentity, .. }));
}

#[test]
fn a_vault_of_a_newer_format_is_not_used_and_not_touched() {
    let folder = Folder::new();
    folder.plant(&folder.vault(), br#"{"format":"mxgate-vault","version":9}"#);
    folder.assert_unusable(|error| {
        matches!(error, Error::Unsound { source: Fault::NewerFormat { found: 9 }, .. })
    });
}

#[test]
fn an_older_vault_is_not_used_and_not_touched() {
    let folder = Folder::new();
    let yesterday = fs::read(folder.vault()).unwrap();
    folder.set("production/api_key", "second-value").unwrap();
    fs::write(folder.vault(), yesterday).unwrap();
    folder.assert_unusable(|error| matches!(error, Error::Older { generation: 2, seen: 3, .. }));
}

#[test]
fn a_planted_last_seen_file_is_not_believed() {
    let folder = Folder::new();
    let other = Folder::new();
    fs::copy(other.path("vault.age.generation"), folder.path("vault.age.generation")).unwrap();
    folder
        .assert_unusable(|error| matches!(error, Error::LastSeen { source: generation::Error::Forged, .. }));
}

#[test]
fn a_vault_that_is_too_large_or_that_others_may_write_is_not_used() {
    let folder = Folder::new();
    fs::set_permissions(folder.vault(), fs::Permissions::from_mode(0o620)).unwrap();
    folder.assert_unusable(|error| matches!(error, Error::File(file::Error::Refused { .. })));
    fs::set_permissions(folder.vault(), fs::Permissions::from_mode(0o640)).unwrap();
    assert!(folder.open().is_ok());
    fs::write(folder.vault(), vec![0; BYTES_MAX + 1]).unwrap();
    folder.assert_unusable(|error| matches!(error, Error::File(file::Error::TooLarge { .. })));
}

#[test]
fn first_use_is_noticed_once() {
    let folder = Folder::new();
    assert!(folder.open().unwrap().notices.is_empty());
    fs::remove_file(folder.path("vault.age.generation")).unwrap();
    assert!(matches!(folder.open().unwrap().notices[..], [Notice::FirstUse { generation: 2, .. }]));
    assert!(folder.open().unwrap().notices.is_empty());
}

#[test]
fn a_crash_between_vault_and_last_seen_file_is_healed_by_the_next_reader() {
    let folder = Folder::new();
    let last_seen = fs::read(folder.path("vault.age.generation")).unwrap();
    let before = fs::read(folder.vault()).unwrap();
    folder.set("production/api_key", "second-value").unwrap();
    fs::write(folder.path("vault.age.generation"), last_seen).unwrap();
    assert_eq!(folder.open().unwrap().generation, 3);
    fs::write(folder.vault(), before).unwrap();
    folder.assert_unusable(|error| matches!(error, Error::Older { seen: 3, .. }));
}

#[test]
fn a_generation_that_cannot_be_noted_is_a_notice() {
    let folder = Folder::new();
    fs::remove_file(folder.path("vault.age.generation")).unwrap();
    fs::remove_file(folder.path("vault.age.lock")).unwrap();
    // A folder in the lock's place: it cannot be opened for writing, by root neither.
    fs::create_dir(folder.path("vault.age.lock")).unwrap();
    let notices = folder.open().unwrap().notices;
    assert!(matches!(notices[..], [Notice::NotKept { generation: 2, .. }]), "{notices:?}");
}

#[test]
fn a_backup_restores_past_every_generation_that_was_seen() {
    let folder = Folder::new();
    let copy = folder.path("backup.age");
    assert_eq!(backup(&folder.vault(), &folder.identity, &copy).unwrap().generation, 2);
    assert_eq!(copy.metadata().unwrap().permissions().mode() & 0o7777, 0o600);
    assert!(matches!(backup(&folder.vault(), &folder.identity, &copy), Err(Error::Exists { .. })));
    folder.set("production/api_key", "second-value").unwrap();

    let refused = restore(&folder.vault(), &folder.identity, &copy, false);
    assert!(matches!(refused, Err(Error::PresentNewer { present: 3, backup: 2 })));
    assert!(*folder.open().unwrap().entries["production/api_key"].secret == secret("second-value"));

    assert_eq!(restore(&folder.vault(), &folder.identity, &copy, true).unwrap().generation, 4);
    let opened = folder.open().unwrap();
    assert!(*opened.entries["production/api_key"].secret == secret("first-value"));
    assert_eq!(opened.generation, 4);
}

#[test]
fn a_lost_vault_is_restored_and_a_damaged_one_only_by_force() {
    let folder = Folder::new();
    let copy = folder.path("backup.age");
    backup(&folder.vault(), &folder.identity, &copy).unwrap();
    folder.set("production/api_key", "second-value").unwrap();
    fs::remove_file(folder.vault()).unwrap();
    assert_eq!(restore(&folder.vault(), &folder.identity, &copy, false).unwrap().generation, 4);
    fs::write(folder.vault(), "damaged").unwrap();
    let refused = restore(&folder.vault(), &folder.identity, &copy, false);
    assert!(matches!(refused, Err(Error::PresentUnusable { .. })));
    assert_eq!(fs::read(folder.vault()).unwrap(), b"damaged");
    assert_eq!(restore(&folder.vault(), &folder.identity, &copy, true).unwrap().generation, 5);
    assert!(folder.open().is_ok());
}

#[test]
fn a_forged_backup_is_not_restored_even_by_force() {
    let folder = Folder::new();
    let plaintext = folder.identity.decrypt(&fs::read(folder.vault()).unwrap()).unwrap();
    let forged = String::from_utf8(plaintext.to_vec()).unwrap().replace("api.mx.com", "evil.example");
    folder.plant(&folder.path("forged"), forged.as_bytes());
    let refused = restore(&folder.vault(), &folder.identity, &folder.path("forged"), true);
    assert!(matches!(refused, Err(Error::Unsound { source: Fault::Forged, .. })));
    assert!(folder.open().is_ok());
}

#[test]
fn two_threads_that_write_fifty_entries_each_lose_none_and_readers_never_fail() {
    let folder = Folder::new();
    thread::scope(|scope| {
        let writers = ["a", "b"].map(|writer| {
            let folder = &folder;
            scope.spawn(move || {
                for number in 0..50 {
                    folder.set(&format!("production/{writer}{number}"), "some-value").unwrap();
                }
            })
        });
        while !writers.iter().all(thread::ScopedJoinHandle::is_finished) {
            folder.open().unwrap();
        }
    });
    let opened = folder.open().unwrap();
    assert_eq!(opened.entries.len(), 101);
    assert_eq!(opened.generation, 102);
}

#[test]
fn behind_a_symbolic_link_the_same_vault_has_the_same_last_seen_file_and_stays_behind_it() {
    let folder = Folder::new();
    let link = folder.path("link");
    std::os::unix::fs::symlink(folder.vault(), &link).unwrap();
    set(&link, &folder.identity, "production/other", secret("other-value"), None).unwrap();
    assert!(link.is_symlink());
    assert!(!folder.path("link.generation").exists());
    assert_eq!(folder.open().unwrap().entries.len(), 2);
}
