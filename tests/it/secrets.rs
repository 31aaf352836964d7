//! Secrets that cannot be used, and a process that keeps those that can to itself.
//!
//! A secret that is missing, unfit or sealed for another host is named, never shown; the gateway waits for
//! it, refuses meanwhile, and goes on without a restart once it is repaired. A key that breaks at a
//! rotation leaves the old one in use.

use std::{
    fs,
    os::unix::{fs::PermissionsExt, process::ExitStatusExt},
    path::Path,
    process::{Command, Stdio},
};

use mxgate::vault::{
    embedded::{self, Identity},
    reference::Reference,
    secret::Secret,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::harness::{API_KEY, CLIENT_ID, Setup, mx, mxgate, until};

/// Stands in what is broken, and must not be seen anywhere.
const MARK: &str = "mArk7Zt";

/// Starts with a secret that `break_it` broke, sees the gateway refuse and name `reason`, then sees it serve after
/// `repair`, as the same process.
#[track_caller]
fn is_named_and_recovers(setup: Setup, reason: &[&str], repair: impl FnOnce(&Setup)) {
    let gateway = setup.start();
    let line = gateway.stderr.wait_for(|line| line.contains("no new snapshot"));
    for part in reason {
        assert!(line.contains(part), "{part} is not in {line}");
    }
    let answer = gateway.get("/users", "");
    assert_eq!((answer.status, answer.code().as_str()), (503, "not_ready"));
    assert_eq!(gateway.page("/readyz").status, 503);
    assert_eq!(gateway.page("/livez").status, 200);

    repair(&gateway.setup);
    gateway.stderr.wait_for(|line| line.contains("\"reloaded\""));
    assert_eq!(gateway.page("/readyz").status, 200);
    assert_eq!(gateway.get("/users", "").status, 200);
    for output in [&gateway.stderr, &gateway.stdout] {
        assert!(!output.text().contains(MARK), "{}", output.text());
        assert!(!output.text().contains(API_KEY), "{}", output.text());
    }
}

fn repair_key(setup: &Setup) {
    setup.file("key", API_KEY);
}

#[test]
fn a_key_that_is_sealed_for_another_host_now_goes_to_the_one_from_before_no_longer() {
    let mx = mx();
    let mut setup = Setup::with_vault(&mx);
    let folder = setup.folder().to_owned();
    let seal = |host: &str| {
        let identity = Identity::load(&Reference::file(folder.join("identity"))).unwrap();
        let (vault, key) = (folder.join("vault.age"), Secret::new(API_KEY.into()).unwrap());
        embedded::set(&vault, &identity, "test/api_key", key, Some(vec![host.into()])).unwrap();
    };
    // Not even "until its source says that there is none" lets it go on.
    setup.tables = setup.tables.replace("[vault]\n", "[vault]\nafter_grace = \"keep\"\n");
    let gateway = setup.start();
    assert_eq!(gateway.get("/users", "").status, 200);
    let ask = || {
        let answer = gateway.get("/users", "");
        (answer.status, answer.code())
    };
    seal("elsewhere.example");
    until("it is sent there no longer", || ask() == (503, "credential_unavailable".into()));
    gateway.stderr.wait_for(|line| line.contains("is sealed for elsewhere.example"));
    let host = mx.address().ip().to_string();
    seal(&host);
    until("it is sent there again", || ask().0 == 200);
}

#[test]
fn a_secret_of_seven_bytes() {
    let mx = mx();
    let setup = Setup::new(&mx);
    assert_eq!(MARK.len(), 7);
    setup.file("key", MARK);
    is_named_and_recovers(setup, &["environment test", "/key", "shorter than 8 bytes"], repair_key);
}

#[test]
fn a_secret_with_a_control_byte() {
    let mx = mx();
    let setup = Setup::new(&mx);
    setup.file("key", &format!("{MARK}\t{API_KEY}\r\nX: {MARK}"));
    is_named_and_recovers(setup, &["environment test", "/key", "control byte"], repair_key);
}

#[test]
fn a_secret_that_is_not_there_yet() {
    let mx = mx();
    let setup = Setup::new(&mx);
    fs::remove_file(setup.folder().join("key")).unwrap();
    is_named_and_recovers(setup, &["environment test", "/key", "does not exist"], repair_key);
}

#[test]
fn a_secret_that_others_may_write() {
    let mx = mx();
    let setup = Setup::new(&mx);
    let path = setup.file("key", API_KEY);
    fs::set_permissions(path, fs::Permissions::from_mode(0o666)).unwrap();
    is_named_and_recovers(setup, &["environment test", "/key"], repair_key);
}

#[test]
fn a_vault_entry_that_is_sealed_for_another_host() {
    let mx = mx();
    let setup = with_vault(Setup::new(&mx));
    vault(setup.folder(), &["init"], "");
    vault(setup.folder(), &["set", "test/key", "--host", "api.mx.com"], API_KEY);
    let reason = ["environment test", "vault:test/key is sealed for api.mx.com", "not be sent to 127.0.0.1"];
    is_named_and_recovers(setup, &reason, |setup| {
        vault(setup.folder(), &["set", "test/key", "--host", "127.0.0.1"], API_KEY);
    });
}

#[test]
fn a_vault_that_is_damaged() {
    let mx = mx();
    let setup = with_vault(Setup::new(&mx));
    vault(setup.folder(), &["init"], "");
    vault(setup.folder(), &["set", "test/key", "--host", "127.0.0.1"], API_KEY);
    let path = setup.folder().join("vault.age");
    let sound = fs::read(&path).unwrap();
    fs::write(&path, &sound[..sound.len() - 1]).unwrap();
    is_named_and_recovers(setup, &["vault.age is not used", "damaged"], |_| fs::write(&path, sound).unwrap());
}

#[test]
fn an_identity_that_opens_another_vault() {
    let mx = mx();
    let setup = with_vault(Setup::new(&mx));
    vault(setup.folder(), &["init"], "");
    vault(setup.folder(), &["set", "test/key", "--host", "127.0.0.1"], API_KEY);
    let path = setup.folder().join("identity");
    let right = fs::read_to_string(&path).unwrap();
    setup.file("identity", &format!("AGE-SECRET-KEY-1{MARK}"));
    is_named_and_recovers(setup, &["identity"], |setup| drop(setup.file("identity", &right)));
}

#[test]
fn a_key_that_breaks_at_a_rotation_leaves_the_old_one_in_use() {
    let mx = mx();
    let gateway = Setup::new(&mx).start();
    assert_eq!(gateway.get("/users", "").status, 200);
    gateway.setup.file("key", MARK);
    let line = gateway.stderr.wait_for(|line| line.contains("its last good value serves"));
    assert!(line.contains("shorter than 8 bytes") && !line.contains(MARK), "{line}");
    assert_eq!(gateway.get("/users", "").status, 200);
    assert!(gateway.metric("reason=\"unfit\"") >= 1.0);
    assert_eq!(gateway.metric("mxgate_secret_usable"), 2.0, "the key and the token");

    mx.set_api_keys(0, vec!["the-next-k3y-of-this-test".into()]);
    assert_eq!(gateway.get("/users", "").status, 401, "MX's own no, passed on");
    gateway.setup.file("key", "the-next-k3y-of-this-test");
    until("the new key is in use", || gateway.get("/users", "").status == 200);
    assert!(!gateway.stderr.text().contains("the-next-k3y"));
}

/// Pasted into a variable, where a reference belongs, or where a number does.
#[test]
fn a_secret_in_a_variable_of_the_configuration_is_not_repeated() {
    let mx = mx();
    let setup = Setup::new(&mx);
    let path = setup.file("mxgate.toml", &setup.configuration());
    for (variable, value) in [
        ("MXGATE__ENVIRONMENT__TEST__CREDENTIAL__API_KEY", "mArk7ZtQ9Wx"),
        ("MXGATE__LIMITS__BODY_BYTES_MAX", "mArk7ZtQ9Wx"),
        ("MXGATE__LOG__FILTER", "mArk7ZtQ9Wx="),
        ("MXGATE__NO_SUCH_KEY", "mArk7ZtQ9Wx"),
    ] {
        for args in [&["run", "--config"][..], &["check"], &["check", "--json"]] {
            let output = Command::new(env!("CARGO_BIN_EXE_mxgate"))
                .args(args)
                .arg(&path)
                .env_clear()
                .env(variable, value)
                .output()
                .unwrap();
            let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
            assert_eq!(output.status.code(), Some(3), "{said}");
            assert!(said.contains(variable) && !said.contains(MARK), "{said}");
        }
    }
}

#[test]
fn the_kernel_holds_what_the_first_line_says() {
    let mx = mx();
    let gateway = Setup::new(&mx).start();
    let line = gateway.stderr.wait_for(|line| line.contains("mxgate starts"));
    assert!(
        line.contains("core limit 0: yes, not dumpable: yes, no new privileges: yes, memory: "),
        "{line}"
    );
    let of = |name: &str| fs::read_to_string(format!("/proc/{}/{name}", gateway.pid())).unwrap();
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name)).expect("a line").to_owned();
        line[name.len()..].split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(field(&of("limits"), "Max core file size"), "0 0 bytes");
    assert_eq!(field(&of("status"), "NoNewPrivs:"), "1");
    // Of a process that may be dumped they belong to its user; as root there is no telling.
    for name in ["mem", "environ", "maps"] {
        let owner = fs::metadata(format!("/proc/{}/{name}", gateway.pid())).unwrap();
        assert_eq!(std::os::unix::fs::MetadataExt::uid(&owner), 0, "{name}");
    }
    assert!(
        field(&of("status"), "VmLck:") != "0 kB"
            || line.contains("memory: not locked, the system has no swap")
            || line.contains("NOT LOCKED")
    );
}

/// Commands that hold secrets for a moment.
#[test]
fn commands_that_read_secrets_leave_no_core_either() {
    let mx = mx();
    let setup = Setup::with_vault(&mx);
    let folder = setup.folder().display().to_string();
    let limits = |pid: u32| fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let has_no_core = |limits: &str| {
        let line = limits.lines().find(|line| line.starts_with("Max core file size")).expect("a line");
        line.split_whitespace().skip(4).take(2).all(|limit| limit == "0")
    };
    // This one waits for its input, with the vault open.
    let mut set = Command::new(env!("CARGO_BIN_EXE_mxgate"))
        .args(["vault", "--vault", "vault.age", "--identity", "identity", "set", "test/other"])
        .args(["--host", "127.0.0.1"])
        .current_dir(&folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    until("it may leave no core", || has_no_core(&limits(set.id())));
    drop(set.stdin.take());
    assert!(!set.wait().unwrap().success(), "nothing is no secret");

    // A command has the limits of whoever started it.
    let helper = setup
        .file("helper", &format!("#!/bin/sh\n/bin/cat /proc/self/limits >{folder}/seen\necho {API_KEY}\n"));
    fs::set_permissions(&helper, fs::Permissions::from_mode(0o700)).unwrap();
    let mut setup = setup.table(&format!("[exec.key]\ncommand = [\"{folder}/helper\"]"));
    setup.environments = setup.environments.replace("vault:test/api_key", "exec:key");
    let config = setup.file("checked.toml", &setup.configuration());
    let checked = mxgate(&["check", "--online", config.to_str().unwrap()], &[]);
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
    assert!(has_no_core(&fs::read_to_string(format!("{folder}/seen")).unwrap()));
}

/// Where this system keeps cores at all, another process that ends the same way leaves one.
#[test]
fn an_abort_leaves_no_core() {
    let hard = getrlimit(Resource::Core).maximum;
    setrlimit(Resource::Core, Rlimit { current: hard, maximum: hard }).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let other = Command::new("sh")
        .args(["-c", "kill -ABRT $$"])
        .current_dir(folder.path())
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert_eq!(other.signal(), Some(6));
    if !other.core_dumped() {
        eprintln!("this system keeps no cores (hard limit {hard:?}), so there is nothing to compare with");
    }

    let mx = mx();
    let mut gateway = Setup::new(&mx).start();
    assert_eq!(gateway.get("/users", "").status, 200);
    gateway.signal("ABRT");
    let end = gateway.wait();
    assert_eq!((end.signal(), end.core_dumped()), (Some(6), false));
    let left = fs::read_dir(gateway.setup.folder()).unwrap().map(|entry| entry.unwrap().file_name());
    let left: Vec<_> = left.filter(|name| name.to_string_lossy().starts_with("core")).collect();
    assert!(left.is_empty(), "{left:?}");
}

/// The key from the vault instead of a file.
fn with_vault(mut setup: Setup) -> Setup {
    let at = setup.folder().display().to_string();
    let from_file = format!("\"file:{at}/key\"");
    assert!(setup.environments.contains(&from_file) && setup.environments.contains(CLIENT_ID));
    setup.environments = setup.environments.replace(&from_file, "\"vault:test/key\"");
    setup.table(&format!(
        "[vault]\nkind = \"file\"\npath = \"{at}/vault.age\"\nidentity = \"file:{at}/identity\""
    ))
}

fn vault(folder: &Path, args: &[&str], input: &str) {
    use std::io::Write as _;
    let mut child = Command::new(env!("CARGO_BIN_EXE_mxgate"))
        .args(["vault", "--vault", "vault.age", "--identity", "identity"])
        .args(args)
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    // `init` reads nothing and may be gone.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    assert!(child.wait().unwrap().success());
}
