//! Who opens the embedded vault, seen from a gateway: it serves after its identity was lost and replaced with
//! the recovery key, starts unattended with an identity that a passphrase seals, and believes no vault that
//! somebody made who could not open its own.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Output},
};

use crate::harness::{Gateway, Setup, mx, until};

fn vault(folder: &Path, identity: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mxgate"));
    command.current_dir(folder).args(["vault", "--vault", "vault.age", "--identity", identity]);
    command.args(arguments).output().unwrap()
}

#[track_caller]
fn succeeded(folder: &Path, identity: &str, arguments: &[&str]) {
    let output = vault(folder, identity, arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn public_half(folder: &Path, identity: &str) -> String {
    let text = fs::read_to_string(folder.join(identity)).unwrap();
    text.lines().find_map(|line| line.strip_prefix("# public key: ")).unwrap().to_owned()
}

fn status(gateway: &Gateway) -> u16 {
    gateway.get("/users", "").status
}

#[test]
fn it_serves_from_a_backup_that_the_recovery_key_alone_restored() {
    let mx = mx();
    let setup = Setup::with_vault(&mx);
    let folder = setup.folder().to_owned();
    succeeded(&folder, "identity", &["rekey", "--add-new", "recovery"]);
    succeeded(&folder, "identity", &["backup", "copy.age"]);
    let lost = public_half(&folder, "identity");
    for name in ["identity", "vault.age", "vault.age.generation", "vault.age.lock"] {
        fs::remove_file(folder.join(name)).unwrap();
    }
    let gateway = setup.start();
    gateway.stderr.wait_for(|line| line.contains("no new snapshot") && line.contains("does not exist"));
    assert_eq!(gateway.page("/readyz").status, 503);
    succeeded(&folder, "recovery", &["restore", "copy.age"]);
    succeeded(&folder, "recovery", &["rekey", "--add-new", "identity", "--remove", &lost]);
    until("it is ready", || gateway.page("/readyz").status == 200);
    assert_eq!(status(&gateway), 200);
}

#[test]
fn it_starts_unattended_with_an_identity_that_a_passphrase_seals() {
    let mx = mx();
    let mut setup = Setup::with_vault(&mx);
    let folder = setup.folder().to_owned();
    let place = |name: &str, text: &str| {
        let path = folder.join(format!(".{name}"));
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::rename(path, folder.join(name)).unwrap();
    };
    place("right", "correct horse battery\n");
    succeeded(&folder, "identity", &["passphrase", "--new-passphrase", "right"]);
    let identity = format!("identity = \"file:{}/identity\"", folder.display());
    let with = format!("{identity}\npassphrase = \"file:{}/passphrase\"", folder.display());
    setup.tables = setup.tables.replace(&identity, &with);

    // What it needs comes late, and wrong first.
    let gateway = setup.start();
    let told = |why: &str| {
        gateway.stderr.wait_for(|line| line.contains("no new snapshot") && line.contains(why));
        assert_eq!(gateway.page("/readyz").status, 503);
    };
    told("passphrase does not exist");
    place("passphrase", "battery staple\n");
    told("the passphrase is wrong");
    place("passphrase", "correct horse battery\n");
    until("it is ready", || gateway.page("/readyz").status == 200);
    assert_eq!(status(&gateway), 200);
}

#[test]
fn it_does_not_start_with_a_sealed_identity_and_no_passphrase() {
    let mx = mx();
    let setup = Setup::with_vault(&mx);
    let folder = setup.folder().to_owned();
    let passphrase = setup.file("passphrase", "correct horse battery\n");
    fs::set_permissions(&passphrase, fs::Permissions::from_mode(0o600)).unwrap();
    succeeded(&folder, "identity", &["passphrase", "--new-passphrase", "passphrase"]);
    let gateway = setup.start();
    gateway
        .stderr
        .wait_for(|line| line.contains("no new snapshot") && line.contains("sealed with a passphrase"));
    assert_eq!(gateway.page("/readyz").status, 503);
}

#[test]
fn it_goes_on_while_recipients_change_and_believes_no_vault_of_a_stranger() {
    let mx = mx();
    let gateway = Setup::with_vault(&mx).control().start();
    let folder = gateway.setup.folder();
    let generation = || gateway.status()["generation"].as_u64().unwrap();
    let reload = || gateway.command(&["reload"]);
    assert_eq!(status(&gateway), 200);

    // Somebody joins and is removed again: the gateway follows to the author that this made.
    let loads = generation();
    succeeded(folder, "identity", &["rekey", "--add-new", "gone"]);
    fs::copy(folder.join("vault.age"), folder.join("kept.age")).unwrap();
    until("it is taken up", || generation() > loads);
    let loads = generation();
    succeeded(folder, "identity", &["rekey", "--remove", "gone"]);
    until("it is taken up", || generation() > loads);
    assert_eq!(status(&gateway), 200);

    // Who was removed goes on writing the copy that it kept, for the gateway, past every generation.
    let genuine = fs::read(folder.join("vault.age")).unwrap();
    let public = public_half(folder, "identity");
    for _ in 0..5 {
        let rekey = ["rekey", "--remove", &public];
        let mut mxgate = Command::new(env!("CARGO_BIN_EXE_mxgate"));
        let kept = ["vault", "--vault", "kept.age", "--identity", "gone"];
        let output = mxgate.current_dir(folder).args(kept).args(rekey).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let mut mxgate = Command::new(env!("CARGO_BIN_EXE_mxgate"));
        let output =
            mxgate.current_dir(folder).args(kept).args(["rekey", "--add", &public]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
    fs::remove_file(folder.join("vault.age.generation")).unwrap();
    fs::copy(folder.join("kept.age"), folder.join("vault.age")).unwrap();
    let (text, code) = reload().unwrap_err();
    assert!(code == 1 && text.contains("vault.age is not used"), "{text}");
    assert_eq!(status(&gateway), 200, "with the last good one");

    // A stranger's whole vault, sealed for the gateway.
    fs::create_dir(folder.join("stranger")).unwrap();
    let stranger = folder.join("stranger");
    succeeded(&stranger, "identity", &["init"]);
    succeeded(&stranger, "identity", &["rekey", "--add", &public]);
    fs::copy(stranger.join("vault.age"), folder.join("vault.age")).unwrap();
    let (text, code) = reload().unwrap_err();
    assert!(code == 1 && text.contains("proves to this identity who wrote it"), "{text}");

    fs::write(folder.join("vault.age"), genuine).unwrap();
    reload().unwrap();
    assert_eq!(status(&gateway), 200);
}

#[test]
fn it_does_not_run_with_an_ssh_key() {
    let mx = mx();
    let setup = Setup::with_vault(&mx);
    let folder = setup.folder().to_owned();
    let keygen = ["-q", "-t", "ed25519", "-N", "", "-f"];
    let made = Command::new("ssh-keygen").args(keygen).arg(folder.join("ssh_key")).status().unwrap();
    assert!(made.success());
    succeeded(&folder, "identity", &["rekey", "--add", "ssh_key.pub"]);
    fs::rename(folder.join("ssh_key"), folder.join("identity")).unwrap();
    let gateway = setup.start();
    gateway.stderr.wait_for(|line| {
        line.contains("no new snapshot")
            && line.contains("nothing in it proves to this identity who wrote it")
    });
    assert_eq!(gateway.page("/readyz").status, 503);
}
