use super::*;
use crate::vault::embedded::Recipient;

const VALUE: &str = "canary-secret-value";

fn identity() -> Identity {
    let folder = tempfile::tempdir().unwrap();
    Identity::create(&folder.path().join("identity")).unwrap()
}

fn document(identities: &[&Identity]) -> Document {
    let now = timestamp(SystemTime::now());
    let entry = Entry {
        secret: Arc::new(Secret::new(VALUE.into()).unwrap()),
        version: 2,
        created: now.clone(),
        updated: now.clone(),
        hosts: vec!["api.mx.com".into()],
    };
    let member = |identity: &&Identity| Member::new(identity.recipient().clone(), now.clone());
    Document {
        generation: 7,
        entries: BTreeMap::from([("production/api_key".into(), entry)]),
        authors: Authors::default(),
        members: identities.iter().map(member).collect(),
    }
}

fn seal(identities: &[&Identity]) -> Vec<u8> {
    document(identities).seal(identities).unwrap()
}

/// All that somebody without an identity can do.
fn encrypt_to(recipient: &Recipient, plaintext: &[u8]) -> Vec<u8> {
    encrypt([Member::new(recipient.clone(), String::new())].iter(), plaintext).unwrap()
}

/// Seals a document, lets `change` edit the plaintext, and encrypts the result to the same recipient.
fn tampered(identity: &Identity, change: impl FnOnce(String) -> String) -> Result<Document, Fault> {
    let plaintext = identity.decrypt(&seal(&[identity])).unwrap();
    let changed = change(String::from_utf8(plaintext.to_vec()).unwrap());
    Document::open(&encrypt_to(identity.recipient(), changed.as_bytes()), identity)
}

#[test]
fn what_was_sealed_is_what_each_recipient_opens() {
    let identities = [identity(), identity()];
    let mut document = document(&[&identities[0], &identities[1]]);
    let ciphertext = document.seal(&[&identities[0], &identities[1]]).unwrap();
    for identity in &identities {
        let opened = Document::open(&ciphertext, identity).unwrap();
        assert_eq!(opened.generation, 7);
        let (entry, sealed) =
            (&opened.entries["production/api_key"], &document.entries["production/api_key"]);
        assert_eq!(entry.secret, sealed.secret);
        assert_eq!((entry.version, &entry.hosts), (2, &sealed.hosts));
        assert_eq!(opened.authors.present().unwrap().id(), document.authors.present().unwrap().id());
        assert!(opened.members.iter().all(Member::has_accepted));
    }
}

#[test]
fn a_changed_document_is_forged_and_an_unchanged_one_is_not() {
    let identity = identity();
    assert!(tampered(&identity, |text| text).is_ok());
    for (from, to) in [
        ("api.mx.com", "evil.example"),
        ("\"generation\":7", "\"generation\":8"),
        ("\"version\":2,\"created\"", "\"version\":3,\"created\""),
        ("production/", "sandbox/"),
        ("\"comment\":\"\"", "\"comment\":\"boss\""),
    ] {
        let answer = tampered(&identity, |text| {
            assert!(text.contains(from), "{from}");
            text.replace(from, to)
        });
        assert_eq!(answer.err(), Some(Fault::Forged), "{from}");
    }
}

#[test]
fn a_missing_mac_is_forged() {
    let without = tampered(&identity(), |text| text[..text.find(",\"mac\"").unwrap()].to_owned() + "}");
    assert_eq!(without.err(), Some(Fault::Forged));
}

#[test]
fn a_whole_new_vault_by_somebody_who_knows_the_recipients_only_is_refused() {
    let (identity, stranger) = (identity(), identity());
    // Right in itself: an author of its own, a MAC of that author, sealed for the right recipient.
    let planted = document(&[&identity]).seal(&[]).unwrap();
    assert_eq!(Document::open(&planted, &identity).err(), Some(Fault::Unproven));
    // With a proof, only not by this identity.
    let mut document = document(&[&identity]);
    let author = document.authors.ensure().unwrap();
    document.members[0].accept(&stranger, author);
    let planted = document.seal(&[]).unwrap();
    assert_eq!(Document::open(&planted, &identity).err(), Some(Fault::Forged));
    // Even with the very proof of the genuine vault, which is no proof of another author.
    let mut genuine = self::document(&[&identity]);
    genuine.seal(&[&identity]).unwrap();
    document.members[0].proof = genuine.members[0].proof.clone();
    let planted = document.seal(&[]).unwrap();
    assert_eq!(Document::open(&planted, &identity).err(), Some(Fault::Forged));
    // What the proof is for: the genuine one opens.
    assert!(Document::open(&genuine.seal(&[]).unwrap(), &identity).is_ok());
}

#[test]
fn who_joined_by_its_public_half_believes_an_author_that_it_is_told() {
    let (owner, joined) = (identity(), identity());
    let mut document = document(&[&owner, &joined]);
    let ciphertext = document.seal(&[&owner]).unwrap();
    let author = document.authors.present().unwrap().id();
    let other = {
        let mut other = Authors::default();
        other.ensure().unwrap().id()
    };
    let open = |identity: &Identity| Document::open(&ciphertext, identity).map(drop);
    assert_eq!(open(&owner), Ok(()));
    assert_eq!(open(&joined), Err(Fault::Unproven));
    let joined = joined.trusting(Trust::Author(other));
    assert_eq!(open(&joined), Err(Fault::OtherAuthor));
    assert_eq!(open(&owner.trusting(Trust::Author(other))), Err(Fault::OtherAuthor), "named is asked for");
    assert_eq!(open(&joined.trusting(Trust::Author(author))), Ok(()));
}

#[test]
fn a_proof_of_an_earlier_author_leads_to_the_present_one() {
    let identity = identity();
    let mut document = document(&[&identity]);
    document.seal(&[&identity]).unwrap();
    let first = document.authors.present().unwrap().id();
    document.authors.renew().unwrap();
    document.authors.renew().unwrap();
    let ciphertext = document.seal(&[]).unwrap();
    assert!(Document::open(&ciphertext, &identity).is_ok());
    assert!(Document::open(&ciphertext, &identity.trusting(Trust::Author(first))).is_ok());
}

#[test]
fn who_opens_it_without_being_listed_is_refused() {
    let (listed, other) = (identity(), identity());
    let plaintext = listed.decrypt(&seal(&[&listed])).unwrap();
    let copied = encrypt_to(other.recipient(), &plaintext);
    assert_eq!(Document::open(&copied, &other).err(), Some(Fault::NotARecipient));
    let trusting = other.trusting(Trust::File);
    assert_eq!(Document::open(&copied, &trusting).err(), Some(Fault::NotARecipient));
}

#[test]
fn a_newer_format_is_named_whatever_else_it_holds() {
    let identity = identity();
    let newer = br#"{"format":"mxgate-vault","version":3,"shiny":[1]}"#;
    let answer = Document::open(&encrypt_to(identity.recipient(), newer), &identity);
    assert_eq!(answer.err(), Some(Fault::NewerFormat { found: 3 }));
}

#[test]
fn another_plaintext_is_no_vault_and_is_not_quoted() {
    let identity = identity();
    for plaintext in [
        VALUE.to_owned(),
        format!(r#"{{"format":"{VALUE}","version":2}}"#),
        format!(r#"{{"format":"mxgate-vault","version":"{VALUE}"}}"#),
        format!(r#"{{"format":"mxgate-vault","version":2,"{VALUE}":1}}"#),
        format!(r#"{{"format":"mxgate-vault","version":1,"{VALUE}":1}}"#),
        r#"{"format":"mxgate-vault","version":0}"#.to_owned(),
    ] {
        let planted = encrypt_to(identity.recipient(), plaintext.as_bytes());
        let fault = Document::open(&planted, &identity).unwrap_err();
        assert!(matches!(fault, Fault::NotAVault { .. }), "{fault}");
        assert!(!fault.to_string().contains(VALUE));
    }
}

/// As [`tampered`], by somebody who opens the vault: the MAC is right.
fn signed(identity: &Identity, change: impl FnOnce(String) -> String) -> Result<Document, Fault> {
    let mut document = document(&[identity]);
    let plaintext = identity.decrypt(&document.seal(&[identity]).unwrap()).unwrap();
    let changed = change(String::from_utf8(plaintext.to_vec()).unwrap());
    let mut wire: Wire<'_> = serde_json::from_str(&changed).unwrap();
    wire.mac = None;
    let right = wire::mac(&wire, document.authors.present().unwrap().document_mac()).unwrap();
    wire.mac = Some(&right);
    Document::open(&encrypt_to(identity.recipient(), &wire::to_json(&wire).unwrap()), identity)
}

#[test]
fn a_right_mac_does_not_excuse_a_senseless_document() {
    let identity = identity();
    assert!(signed(&identity, |text| text).is_ok());
    for (open, close) in [("{\"name\"", "],\"mac\""), ("{\"key\":\"age1", "],\"entries\"")] {
        let doubled = |text: String| {
            let (from, to) = (text.find(open).unwrap(), text.find(close).unwrap());
            format!("{},{}", &text[..to], &text[from..])
        };
        assert_eq!(signed(&identity, doubled).err(), Some(NOT_A_VAULT), "{open}");
    }
    let key = identity.recipient().text().to_owned();
    for (from, to) in [
        ("api.mx.com", "API.mx.com"),
        ("production/api_key", "production api_key"),
        ("\"created\":\"20", "\"created\":\"x"),
        ("\"added\":\"20", "\"added\":\"x"),
        ("Y2FuYXJ5LXNlY3JldC12YWx1ZQ==", "c2hvcnQ="),
        ("Y2FuYXJ5LXNlY3JldC12YWx1ZQ==", "?"),
        (&key, "age1other"),
        (&key, &format!("{key} comment")),
        ("\"proof\":\"", "\"proof\":\"?"),
    ] {
        let answer = signed(&identity, |text| {
            assert!(text.contains(from), "{from}");
            text.replace(from, to)
        });
        assert_eq!(answer.err(), Some(NOT_A_VAULT), "{to}");
    }
}

#[test]
fn a_record_of_our_own_is_sealed_for_no_host() {
    let identity = identity();
    let opened = signed(&identity, |text| text.replace("[\"api.mx.com\"]", "[]")).unwrap();
    assert!(opened.entries["production/api_key"].hosts.is_empty());
}

#[test]
fn damage_and_the_wrong_identity_are_told_apart() {
    let (identity, other) = (identity(), self::identity());
    let good = seal(&[&identity]);
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
    let text = wire::encode(&Secret::new(vec![b'x'; 5000]).unwrap());
    assert_eq!(text.capacity(), text.len());
    let sealed = seal(&[&identity]);
    let plaintext = identity.decrypt(&sealed).unwrap();
    assert_eq!(plaintext.capacity(), sealed.len());
    let wire: Wire<'_> = serde_json::from_slice(&plaintext).unwrap();
    let json = wire::to_json(&wire).unwrap();
    assert_eq!(json.capacity(), json.len());
    assert_eq!(*json, *plaintext);
}

#[test]
fn a_clock_before_1970_or_after_9999_does_not_panic() {
    assert_eq!(timestamp(SystemTime::UNIX_EPOCH - Duration::from_secs(9)), "1970-01-01T00:00:00Z");
    let far = SystemTime::UNIX_EPOCH + Duration::from_secs(400_000_000_000);
    assert_eq!(timestamp(far), "9999-12-31T23:59:59Z");
}
