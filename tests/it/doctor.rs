//! `mxgate doctor`: each diagnosis, produced for real.

mod bundle;
mod consents;
mod way;

use std::{fs, process::Command};

use mxgate::{
    stand_in::{Running, options, switches::Switches},
    vault::{
        embedded::{self, Identity},
        secret::Secret,
    },
};
use serde_json::Value;

use crate::harness::{API_KEY, CLIENT_ID, PATIENCE, Setup, last, lines, mx, mx_with, mxgate};
use crate::raw_upstream::RawUpstream;

/// What a run of the command came to.
struct Seen {
    code: i32,
    json: Value,
    stderr: String,
}

impl Seen {
    /// Code and words of what was found at a stage of an environment; of the machine with "".
    fn found(&self, environment: &str, stage: &str) -> Vec<(String, String)> {
        let checks = self.json["checks"].as_array().expect("checks");
        let is_there = |check: &&Value| {
            check["stage"] == stage && check["environment"].as_str().unwrap_or_default() == environment
        };
        let text = |value: &Value| value.as_str().expect("text").to_owned();
        checks.iter().filter(is_there).map(|check| (text(&check["code"]), text(&check["said"]))).collect()
    }

    /// The stage of `test` at which it failed, and the code; with the exit code, and a next step.
    fn failure(&self) -> (String, String) {
        let checks = self.json["checks"].as_array().expect("checks");
        let failed: Vec<&Value> = checks.iter().filter(|check| check["verdict"] == "fail").collect();
        assert_eq!(failed.len(), 1, "{:#}", self.json);
        assert_eq!((self.code, &self.json["ok"]), (1, &Value::Bool(false)));
        assert!(!failed[0]["next"].as_str().expect("text").is_empty(), "{:#}", self.json);
        let text = |name: &str| failed[0][name].as_str().expect("text").to_owned();
        (text("stage"), text("code"))
    }

    fn codes(&self, environment: &str, stage: &str) -> Vec<String> {
        self.found(environment, stage).into_iter().map(|(code, _)| code).collect()
    }
}

/// Runs it on the configuration of `setup`; no gateway runs.
fn doctor(setup: &Setup, arguments: &[&str]) -> Seen {
    let config = setup.file("mxgate.toml", &setup.configuration());
    let config = ["--json", "doctor", "--config", config.to_str().expect("UTF-8")];
    let variables: Vec<(&str, &str)> =
        setup.variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    seen(mxgate(&[&config, arguments].concat(), &variables))
}

fn seen(output: std::process::Output) -> Seen {
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    Seen {
        code: output.status.code().expect("it ends by itself"),
        json: if text.is_empty() { Value::Null } else { serde_json::from_str(&text).expect("JSON") },
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// An MX with one switch on for every request.
fn mx_that(switches: &[(&str, &str)]) -> Running {
    let mut all = Switches::default();
    for (name, value) in switches {
        all.set(name, value).unwrap();
    }
    mx_with(|options| options.switches = all)
}

/// The codes of one call to `mx`.
fn of_call(mx: &Running) -> (String, String) {
    doctor(&Setup::new(mx), &[]).failure()
}

fn at(stage: &str, code: &str) -> (String, String) {
    (stage.to_owned(), code.to_owned())
}

#[test]
fn with_nothing_wrong_every_stage_is_fine_and_one_harmless_call_was_made() {
    let mx = mx();
    let setup = Setup::new(&mx);
    let fine = doctor(&setup, &["test"]);
    assert_eq!((fine.code, &fine.json["ok"]), (0, &Value::Bool(true)), "{:#}", fine.json);
    for (stage, count) in [("vault", 2), ("dns", 1), ("tcp", 1), ("tls", 2), ("clock", 1), ("call", 1)] {
        assert_eq!(fine.codes("test", stage), vec!["fine"; count], "{stage}");
    }
    for stage in ["process", "files"] {
        assert!(!fine.codes("", stage).is_empty(), "{stage}");
    }
    let (_, tls) = &fine.found("test", "tls")[0];
    assert!(
        tls.starts_with("TLS 1.3 with CN=mxgate stand-in, issued by CN=mxgate stand-in authority"),
        "{tls}"
    );
    assert_eq!(mx.received(), 1);
    let request = last(&mx);
    assert_eq!(
        (request.method.as_str(), request.target.as_str()),
        ("GET", "/institutions?records_per_page=10")
    );
    let names: Vec<String> =
        lines(&request).iter().map(|line| line.split(':').next().unwrap_or_default().to_owned()).collect();
    let sent =
        ["accept-encoding", "accept-version", "accept", "authorization", "connection", "host", "user-agent"];
    assert_eq!(names, sent);

    // For people: a word, a stage, and what was found.
    let config = setup.folder().join("mxgate.toml").display().to_string();
    let output = mxgate(&["doctor", "--config", &config], &[]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("\nenvironment test\n") && text.ends_with("\nfine\n"), "{text}");
    assert!(text.contains("\nok    call    GET /institutions was answered 200"), "{text}");
    assert!(!text.contains('\x1b') && !text.contains("next:"), "{text}");
}

#[test]
fn every_kind_of_credential_is_sent_as_requests_carry_it() {
    for (scheme, credential) in [
        (options::Scheme::ApiKey, "kind = \"api-key\", client_id = \"ID\", api_key = \"file:DIR/key\""),
        (options::Scheme::MxApiKey, "kind = \"mx-api-key\", client_id = \"ID\", api_key = \"file:DIR/key\""),
        (
            options::Scheme::Query { client_id_name: "c".into(), api_key_name: "k".into() },
            "kind = \"query\", client_id = \"ID\", api_key = \"file:DIR/key\", client_id_name = \"c\", api_key_name = \"k\"",
        ),
    ] {
        let mx = mx_with(|options| options.environments[0].schemes = vec![scheme.clone()]);
        let setup = Setup::new(&mx).credential(&credential.replace("ID", CLIENT_ID));
        let fine = doctor(&setup, &[]);
        assert_eq!(fine.code, 0, "{scheme:?} {:#}", fine.json);
        assert_eq!(of_call(&mx), at("call", "key_refused"), "{scheme:?}");
    }
}

#[test]
fn what_mx_answers_is_told_apart() {
    // The key is another one.
    let refused = mx_with(|options| options.environments[0].api_keys = vec!["an0ther-key".into()]);
    assert_eq!(of_call(&refused), at("call", "key_refused"));
    // MX's own allowlist does not have this address.
    let elsewhere = mx_with(|options| options.allow = Some(vec!["192.0.2.0/24".parse().unwrap()]));
    assert_eq!(of_call(&elsewhere), at("call", "address_or_feature"));
    let version = |version: &str| {
        doctor(&Setup::new(&mx()).in_environment(&format!("accept_version = \"{version}\"")), &[])
    };
    assert_eq!(version("v20111101").code, 0);
    assert_eq!(version("v19700101").failure(), at("call", "version_refused"));
    for (switches, code) in [
        (&[("status", "429"), ("retry-after", "7")][..], "rate_limited"),
        (&[("status", "503")], "upstream_failed"),
        (&[("status", "500")], "upstream_failed"),
        (&[("redirect", "true")], "unexpected_answer"),
        (&[("status", "404")], "unexpected_answer"),
        (&[("drop", "always")], "no_answer"),
        (&[("garbage", "true")], "no_answer"),
    ] {
        let mx = mx_that(switches);
        let seen = doctor(&Setup::new(&mx), &[]);
        assert_eq!(seen.failure(), at("call", code), "{switches:?}");
        // It is asked once, whatever it says.
        assert_eq!(mx.received(), 1, "{switches:?}");
        let (_, said) = &seen.found("test", "call")[0];
        assert_eq!(said.contains("(Retry-After: 7 s)"), code == "rate_limited", "{said}");
    }
}

#[test]
fn a_clock_that_is_off_is_told_from_one_that_drifts() {
    let with_date = |ago: i64| {
        let shift = std::time::Duration::from_secs(ago.unsigned_abs());
        let upstream = RawUpstream::start(move |_, wire| {
            let now = std::time::SystemTime::now();
            let date = httpdate::fmt_http_date(if ago < 0 { now + shift } else { now - shift });
            wire.say_always(format!("HTTP/1.1 200 OK\r\nDate: {date}\r\nContent-Length: 2\r\n\r\n{{}}"))
        });
        doctor(&upstream.setup(), &[])
    };
    for (ago, code, word) in
        [(0, "fine", "agree"), (60, "clock_drifts", "ahead of"), (-60, "clock_drifts", "behind")]
    {
        let seen = with_date(ago);
        let found = seen.found("test", "clock");
        assert_eq!((seen.code, found[0].0.as_str()), (0, code), "{ago}");
        assert!(found[0].1.contains(word), "{found:?}");
    }
    let seen = with_date(3600);
    assert_eq!(seen.failure(), at("clock", "clock_off"));
    assert_eq!(with_date(-3600).failure(), at("clock", "clock_off"));
}

#[test]
fn the_other_environments_key_is_found_out_and_sent_to_neither() {
    let (one, two) = (mx(), mx());
    let with_key = |key: &str| {
        let mut setup = Setup::new(&one);
        let port = two.address().port();
        let second = setup.other_environment("second", two.address());
        setup.file("other-key", key);
        setup.file("ca2.pem", two.authority_pem());
        let second = second.replace("ca.pem", "ca2.pem").replace("https://127.0.0.1", "https://localhost");
        assert!(second.contains(&format!("https://localhost:{port}")), "{second}");
        setup.environments.push_str(&second);
        setup
    };
    let seen = doctor(&with_key(API_KEY), &[]);
    assert_eq!((seen.code, one.received(), two.received()), (1, 0, 0), "{:#}", seen.json);
    for (environment, other) in [("test", "second"), ("second", "test")] {
        let found = seen.found(environment, "vault");
        let (_, said) = found.iter().find(|(code, _)| code == "other_environments_key").expect("found");
        assert!(said.contains(other) && !said.contains(API_KEY), "{said}");
    }
    // Asked about one, it compares with the other all the same.
    assert_eq!(doctor(&with_key(API_KEY), &["second"]).failure(), at("vault", "other_environments_key"));
    // Another key is sent to its own host only, which does not take it.
    let seen = doctor(&with_key("an0ther-key"), &["second"]);
    assert_eq!(seen.failure(), at("call", "key_refused"));
    assert_eq!((one.received(), two.received()), (0, 1));
    // The environment that nobody asked about was not looked at.
    assert!(seen.codes("test", "dns").is_empty());
}

#[test]
fn what_is_wrong_with_a_secret_is_named_and_nothing_is_sent() {
    let mx = mx();
    let in_vault = |hosts: &str| {
        let setup = Setup::with_vault(&mx);
        let (vault, identity) = (setup.folder().join("vault.age"), setup.folder().join("identity"));
        let identity = Identity::load(&format!("file:{}", identity.display()).parse().unwrap()).unwrap();
        let key = Secret::new(API_KEY.into()).unwrap();
        embedded::set(&vault, &identity, "test/api_key", key, Some(vec![hosts.into()])).unwrap();
        setup
    };
    assert_eq!(doctor(&in_vault("127.0.0.1"), &[]).code, 0);
    let received = mx.received();
    assert_eq!(doctor(&in_vault("api.mx.com"), &[]).failure(), at("vault", "secret_wrong_host"));
    let setup = in_vault("127.0.0.1");
    fs::remove_file(setup.folder().join("identity")).unwrap();
    let seen = doctor(&setup, &[]);
    // The cause is told once, and each reference that it takes along.
    assert_eq!((seen.code, seen.codes("", "vault")), (1, vec!["vault_closed".to_owned()]));
    assert_eq!(seen.codes("test", "vault"), ["vault_closed", "fine"]);

    let setup = Setup::new(&mx);
    setup.file("key", "short");
    assert_eq!(doctor(&setup, &[]).failure(), at("vault", "secret_unfit"));
    fs::remove_file(setup.folder().join("key")).unwrap();
    assert_eq!(doctor(&setup, &[]).failure(), at("vault", "secret_absent"));
    fs::create_dir(setup.folder().join("key")).unwrap();
    assert_eq!(doctor(&setup, &[]).failure(), at("vault", "secret_unreadable"));
    assert_eq!(mx.received(), received);
}

#[test]
fn a_second_key_need_not_be_there_and_one_that_is_has_to_be_fit() {
    let mx = mx();
    let setup = Setup::new(&mx).credential(&format!(
        "kind = \"basic\", client_id = \"{CLIENT_ID}\", api_key = \"file:DIR/key\", secondary_api_key = \"file:DIR/second\""
    ));
    let seen = doctor(&setup, &[]);
    assert_eq!((seen.code, seen.codes("test", "vault")), (0, vec!["fine".to_owned(); 3]), "{:#}", seen.json);
    setup.file("second", "short");
    assert_eq!(doctor(&setup, &[]).failure(), at("vault", "secret_unfit"));
    assert_eq!(mx.received(), 1);
}

#[test]
fn files_that_others_may_change_or_read_are_named() {
    use std::os::unix::fs::PermissionsExt;
    let mx = mx();
    let with_mode = |file: &str, mode: u32| {
        let setup = Setup::with_vault(&mx);
        fs::set_permissions(setup.folder().join(file), fs::Permissions::from_mode(mode)).unwrap();
        doctor(&setup, &[])
    };
    for (file, mode, codes) in [
        ("ca.pem", 0o600, &["fine"][..]),
        ("ca.pem", 0o644, &["fine"]),
        ("ca.pem", 0o666, &["file_mode", "fine"]),
        ("token", 0o644, &["file_readable", "fine"]),
        ("identity", 0o644, &["file_mode", "fine"]),
    ] {
        let seen = with_mode(file, mode);
        assert_eq!(seen.codes("", "files"), codes, "{file} {mode:o}");
        if codes.len() > 1 {
            assert!(seen.found("", "files")[0].1.contains(file), "{:#}", seen.json);
        }
    }
}

#[test]
fn limits_of_the_process_are_told() {
    let mx = mx();
    let setup = Setup::new(&mx);
    let config = setup.file("mxgate.toml", &setup.configuration());
    let run = |limit: &str| {
        let output = Command::new("/bin/sh")
            .args([
                "-c",
                &format!("{limit}\nexec \"$@\""),
                "sh",
                "/usr/bin/timeout",
                &PATIENCE.as_secs().to_string(),
            ])
            .args([env!("CARGO_BIN_EXE_mxgate"), "--json", "doctor", "--config"])
            .arg(&config)
            .env_clear()
            .output();
        seen(output.unwrap())
    };
    let fine = run("");
    assert!(fine.codes("", "process").iter().all(|code| code == "fine" || code == "memory_not_locked"));
    assert!(fine.found("", "process")[0].1.contains("no core dump is written"));
    let few = run("ulimit -n 128");
    assert!(few.codes("", "process").contains(&"capacity".to_owned()), "{:#}", few.json);
    assert_eq!(few.code, 0, "a warning is no failure: {:#}", few.json);
}

#[test]
fn an_api_of_which_nothing_is_known_is_not_called() {
    let mx = mx();
    let setup = Setup::new(&mx).in_environment("paths = [\"GET /things\"]");
    let seen = doctor(&setup, &[]);
    assert_eq!((seen.code, seen.codes("test", "call"), mx.received()), (0, vec!["not_tried".to_owned()], 0));
    assert_eq!(seen.codes("test", "tls"), ["fine", "fine"]);
}

#[test]
fn it_is_called_rightly_or_says_so() {
    let setup = Setup::new(&mx());
    let seen = doctor(&setup, &["tset"]);
    assert_eq!(seen.code, 2);
    assert!(seen.stderr.contains("there are: test"), "{}", seen.stderr);
    let seen = doctor(&Setup::new(&mx()).in_environment("nonsense = 1"), &[]);
    assert_eq!(seen.code, 3);
    assert!(seen.stderr.contains("unknown key"), "{}", seen.stderr);
}
