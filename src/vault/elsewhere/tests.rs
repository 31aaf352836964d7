use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use tempfile::TempDir;

use super::*;
use crate::vault::{
    Vault,
    embedded::{self, Identity},
};

/// A command that prints what a file of its folder holds, and counts how often it was asked.
struct Printer(TempDir);

impl Printer {
    fn new(said: &str) -> Self {
        let printer = Self(tempfile::tempdir().unwrap());
        printer.says(said);
        printer.write(
            "script",
            "#!/bin/sh\necho >>$1/asked\n[ -e $1/said ] || exit 200\nexec /bin/cat $1/said\n",
        );
        fs::set_permissions(printer.path("script"), fs::Permissions::from_mode(0o700)).unwrap();
        printer
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    fn says(&self, text: &str) {
        self.write("said", text);
    }

    fn asked(&self) -> usize {
        fs::read_to_string(self.path("asked")).map_or(0, |lines| lines.lines().count())
    }

    fn exec(&self) -> BTreeMap<String, Exec> {
        let text = |path: &Path| path.display().to_string();
        let exec = Exec {
            command: vec![text(&self.path("script")), text(self.0.path())],
            variables: Vec::new(),
            timeout: Duration::from_secs(20),
            output_bytes_max: 1 << 20,
            refresh: Refresh::NEVER,
        };
        [("opener".to_owned(), exec)].into()
    }

    fn elsewhere(&self, reference: &Reference) -> Elsewhere {
        Elsewhere::new([reference], &self.exec(), None, None)
    }
}

fn reference(text: &str) -> Reference {
    text.parse().unwrap()
}

/// As if so much time had passed.
fn let_pass(elsewhere: &Elsewhere) {
    let mut state = elsewhere.0.state.lock().unwrap();
    for kept in state.kept.values_mut() {
        kept.at = kept.at.checked_sub(PAUSE).unwrap();
    }
}

#[test]
fn what_was_read_is_kept_until_somebody_doubts_it_and_never_asked_for_without_pause() {
    let (printer, opener) = (Printer::new("w0rd-number-1\n"), reference("exec:opener"));
    let elsewhere = printer.elsewhere(&opener);
    assert!(!elsewhere.doubt(), "nothing was read, so nothing else can be found");
    let read = || String::from_utf8(elsewhere.read(&opener).unwrap().to_vec()).unwrap();
    assert_eq!(read(), "w0rd-number-1\n");
    let_pass(&elsewhere);
    assert_eq!((read().as_str(), printer.asked()), ("w0rd-number-1\n", 1));

    printer.says("w0rd-number-2");
    assert!(elsewhere.doubt());
    assert_eq!((read().as_str(), printer.asked()), ("w0rd-number-2", 2));
    assert!(!elsewhere.doubt(), "it was asked a moment ago");
    assert_eq!((read().as_str(), printer.asked()), ("w0rd-number-2", 2));
    let_pass(&elsewhere);
    assert_eq!((read().as_str(), printer.asked()), ("w0rd-number-2", 3), "the doubt is still there");
    let_pass(&elsewhere);
    assert_eq!((read().as_str(), printer.asked()), ("w0rd-number-2", 3), "and no more");
}

#[test]
fn a_source_that_fails_is_asked_again_after_a_pause_and_its_failure_is_no_revocation() {
    let (printer, opener) = (Printer::new(""), reference("exec:opener"));
    fs::remove_file(printer.path("said")).unwrap();
    let elsewhere = printer.elsewhere(&opener);
    for _ in 0..3 {
        let error = crate::vault::Error::from(elsewhere.read(&opener).unwrap_err());
        assert_eq!(error.reason(), Reason::Unreachable);
        let text = crate::vault::chain(&error);
        assert_eq!(text, "exec:opener, which opens the vault, could not be read: does not exist");
    }
    assert_eq!(printer.asked(), 1);
    printer.says("w0rd-number-3");
    let_pass(&elsewhere);
    assert_eq!(elsewhere.read(&opener).unwrap().as_slice(), b"w0rd-number-3");
}

#[test]
fn a_field_is_taken_out_of_a_document_and_another_one_is_no_revocation() {
    let printer = Printer::new(r#"{"identity":"f1eld-of-it","number":1}"#);
    let at = |field: &str| {
        let opener = reference(&format!("exec:opener#{field}"));
        printer.elsewhere(&opener).read(&opener)
    };
    assert_eq!(at("identity").unwrap().as_slice(), b"f1eld-of-it");
    for (field, said) in [("other", "has no field of that name"), ("number", "that is no text")] {
        let error = at(field).unwrap_err();
        assert!(error.to_string().contains(said) && !error.to_string().contains("f1eld"), "{error}");
        assert_eq!(crate::vault::Error::from(error).reason(), Reason::Unreachable);
    }
}

#[test]
fn what_is_too_large_or_has_no_settings_or_is_in_a_vault_opens_nothing() {
    let printer = Printer::new(&"x".repeat(file::SECRET_BYTES_MAX + 1));
    let opener = reference("exec:opener");
    let large = printer.elsewhere(&opener).read(&opener).unwrap_err();
    assert_eq!(crate::vault::Error::from(large).reason(), Reason::TooLarge);
    for other in ["openbao:secret/mx#identity", "aws:mx"] {
        let none = printer.elsewhere(&opener).read(&reference(other)).unwrap_err();
        assert!(matches!(none, Error::NotHere { .. }), "{none}");
    }
    let circle = printer.elsewhere(&opener).read(&reference("vault:a")).unwrap_err();
    assert!(matches!(circle, Error::InVault { .. }), "{circle}");
}

#[tokio::test]
async fn it_may_be_asked_for_where_an_event_loop_is_at_work_and_is_masked_from_then_on() {
    let key = "AGE-SECRET-KEY-1QYQSZQGPQYQSZQGPQYQSZQGPQYQSZQGPQYQSZQGPQYQSZQGPQYQS0J0AQT";
    let (printer, opener) = (Printer::new(&format!("# a comment of it\n{key}\n")), reference("exec:opener"));
    let is_masked = |text: &str| redaction::held().masker().is_hit(text.as_bytes());
    assert!(!is_masked(key));
    let elsewhere = printer.elsewhere(&opener);
    assert!(elsewhere.read(&opener).is_ok());
    assert!(is_masked(key) && !is_masked("# a comment of it"));
    assert!(!format!("{elsewhere:?}").contains("AGE-SECRET"));
}

#[test]
fn settings_tell_one_from_another_and_freshness_does_not() {
    let (printer, opener) = (Printer::new("a"), reference("exec:opener"));
    let mut exec = printer.exec();
    let of = |exec: &BTreeMap<String, Exec>| Elsewhere::new([&opener], exec, None, None);
    let first = of(&exec);
    assert_eq!(first.patience(), Duration::from_secs(20));
    exec.get_mut("opener").unwrap().refresh.interval = Duration::from_secs(1);
    let other = exec["opener"].clone();
    exec.insert("other".into(), other);
    assert!(first == of(&exec), "another command does not matter");
    exec.get_mut("opener").unwrap().command.push("more".into());
    assert!(first != of(&exec));
    assert!(Elsewhere::nowhere() == Elsewhere::new([], &exec, None, None));
}

#[test]
fn a_vault_that_was_sealed_for_another_identity_is_opened_with_what_the_source_says_then() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    let made = |name: &str| {
        let identity = Identity::create(&file(name)).unwrap();
        (identity, fs::read_to_string(file(name)).unwrap())
    };
    let ((first, first_text), (second, second_text)) = (made("first"), made("second"));
    let path = file("vault.age");
    embedded::create(&path, &first).unwrap();
    let (printer, identity) = (Printer::new(&first_text), reference("exec:opener"));
    let elsewhere = printer.elsewhere(&identity);
    let config = crate::config::VaultFile { path: path.clone(), identity, passphrase: None, elsewhere };
    let vault = Vault::open(&config).unwrap();
    assert!(vault.reopen().is_ok() && Vault::peek(&config).is_ok());
    assert_eq!(printer.asked(), 1, "the vault is opened often, and its source asked once");

    let change = embedded::Change { replace: Some(&second), ..embedded::Change::default() };
    embedded::rekey(&path, &first, &change).unwrap();
    let_pass(&config.elsewhere);
    for _ in 0..3 {
        assert!(matches!(vault.reopen(), Err(crate::vault::Error::Embedded(_))));
    }
    assert_eq!(printer.asked(), 2, "it was asked once more, and then not without a pause");
    printer.says(&second_text);
    assert!(vault.reopen().is_err());
    let_pass(&config.elsewhere);
    assert!(vault.reopen().is_ok());
    assert_eq!(printer.asked(), 3);
}

#[test]
fn a_passphrase_that_was_changed_is_asked_for_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("identity");
    let passphrase = |text: &str| embedded::Passphrase::new(text.to_owned());
    let identity = Identity::create_sealed(&path, Some(&passphrase("correct horse"))).unwrap();
    embedded::create(&folder.path().join("vault.age"), &identity).unwrap();
    let (printer, opener) = (Printer::new("correct horse\n"), reference("exec:opener"));
    let elsewhere = printer.elsewhere(&opener);
    let config = crate::config::VaultFile {
        path: folder.path().join("vault.age"),
        identity: Reference::file(&path),
        passphrase: Some(opener),
        elsewhere,
    };
    assert!(Vault::open(&config).is_ok());
    let sealed = || Ok(passphrase("correct horse"));
    identity::protect(&path, &sealed, Some(&passphrase("battery staple"))).unwrap();
    printer.says("battery staple");
    let_pass(&config.elsewhere);
    assert!(Vault::open(&config).is_ok());
    assert_eq!(printer.asked(), 2);
}
