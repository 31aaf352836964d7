//! Tokens and their file.

use std::os::unix::fs::{MetadataExt, PermissionsExt};

use super::*;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn place() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokens.json");
    (folder, path)
}

fn is(token: &Token, text: &str) -> bool {
    Presented::parse(text.as_bytes())
        .is_some_and(|presented| presented.id == token.id && token.is(&presented))
}

#[test]
fn what_was_issued_is_known_and_nothing_else_and_the_file_does_not_have_it() {
    let (_folder, path) = place();
    let now = SystemTime::now();
    assert_eq!(read(&path).unwrap(), []);
    let one = issue(&path, "ledger", None, now).unwrap();
    let two = issue(&path, "ledger", Some(now + DAY), now).unwrap();
    let tokens = read(&path).unwrap();
    assert_eq!(tokens.len(), 2);
    let find = |id| tokens.iter().find(|token| token.id == id).unwrap();
    assert_eq!(*find(one.token.id), one.token);
    assert!(is(find(one.token.id), &one.text) && is(find(two.token.id), &two.text));
    assert!(!is(find(one.token.id), &two.text));
    // The same name with another secret.
    let (name, other) = (one.text.split_at(17).0, two.text.split_at(17).1);
    assert!(!is(find(one.token.id), &format!("{name}{other}")));
    let text = fs::read_to_string(&path).unwrap();
    assert!(!text.contains(one.text.split_at(17).1) && text.contains(&one.token.id.to_string()), "{text}");
    assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o600);
}

#[test]
fn a_token_is_over_when_it_expires_or_is_revoked_and_not_before() {
    let (_folder, path) = place();
    let now = whole_seconds(SystemTime::now());
    let token = issue(&path, "ledger", Some(now + DAY), now).unwrap().token;
    assert_eq!(token.over_since(now + DAY - Duration::from_secs(1)), None);
    assert_eq!(token.over_since(now + DAY), Some(now + DAY));
    let revoked = revoke(&path, token.id, now).unwrap();
    assert_eq!(revoked.over_since(now), Some(now));
    assert_eq!(revoke(&path, token.id, now + DAY).unwrap(), revoked, "the first time counts");
    let unknown = TokenId::parse(b"000000000000").unwrap();
    assert!(matches!(revoke(&path, unknown, now), Err(Error::Unknown { .. })));
    // What has been over for long is forgotten at a later change.
    let other = issue(&path, "ledger", None, now + KEPT + DAY).unwrap().token;
    assert_eq!(read(&path).unwrap(), [other]);
}

#[test]
fn only_the_one_form_is_a_token() {
    let (_, text) = random_token().unwrap();
    assert_eq!(text.len(), TOKEN_BYTES);
    let presented = Presented::parse(text.as_bytes()).unwrap();
    assert_eq!(presented.secret().len(), SECRET_DIGITS);
    for wrong in [
        text.to_uppercase(),
        text.replace("mxg_", "mxg-"),
        format!("{}0", *text),
        format!(" {}", *text),
        text.split_at(TOKEN_BYTES - 1).0.to_owned(),
        format!("{}g", text.split_at(TOKEN_BYTES - 1).0),
        format!("mxg_{}", "0".repeat(61)),
        "mxg_".into(),
        String::new(),
    ] {
        assert!(Presented::parse(wrong.as_bytes()).is_none(), "{wrong}");
    }
}

#[test]
fn a_file_that_is_not_sound_is_refused_and_never_repeated() {
    let (_folder, path) = place();
    let issued = issue(&path, "ledger", None, SystemTime::now()).unwrap();
    let sound = fs::read_to_string(&path).unwrap();
    for (from, to) in [
        ("\"version\": 1", "\"version\": 2"),
        ("\"caller\": \"ledger\"", "\"caller\": \"c4n4ry\", \"more\": 1"),
        ("\"created\": \"2", "\"created\": \"c4n4ry2"),
        ("\"sha256\": \"", "\"sha256\": \"c4n4ry"),
        ("{", ""),
    ] {
        assert!(sound.contains(from), "{from} {sound}");
        fs::write(&path, sound.replacen(from, to, 1)).unwrap();
        let error = read(&path).unwrap_err();
        assert!(matches!(error, Error::Damaged { .. }), "{error}");
        assert!(!format!("{error} {error:?}").contains("c4n4ry"));
        assert!(issue(&path, "ledger", None, SystemTime::now()).is_err(), "nothing is written over it");
    }
    fs::write(&path, &sound).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o620)).unwrap();
    assert!(matches!(read(&path), Err(Error::Untrusted { .. })));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    assert_eq!(read(&path).unwrap(), [issued.token]);
}

#[test]
fn of_changes_at_the_same_time_none_is_lost() {
    let (_folder, path) = place();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| issue(&path, "ledger", None, SystemTime::now()).unwrap());
        }
    });
    assert_eq!(read(&path).unwrap().len(), 8);
}
