use super::*;

const VALUE: &str = "canary-secret-value";

fn identity() -> Identity {
    let folder = tempfile::tempdir().unwrap();
    Identity::create(&folder.path().join("identity")).unwrap()
}

fn document() -> Document {
    let entry = Entry {
        secret: Arc::new(Secret::new(VALUE.into()).unwrap()),
        version: 2,
        created: timestamp(SystemTime::now()),
        updated: timestamp(SystemTime::now()),
        hosts: vec!["api.mx.com".into()],
    };
    Document { generation: 7, entries: BTreeMap::from([("production/api_key".into(), entry)]) }
}

/// Seals `document`, lets `change` edit the plaintext, and encrypts the result to the same recipient:
/// all that somebody without the identity can do.
fn tampered(identity: &Identity, change: impl FnOnce(String) -> String) -> Result<Document, Fault> {
    let plaintext = identity.decrypt(&document().seal(identity).unwrap()).unwrap();
    let changed = change(String::from_utf8(plaintext.to_vec()).unwrap());
    Document::open(&identity.encrypt(changed.as_bytes()).unwrap(), identity)
}

#[test]
fn what_was_sealed_is_what_is_opened() {
    let identity = identity();
    let opened = Document::open(&document().seal(&identity).unwrap(), &identity).unwrap();
    assert_eq!(opened.generation, 7);
    let (entry, sealed) = (&opened.entries["production/api_key"], &document().entries["production/api_key"]);
    assert_eq!(entry.secret, sealed.secret);
    assert_eq!((entry.version, &entry.hosts), (2, &sealed.hosts));
}

#[test]
fn a_changed_document_is_forged_and_an_unchanged_one_is_not() {
    let identity = identity();
    assert!(tampered(&identity, |text| text).is_ok());
    for (from, to) in [
        ("api.mx.com", "evil.example"),
        ("\"generation\":7", "\"generation\":8"),
        ("\"version\":2", "\"version\":3"),
        ("production/", "sandbox/"),
    ] {
        let answer = tampered(&identity, |text| {
            assert!(text.contains(from), "{from}");
            text.replace(from, to)
        });
        assert_eq!(answer.err(), Some(Fault::Forged), "{from}");
    }
}

#[test]
fn a_missing_or_foreign_mac_is_forged() {
    let (identity, other) = (identity(), self::identity());
    let without = tampered(&identity, |text| text[..text.find(",\"mac\"").unwrap()].to_owned() + "}");
    assert_eq!(without.err(), Some(Fault::Forged));
    // Right in itself, made by another identity, encrypted to this one.
    let foreign = other.decrypt(&document().seal(&other).unwrap()).unwrap();
    let planted = identity.encrypt(&foreign).unwrap();
    assert_eq!(Document::open(&planted, &identity).err(), Some(Fault::Forged));
}

#[test]
fn a_newer_format_is_named_whatever_else_it_holds() {
    let identity = identity();
    let newer = br#"{"format":"mxgate-vault","version":2,"shiny":[1]}"#;
    let answer = Document::open(&identity.encrypt(newer).unwrap(), &identity);
    assert_eq!(answer.err(), Some(Fault::NewerFormat { found: 2 }));
}

#[test]
fn another_plaintext_is_no_vault_and_is_not_quoted() {
    let identity = identity();
    for plaintext in [
        VALUE.to_owned(),
        format!(r#"{{"format":"{VALUE}","version":1}}"#),
        format!(r#"{{"format":"mxgate-vault","version":"{VALUE}"}}"#),
        format!(r#"{{"format":"mxgate-vault","version":1,"{VALUE}":1}}"#),
    ] {
        let fault = Document::open(&identity.encrypt(plaintext.as_bytes()).unwrap(), &identity).unwrap_err();
        assert!(matches!(fault, Fault::NotAVault { .. }), "{fault}");
        assert!(!fault.to_string().contains(VALUE));
    }
}

/// As [`tampered`], by somebody who has the identity: the MAC is right.
fn signed(identity: &Identity, change: impl FnOnce(String) -> String) -> Result<Document, Fault> {
    let plaintext = identity.decrypt(&document().seal(identity).unwrap()).unwrap();
    let changed = change(String::from_utf8(plaintext.to_vec()).unwrap());
    let mut wire: Wire<'_> = serde_json::from_str(&changed).unwrap();
    wire.mac = None;
    let right = BASE64.encode(mac(&wire, identity).unwrap());
    wire.mac = Some(&right);
    Document::open(&identity.encrypt(&to_json(&wire).unwrap()).unwrap(), identity)
}

#[test]
fn a_right_mac_does_not_excuse_a_senseless_document() {
    let identity = identity();
    assert!(signed(&identity, |text| text).is_ok());
    let doubled = |text: String| {
        let (from, to) = (text.find("{\"name\"").unwrap(), text.find("],\"mac\"").unwrap());
        format!("{},{}", &text[..to], &text[from..])
    };
    assert_eq!(signed(&identity, doubled).err(), Some(NOT_A_VAULT));
    for (from, to) in [
        ("api.mx.com", "API.mx.com"),
        ("production/api_key", "production api_key"),
        ("\"created\":\"20", "\"created\":\"x"),
        ("Y2FuYXJ5LXNlY3JldC12YWx1ZQ==", "c2hvcnQ="),
        ("Y2FuYXJ5LXNlY3JldC12YWx1ZQ==", "?"),
        (identity.recipient(), "age1other"),
    ] {
        let answer = signed(&identity, |text| {
            assert!(text.contains(from), "{from}");
            text.replace(from, to)
        });
        assert_eq!(answer.err(), Some(NOT_A_VAULT), "{to}");
    }
}

#[test]
fn damage_and_the_wrong_identity_are_told_apart() {
    let (identity, other) = (identity(), self::identity());
    let good = document().seal(&identity).unwrap();
    assert_eq!(Document::open(&good, &other).err(), Some(Fault::WrongIdentity));
    for cut in [0, 10, good.len() / 2, good.len() - 1] {
        assert_eq!(Document::open(&good[..cut], &identity).err(), Some(Fault::Damaged), "{cut}");
    }
    let mut flipped = good.clone();
    *flipped.last_mut().unwrap() ^= 1;
    assert_eq!(Document::open(&flipped, &identity).err(), Some(Fault::Damaged));
}

#[test]
fn no_buffer_that_holds_plaintext_grows() {
    let identity = identity();
    let text = encode(&Secret::new(vec![b'x'; 5000]).unwrap());
    assert_eq!(text.capacity(), text.len());
    let sealed = document().seal(&identity).unwrap();
    let plaintext = identity.decrypt(&sealed).unwrap();
    assert_eq!(plaintext.capacity(), sealed.len());
    let wire: Wire<'_> = serde_json::from_slice(&plaintext).unwrap();
    let json = to_json(&wire).unwrap();
    assert_eq!(json.capacity(), json.len());
    assert_eq!(*json, *plaintext);
}

#[test]
fn a_clock_before_1970_or_after_9999_does_not_panic() {
    assert_eq!(timestamp(SystemTime::UNIX_EPOCH - Duration::from_secs(9)), "1970-01-01T00:00:00Z");
    let far = SystemTime::UNIX_EPOCH + Duration::from_secs(400_000_000_000);
    assert_eq!(timestamp(far), "9999-12-31T23:59:59Z");
}
