//! A suspended caller or operation: at once, open connections included; and Unix peers told apart.

use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::{fs::PermissionsExt as _, net::UnixStream},
    process::Command,
};

use crate::harness::{Client, EVERYTHING, Gateway, PATIENCE, Setup, mx, until};

const LEDGER: &str = "127.0.0.2";
const BATCH: &str = "127.0.0.3";

fn start(mx: &mxgate::stand_in::Running) -> Gateway {
    let mut setup = Setup::new(mx).control();
    setup.callers = Some(format!(
        "[[caller]]\nname = \"ledger\"\nnetworks = [\"{LEDGER}/32\"]\ngrant = {{ test = [{EVERYTHING}] }}\n\
         [[caller]]\nname = \"batch\"\nnetworks = [\"{BATCH}/32\"]\ngrant = {{ test = [{EVERYTHING}] }}\n"
    ));
    setup.start()
}

fn connect(gateway: &Gateway, from: &str) -> Client {
    Client::connect_from(from.parse().unwrap(), gateway.addresses[0])
}

/// The status and code of one request on a connection of its own.
fn ask(gateway: &Gateway, from: &str, line: &str) -> (u16, String) {
    let mut client = connect(gateway, from);
    client.request(&format!("{line} HTTP/1.1"), "");
    let answer = client.answer();
    (answer.status, answer.code())
}

fn suspended() -> (u16, String) {
    (403, "suspended".into())
}

#[test]
fn a_suspended_caller_loses_its_connections_at_once_and_others_keep_theirs() {
    let mx = mx();
    let gateway = start(&mx);
    let idle = |from: &str| {
        let mut client = connect(&gateway, from);
        client.request("GET /users HTTP/1.1", "");
        assert_eq!(client.answer().status, 200);
        client
    };
    let (mut ledger, mut batch) = (idle(LEDGER), idle(BATCH));
    // One that waits for MX, and one whose answer is on its way.
    let waiting = |from: &str| {
        let mut client = connect(&gateway, from);
        client.request("GET /users HTTP/1.1\nx-stand-in-slow-head: 20000", "");
        client
    };
    let mut in_flight = waiting(LEDGER);
    until("MX has it", || mx.received() == 3);

    let shown = gateway.command(&["suspend", "caller", "ledger"]).unwrap();
    assert_eq!(shown, "caller ledger is suspended until it is resumed\n");
    gateway.stderr.wait_for(|line| {
        line.contains("\"suspended\"") && line.contains("caller ledger") && line.contains("\"uid\"")
    });
    assert_eq!(ledger.rest(), b"", "the idle connection is closed");
    let answer = in_flight.answer();
    assert_eq!((answer.status, answer.code().as_str()), (403, "suspended"), "it does not wait for MX");
    assert_eq!(in_flight.rest(), b"");
    let record = gateway.record(|record| record["code"] == "suspended");
    assert_eq!((record["caller"].as_str(), record["decision"].as_str()), (Some("ledger"), Some("refused")));
    assert_eq!(ask(&gateway, LEDGER, "GET /users"), suspended());
    let mut again = connect(&gateway, LEDGER);
    again.request("GET /users HTTP/1.1", "");
    assert_eq!(again.answer().header("connection"), Some("close"), "it keeps no connection");

    batch.request("GET /users HTTP/1.1", "");
    assert_eq!(batch.answer().status, 200, "another caller");
    // It outlives a reload, and ends with `resume`.
    gateway.command(&["reload"]).unwrap();
    assert_eq!(ask(&gateway, LEDGER, "GET /users"), suspended());
    gateway.command(&["resume", "caller", "ledger"]).unwrap();
    assert_eq!(ask(&gateway, LEDGER, "GET /users").0, 200);
    let (text, code) = gateway.command(&["suspend", "caller", "leger"]).unwrap_err();
    assert_eq!((code, text.contains("there are: ledger, batch")), (1, true), "{text}");
}

#[test]
fn an_answer_that_is_on_its_way_is_cut_and_looks_cut() {
    let mx = mx();
    let gateway = start(&mx);
    let mut client = connect(&gateway, LEDGER);
    let slow = "x-stand-in-big: 1000000\nx-stand-in-piece: 1000\nx-stand-in-slow-body: 50";
    client.request(&format!("GET /users HTTP/1.1\n{slow}"), "");
    let mut first = [0; 1];
    client.stream.read_exact(&mut first).unwrap();
    gateway.command(&["suspend", "caller", "ledger", "--for", "1h"]).unwrap();
    let mut rest = Vec::new();
    // A reset, or an end before the end.
    let _ = client.stream.read_to_end(&mut rest);
    let text = String::from_utf8_lossy(&rest).into_owned();
    let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    let length =
        text.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ").map(str::to_owned));
    match length {
        Some(length) => assert!(body.len() < length.parse().unwrap(), "{text}"),
        None => assert!(!body.ends_with("0\r\n\r\n"), "{text}"),
    }
    let record = gateway.record(|record| record["code"] == "suspended");
    assert_eq!((record["caller"].as_str(), record["decision"].as_str()), (Some("ledger"), Some("refused")));
}

#[test]
fn a_suspended_operation_is_done_by_nobody_and_others_are() {
    let mx = mx();
    let gateway = start(&mx);
    let mut kept = connect(&gateway, LEDGER);
    let mut ask_kept = |line: &str| {
        kept.request(&format!("{line} HTTP/1.1"), "");
        let answer = kept.answer();
        (answer.status, answer.code())
    };
    assert_eq!(ask_kept("GET /users").0, 200);
    let mut in_flight = connect(&gateway, BATCH);
    in_flight.request("GET /users HTTP/1.1\nx-stand-in-slow-head: 20000", "");
    until("MX has it", || mx.received() == 2);
    gateway.command(&["suspend", "operation", "listUsers"]).unwrap();
    assert_eq!(in_flight.answer().code(), "suspended");
    assert_eq!(ask_kept("GET /users"), suspended());
    assert_eq!(ask(&gateway, BATCH, "GET /users"), suspended());
    assert_eq!(ask_kept("GET /institutions").0, 200, "another operation, on the same connection");
    gateway.command(&["resume", "operation", "listUsers"]).unwrap();
    assert_eq!(ask_kept("GET /users").0, 200);
    let (text, code) = gateway.command(&["suspend", "operation", "listusers"]).unwrap_err();
    assert_eq!((code, text.contains("there is no operation")), (1, true), "{text}");
}

/// What a user of this machine gets from a Unix socket: the answer's status line.
fn as_user(gateway: &Gateway, uid: u32, gid: u32) -> String {
    let socket = gateway.setup.folder().join("mx.sock");
    let output = Command::new("setpriv")
        .args([&format!("--reuid={uid}"), &format!("--regid={gid}"), "--clear-groups", "curl"])
        .args(["--silent", "--max-time", "20", "--output", "/dev/null", "--write-out", "%{http_code}"])
        .arg("--unix-socket")
        .arg(socket)
        .arg("http://localhost/users")
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap()
}

fn on_unix(mx: &mxgate::stand_in::Running, callers: &str) -> Gateway {
    let mut setup = Setup::new(mx);
    let socket = setup.folder().join("mx.sock");
    setup.listeners =
        format!("[[listener]]\naddress = \"unix:{}\"\nenvironment = \"test\"\n", socket.display());
    setup.callers = Some(callers.into());
    let gateway = setup.start();
    // Who reaches it is a question of the file's mode; who is served is not.
    fs::set_permissions(gateway.setup.folder(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o666)).unwrap();
    gateway
}

#[test]
fn two_users_of_a_unix_socket_are_two_callers_and_a_third_is_none() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("not root: nobody can become another user, so only this user is tested");
        return;
    }
    let mx = mx();
    let grant = "grant = { test = [\"read\"] }";
    let gateway = on_unix(
        &mx,
        &format!(
            "[[caller]]\nname = \"ledger\"\nunix_uids = [60001]\n{grant}\n\
             [[caller]]\nname = \"batch\"\nunix_uids = [60002]\nunix_gids = [60012]\n{grant}\n"
        ),
    );
    assert_eq!(as_user(&gateway, 60_001, 60_011), "200");
    let record = gateway.record(|record| record["peer_uid"] == 60_001);
    assert_eq!((record["caller"].as_str(), record["caller_address"].is_null()), (Some("ledger"), true));
    assert_eq!(as_user(&gateway, 60_002, 60_012), "200");
    assert_eq!(gateway.record(|record| record["peer_uid"] == 60_002)["caller"], "batch");
    assert_eq!(mx.received(), 2);
    // Of the right user with another group, of the right group with another user, and root.
    for (uid, gid) in [(60_002, 60_011), (60_003, 60_012), (0, 0)] {
        assert_eq!(as_user(&gateway, uid, gid), "403", "{uid} {gid}");
        let line = gateway.stderr.wait_for(|line| line.contains(&format!("unix:uid={uid}")));
        assert!(line.contains("WARN") && line.contains("\"unknown\"") && line.contains("/curl"), "{line}");
    }
    assert_eq!(mx.received(), 2);
}

#[test]
fn this_user_of_a_unix_socket_is_a_caller_or_none() {
    let mx = mx();
    let uid = rustix::process::geteuid().as_raw();
    for (uids, status) in [(uid, "200"), (uid + 1, "403")] {
        let callers =
            format!("[[caller]]\nname = \"me\"\nunix_uids = [{uids}]\ngrant = {{ test = [\"read\"] }}\n");
        let gateway = on_unix(&mx, &callers);
        let mut stream = UnixStream::connect(gateway.setup.folder().join("mx.sock")).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(b"GET /users HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert_eq!(answer.split(' ').nth(1), Some(status), "{answer}");
    }
    assert_eq!(mx.received(), 1);
}
