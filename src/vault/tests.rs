use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use super::{elsewhere::Elsewhere, gathered::Gathered, source::file::SECRET_BYTES_MAX, *};
use crate::config::{Config, overrides::Overrides};

const VALUE: &str = "canary-secret-value";

fn secret(text: &str) -> Secret {
    Secret::new(text.into()).unwrap()
}

fn vault(folder: &Path) -> (VaultFile, Identity) {
    let file = folder.join("identity");
    let identity = Identity::create(&file).unwrap();
    let config = VaultFile {
        path: folder.join("vault.age"),
        identity: Reference::file(file),
        passphrase: None,
        elsewhere: Elsewhere::nowhere(),
    };
    embedded::create(&config.path, &identity).unwrap();
    (config, identity)
}

/// A configuration with one secret.
pub(super) fn config(reference: &str, more: &str) -> Config {
    let text = format!(
        "allow = []\n[[listener]]\naddress = \"127.0.0.1:0\"\nenvironment = \"production\"\n\
         [environment.production]\n\
         credential = {{ kind = \"mx-api-key\", client_id = \"id\", api_key = \"{reference}\" }}\n{more}\n"
    );
    Config::parse(&text, "mxgate.toml", &Overrides::none()).unwrap().config
}

fn with_vault(folder: &Path) -> Config {
    let folder = folder.display();
    let table = format!(
        "[vault]\nkind = \"file\"\npath = \"{folder}/vault.age\"\nidentity = \"file:{folder}/identity\""
    );
    config("vault:production/api_key", &table)
}

/// What its one reference comes to.
fn read(config: &Config) -> Result<Resolved, Arc<Error>> {
    let reference = config.environments["production"].credential.reference().unwrap();
    Gathered::once(config).unwrap().resolve(reference)
}

fn read_file(path: &Path) -> Result<Resolved, Arc<Error>> {
    read(&config(&format!("file:{}", path.display()), ""))
}

#[test]
fn a_vault_entry_resolves_with_its_hosts_and_version() {
    let folder = tempfile::tempdir().unwrap();
    let (file, identity) = vault(folder.path());
    embedded::set(&file.path, &identity, "production/api_key", secret(VALUE), None).unwrap();
    let resolved = read(&with_vault(folder.path())).unwrap();
    assert!(*resolved.secret == secret(VALUE));
    assert_eq!(resolved.fingerprint, secret(VALUE).fingerprint());
    assert_eq!(resolved.version.as_deref(), Some("1"));
    assert_eq!(Vault::open(&file).unwrap().generation(), 2);
    assert_eq!(resolved.hosts, Some(vec!["api.mx.com".to_owned()]));
}

#[test]
fn an_entry_that_is_not_there_is_absent_and_a_vault_that_is_not_opened_is_not() {
    let folder = tempfile::tempdir().unwrap();
    vault(folder.path());
    let config = with_vault(folder.path());
    let error = read(&config).unwrap_err();
    assert_eq!(
        (error.reason(), error.to_string()),
        (Reason::Absent, "vault:production/api_key does not exist".into())
    );
    fs::write(folder.path().join("vault.age"), "age-encryption.org/v1\n").unwrap();
    let error = read(&config).unwrap_err();
    assert_eq!(error.reason(), Reason::Unreachable, "{error}");
    fs::remove_file(folder.path().join("vault.age")).unwrap();
    assert_eq!(read(&config).unwrap_err().reason(), Reason::Absent);
}

#[test]
fn a_file_resolves_without_its_newline_and_is_sealed_for_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    fs::write(&path, format!("{VALUE}\n")).unwrap();
    let resolved = read_file(&path).unwrap();
    assert!(*resolved.secret == secret(VALUE));
    assert_eq!((resolved.hosts.as_ref(), resolved.version.as_ref()), (None, None));
}

#[test]
fn a_field_of_a_file_resolves_and_each_fault_of_it_has_its_own_message() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key.json");
    let read = || read(&config(&format!("file:{}#api_key", path.display()), ""));
    fs::write(&path, format!("{{\"client\":\"x\",\"api_key\":\"{VALUE}\"}}\n")).unwrap();
    assert!(*read().unwrap().secret == secret(VALUE));
    for (text, reason, said) in [
        (VALUE, Reason::Malformed, "is no JSON object"),
        ("{\"other\":\"x\"}", Reason::Absent, "has no field of that name"),
        ("{\"api_key\":7}", Reason::Malformed, "that is no text"),
        ("{\"api_key\":\"\"}", Reason::Unfit, "is empty"),
        ("{\"api_key\":\"canary-\\u0000secret\"}", Reason::Unfit, "holds a control byte"),
        ("{\"api_key\":\"canary-sécret\"}", Reason::Unfit, "holds a byte outside ASCII"),
        ("{\"api_key\":\"canary\"}", Reason::Unfit, "is shorter than"),
    ] {
        fs::write(&path, text).unwrap();
        let error = read().unwrap_err();
        let told = chain(&*error);
        assert_eq!(error.reason(), reason, "{told}");
        assert!(told.contains(said), "{told}");
        assert!(told.contains(&format!("file:{}#api_key", path.display())), "{told}");
        assert!(!format!("{told} {error:?}").contains("canary"), "{told}");
    }
}

#[test]
fn an_absent_an_unreachable_and_an_unfit_file_are_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    let reason = || read_file(&path).unwrap_err().reason();
    assert_eq!(reason(), Reason::Absent);
    fs::write(&path, "").unwrap();
    assert!(matches!(*read_file(&path).unwrap_err(), Error::Unfit { source: Unfit::Empty, .. }));
    fs::write(&path, "short").unwrap();
    assert!(matches!(*read_file(&path).unwrap_err(), Error::Unfit { source: Unfit::TooShort, .. }));
    fs::write(&path, format!("{VALUE}\n\n")).unwrap();
    assert!(matches!(*read_file(&path).unwrap_err(), Error::Unfit { source: Unfit::ControlByte, .. }));
    fs::write(&path, vec![b'x'; SECRET_BYTES_MAX + 1]).unwrap();
    assert_eq!(reason(), Reason::TooLarge);
    fs::write(&path, VALUE).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
    let error = read_file(&path).unwrap_err();
    assert_eq!(error.reason(), Reason::Untrusted);
    assert!(!format!("{error} {error:?}").contains(VALUE));
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert_eq!(reason(), Reason::Unreachable, "a folder is no revocation");
}

#[test]
fn a_variable_resolves_and_one_that_is_not_set_is_absent() {
    let read = |reference| read(&config(reference, ""));
    // Cargo sets this one for every test.
    let resolved = read("env:CARGO_PKG_DESCRIPTION").unwrap();
    assert!(*resolved.secret == secret(env!("CARGO_PKG_DESCRIPTION")));
    assert_eq!(resolved.deadline.remaining(freshness::Moment::now()), None);
    assert_eq!(read("env:CARGO_PKG_NAME").unwrap_err().reason(), Reason::Unfit, "six letters are too short");
    assert_eq!(read("env:MXGATE_NO_SUCH_VARIABLE").unwrap_err().reason(), Reason::Absent);
}

#[test]
fn reopening_sees_a_change_and_refuses_an_older_vault_even_without_the_last_seen_file() {
    let folder = tempfile::tempdir().unwrap();
    let (config, identity) = vault(folder.path());
    let yesterday = fs::read(&config.path).unwrap();
    embedded::set(&config.path, &identity, "production/api_key", secret(VALUE), None).unwrap();
    let vault = Vault::open(&config).unwrap();
    assert_eq!(vault.reopen().unwrap().generation(), 2);
    fs::write(&config.path, yesterday).unwrap();
    fs::remove_file(folder.path().join("vault.age.generation")).unwrap();
    let error = vault.reopen().unwrap_err();
    assert!(
        matches!(error, Error::Embedded(embedded::Error::Older { generation: 1, seen: 2, .. })),
        "{error}"
    );
    // What that is for: a new process knows nothing.
    assert!(Vault::open(&config).is_ok());
}
