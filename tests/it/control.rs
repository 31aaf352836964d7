//! The control socket: who may use it, and what its commands do to live traffic.

use std::{
    fs,
    os::unix::{
        fs::{FileTypeExt, PermissionsExt},
        net::UnixStream,
    },
    process::Command,
};

use crate::harness::{Gateway, Setup, mx, mxgate, until};

fn start() -> (mxgate::stand_in::Running, Gateway) {
    let mx = mx();
    let gateway = Setup::new(&mx).control().start();
    (mx, gateway)
}

fn answers(gateway: &Gateway) -> (u16, String) {
    let answer = gateway.get("/users", "");
    (answer.status, answer.code())
}

#[test]
fn status_is_shown_to_people_and_to_programs() {
    let (_mx, gateway) = start();
    assert_eq!(gateway.get("/users", "").status, 200);
    let text = gateway.command(&["status"]).unwrap();
    for part in [
        format!("process {}, up ", gateway.pid()),
        "ready          yes\n".to_owned(),
        "generation 1, ".to_owned(),
        format!("environment    test at 127.0.0.1, file:{}/key (", gateway.setup.folder().display()),
        "log filter     info\n".to_owned(),
    ] {
        assert!(text.contains(&part), "{part} is not in\n{text}");
    }
    let status = gateway.status();
    assert_eq!(status["pid"], gateway.pid());
    assert_eq!(status["generation"], 1);
    assert_eq!(status["not_ready"], serde_json::Value::Null);
    assert_eq!(status["environments"][0]["name"], "test");
    assert!(!text.contains(crate::harness::API_KEY) && !status.to_string().contains(crate::harness::API_KEY));
}

#[test]
fn nobody_there_is_said_with_the_path() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("control.sock");
    for command in [&["status"][..], &["reload"], &["suspend", "environment", "test"]] {
        let output = mxgate(&[&["--socket", socket.to_str().unwrap()], command].concat(), &[]);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.contains(socket.to_str().unwrap()) && text.contains("is it running"), "{text}");
    }
}

#[test]
fn only_the_operator_reaches_it() {
    let (_mx, gateway) = start();
    let socket = gateway.setup.control_socket();
    let made = fs::symlink_metadata(&socket).unwrap();
    assert!(made.file_type().is_socket());
    assert_eq!(made.permissions().mode() & 0o777, 0o600);
    if !rustix::process::geteuid().is_root() {
        eprintln!("not root: what another user gets is not tested");
        return;
    }
    // Another user needs a way to the socket and to the program.
    fs::set_permissions(gateway.setup.folder(), fs::Permissions::from_mode(0o755)).unwrap();
    let program = gateway.setup.folder().join("mxgate");
    fs::copy(env!("CARGO_BIN_EXE_mxgate"), &program).unwrap();
    let as_user = |user: &str| {
        let output = Command::new("setpriv")
            .args(["--reuid", user, "--regid", user, "--clear-groups"])
            .arg(&program)
            .arg("--socket")
            .arg(&socket)
            .arg("status")
            .output()
            .unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, text) = as_user("65534");
    assert_eq!(code, Some(1));
    assert!(text.contains("is for root and the gateway's own user"), "{text}");
    // Even where the file's mode would let them.
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o666)).unwrap();
    let (code, text) = as_user("65534");
    assert_eq!(code, Some(1), "{text}");
    gateway.stderr.wait_for(|line| line.contains("turned away") && line.contains("65534"));
    let (code, text) = as_user("0");
    assert_eq!(code, Some(0), "{text}");
}

#[test]
fn a_suspended_environment_is_not_served_and_others_are() {
    let mx = mx();
    let mut setup = Setup::new(&mx).control();
    let other = setup.other_environment("other", mx.address());
    setup.environments.push_str(&other);
    setup.listeners.push_str("[[listener]]\naddress = \"127.0.0.1:0\"\nenvironment = \"other\"\n");
    let gateway = setup.start();
    let mut kept = gateway.connect();
    kept.request("GET /users HTTP/1.1", "");
    assert_eq!(kept.answer().status, 200);

    let shown = gateway.command(&["suspend", "environment", "test"]).unwrap();
    assert_eq!(shown, "environment test is suspended until it is resumed\n");
    assert_eq!(answers(&gateway), (403, "suspended".into()));
    // A connection that was there before, too; and it stays usable.
    kept.request("GET /users HTTP/1.1", "");
    assert_eq!(kept.answer().code(), "suspended");
    let before = mx.received();
    let mut client = crate::harness::Client::connect(gateway.addresses[1]);
    client.request("GET /users HTTP/1.1", "");
    assert_eq!(client.answer().status, 200, "the other environment");
    assert_eq!(mx.received(), before + 1);
    let text = gateway.command(&["status"]).unwrap();
    assert!(text.contains("suspended      environment test, until it is resumed\n"), "{text}");

    // A suspension outlives a reload.
    gateway.command(&["reload"]).unwrap();
    assert_eq!(answers(&gateway), (403, "suspended".into()));

    gateway.command(&["resume", "environment", "test"]).unwrap();
    assert_eq!(answers(&gateway).0, 200);
    kept.request("GET /users HTTP/1.1", "");
    assert_eq!(kept.answer().status, 200);

    let (text, code) = gateway.command(&["resume", "environment", "test"]).unwrap_err();
    assert_eq!((code, text.contains("is not suspended")), (1, true), "{text}");
    let (text, code) = gateway.command(&["suspend", "environment", "tset"]).unwrap_err();
    assert_eq!((code, text.contains("there are: other, test")), (1, true), "{text}");
}

#[test]
fn a_suspended_address_is_not_served_until_its_time_is_over() {
    let (_mx, gateway) = start();
    gateway.command(&["suspend", "address", "10.0.0.0/8"]).unwrap();
    assert_eq!(answers(&gateway).0, 200, "another network");
    gateway.command(&["suspend", "address", "127.0.0.1", "--for", "2s"]).unwrap();
    assert_eq!(answers(&gateway), (403, "suspended".into()));
    until("the suspension is over", || answers(&gateway).0 == 200);
    let left = gateway.status()["suspensions"].clone();
    assert_eq!(left, serde_json::json!([{"target": {"address": "10.0.0.0/8"}, "for_s": null}]));
    let (text, code) = gateway.command(&["suspend", "address", "10.1.2.3/8"]).unwrap_err();
    assert_eq!((code, text.contains("did you mean 10.0.0.0/8?")), (1, true), "{text}");
}

#[test]
fn a_log_filter_ends_by_itself() {
    let (_mx, gateway) = start();
    let reloads = || gateway.stderr.text().matches("\"reloaded\"").count();
    gateway.command(&["log-level", "error", "--for", "2s"]).unwrap();
    assert_eq!(gateway.status()["log_override"]["filter"], "error");
    gateway.command(&["reload"]).unwrap();
    until("the configured filter is back", || gateway.status()["log_override"].is_null());
    assert_eq!(reloads(), 0, "an info line under the filter `error`");
    gateway.command(&["reload"]).unwrap();
    gateway.stderr.wait_for(|line| line.contains("\"reloaded\""));

    gateway.command(&["log-level", "error"]).unwrap();
    gateway.command(&["log-level", "--reset"]).unwrap();
    assert!(gateway.status()["log_override"].is_null());
    gateway.command(&["reload"]).unwrap();
    until("info lines are back", || reloads() == 2);
}

#[test]
fn a_wrong_log_filter_changes_nothing() {
    let (_mx, gateway) = start();
    let (text, code) = gateway.command(&["log-level", "nonsense="]).unwrap_err();
    assert_eq!((code, text.contains("is no log filter")), (1, true), "{text}");
    let (_, code) = gateway.command(&["log-level", "debug", "--for", "0s"]).unwrap_err();
    assert_eq!(code, 2);
    assert!(gateway.status()["log_override"].is_null());
}

#[test]
fn commands_in_json() {
    let (_mx, gateway) = start();
    let json = |arguments: &[&str]| {
        let text = gateway.command(&[arguments, &["--json"]].concat()).unwrap();
        serde_json::from_str::<serde_json::Value>(&text).unwrap()
    };
    let nothing = serde_json::json!({"generation": 2, "changes": [], "needs_restart": [], "unread": []});
    assert_eq!(json(&["reload"]), nothing);
    assert_eq!(
        json(&["suspend", "environment", "test", "--for", "1h"])["done"],
        "environment test is suspended for 1h"
    );
    assert_eq!(json(&["resume", "environment", "test"])["done"], "environment test is served again");
}

#[test]
fn a_silent_client_does_not_keep_the_socket() {
    let (_mx, gateway) = start();
    let silent: Vec<_> =
        (0..8).map(|_| UnixStream::connect(gateway.setup.control_socket()).unwrap()).collect();
    assert_eq!(gateway.status()["generation"], 1);
    drop(silent);
}
