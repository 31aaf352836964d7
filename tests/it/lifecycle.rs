//! Start and stop: what is told, what is served, what is left behind.

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::{
        fs::PermissionsExt,
        net::{UnixDatagram, UnixListener, UnixStream},
    },
    path::Path,
    time::{Duration, Instant},
};

use mxgate::{stand_in::Running, vault::embedded::Identity};

use crate::harness::{API_KEY, Client, Gateway, PATIENCE, Setup, mx, mxgate, until};

const SLOW: &str = "x-stand-in-slow-head: ";

fn process(table: &str) -> String {
    format!("[process]\n{table}")
}

fn gone(address: SocketAddr) -> bool {
    TcpStream::connect(address).is_err()
}

/// A request whose answer takes `milliseconds`, once MX has it.
fn in_flight(mx: &Running, gateway: &Gateway, milliseconds: u32) -> Client {
    let before = mx.connections();
    let mut client = gateway.connect();
    client.request(&format!("GET /users HTTP/1.1\n{SLOW}{milliseconds}"), "");
    until("MX has a connection", || mx.connections() > before);
    // Its head is there when the gateway waits for the answer: the stand-in records when it answers.
    until("the request is counted as open", || gateway.metric("mxgate_upstream_connections_open ") >= 1.0);
    client
}

// Start

#[test]
fn a_gateway_without_its_secret_says_which_and_takes_it_when_it_appears() {
    let mx = mx();
    let setup = Setup::new(&mx).control();
    let key = setup.folder().join("key");
    fs::remove_file(&key).unwrap();
    let gateway = setup.start();
    let name = format!("file:{} does not exist", key.display());
    gateway.stderr.wait_for(|line| line.contains("ERROR") && line.contains(&name));
    let page = gateway.page("/readyz");
    assert_eq!((page.status, gateway.page("/livez").status), (503, 200));
    let answer = gateway.get("/users", "");
    assert_eq!((answer.status, answer.code().as_str()), (503, "not_ready"));
    assert_eq!(answer.header("retry-after"), Some("1"));
    assert!(gateway.status()["reload_fault"].as_str().unwrap().contains(&name));
    assert!(gateway.status()["not_ready"].is_string());
    // Tried again, and not told again.
    until("it was tried again", || gateway.metric("result=\"failure\"") >= 2.0);
    assert_eq!(gateway.stderr.text().matches("no new snapshot").count(), 1);

    let mut kept = gateway.connect();
    gateway.setup.file("key", API_KEY);
    until("it is ready", || gateway.page("/readyz").status == 200);
    assert_eq!(gateway.get("/users", "").status, 200);
    kept.request("GET /users HTTP/1.1", "");
    assert_eq!(kept.answer().status, 200, "a connection from before");
    assert_eq!(mx.received(), 2, "nothing was sent before");
}

#[test]
fn a_vault_that_cannot_be_used_is_named_and_taken_when_it_can() {
    let mx = mx();
    let mut setup = Setup::new(&mx).control();
    let folder = setup.folder().display().to_string();
    setup.environments = setup.environments.replace(&format!("file:{folder}/key"), "vault:test/api_key");
    let setup = setup.table(&format!(
        "[vault]\nkind = \"file\"\npath = \"{folder}/vault.age\"\nidentity = \"file:{folder}/identity\""
    ));
    let (vault, identity_path) = (setup.folder().join("vault.age"), setup.folder().join("identity"));
    let identity = Identity::create(&identity_path).unwrap();
    mxgate::vault::embedded::create(&vault, &identity).unwrap();
    fs::set_permissions(&identity_path, fs::Permissions::from_mode(0o660)).unwrap();
    fs::set_permissions(&vault, fs::Permissions::from_mode(0o620)).unwrap();
    let gateway = setup.start();
    let told = |what: &str, why: &str| {
        gateway
            .stderr
            .wait_for(|line| line.contains("no new snapshot") && line.contains(what) && line.contains(why));
        assert_eq!(gateway.page("/readyz").status, 503);
    };
    told("identity", "group or others may write it");
    fs::set_permissions(&identity_path, fs::Permissions::from_mode(0o600)).unwrap();
    told("vault.age", "group or others may write it");
    fs::set_permissions(&vault, fs::Permissions::from_mode(0o600)).unwrap();
    told("vault:test/api_key does not exist", "environment test");
    let key = mxgate::vault::secret::Secret::new(API_KEY.into()).unwrap();
    let elsewhere = Some(vec!["api.mx.com".into()]);
    mxgate::vault::embedded::set(&vault, &identity, "test/api_key", key, elsewhere).unwrap();
    told("vault:test/api_key is sealed for api.mx.com", "may not be sent to 127.0.0.1");
    let key = mxgate::vault::secret::Secret::new(API_KEY.into()).unwrap();
    mxgate::vault::embedded::set(&vault, &identity, "test/api_key", key, Some(vec!["127.0.0.1".into()]))
        .unwrap();
    until("it is ready", || gateway.page("/readyz").status == 200);
    assert_eq!(gateway.get("/users", "").status, 200);
}

#[test]
fn it_is_ready_soon() {
    let mx = mx();
    let setup = Setup::with_vault(&mx);
    let begun = Instant::now();
    let gateway = setup.start();
    let up = begun.elapsed();
    assert_eq!(gateway.page("/readyz").status, 200, "ready as soon as it is up");
    println!("up after {up:?}");
}

/// What systemd would read.
struct Systemd(UnixDatagram);

impl Systemd {
    fn of(setup: &mut Setup) -> Self {
        let path = setup.folder().join("notify.sock");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        setup.variables.push(("NOTIFY_SOCKET".into(), path.display().to_string()));
        Self(socket)
    }

    fn next(&self) -> String {
        let mut bytes = [0; 4096];
        let count = self.0.recv(&mut bytes).expect("a notification");
        String::from_utf8(bytes[..count].to_vec()).unwrap()
    }
}

#[test]
fn systemd_is_told_of_start_reload_and_stop() {
    let mx = mx();
    let mut setup = Setup::new(&mx);
    let systemd = Systemd::of(&mut setup);
    let mut gateway = setup.start();
    let ready = systemd.next();
    assert!(ready.starts_with("READY=1\n") && ready.contains("STATUS=serving, configuration 1"), "{ready}");
    gateway.signal("HUP");
    let reloading = systemd.next();
    assert!(reloading.starts_with("RELOADING=1\n") && reloading.contains("MONOTONIC_USEC="), "{reloading}");
    let ready = systemd.next();
    assert!(ready.starts_with("READY=1\n") && ready.contains("configuration 2"), "{ready}");
    // A reload that fails is over, too.
    gateway.setup.top = "alow = 1\n".into();
    gateway.reconfigure();
    gateway.signal("HUP");
    assert!(systemd.next().starts_with("RELOADING=1\n"));
    let ready = systemd.next();
    assert!(ready.starts_with("READY=1\n") && ready.contains("the last reload failed: "), "{ready}");
    assert!(
        !ready.trim_end().lines().skip(2).any(|line| line.contains('=')),
        "more than two assignments: {ready}"
    );
    gateway.signal("TERM");
    assert!(systemd.next().starts_with("STOPPING=1"));
    assert!(gateway.wait().success());
}

#[test]
fn systemd_is_not_told_of_readiness_before_there_is_a_secret() {
    let mx = mx();
    let mut setup = Setup::new(&mx);
    fs::remove_file(setup.folder().join("key")).unwrap();
    let systemd = Systemd::of(&mut setup);
    let gateway = setup.start();
    let first = systemd.next();
    assert!(first.starts_with("STATUS=not ready: ") && first.contains("/key does not exist"), "{first}");
    gateway.setup.file("key", API_KEY);
    let ready = loop {
        let next = systemd.next();
        if !next.starts_with("STATUS=not ready: ") {
            break next;
        }
    };
    assert!(ready.starts_with("READY=1\n"), "{ready}");
}

#[test]
fn what_is_in_use_stops_the_start_and_is_named() {
    let mx = mx();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let run = |setup: &Setup| {
        let path = setup.file("mxgate.toml", &setup.configuration());
        let output = mxgate(&["run", "--config", path.to_str().unwrap()], &[]);
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let mut setup = Setup::new(&mx).control();
    // The first listener can be had; its file must not stay behind.
    let unix = setup.folder().join("mx.sock");
    setup.listeners = format!(
        "[[listener]]\naddress = \"unix:{}\"\nenvironment = \"test\"\n[[listener]]\naddress = \"{address}\"\nenvironment = \"test\"\n",
        unix.display()
    );
    let (code, text) = run(&setup);
    assert_eq!(code, Some(1), "{text}");
    let said = format!("listener {address}: cannot bind: Address already in use (os error 98)\n");
    assert!(text.ends_with(&said), "once, and nothing after it: {text}");
    assert!(!unix.exists());

    let mut setup = Setup::new(&mx);
    setup.tables = setup
        .tables
        .replace("[health]\naddress = \"127.0.0.1:0\"", &format!("[health]\naddress = \"{address}\""));
    let (code, text) = run(&setup);
    assert!(
        code == Some(1) && text.contains(&format!("the health listener cannot bind {address}")),
        "{text}"
    );

    let setup = Setup::new(&mx).control();
    let _other = UnixListener::bind(setup.control_socket()).unwrap();
    let (code, text) = run(&setup);
    let named = format!(
        "the socket {} is in use: another mxgate is running with it",
        setup.control_socket().display()
    );
    assert!(code == Some(1) && text.contains(&named), "{text}");
    assert!(UnixStream::connect(setup.control_socket()).is_ok(), "the other's socket is left alone");

    let setup = Setup::new(&mx).control();
    drop(UnixListener::bind(setup.control_socket()).unwrap());
    let gateway = setup.start();
    assert!(gateway.command(&["status"]).is_ok(), "a socket that was left behind is replaced");
}

// Stop

fn stops_in_order(signal: &str) {
    let mx = mx();
    let mut setup = Setup::new(&mx).control().table(&process("drain_delay_ms = 4000"));
    let unix = setup.folder().join("mx.sock");
    setup
        .listeners
        .push_str(&format!("[[listener]]\naddress = \"unix:{}\"\nenvironment = \"test\"\n", unix.display()));
    let mut gateway = setup.start();
    let address = gateway.addresses[0];
    let mut kept = gateway.connect();
    kept.request("GET /users HTTP/1.1", "");
    let answer = kept.answer();
    assert_eq!((answer.status, answer.header("connection")), (200, None));
    let mut idle = gateway.connect();
    idle.request("GET /users HTTP/1.1", "");
    idle.answer();
    assert_eq!(gateway.page("/readyz").status, 200);

    gateway.signal(signal);
    until("it is not ready", || gateway.page("/readyz").text() == "draining\n");
    assert_eq!(gateway.page("/readyz").status, 503);
    assert_eq!(gateway.page("/livez").status, 200);
    // New connections are served for `drain_delay`, and so is the one that was there.
    let answer = gateway.get("/users", "");
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
    kept.request("GET /users HTTP/1.1", "");
    let answer = kept.answer();
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
    assert_eq!(kept.rest(), b"");
    let answer = gateway.get("/no/such/thing", "");
    assert_eq!((answer.status, answer.header("connection")), (404, Some("close")));
    // The one that sends nothing is closed at the end of it.
    assert_eq!(idle.rest(), b"");
    until("it accepts no more", || gone(address));
    assert_eq!(gateway.wait().code(), Some(0));
    assert!(!unix.exists() && !gateway.setup.control_socket().exists());
    gateway.stderr.wait_for(|line| line.contains("\"stopped\""));
    let id = answer.header("x-mxgate-request-id").unwrap().to_owned();
    assert_eq!(gateway.record(|record| record["request_id"] == *id)["status"], 404);
    let records = || gateway.stdout.text().lines().count();
    until("every request has its record", || records() >= 5);
    assert_eq!(records(), 5);
}

#[test]
fn sigterm_stops_in_order() {
    stops_in_order("TERM");
}

#[test]
fn sigint_stops_in_order() {
    stops_in_order("INT");
}

#[test]
fn requests_in_flight_finish() {
    let mx = mx();
    let mut gateway = Setup::new(&mx).start();
    let address = gateway.addresses[0];
    let mut client = in_flight(&mx, &gateway, 1500);
    gateway.signal("TERM");
    until("it accepts no more", || gone(address));
    let answer = client.answer();
    assert_eq!((answer.status, answer.whole, answer.header("connection")), (200, true, Some("close")));
    assert_eq!(client.rest(), b"");
    assert_eq!(gateway.wait().code(), Some(0));
    assert_eq!(gateway.record(|record| record["status"] == 200)["decision"], "allowed");
}

#[test]
fn requests_beyond_drain_total_are_cut() {
    let mx = mx();
    let mut gateway = Setup::new(&mx).table(&process("drain_total_ms = 500")).start();
    let mut client = in_flight(&mx, &gateway, 60_000);
    gateway.signal("TERM");
    assert_eq!(client.rest(), b"", "cut without an answer");
    assert_eq!(gateway.wait().code(), Some(0));
    gateway.stderr.wait_for(|line| line.contains("drain_total is over"));
    assert_eq!(gateway.record(|record| record["decision"] == "aborted")["operation"], "listUsers");
}

#[test]
fn a_second_signal_ends_at_once() {
    let mx = mx();
    let mut gateway = Setup::new(&mx).start();
    let mut client = in_flight(&mx, &gateway, 60_000);
    gateway.signal("TERM");
    gateway.stderr.wait_for(|line| line.contains("\"stopping\""));
    gateway.signal("TERM");
    assert_eq!(gateway.wait().code(), Some(1));
    assert_eq!(client.rest(), b"");
    gateway.stderr.wait_for(|line| line.contains("a second signal"));
}

#[test]
fn a_reader_that_stopped_reading_records_does_not_keep_the_process() {
    let mx = mx();
    let setup = Setup::new(&mx);
    let pipe = setup.folder().join("records");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    // Somebody who opens it and never reads.
    let reader = fs::OpenOptions::new().read(true).write(true).open(&pipe).unwrap();
    let mut gateway = setup.table(&format!("[record]\ndestination = \"file:{}\"", pipe.display())).start();
    let mut client = gateway.connect();
    for _ in 0..300 {
        client.request("GET /no/such/thing HTTP/1.1", "");
        assert_eq!(client.answer().status, 404);
    }
    gateway.signal("TERM");
    assert_eq!(gateway.wait().code(), Some(0));
    drop(reader);
}

#[test]
fn sighup_opens_the_record_file_again() {
    let mx = mx();
    let setup = Setup::new(&mx);
    let path = setup.folder().join("records.jsonl");
    let gateway = setup.table(&format!("[record]\ndestination = \"file:{}\"", path.display())).start();
    let lines = |path: &Path| fs::read_to_string(path).map_or(0, |text| text.lines().count());
    gateway.get("/users", "");
    until("a record", || lines(&path) == 1);
    let moved = path.with_extension("1");
    fs::rename(&path, &moved).unwrap();
    gateway.signal("HUP");
    until("a new file", || path.exists());
    gateway.get("/users", "");
    until("a record in it", || lines(&path) == 1);
    assert_eq!(lines(&moved), 1);
}

// The process

#[test]
fn threads_have_names() {
    let mx = mx();
    let gateway = Setup::new(&mx).control().table(&process("workers = 2")).start();
    let names = || -> Vec<String> {
        let tasks = fs::read_dir(format!("/proc/{}/task", gateway.pid())).unwrap();
        tasks
            .filter_map(|task| fs::read_to_string(task.unwrap().path().join("comm")).ok())
            .map(|name| name.trim_end().to_owned())
            .collect()
    };
    // A thread takes its name itself, a moment after it was started.
    until("every thread has its name", || {
        let names = names();
        ["mxgate", "mxgate-0", "mxgate-1", "mxgate-control", "mxgate-records"]
            .iter()
            .all(|name| names.iter().any(|other| other == name))
    });
    let names = names();
    assert!(names.iter().all(|name| name.starts_with("mxgate")), "{names:?}");
}

#[test]
fn an_idle_gateway_hardly_uses_the_processor() {
    let mx = mx();
    let gateway = Setup::new(&mx).control().start();
    assert_eq!(gateway.get("/users", "").status, 200);
    let _idle: Vec<_> = (0..20).map(|_| gateway.connect()).collect();
    let (before, begun) = (gateway.cpu(), Instant::now());
    until("two seconds", || begun.elapsed().as_secs() >= 2);
    let used = gateway.cpu() - before;
    println!("idle: {used:?} of processor time in {:?}", begun.elapsed());
    assert!(used < Duration::from_millis(500), "{used:?} in two seconds: something spins");
}

#[test]
fn a_unix_listener_serves_and_a_health_page_needs_no_secret() {
    let mx = mx();
    let mut setup = Setup::new(&mx);
    let path = setup.folder().join("mx.sock");
    setup
        .listeners
        .push_str(&format!("[[listener]]\naddress = \"unix:{}\"\nenvironment = \"test\"\n", path.display()));
    let gateway = setup.start();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
    let mut stream = UnixStream::connect(&path).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"GET /users HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert_eq!(gateway.page("/livez").status, 200);
}
