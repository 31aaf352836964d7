//! A thousand secrets in files: read by a few threads, also where some of them are no files.

use std::{fmt::Write as _, fs, process::Command};

use mxgate::stand_in::Running;

use crate::harness::{API_KEY, Gateway, Setup, mx, until};

/// Environments besides the one that serves, each with four secrets.
const OTHERS: usize = 250;

const KINDS: [&str; 4] = ["first", "second", "bearer", "proxy"];

/// Sixteen that read; and workers, the control plane, rotation, writers, and work that may hang but is no secret.
const THREADS_MAX: usize = 16 + 24;

/// A gateway with that many keys, in four folders.
fn setup(mx: &Running) -> Setup {
    let mut setup = Setup::new(mx);
    for folder in 0..4 {
        fs::create_dir(setup.folder().join(format!("keys-{folder}"))).unwrap();
    }
    let (folder, address) = (setup.folder().display().to_string(), mx.address());
    for number in 0..OTHERS {
        let at = |kind: &str| setup.file(&name(kind, number), &value(kind, number)).display().to_string();
        let [first, second, bearer, proxy] = KINDS.map(at);
        _ = write!(
            setup.environments,
            "[environment.other-{number}]\nurl = \"https://{address}\"\nca_file = \"{folder}/ca.pem\"\n\
             connections_max = 8\nbearer_operations = {{ token = \"file:{bearer}\" }}\n\
             credential = {{ kind = \"basic\", client_id = \"a\", api_key = \"file:{first}\", \
             secondary_api_key = \"file:{second}\" }}\n\
             proxy = {{ url = \"http://127.0.0.1:1\", username = \"a\", password = \"file:{proxy}\" }}\n"
        );
    }
    // Nobody asks anything of the others.
    setup.callers = Some(
        "[[caller]]\nname = \"one\"\nnetworks = [\"127.0.0.0/8\"]\ngrant = { test = [\"read\"] }\n".into(),
    );
    setup
}

fn name(kind: &str, number: usize) -> String {
    format!("keys-{}/{kind}-{number}", number % 4)
}

fn value(kind: &str, number: usize) -> String {
    format!("k3y-{kind}-of-{number}")
}

/// A thread that has nothing to do any more waits ten seconds for something, so that those of a load are counted.
fn threads(gateway: &Gateway) -> usize {
    fs::read_dir(format!("/proc/{}/task", gateway.pid())).unwrap().count()
}

#[test]
fn a_load_reads_them_with_a_few_threads() {
    let mx = mx();
    let gateway = setup(&mx).start();
    let at_start = threads(&gateway);
    assert_eq!(gateway.get("/users", "").status, 200);
    let before = gateway.metric("mxgate_config_generation");
    gateway.setup.file("key", API_KEY);
    gateway.signal("HUP");
    until("it has loaded again", || gateway.metric("mxgate_config_generation") > before);
    let later = threads(&gateway);
    eprintln!(
        "{at_start} threads after the start, {later} after a reload, with {} secrets",
        KINDS.len() * OTHERS
    );
    assert!(at_start <= THREADS_MAX && later <= THREADS_MAX, "{at_start} {later}");
}

#[test]
fn pipes_among_them_are_named_and_hold_up_nothing() {
    const PIPES: usize = 40;
    let mx = mx();
    let setup = setup(&mx);
    for number in 0..PIPES {
        let pipe = setup.folder().join(name("first", number));
        fs::remove_file(&pipe).unwrap();
        assert!(Command::new("mkfifo").args(["-m", "600"]).arg(pipe).status().unwrap().success());
    }
    let gateway = setup.start();
    let line = gateway.stderr.wait_for(|line| line.contains("no new snapshot"));
    assert_eq!(line.matches("is not a regular file").count(), PIPES, "{line}");
    assert!(!line.contains("second-") && !line.contains("in time"), "{line}");
    assert!(threads(&gateway) <= THREADS_MAX, "{}", threads(&gateway));
    for number in 0..PIPES {
        fs::remove_file(gateway.setup.folder().join(name("first", number))).unwrap();
        gateway.setup.file(&name("first", number), &value("first", number));
    }
    until("it serves", || gateway.get("/users", "").status == 200);
}
