use std::{fs, os::unix::fs::PermissionsExt, sync::Arc};

use super::*;
use crate::vault::{elsewhere::Elsewhere, source::Reason};

const KEY: &str = "AGE-SECRET-KEY-1GQ9778VQXMMJVE8SK7J6VT8UJ4HDQAJUVSFCWCM02D8GEWQ72PVQ2Y5J33";

#[test]
fn one_identity_with_comments_is_found() {
    for text in [KEY.to_owned(), format!("# made today\r\n\r\n{KEY}\r\n# end\n"), KEY.to_lowercase()] {
        let key = parse(text.as_bytes()).unwrap();
        assert_eq!(key.to_string().expose_secret(), KEY);
    }
}

#[test]
fn none_two_and_anything_else_are_refused_without_being_repeated() {
    assert_eq!(parse(b"# only\n\n").err(), Some(Fault::None));
    assert_eq!(parse(format!("{KEY}\n\n{KEY}").as_bytes()).err(), Some(Fault::Several { line: 3 }));
    assert_eq!(parse(b"#\nsk-live-123").err(), Some(Fault::Unknown { line: 2 }));
    assert_eq!(parse(&[0xff, b'\n']).err(), Some(Fault::Unknown { line: 1 }));
    let fault = Error::Unfit { place: "env:X".into(), fault: Fault::Unknown { line: 2 } };
    assert!(!fault.to_string().contains("sk-live"));
}

#[test]
fn a_created_identity_is_private_loads_again_and_is_never_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("identity");
    let made = Identity::create(&path).unwrap();
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o7777, 0o600);
    let before = fs::read(&path).unwrap();
    assert_eq!(Identity::load(&Reference::file(path.clone())).unwrap().recipient(), made.recipient());
    assert!(matches!(Identity::create(&path), Err(Error::Unwritable { .. })));
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[test]
fn an_identity_that_others_may_read_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("identity");
    Identity::create(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o604)).unwrap();
    let refused = Identity::load(&Reference::file(path)).unwrap_err();
    assert!(matches!(refused, Error::File(source::file::Error::Refused { .. })), "{refused}");
}

#[test]
fn debug_shows_the_public_half_only() {
    let identity = Identity::new(KEY.parse().unwrap()).unwrap();
    assert_eq!(format!("{identity:?}"), format!("Identity({})", identity.recipient()));
}

#[test]
fn the_mac_keys_differ() {
    let identity = Identity::new(KEY.parse().unwrap()).unwrap();
    let Macs { document, generation, proof, aside } = identity.macs().unwrap();
    let tags: Vec<_> =
        [document, generation, proof, aside].map(|key| hmac::sign(key, b"same").as_ref().to_vec()).into();
    for (index, tag) in tags.iter().enumerate() {
        assert!(!tags[..index].contains(tag));
    }
}

fn nobody() -> Result<Passphrase, Error> {
    Err(Error::NoPassphrase { place: "here".into() })
}

fn passphrase(text: &str) -> Passphrase {
    Passphrase::new(text.to_owned())
}

#[test]
fn an_identity_is_sealed_with_a_passphrase_and_stays_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("identity");
    let reference = Reference::file(path.clone());
    let made = Identity::create(&path).unwrap();
    let plain = fs::read(&path).unwrap();
    protect(&path, &nobody, Some(&passphrase("correct horse"))).unwrap();
    let sealed = fs::read(&path).unwrap();
    assert!(sealed.starts_with(b"-----BEGIN AGE ENCRYPTED FILE-----"));
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o7777, 0o600);

    assert!(matches!(Identity::load(&reference), Err(Error::NoPassphrase { .. })));
    let wrong = Identity::load_with(&reference, &|| Ok(passphrase("battery staple")));
    assert!(matches!(wrong, Err(Error::Unfit { fault: Fault::WrongPassphrase, .. })));
    let right = Identity::load_with(&reference, &|| Ok(passphrase("correct horse"))).unwrap();
    assert_eq!(right.recipient(), made.recipient());

    assert!(protect(&path, &|| Ok(passphrase("battery staple")), None).is_err());
    assert_eq!(fs::read(&path).unwrap(), sealed);
    protect(&path, &|| Ok(passphrase("correct horse")), None).unwrap();
    assert_eq!(fs::read(&path).unwrap(), plain);
}

#[test]
fn a_configured_vault_names_the_passphrase_of_its_identity() {
    let folder = tempfile::tempdir().unwrap();
    let (path, secret) = (folder.path().join("identity"), folder.path().join("passphrase"));
    let made = Identity::create_sealed(&path, Some(&passphrase("correct horse"))).unwrap();
    let mut vault = VaultFile {
        path: folder.path().join("vault"),
        identity: Reference::file(path),
        passphrase: None,
        elsewhere: Elsewhere::nowhere(),
    };
    assert!(matches!(Identity::of(&vault), Err(Error::NoPassphrase { .. })));
    vault.passphrase = Some(Reference::file(secret.clone()));
    for (content, fits) in [("correct horse\n", true), ("correct horse\n\n", false), ("\n", false)] {
        fs::write(&secret, content).unwrap();
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(Identity::of(&vault).is_ok(), fits, "{content:?}");
    }
    fs::write(&secret, "correct horse").unwrap();
    assert_eq!(Identity::of(&vault).unwrap().recipient(), made.recipient());
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(matches!(Identity::of(&vault), Err(Error::File(source::file::Error::Refused { .. }))));
}

#[test]
fn text_from_anywhere_else_becomes_an_identity_too() {
    let identity = Identity::unlock("openbao:secret/mx#identity", KEY.as_bytes(), &nobody).unwrap();
    assert_eq!(identity.recipient(), Identity::new(KEY.parse().unwrap()).unwrap().recipient());
    let refused = Identity::unlock("openbao:secret/mx#identity", b"nonsense", &nobody).unwrap_err();
    assert!(refused.to_string().starts_with("openbao:secret/mx#identity is not usable: line 1"), "{refused}");
}

#[test]
fn identity_and_passphrase_come_from_whoever_reads_them() {
    let sealed = passphrase::seal(KEY.as_bytes(), &passphrase("correct horse")).unwrap();
    let (identity, passphrase) = ("env:IDENTITY".parse().unwrap(), "env:PASSPHRASE".parse().unwrap());
    let vault = VaultFile {
        path: "/vault.age".into(),
        identity,
        passphrase: Some(passphrase),
        elsewhere: Elsewhere::nowhere(),
    };
    let elsewhere = |reference: &Reference| match reference.to_string().as_str() {
        "env:IDENTITY" => Ok(Zeroizing::new(sealed.clone())),
        _ => Ok(Zeroizing::new(b"correct horse\n".to_vec())),
    };
    let identity = Identity::read_by(&elsewhere, &vault).unwrap();
    assert_eq!(identity.recipient(), Identity::new(KEY.parse().unwrap()).unwrap().recipient());
    let down = |reference: &Reference| {
        let source = Arc::new(source::Error::unreachable(Reason::Unreachable, "connection refused"));
        Err(Error::Source { reference: reference.clone(), source })
    };
    assert!(matches!(Identity::read_by(&down, &vault), Err(Error::Source { .. })));
}

#[test]
fn an_ssh_key_that_is_broken_or_of_another_kind_is_refused() {
    for text in ["-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n", "-----BEGIN CERTIFICATE-----\n"] {
        let refused = Identity::unlock("here", text.as_bytes(), &nobody).unwrap_err();
        assert!(matches!(refused, Error::Unfit { fault: Fault::NoSshKey, .. }), "{refused}");
    }
}
