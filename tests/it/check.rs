//! A configuration is checked: every fault at once, for people and for programs, and nothing starts with one.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::Value;
use tempfile::TempDir;

use crate::harness::{Setup, mx, mxgate};

/// A value of the kind that people paste by mistake.
const PASTED: &str = "sk-live-0123456789abcdef";

/// Twelve faults, one of each common kind, and where they are.
const FAULTY: &str = r#"allow = ["10.1.2.3/8"]
alow = ["10.0.0.0/8"]

[[listener]]
adress = "127.0.0.1:0"
environment = "tset"

[limits]
body_bytes_max = "many"

[environment.test]
url = "http://127.0.0.1:1"
credential = { kind = "basc", client_id = "c", api_key = "sk-live-0123456789abcdef" }

[log]
format = "jsn"
filter = "nonsense="
[[caller]]
name = "ledger"
networks = ["10.0.0.0/8"]
grant = { test = ["raed"] }
"#;

const FAULTS: [(&str, u64, u64); 12] = [
    ("allow[0]", 1, 10),
    ("alow", 2, 1),
    ("listener[0].address", 4, 1),
    ("listener[0].adress", 5, 1),
    ("listener[0].environment", 6, 15),
    ("limits.body_bytes_max", 9, 18),
    ("environment.test.url", 12, 7),
    ("environment.test.credential.kind", 13, 23),
    ("environment.test.credential.api_key", 13, 58),
    ("log.format", 16, 10),
    ("log.filter", 17, 10),
    ("caller[0].grant.test[0]", 21, 19),
];

struct File(TempDir);

impl File {
    fn new(text: &str) -> Self {
        let file = Self(tempfile::tempdir().unwrap());
        fs::write(file.path(), text).unwrap();
        fs::set_permissions(file.path(), fs::Permissions::from_mode(0o600)).unwrap();
        file
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("mxgate.toml")
    }

    fn check(&self, more: &[&str], variables: &[(&str, &str)]) -> Output {
        mxgate(&[&["check", self.path().to_str().unwrap()], more].concat(), variables)
    }
}

fn example(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(name)).unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn every_example_is_fine() {
    let folder = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("config")).unwrap();
    let names = folder.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let examples: Vec<String> = names.filter(|name| name.ends_with(".toml")).collect();
    assert!(examples.len() >= 4, "{examples:?}");
    for name in examples {
        let output = File::new(&example(&name)).check(&[], &[]);
        assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(0), "fine\n"), "{name}");
    }
}

#[test]
fn all_faults_are_told_at_once_with_place_key_and_what_is_allowed() {
    let file = File::new(FAULTY);
    let output = file.check(&[], &[]);
    assert_eq!(output.status.code(), Some(3));
    let text = stdout(&output);
    for (key, line, column) in FAULTS {
        let start = format!("{}:{line}:{column}: {key}: ", file.path().display());
        assert!(text.contains(&start), "{start} is not in\n{text}");
    }
    assert_eq!(text.lines().count(), FAULTS.len() + 1, "{text}");
    assert!(text.ends_with("12 faults\n"), "{text}");
    for part in [
        "did you mean \"allow\"?",
        "did you mean \"address\"?",
        "did you mean \"test\"?",
        "one of \"basic\", \"api-key\", ",
        "expected a whole number of bytes, 0 to 1073741824",
        "write \"10.0.0.0/8\"",
        "never the secret itself",
    ] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    assert!(!text.contains(PASTED) && !stderr(&output).contains(PASTED), "the pasted secret is shown");
}

#[test]
fn programs_get_the_same_faults_as_json() {
    let output = File::new(FAULTY).check(&["--json"], &[]);
    assert_eq!(output.status.code(), Some(3));
    assert!(!stdout(&output).contains(PASTED));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["ok"], false);
    let faults = report["faults"].as_array().unwrap();
    let places: Vec<_> = faults
        .iter()
        .map(|fault| {
            let number = |name: &str| fault[name].as_u64().unwrap();
            (fault["key"].as_str().unwrap(), number("line"), number("column"))
        })
        .collect();
    assert_eq!(places, FAULTS);
    assert_eq!(faults[1]["nearest"], "allow");
    assert_eq!(faults[1]["severity"], "error");

    let fine = File::new(&example("sidecar.toml")).check(&["--json"], &[]);
    let report: Value = serde_json::from_slice(&fine.stdout).unwrap();
    assert_eq!((fine.status.code(), &report["ok"]), (Some(0), &Value::Bool(true)));
    assert_eq!(report["faults"], serde_json::json!([]));
}

#[test]
fn the_schema_that_it_prints_is_the_published_one() {
    let output = mxgate(&["check", "--schema"], &[]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(stdout(&output), example("mxgate.schema.json"));
}

#[test]
fn a_variable_replaces_a_value_and_a_wrong_one_is_a_fault_of_its_own() {
    let file = File::new(&example("sidecar.toml"));
    let right = file.check(&[], &[("MXGATE__LIMITS__BODY_BYTES_MAX", "1000"), ("PATH_OF_OTHERS", "x")]);
    assert_eq!((right.status.code(), stdout(&right).as_str()), (Some(0), "fine\n"));

    let variables = [("MXGATE__LIMITS__BODY_BYTES_MAXX", "3"), ("MXGATE__LIMITS__IDLE_TIMEOUT_MS", PASTED)];
    let wrong = file.check(&[], &variables);
    let text = stdout(&wrong);
    assert_eq!(wrong.status.code(), Some(3));
    assert!(
        text.contains("MXGATE__LIMITS__BODY_BYTES_MAXX: stands for no key; did you mean \"MXGATE__LIMITS__BODY_BYTES_MAX\"?")
            && text.contains("MXGATE__LIMITS__IDLE_TIMEOUT_MS: limits.idle_timeout_ms: is text; expected a whole number of milliseconds"),
        "{text}"
    );
    assert!(!text.contains(PASTED), "{text}");
}

#[test]
fn a_running_gateway_keeps_to_a_variable() {
    let mx = mx();
    let with = |variables: Vec<(String, String)>| {
        let mut setup = Setup::new(&mx);
        setup.variables = variables;
        let post = "POST /users HTTP/1.1\nContent-Type: application/json";
        setup.start().send(post, r#"{"user":{"id":"a-user-of-ours"}}"#)
    };
    assert_eq!(with(vec![]).status, 200);
    let answer = with(vec![("MXGATE__LIMITS__BODY_BYTES_MAX".into(), "5".into())]);
    assert_eq!((answer.status, answer.code().as_str()), (413, "body_too_large"));
}

#[test]
fn what_is_no_command_ends_with_2() {
    for arguments in [
        &["check", "--bogus"][..],
        &["run", "--config"],
        &["chek"],
        &[],
        &["check", "a.toml", "--config", "b.toml"],
        &["check", "--schema", "a.toml"],
    ] {
        let output = mxgate(arguments, &[]);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", stderr(&output));
        assert!(stderr(&output).contains("--help"), "{arguments:?}");
    }
    assert_eq!(mxgate(&["--help"], &[]).status.code(), Some(0));
}

#[test]
fn nothing_runs_with_a_faulty_file_and_every_fault_is_told() {
    let file = File::new(FAULTY);
    let output = mxgate(&["run", "--config", file.path().to_str().unwrap()], &[]);
    assert_eq!(output.status.code(), Some(3));
    let text = stderr(&output);
    for (key, line, column) in FAULTS {
        assert!(text.contains(&format!(":{line}:{column}: {key}: ")), "{key} is not in\n{text}");
    }
    assert_eq!(text.lines().count(), FAULTS.len(), "a fault, a line:\n{text}");
    assert!(!text.contains(PASTED));

    let absent = mxgate(&["run", "--config", "/nonexistent/mxgate.toml"], &[]);
    assert_eq!(absent.status.code(), Some(3));
    assert!(stderr(&absent).contains("/nonexistent/mxgate.toml: cannot be read"), "{}", stderr(&absent));
}

#[test]
fn a_file_that_others_may_write_is_refused() {
    let file = File::new(&example("sidecar.toml"));
    for (mode, code) in [(0o600, 0), (0o644, 0), (0o620, 3), (0o602, 3)] {
        fs::set_permissions(file.path(), fs::Permissions::from_mode(mode)).unwrap();
        let output = file.check(&[], &[]);
        assert_eq!(output.status.code(), Some(code), "{mode:o}");
        assert_eq!(stdout(&output).contains("may be written by group or others"), code == 3, "{mode:o}");
    }
}

/// A system whose cgroups, of either version, have this memory limit: shown to one process, in a mount namespace.
fn with_cgroup_limit(folder: &Path, limit: &str) -> String {
    let cgroups = folder.join("cgroup");
    fs::create_dir_all(cgroups.join("memory")).unwrap();
    fs::write(cgroups.join("memory.max"), limit).unwrap();
    fs::write(cgroups.join("memory/memory.limit_in_bytes"), limit).unwrap();
    // Who is not root can be, in a namespace of users.
    let unshare = "unshare --mount $(test $(id -u) = 0 || echo --map-root-user)";
    let mount = format!("mount --bind {} /sys/fs/cgroup", cgroups.display());
    format!("PATH=/usr/bin:/bin:/usr/sbin:/sbin\nexec {unshare} sh -c '{mount} && exec \"$@\"' sh \"$@\"")
}

#[test]
fn a_cgroup_with_too_little_memory_is_told_by_check_and_at_the_start() {
    let mx = mx();
    let mut setup = Setup::new(&mx);
    let small = with_cgroup_limit(setup.folder(), "67108864\n");
    let try_it = Command::new("/bin/sh").args(["-c", &small, "sh", "true"]).output().unwrap();
    if !try_it.status.success() {
        eprintln!("NOT TESTED: no mount namespace here: {}", String::from_utf8_lossy(&try_it.stderr));
        return;
    }
    let path = setup.file("mxgate.toml", &setup.configuration());
    let check = |prelude: &str| {
        let mxgate = env!("CARGO_BIN_EXE_mxgate");
        let arguments = ["-c", prelude, "sh", mxgate, "check", path.to_str().unwrap()];
        let output = Command::new("/bin/sh").args(arguments).output().unwrap();
        (output.status.code(), stdout(&output))
    };
    let (code, said) = check(&small);
    assert_eq!(code, Some(0));
    for part in
        ["warning: 4096 connections of callers and 256 to upstreams", " is 64 MiB:", "limits.connections_max"]
    {
        assert!(said.contains(part), "{part}: {said}");
    }
    let large = with_cgroup_limit(setup.folder(), "1099511627776\n");
    assert_eq!(check(&large), (Some(0), "fine\n".into()));

    setup.prelude = with_cgroup_limit(setup.folder(), "67108864\n");
    let gateway = setup.start();
    gateway.stderr.wait_for(|line| line.contains("WARN") && line.contains("cgroup is 64 MiB"));
    assert_eq!(gateway.get("/users", "").status, 200);
}
