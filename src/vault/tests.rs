use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use super::*;

const VALUE: &str = "canary-secret-value";

fn secret(text: &str) -> Secret {
    Secret::new(text.into()).unwrap()
}

fn vault(folder: &Path) -> (VaultFile, Identity) {
    let file = folder.join("identity");
    let identity = Identity::create(&file).unwrap();
    let config =
        VaultFile { path: folder.join("vault.age"), identity: Reference::File(file), passphrase: None };
    embedded::create(&config.path, &identity).unwrap();
    (config, identity)
}

fn file_reference(path: &Path) -> Reference {
    Reference::File(path.to_owned())
}

#[test]
fn a_vault_entry_resolves_with_its_hosts_and_version() {
    let folder = tempfile::tempdir().unwrap();
    let (config, identity) = vault(folder.path());
    embedded::set(&config.path, &identity, "production/api_key", secret(VALUE), None).unwrap();
    let vault = Vault::open(Some(&config)).unwrap();
    let resolved = vault.resolve(&"vault:production/api_key".parse().unwrap()).unwrap();
    assert!(*resolved.secret == secret(VALUE));
    assert_eq!(resolved.fingerprint, secret(VALUE).fingerprint());
    assert_eq!((resolved.version, vault.generation()), (Some(1), Some(2)));
    assert!(resolved.allows("api.mx.com") && resolved.allows("API.MX.com"));
    assert!(!resolved.allows("int-api.mx.com") && !resolved.allows("api.mx.com.evil.example"));
}

#[test]
fn an_entry_that_is_not_there_is_absent() {
    let folder = tempfile::tempdir().unwrap();
    let vault = Vault::open(Some(&vault(folder.path()).0)).unwrap();
    let error = vault.resolve(&"vault:production/api_key".parse().unwrap()).unwrap_err();
    assert!(matches!(error, Error::Absent { .. }));
    assert_eq!(error.to_string(), "vault:production/api_key does not exist");
}

#[test]
fn without_a_vault_a_vault_reference_says_so() {
    let error = Vault::open(None).unwrap().resolve(&"vault:a".parse().unwrap()).unwrap_err();
    assert!(matches!(error, Error::NoVault { .. }));
}

#[test]
fn a_file_resolves_without_its_newline_and_is_sealed_for_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    fs::write(&path, format!("{VALUE}\n")).unwrap();
    let resolved = Vault::open(None).unwrap().resolve(&file_reference(&path)).unwrap();
    assert!(*resolved.secret == secret(VALUE));
    assert_eq!((resolved.hosts.as_ref(), resolved.version), (None, None));
    assert!(resolved.allows("anything.example"));
}

#[test]
fn an_absent_an_unreachable_and_an_unfit_file_are_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let vault = Vault::open(None).unwrap();
    let path = folder.path().join("key");
    let attempt = || vault.resolve(&file_reference(&path)).unwrap_err();
    assert!(matches!(attempt(), Error::Absent { .. }));
    fs::write(&path, "short").unwrap();
    assert!(matches!(attempt(), Error::Unfit { source: Unfit::TooShort, .. }));
    fs::write(&path, format!("{VALUE}\n\n")).unwrap();
    assert!(matches!(attempt(), Error::Unfit { source: Unfit::ControlByte, .. }));
    fs::write(&path, vec![b'x'; SECRET_BYTES_MAX + 1]).unwrap();
    assert!(matches!(attempt(), Error::Unreachable { .. }));
    fs::write(&path, VALUE).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
    let error = attempt();
    assert!(matches!(error, Error::Unreachable { .. }));
    assert!(!format!("{error} {error:?}").contains(VALUE));
}

#[test]
fn a_variable_resolves_and_one_that_is_not_set_is_absent() {
    let vault = Vault::open(None).unwrap();
    // Cargo sets this one for every test.
    let resolved = vault.resolve(&"env:CARGO_PKG_DESCRIPTION".parse().unwrap()).unwrap();
    assert!(*resolved.secret == secret(env!("CARGO_PKG_DESCRIPTION")));
    let unfit = vault.resolve(&"env:CARGO_PKG_NAME".parse().unwrap()).unwrap_err();
    assert!(matches!(unfit, Error::Unfit { .. }), "six letters are too short");
    let absent = vault.resolve(&"env:MXGATE_NO_SUCH_VARIABLE".parse().unwrap()).unwrap_err();
    assert!(matches!(absent, Error::Absent { .. }));
}

#[test]
fn reopening_sees_a_change_and_refuses_an_older_vault_even_without_the_last_seen_file() {
    let folder = tempfile::tempdir().unwrap();
    let (config, identity) = vault(folder.path());
    let yesterday = fs::read(&config.path).unwrap();
    embedded::set(&config.path, &identity, "production/api_key", secret(VALUE), None).unwrap();
    let vault = Vault::open(Some(&config)).unwrap();
    assert_eq!(vault.reopen().unwrap().generation(), Some(2));
    fs::write(&config.path, yesterday).unwrap();
    fs::remove_file(folder.path().join("vault.age.generation")).unwrap();
    let error = vault.reopen().unwrap_err();
    assert!(
        matches!(error, Error::Embedded(embedded::Error::Older { generation: 1, seen: 2, .. })),
        "{error}"
    );
    // What that is for: a new process knows nothing.
    assert!(Vault::open(Some(&config)).is_ok());
}
