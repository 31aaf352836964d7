//! `mxgate vault` as an operator runs it, and its file as Debian's `age` sees it.

#![expect(clippy::unwrap_used, reason = "a test's helpers may panic as its tests may")]

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

mod recipients;

const VALUE: &str = "canary-secret-value";

struct Folder(tempfile::TempDir);

impl Folder {
    /// With an empty vault and its identity.
    fn new() -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        succeeded(&folder.run(&["init"], ""));
        folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mxgate"));
        command.current_dir(self.0.path()).args(["vault", "--vault", "vault.age", "--identity", "identity"]);
        command.args(args);
        command
    }

    fn run(&self, args: &[&str], input: &str) -> Output {
        with_input(&mut self.command(args), input)
    }

    fn set(&self, name: &str, value: &str) {
        succeeded(&self.run(&["set", name], value));
    }

    fn decrypted(&self) -> String {
        succeeded(&self.age("identity", "vault.age"))
    }

    /// What Debian's `age` makes of a file.
    fn age(&self, identity: &str, file: &str) -> Output {
        let mut age = Command::new("age");
        with_input(age.args(["-d", "-i"]).arg(self.path(identity)).arg(self.path(file)), "")
    }

    /// As [`Folder::run`], with another identity.
    fn run_as(&self, identity: &str, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mxgate"));
        command.current_dir(self.0.path()).args(["vault", "--vault", "vault.age", "--identity", identity]);
        with_input(command.args(args), "")
    }

    /// Encrypts as anybody can who knows the recipient.
    fn plant(&self, plaintext: &str) {
        let identity = fs::read_to_string(self.path("identity")).unwrap();
        let recipient = identity.lines().find_map(|line| line.strip_prefix("# public key: ")).unwrap();
        let mut age = Command::new("age");
        age.args(["-r", recipient, "-o"]).arg(self.path("planted.age"));
        succeeded(&with_input(&mut age, plaintext));
        fs::rename(self.path("planted.age"), self.path("vault.age")).unwrap();
    }

    /// `verify` fails with `reason`, and the file stays as it is.
    fn assert_refused(&self, reason: &str) {
        let before = fs::read(self.path("vault.age")).unwrap();
        let said = failed(&self.run(&["verify"], ""));
        assert!(said.contains(reason), "{said}");
        let said = failed(&self.run(&["set", "production/api_key"], VALUE));
        assert!(said.contains(reason), "{said}");
        assert_eq!(fs::read(self.path("vault.age")).unwrap(), before);
    }
}

fn with_input(command: &mut Command, input: &str) -> Output {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // A command that fails before it reads closes the pipe.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

/// Standard output of a command that must succeed.
fn succeeded(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// Standard error of a command that must fail with code 1.
fn failed(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(output.stdout.is_empty(), "{output:?}");
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn init_names_a_folder_that_is_not_there_and_makes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    for (vault, identity, absent, flag) in
        [("lib/vault.age", "identity", "lib", "--vault"), ("vault.age", "etc/identity", "etc", "--identity")]
    {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mxgate"));
        command.current_dir(folder.path()).args(["vault", "--vault", vault, "--identity", identity, "init"]);
        let said = failed(&with_input(&mut command, ""));
        let named = format!("no folder {}, which {flag} names", folder.path().join(absent).display());
        assert!(said.contains(&named), "{said}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}

#[test]
fn init_makes_vault_and_identity_once() {
    let folder = Folder::new();
    let before = [fs::read(folder.path("identity")).unwrap(), fs::read(folder.path("vault.age")).unwrap()];
    assert!(failed(&folder.run(&["init"], "")).contains("exists already"));
    assert_eq!(
        before,
        [fs::read(folder.path("identity")).unwrap(), fs::read(folder.path("vault.age")).unwrap()]
    );
}

#[test]
fn debians_age_reads_the_documented_json() {
    let folder = Folder::new();
    folder.set("production/api_key", VALUE);
    let document: serde_json::Value = serde_json::from_str(&folder.decrypted()).unwrap();
    assert_eq!((&document["format"], &document["version"]), (&"mxgate-vault".into(), &2.into()));
    assert_eq!(document["generation"], 2);
    let entry = &document["entries"][0];
    assert_eq!((&entry["name"], &entry["version"]), (&"production/api_key".into(), &1.into()));
    assert_eq!(entry["hosts"], serde_json::json!(["api.mx.com"]));
    // base64 of VALUE
    assert_eq!(entry["value"], "Y2FuYXJ5LXNlY3JldC12YWx1ZQ==");
    assert!(entry["created"].is_string() && entry["updated"].is_string() && document["mac"].is_string());
    let recipient = &document["recipients"][0];
    assert!(recipient["key"].as_str().unwrap().starts_with("age1") && recipient["proof"].is_string());
    assert_eq!(recipient["comment"], "identity");
    assert!(document["authors"][0]["key"].is_string());
}

#[test]
fn an_identity_made_by_age_keygen_opens_a_vault() {
    let folder = Folder(tempfile::tempdir().unwrap());
    succeeded(&with_input(Command::new("age-keygen").arg("-o").arg(folder.path("identity")), ""));
    let before = fs::read(folder.path("identity")).unwrap();
    succeeded(&folder.run(&["init"], ""));
    folder.set("production/api_key", VALUE);
    assert!(folder.decrypted().contains("production/api_key"));
    assert_eq!(fs::read(folder.path("identity")).unwrap(), before);
}

#[test]
fn a_vault_that_age_wrote_for_the_recipient_is_forged() {
    let folder = Folder::new();
    folder.set("production/api_key", VALUE);
    let genuine = folder.decrypted();
    folder.plant(&genuine.replace("api.mx.com", "evil.example"));
    folder.assert_refused("its MAC is wrong");
    // The refusal is about the content: unchanged, the same way round is fine.
    folder.plant(&genuine);
    succeeded(&folder.run(&["verify"], ""));
}

#[test]
fn newer_older_damaged_and_foreign_vaults_are_refused_each_with_its_reason() {
    let folder = Folder::new();
    let yesterday = fs::read(folder.path("vault.age")).unwrap();
    folder.set("production/api_key", VALUE);
    let today = fs::read(folder.path("vault.age")).unwrap();
    let other = Folder::new();

    fs::write(folder.path("vault.age"), yesterday).unwrap();
    folder.assert_refused("it has generation 1, and generation 2 was seen");
    folder.plant(r#"{"format":"mxgate-vault","version":3,"generation":9}"#);
    folder.assert_refused("it has format version 3");
    fs::write(folder.path("vault.age"), &today[..today.len() - 1]).unwrap();
    folder.assert_refused("it is damaged");
    fs::copy(other.path("vault.age"), folder.path("vault.age")).unwrap();
    folder.assert_refused("not encrypted to this identity");

    fs::write(folder.path("vault.age"), today).unwrap();
    succeeded(&folder.run(&["verify"], ""));
}

#[test]
fn a_secret_comes_from_standard_input_or_a_file_and_never_from_an_argument() {
    let folder = Folder::new();
    let said = succeeded(&folder.run(&["set", "sandbox/api_key"], &format!("{VALUE}\n")));
    assert!(said.contains("version 1") && said.contains("int-api.mx.com"), "{said}");
    fs::write(folder.path("key"), format!("{VALUE}\n")).unwrap();
    let said = succeeded(&folder.run(&["set", "sandbox/api_key", "--from-file", "key"], ""));
    assert!(said.contains("version 2") && !said.contains(VALUE), "{said}");
    let said = failed(&folder.run(&["set", "sandbox/api_key", VALUE], ""));
    assert!(said.contains("never taken from an argument") && !said.contains(VALUE), "{said}");
    let said = failed(&folder.run(&["set", "sandbox/api_key"], "short"));
    assert!(said.contains("shorter than 8 bytes") && !said.contains("short\n"), "{said}");
    let long = "x".repeat(64 * 1024 + 1);
    assert!(failed(&folder.run(&["set", "sandbox/api_key"], &long)).contains("larger than"));
}

#[test]
fn hosts_are_named_by_flag_environment_or_name_and_otherwise_required() {
    let folder = Folder::new();
    assert!(failed(&folder.run(&["set", "partner"], VALUE)).contains("--host"));
    let sealed = |args: &[&str]| succeeded(&folder.run(&[&["set"], args].concat(), VALUE));
    assert!(sealed(&["partner", "--environment", "sandbox"]).ends_with("for int-api.mx.com\n"));
    assert!(
        sealed(&["partner", "--host", "A.example", "--host", "b.example"])
            .ends_with("for a.example, b.example\n")
    );
    assert!(sealed(&["partner"]).ends_with("for a.example, b.example\n"), "a new version keeps its hosts");
    let refused = failed(&folder.run(&["set", "partner", "--host", "https://a.example"], VALUE));
    assert!(refused.contains("without scheme"), "{refused}");
}

#[test]
fn list_shows_everything_but_values() {
    let folder = Folder::new();
    assert!(succeeded(&folder.run(&["list"], "")).contains("empty"));
    folder.set("production/api_key", VALUE);
    let (text, json) =
        (succeeded(&folder.run(&["list"], "")), succeeded(&folder.run(&["list", "--json"], "")));
    let parsed: serde_json::Value = serde_json::from_str(&json).unwrap();
    let entry = &parsed["entries"][0];
    assert_eq!((&entry["name"], &entry["version"]), (&"production/api_key".into(), &1.into()));
    // sha256sum of VALUE, its first eight digits
    assert_eq!(entry["fingerprint"], "9b866697");
    for output in [text, json] {
        assert!(
            output.contains("production/api_key")
                && output.contains("9b866697")
                && output.contains("api.mx.com")
        );
        assert!(!output.contains(VALUE) && !output.contains("Y2FuYXJ5LXNlY3JldC12YWx1ZQ"), "{output}");
    }
}

#[test]
fn backup_restore_remove_and_rekey_do_what_they_say() {
    let folder = Folder::new();
    folder.set("production/api_key", VALUE);
    succeeded(&folder.run(&["backup", "copy.age"], ""));
    assert!(failed(&folder.run(&["backup", "copy.age"], "")).contains("not overwritten"));
    succeeded(&folder.run(&["remove", "production/api_key"], ""));
    assert!(failed(&folder.run(&["remove", "production/api_key"], "")).contains("no entry"));
    assert!(failed(&folder.run(&["restore", "copy.age"], "")).contains("--force"));
    assert!(succeeded(&folder.run(&["restore", "copy.age", "--force"], "")).contains("generation 4"));
    assert!(succeeded(&folder.run(&["list"], "")).contains("production/api_key"));

    succeeded(&folder.run(&["rekey", "--new-identity", "new"], ""));
    assert!(failed(&folder.run(&["list"], "")).contains("not encrypted to this identity"));
    fs::rename(folder.path("new"), folder.path("identity")).unwrap();
    assert!(succeeded(&folder.run(&["list"], "")).contains("production/api_key"));
}

#[test]
fn an_identity_comes_from_the_environment_and_never_from_the_argument() {
    let folder = Folder::new();
    let identity = fs::read_to_string(folder.path("identity")).unwrap();
    let run = |reference: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mxgate"));
        command.args(["vault", "verify", "--vault", &folder.text("vault.age"), "--identity", reference]);
        with_input(command.env("MXGATE_TEST_IDENTITY", &identity).env_remove("MXGATE_TEST_NONE"), "")
    };
    succeeded(&run("env:MXGATE_TEST_IDENTITY"));
    assert!(failed(&run("env:MXGATE_TEST_NONE")).contains("not set"));
    let key = identity.lines().last().unwrap();
    let said = failed(&run(key));
    assert!(said.contains("never the identity itself") && !said.contains(key), "{said}");
}

#[test]
fn two_processes_that_write_at_once_lose_nothing() {
    let folder = Folder::new();
    std::thread::scope(|scope| {
        for writer in ["a", "b"] {
            let folder = &folder;
            scope.spawn(move || {
                (0..50).for_each(|number| folder.set(&format!("production/{writer}{number}"), VALUE))
            });
        }
    });
    let document: serde_json::Value = serde_json::from_str(&folder.decrypted()).unwrap();
    assert_eq!(document["entries"].as_array().unwrap().len(), 100);
    assert_eq!(document["generation"], 101);
}

#[test]
fn a_reader_that_has_gone_is_no_failure() {
    let folder = Folder::new();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    assert!(folder.command(&["list"]).stdout(writer).status().unwrap().success());
}

#[test]
fn the_prompt_asks_twice_echoes_nothing_and_refuses_two_answers() {
    let folder = Folder::new();
    let (code, screen) = at_a_terminal(&folder, &[VALUE, "another-secret-value"]);
    assert!(code == Some(1) && screen.contains("not the same"), "{screen}");
    assert!(succeeded(&folder.run(&["list"], "")).contains("empty"));

    let (code, screen) = at_a_terminal(&folder, &[VALUE, VALUE]);
    assert!(code == Some(0) && screen.contains("sealed production/api_key"), "{screen}");
    assert!(!screen.contains("canary"), "{screen}");
    assert!(succeeded(&folder.run(&["list"], "")).contains("9b866697"));
}

/// Types `answers` at the prompts of `vault set`, in a terminal made by `script`.
fn at_a_terminal(folder: &Folder, answers: &[&str]) -> (Option<i32>, String) {
    let set = "vault set production/api_key --vault vault.age --identity identity";
    let line = format!("tty; exec {} {set}", env!("CARGO_BIN_EXE_mxgate"));
    let mut script = Command::new("script");
    script.current_dir(folder.0.path()).args(["--quiet", "--return", "--command", &line, "/dev/null"]);
    let mut child = script.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut screen = BufReader::new(child.stdout.take().unwrap());
    let mut text = String::new();
    screen.read_line(&mut text).unwrap();
    let terminal = PathBuf::from(text.trim());
    for answer in answers {
        read_until_prompt(&mut screen, &mut text);
        wait_until_echo_is_off(&terminal, &mut child);
        writeln!(stdin, "{answer}").unwrap();
    }
    screen.read_to_string(&mut text).unwrap();
    (child.wait().unwrap().code(), text)
}

fn read_until_prompt(screen: &mut impl BufRead, text: &mut String) {
    let start = text.len();
    for byte in screen.bytes() {
        text.push(char::from(byte.unwrap()));
        if text[start..].ends_with(": ") {
            return;
        }
    }
    panic!("no prompt: {text}");
}

fn wait_until_echo_is_off(terminal: &Path, child: &mut Child) {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let settings = Command::new("stty").arg("-F").arg(terminal).arg("-a").output().unwrap();
        if String::from_utf8_lossy(&settings.stdout).split_whitespace().any(|word| word == "-echo") {
            return;
        }
        assert!(Instant::now() < deadline && child.try_wait().unwrap().is_none(), "the prompt echoes");
    }
}
