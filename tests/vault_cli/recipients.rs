//! Several recipients, with Debian's `age` and real ssh keys: who opens the vault, who is believed, and how
//! a vault is restored when the gateway's identity is lost.

use super::*;

/// The author that `vault recipients` shows.
fn author(folder: &Folder) -> String {
    let shown = succeeded(&folder.run(&["recipients"], ""));
    shown.lines().next().unwrap().strip_prefix("author ").unwrap().to_owned()
}

fn ssh_key(folder: &Folder, kind: &str, passphrase: &str) -> String {
    let file = folder.path("ssh_key");
    let mut keygen = Command::new("ssh-keygen");
    keygen.args(["-q", "-t", kind, "-C", "alice@laptop", "-N", passphrase, "-f"]).arg(file);
    succeeded(&with_input(&mut keygen, ""));
    fs::read_to_string(folder.path("ssh_key.pub")).unwrap()
}

fn private(path: &Path, text: &str) {
    use std::os::unix::fs::OpenOptionsExt;
    let file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    file.unwrap().write_all(text.as_bytes()).unwrap();
}

#[test]
fn a_recovery_key_opens_and_writes_the_vault_and_is_removed_again() {
    let folder = Folder::new();
    folder.set("production/api_key", VALUE);
    let said = succeeded(&folder.run(&["rekey", "--add-new", "recovery"], ""));
    assert!(said.contains("made the identity") && said.contains(" recovery\n"), "{said}");
    succeeded(&folder.run_as("recovery", &["verify"]));
    assert!(succeeded(&folder.age("recovery", "vault.age")).contains("production/api_key"));
    succeeded(&folder.run_as("recovery", &["remove", "production/api_key"]));
    folder.set("production/api_key", VALUE);

    succeeded(&folder.run(&["backup", "copy.age"], ""));
    let before = author(&folder);
    let said = succeeded(&folder.run(&["rekey", "--remove", "recovery"], ""));
    assert!(said.contains("Backups from before still open"), "{said}");
    assert_ne!(author(&folder), before);
    assert!(failed(&folder.run_as("recovery", &["list"])).contains("not encrypted to this identity"));
    assert!(!folder.age("recovery", "vault.age").status.success());
    succeeded(&folder.age("identity", "vault.age"));
    // What a removal does not undo.
    succeeded(&folder.age("recovery", "copy.age"));
}

#[test]
fn recipients_are_shown_with_who_they_are() {
    let folder = Folder::new();
    let ssh = ssh_key(&folder, "ed25519", "");
    succeeded(&folder.run(&["rekey", "--add", ssh.trim()], ""));
    let text = succeeded(&folder.run(&["recipients"], ""));
    assert!(text.contains("identity (in use)\n") && text.contains("alice@laptop\n"), "{text}");
    let json = succeeded(&folder.run(&["recipients", "--json"], ""));
    let parsed: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(parsed["author"], author(&folder));
    let of = |index: usize| &parsed["recipients"][index];
    assert_eq!((&of(0)["in_use"], &of(0)["accepted"]), (&true.into(), &true.into()));
    assert_eq!((&of(1)["in_use"], &of(1)["accepted"]), (&false.into(), &false.into()));
    assert_eq!(of(1)["comment"], "alice@laptop");
    assert!(of(1)["recipient"].as_str().unwrap().starts_with("ssh-ed25519 "));
    assert!(succeeded(&folder.run(&["verify"], "")).contains("recipients 2"));
}

#[test]
fn the_identity_in_use_is_not_removed_and_a_secret_is_no_recipient() {
    let folder = Folder::new();
    succeeded(&folder.run(&["rekey", "--add-new", "other"], ""));
    let before = fs::read(folder.path("vault.age")).unwrap();
    let refused = |args: &[&str]| failed(&folder.run(&[&["rekey"], args].concat(), ""));
    assert!(refused(&["--remove", "identity"]).contains("that is the identity in use"));
    assert!(refused(&["--add-new", "other"]).contains("not overwritten"));
    assert!(refused(&["--add", "other"]).contains("opens the vault already"));
    assert!(refused(&["--add", "absent"]).contains("absent could not be read"));
    let identity = fs::read_to_string(folder.path("other")).unwrap();
    let key = identity.lines().last().unwrap();
    for args in [["--add", key], ["--remove", key], ["--new-identity", key]] {
        let said = refused(&args);
        assert!(said.contains("exposed") && !said.contains(key), "{said}");
    }
    assert_eq!(folder.run(&["rekey"], "").status.code(), Some(2), "nothing to change");
    assert_eq!(fs::read(folder.path("vault.age")).unwrap(), before);
}

#[test]
fn an_ssh_key_opens_the_vault_for_somebody_who_names_its_author() {
    let folder = Folder::new();
    folder.set("production/api_key", VALUE);
    ssh_key(&folder, "ed25519", "");
    succeeded(&folder.run(&["rekey", "--add", "ssh_key.pub"], ""));
    assert!(succeeded(&folder.age("ssh_key", "vault.age")).contains("production/api_key"));

    let said = failed(&folder.run_as("ssh_key", &["list"]));
    assert!(said.contains("nothing in it proves to this identity who wrote it"), "{said}");
    let other = author(&Folder::new());
    assert!(
        failed(&folder.run_as("ssh_key", &["list", "--author", &other]))
            .contains("not the one that was named")
    );
    let author = author(&folder);
    assert!(
        succeeded(&folder.run_as("ssh_key", &["list", "--author", &author])).contains("production/api_key")
    );
    assert!(succeeded(&folder.run_as("ssh_key", &["list", "--trust-file"])).contains("production/api_key"));
    assert!(failed(&folder.run_as("ssh_key", &["accept", "--author", &author])).contains("cannot accept"));
}

#[test]
fn an_ssh_key_with_a_passphrase_opens_with_it_and_an_rsa_key_is_refused() {
    let folder = Folder::new();
    ssh_key(&folder, "ed25519", "correct horse battery");
    succeeded(&folder.run(&["rekey", "--add", "ssh_key.pub"], ""));
    private(&folder.path("right"), "correct horse battery\n");
    private(&folder.path("wrong"), "battery staple\n");
    let open =
        |passphrase: &[&str]| folder.run_as("ssh_key", &[&["verify", "--trust-file"], passphrase].concat());
    assert!(failed(&open(&[])).contains("sealed with a passphrase; say where that is"));
    assert!(failed(&open(&["--passphrase", "wrong"])).contains("the passphrase is wrong"));
    succeeded(&open(&["--passphrase", "right"]));

    let folder = Folder::new();
    let rsa = ssh_key(&folder, "rsa", "");
    for args in [["--add", rsa.trim()], ["--add", "ssh_key.pub"], ["--add", "ssh_key"]] {
        let said = failed(&folder.run(&[&["rekey"], &args[..]].concat(), ""));
        assert!(said.contains("is an ssh-rsa key, which is not supported"), "{said}");
    }
}

#[test]
fn who_was_added_by_its_public_half_accepts_the_author_and_then_opens_by_itself() {
    let folder = Folder::new();
    let elsewhere = Folder::new();
    let identity = fs::read_to_string(elsewhere.path("identity")).unwrap();
    let recipient = identity.lines().find_map(|line| line.strip_prefix("# public key: ")).unwrap();
    let said = succeeded(&folder.run(&["rekey", "--add", recipient], ""));
    assert!(said.contains("vault accept --author"), "{said}");
    let theirs = elsewhere.text("identity");
    let said = failed(&folder.run_as(&theirs, &["verify"]));
    assert!(said.contains("or the file is forged"), "{said}");
    succeeded(&folder.run_as(&theirs, &["accept", "--author", &author(&folder)]));
    succeeded(&folder.run_as(&theirs, &["verify"]));
    succeeded(&folder.run(&["verify"], ""));
}

#[test]
fn a_whole_new_vault_made_by_a_stranger_is_refused() {
    let folder = Folder::new();
    folder.set("production/api_key", VALUE);
    // The stranger's own vault, sealed for the gateway's public half with the gateway's own tool.
    let stranger = Folder::new();
    stranger.set("production/api_key", "planted-secret-value");
    stranger.set("production/other", "planted-secret-value");
    let identity = fs::read_to_string(folder.path("identity")).unwrap();
    let recipient = identity.lines().find_map(|line| line.strip_prefix("# public key: ")).unwrap();
    succeeded(&stranger.run(&["rekey", "--add", recipient], ""));
    let genuine = fs::read(folder.path("vault.age")).unwrap();
    let stranger = fs::read(stranger.path("vault.age")).unwrap();
    fs::write(folder.path("vault.age"), &stranger).unwrap();
    folder.assert_refused("nothing in it proves to this identity who wrote it");
    // Nor when it is the first one that is seen here.
    fs::remove_file(folder.path("vault.age.generation")).unwrap();
    folder.assert_refused("nothing in it proves to this identity who wrote it");
    fs::write(folder.path("vault.age"), genuine).unwrap();
    succeeded(&folder.run(&["verify"], ""));
}

#[test]
fn an_identity_is_sealed_with_a_passphrase_that_age_can_open_too() {
    let folder = Folder::new();
    folder.set("production/api_key", VALUE);
    private(&folder.path("passphrase"), "correct horse battery\n");
    private(&folder.path("short"), "horse\n");
    let said = failed(&folder.run(&["passphrase", "--new-passphrase", "short"], ""));
    assert!(said.contains("at least 12 bytes"), "{said}");
    succeeded(&folder.run(&["passphrase", "--new-passphrase", "passphrase"], ""));
    assert!(
        fs::read_to_string(folder.path("identity"))
            .unwrap()
            .starts_with("-----BEGIN AGE ENCRYPTED FILE-----")
    );
    assert!(failed(&folder.run(&["list"], "")).contains("sealed with a passphrase"));
    assert!(
        succeeded(&folder.run(&["list", "--passphrase", "passphrase"], "")).contains("production/api_key")
    );
    assert!(failed(&folder.run(&["list", "--passphrase", "short"], "")).contains("the passphrase is wrong"));

    let line = format!("age -d -i {} {}", folder.text("identity"), folder.text("vault.age"));
    assert!(typed(&line, "correct horse battery").contains("production/api_key"));
    let back = ["passphrase", "--none", "--passphrase", "passphrase"];
    succeeded(&folder.run(&back, ""));
    succeeded(&folder.run(&["list"], ""));
}

#[test]
fn init_seals_the_identity_that_it_makes_with_the_passphrase_that_it_is_given() {
    let folder = Folder(tempfile::tempdir().unwrap());
    private(&folder.path("passphrase"), "correct horse battery\n");
    private(&folder.path("short"), "horse\n");
    assert!(failed(&folder.run(&["init", "--passphrase", "short"], "")).contains("at least 12 bytes"));
    assert!(!folder.path("identity").exists());
    succeeded(&folder.run(&["init", "--passphrase", "passphrase"], ""));
    assert!(failed(&folder.run(&["list"], "")).contains("sealed with a passphrase"));
    succeeded(&folder.run(&["list", "--passphrase", "passphrase"], ""));
}

#[test]
fn an_identity_that_age_sealed_with_a_passphrase_opens_the_vault() {
    let folder = Folder::new();
    let line = format!("age -p -o {} {}", folder.text("sealed"), folder.text("identity"));
    typed(&line, "correct horse battery\ncorrect horse battery");
    fs::rename(folder.path("sealed"), folder.path("identity")).unwrap();
    fs::set_permissions(folder.path("identity"), std::os::unix::fs::PermissionsExt::from_mode(0o600))
        .unwrap();
    private(&folder.path("passphrase"), "correct horse battery");
    assert!(failed(&folder.run(&["verify"], "")).contains("sealed with a passphrase"));
    succeeded(&folder.run(&["verify", "--passphrase", "passphrase"], ""));
}

/// Runs a command line in a terminal and types `answers` at its prompts; it must succeed.
fn typed(line: &str, answers: &str) -> String {
    let mut script = Command::new("script");
    script.args(["--quiet", "--return", "--command", line, "/dev/null"]);
    let mut child = script.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut screen = BufReader::new(child.stdout.take().unwrap());
    let mut text = String::new();
    for answer in answers.lines() {
        read_until_prompt(&mut screen, &mut text);
        writeln!(stdin, "{answer}").unwrap();
    }
    screen.read_to_string(&mut text).unwrap();
    assert!(child.wait().unwrap().success(), "{text}");
    text
}

#[test]
fn the_gateways_identity_lost_the_recovery_key_restores_the_backup_and_a_new_gateway_opens_it() {
    let folder = Folder::new();
    folder.set("production/api_key", VALUE);
    succeeded(&folder.run(&["rekey", "--add-new", "recovery"], ""));
    succeeded(&folder.run(&["backup", "copy.age"], ""));
    let lost = fs::read_to_string(folder.path("identity")).unwrap();
    let lost = lost.lines().find_map(|line| line.strip_prefix("# public key: ")).unwrap();
    for name in ["identity", "vault.age", "vault.age.generation", "vault.age.lock"] {
        fs::remove_file(folder.path(name)).unwrap();
    }

    let said = succeeded(&folder.run_as("recovery", &["restore", "copy.age"]));
    assert!(said.contains(lost) && said.contains("remove who should not be here any more"), "{said}");
    succeeded(&folder.run_as("recovery", &["rekey", "--add-new", "identity", "--remove", lost]));
    assert!(succeeded(&folder.run(&["list"], "")).contains("9b866697"));
    folder.set("production/api_key", VALUE);
    let shown = succeeded(&folder.run(&["recipients"], ""));
    assert!(!shown.contains(lost) && shown.contains("recovery\n"), "{shown}");
    succeeded(&folder.run_as("recovery", &["verify"]));
}

#[test]
fn a_vault_of_format_1_becomes_the_present_one_with_its_next_change() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder(tempfile::tempdir().unwrap());
    for name in ["identity", "vault.age", "vault.age.generation"] {
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vault-v1").join(name);
        fs::copy(from, folder.path(name)).unwrap();
        fs::set_permissions(folder.path(name), fs::Permissions::from_mode(0o600)).unwrap();
    }
    assert!(succeeded(&folder.run(&["list"], "")).contains("9b866697"));
    assert!(succeeded(&folder.run(&["verify"], "")).contains("format 1"));
    assert!(succeeded(&folder.run(&["recipients"], "")).contains("no author yet"));
    assert!(folder.decrypted().contains(r#""version":1,"generation":2"#));
    succeeded(&folder.run(&["rekey", "--add-new", "recovery"], ""));
    assert!(folder.decrypted().contains(r#""version":2,"generation":3"#));
    assert!(succeeded(&folder.run_as("recovery", &["list"])).contains("9b866697"));
}
