//! `mxgate explain`, `policy` and `config diff` as they are called: exit codes, output, and what is not shown.

use serde_json::Value;

use crate::harness::{API_KEY, Setup, mx, mxgate};

fn run(arguments: &[&str]) -> (i32, String, String) {
    let output = mxgate(arguments, &[]);
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    (output.status.code().expect("an exit code"), text(output.stdout), text(output.stderr))
}

const CONFIG: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/config/two-environments.toml");
const TABLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/config/policy/two-environments.toml");

fn explain(arguments: &[&str]) -> (i32, String, String) {
    run(&[&["explain", "--config", CONFIG], arguments].concat())
}

#[test]
fn the_exit_code_says_whether_it_would_be_allowed() {
    let (code, out, _) = explain(&["--from", "10.20.1.7", "GET", "/users/USR-1/members"]);
    assert_eq!(code, 0, "{out}");
    assert!(out.ends_with("\nallowed\n") && out.contains("ledger: 10.20.1.7 is in its network"), "{out}");
    let (code, out, _) = explain(&["--from", "10.20.1.7", "DELETE", "/users/USR-1"]);
    assert_eq!(code, 1);
    assert!(out.contains("refused: 403 operation_denied\n  - add \"deleteUser\""), "{out}");
    // The question is wrong, or not one.
    for wrong in [
        &["--caller", "nobody", "GET", "/users"][..],
        &["--from", "10.20.1.7", "--listener", "127.0.0.1:1", "GET", "/users"],
        &["GET", "/users"],
        &["--from", "10.20.1.7", "--caller", "ledger", "GET", "/users"],
        &["--from", "10.20.1.7", "-H", "nonsense", "GET", "/users"],
    ] {
        assert_eq!(explain(wrong).0, 2, "{wrong:?}");
    }
    let setup = Setup::new(&mx());
    let faulty = setup.file("faulty.toml", "allow = 1").display().to_string();
    let (code, out, error) = run(&["explain", "--config", &faulty, "--from", "10.0.0.1", "GET", "/users"]);
    assert_eq!((code, &*out), (3, ""));
    assert!(error.contains("allow: is an integer"), "{error}");
}

#[test]
fn json_has_the_same_content() {
    let (code, out, _) = explain(&["--json", "--from", "10.20.1.7", "GET", "/users?page=2"]);
    let told: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((code, &told["allowed"], &told["operation"]), (0, &true.into(), &"listUsers".into()));
    assert_eq!(told["credential"]["name"], "vault:production/api_key");
    assert_eq!(told["sent"]["target"], "/users?page=2");
    let (code, out, _) = explain(&["--json", "--from", "10.9.9.9", "GET", "/users"]);
    let told: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((code, &told["code"], &told["status"]), (1, &"caller_not_allowed".into(), &403.into()));
    assert!(told["changes"][0].as_str().expect("a change").contains("10.9.9.9"));
}

/// With the vault at hand its fingerprint is shown, and nothing is sent, written or revealed.
#[test]
fn a_fingerprint_is_shown_and_no_secret() {
    let mx = mx();
    let setup = Setup::with_vault(&mx);
    let config = setup.file("mxgate.toml", &setup.configuration()).display().to_string();
    let files = |setup: &Setup| {
        let mut names: Vec<_> = std::fs::read_dir(setup.folder())
            .expect("a folder")
            .map(|one| one.expect("a file").path())
            .collect();
        names.sort();
        names.into_iter().map(|path| (std::fs::read(&path).expect("a file"), path)).collect::<Vec<_>>()
    };
    let before = files(&setup);
    let ask = || run(&["explain", "--config", &config, "--from", "127.0.0.1", "GET", "/users"]);
    let (code, out, error) = ask();
    assert_eq!((code, &*error), (0, ""), "{out}");
    assert!(out.contains("credential  vault:test/api_key as basic, fingerprint "), "{out}");
    assert!(!out.contains("fingerprint unknown") && !out.contains(API_KEY), "{out}");
    assert_eq!(mx.received(), 0);
    assert!(files(&setup) == before, "a file was written");
    // Without the vault it is the same, but for the fingerprint.
    std::fs::remove_file(setup.folder().join("vault.age")).expect("it is there");
    let (code, out, _) = ask();
    assert_eq!(code, 0);
    assert!(
        out.contains("vault:test/api_key as basic, fingerprint unknown: the vault is not opened"),
        "{out}"
    );
}

#[test]
fn a_table_is_run_and_says_what_failed() {
    let (code, out, _) = run(&["policy", "test", TABLE, "--config", CONFIG]);
    assert_eq!((code, out.trim()), (0, "9 cases as expected"));
    let setup = Setup::new(&mx());
    let text = std::fs::read_to_string(TABLE).expect("a table");
    let wrong = setup.file("wrong.toml", &text.replacen("expect = \"allowed\"", "expect = \"suspended\"", 1));
    let wrong = wrong.display().to_string();
    let (code, out, _) = run(&["policy", "test", &wrong, "--config", CONFIG]);
    assert_eq!(code, 1);
    assert!(out.starts_with("FAILED the ledger reads members\n  expected suspended, got allowed"), "{out}");
    assert!(out.ends_with("1 of 9 cases failed\n"), "{out}");
    let (code, out, _) = run(&["--json", "policy", "test", &wrong, "--config", CONFIG]);
    let told: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((code, &told["failed"]), (1, &1.into()));
    let mistaken =
        setup.file("mistaken.toml", &text.replacen("expect =", "expct =", 1)).display().to_string();
    let (code, _, error) = run(&["policy", "test", &mistaken, "--config", CONFIG]);
    assert_eq!(code, 3);
    assert!(error.contains("expct"), "{error}");
}

/// What a gateway recorded, replayed and learnt from.
#[test]
fn records_of_a_gateway_are_replayed_and_suggest_its_grants() {
    let mx = mx();
    let mut setup = Setup::new(&mx);
    let caller = "[[caller]]\nname = \"ledger\"\nnetworks = [\"127.0.0.0/8\"]\ngrant = { test = [ITEMS] }\n";
    setup.callers = Some(caller.replace("ITEMS", "\"read\", \"createUser\""));
    let records = setup.folder().join("records.jsonl").display().to_string();
    let mut gateway = setup.table(&format!("[record]\ndestination = \"file:{records}\"")).start();
    for line in ["GET /users", "GET /users", "HEAD /users/U", "POST /users", "DELETE /users/U", "GET /none"] {
        let mut client = gateway.connect();
        client.request(&format!("{line} HTTP/1.1"), "");
        client.answer_to_head();
    }
    gateway.signal("TERM");
    assert!(gateway.wait().success());
    let config = gateway.setup.folder().join("mxgate.toml").display().to_string();
    let (code, out, error) = run(&["policy", "replay", &records, "--config", &config]);
    assert_eq!((code, &*error), (0, ""), "{out}");
    assert!(
        out.starts_with("6 records read: 5 decided as before, 0 differently\ncannot be known for 1"),
        "{out}"
    );

    let (code, out, error) = run(&["policy", "suggest", &records]);
    assert_eq!((code, &*error), (0, ""));
    let items = "\n    \"listUsers\",\n    \"createUser\",\n    \"readUser\",\n";
    assert_eq!(out, format!("[[caller]]\nname = \"ledger\"\ngrant.test = [{items}]\n"));

    // Its own suggestion allows what was done; less does not.
    gateway.setup.callers = Some(caller.replace("ITEMS", items));
    gateway.reconfigure();
    let (code, out, _) = run(&["policy", "replay", &records, "--config", &config]);
    assert_eq!(code, 0, "{out}");
    gateway.setup.callers = Some(caller.replace("ITEMS", "\"listUsers\""));
    gateway.reconfigure();
    let (code, out, _) = run(&["policy", "replay", &records, "--config", &config]);
    assert_eq!(code, 1);
    assert!(out.contains("ledger at test\n  createUser: allowed -> operation_denied, 1 request\n"), "{out}");
}

#[test]
fn two_configurations_are_compared() {
    let (code, out, _) = run(&["config", "diff", CONFIG, CONFIG]);
    assert_eq!((code, out.trim()), (0, "the same policy"));
    let setup = Setup::new(&mx());
    let text = std::fs::read_to_string(CONFIG).expect("a configuration");
    let other = text.replacen("[\"read\", \"bank-data\"]", "[\"read\", \"bank-data\", \"deleteUser\"]", 1);
    let other = setup.file("other.toml", &other).display().to_string();
    let (code, out, _) = run(&["config", "diff", CONFIG, &other]);
    assert_eq!(code, 1);
    assert!(out.contains("+ deleteUser (! destructive)"), "{out}");
    let (code, out, _) = run(&["--json", "config", "diff", CONFIG, &other]);
    let told: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((code, &told["callers"][0]["kind"]), (1, &"changed".into()));
    let faulty = setup.file("faulty.toml", "allow = 1").display().to_string();
    assert_eq!(run(&["config", "diff", CONFIG, &faulty]).0, 3);
}
