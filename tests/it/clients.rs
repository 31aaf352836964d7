//! MX's own clients, unmodified, through the gateway to a stand-in that compares credentials exactly and answers 400
//! to what no gateway should send.
//!
//! The clients run in child processes, under the drivers in `tests/clients`; a driver's `ok` is stricter than its
//! client (see the README there). Every count is exact: what succeeded, what failed and how, what MX received.

use std::{
    fs,
    io::{BufRead as _, BufReader, Lines},
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
};

use http::{HeaderName, HeaderValue};
use mxgate::stand_in::{
    Running,
    certificate::ServerCertificate,
    options::{Options, Scheme},
};
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    caller_tokens,
    harness::{API_KEY, CLIENT_ID, Gateway, Setup, TOKEN, mx_with},
    mutual_tls,
};

/// Operations that each SDK has.
const ALL: usize = 166;

/// What the clients send as a credential of their own with `--credentials wrong`.
const CALLERS_OWN: &str = "wrong-credential-of-the-caller";

/// Those of MX's operations that take a token instead of a key.
const BEARER: &str =
    "requestAccountNumber,checkRealTimeAccountBalance,getAccountOwnerInfo,readAccountBalance";

/// One of every sort: pages, bodies, a job, a query, a document, no content, and a token.
const SAMPLE: &str = "listUsers,createUser,readUser,createMember,aggregateMember,createNotification,\
                      downloadStatementPDF,requestAccountNumber,deleteUser";
const SAMPLES: usize = 9;

#[test]
fn every_operation_of_the_python_sdk_works_whatever_credential_it_has() {
    every_operation_works(Driver::Python);
}

#[test]
fn every_operation_of_the_node_sdk_works_whatever_credential_it_has() {
    every_operation_works(Driver::Node);
}

fn every_operation_works(sdk: Driver) {
    let mx = strict_mx(|_| {});
    let tls = ServerCertificate::for_default_names().expect("a certificate");
    let mut setup = Setup::new(&mx).in_environment(r#"accept_version = "v20111101""#);
    let certificate = setup.file("tls.pem", tls.pem());
    let key = setup.file("tls-key.pem", tls.key_pem());
    let ca = setup.file("gateway-ca.pem", tls.authority_pem());
    setup.listeners.push_str(&format!(
        "[[listener]]\naddress = \"127.0.0.1:0\"\nenvironment = \"test\"\n\
         tls = {{ certificate = \"{}\", key = \"{}\" }}\n",
        certificate.display(),
        key.display()
    ));
    let gateway = setup.start();
    let plain = format!("http://{}", gateway.addresses[0]);
    let over_tls = format!("https://{}", gateway.addresses[1]);
    let ca = ca.to_str().expect("UTF-8");
    let runs: [(&str, &[&str]); 3] = [
        (&plain, &["--credentials", "none"]),
        (&over_tls, &["--credentials", "wrong", "--ca", ca]),
        (&plain, &["--credentials", "empty"]),
    ];
    for (n, (base, options)) in runs.into_iter().enumerate() {
        sdk.run(base, options).has(ALL, &[]);
        assert_eq!(mx.received(), ((n + 1) * ALL) as u64, "each call once");
        assert_eq!(mx.count("deleteUser"), n as u64 + 1);
        for request in mx.requests() {
            let head = String::from_utf8_lossy(&request.head);
            assert!(!head.is_empty() && !head.contains(CALLERS_OWN), "{head}");
        }
    }
}

#[test]
fn under_the_newer_version_three_operations_of_the_sdks_are_gone_or_changed() {
    // Two paths that v20250224 does not have, and one whose fields moved from the query into a body.
    let gone = [
        ("createNotification", 422),
        ("deprecatedRequestPaymentProcessorAuthorizationCode", 404),
        ("requestConnectWidgetURL", 404),
    ];
    let mx = strict_mx(|_| {});
    let gateway = Setup::new(&mx).start(); // which is the default
    for sdk in [Driver::Python, Driver::Node] {
        sdk.run(&base(&gateway), &["--expect-failures", &names(&gone)]).has(ALL, &gone);
    }
    // A caller's own version goes before the environment's.
    let options = ["--accept-version", "v20111101", "--only", &names(&gone)];
    Driver::Python.run(&base(&gateway), &options).has(gone.len(), &[]);
}

#[test]
fn a_key_that_mx_does_not_take_fails_every_call() {
    let mx = strict_mx(|options| options.environments[0].api_keys = vec!["another".into()]);
    let gateway = Setup::new(&mx).in_environment(r#"accept_version = "v20111101""#).start();
    let sample = SAMPLE.replace("requestAccountNumber,", "");
    let refused = sample.split(',').map(|name| (name, 401)).collect::<Vec<_>>();
    for sdk in [Driver::Python, Driver::Node] {
        let report = sdk.run(&base(&gateway), &["--only", &sample, "--expect-failures", &sample]);
        report.has(SAMPLES - 1, &refused);
    }
}

#[test]
fn a_callers_own_token_is_passed_on_only_where_the_configuration_says_so() {
    let mx = strict_mx(|_| {});
    let refused = BEARER.split(',').map(|name| (name, 403)).collect::<Vec<_>>();
    for (policy, expected, failed) in [("pass-through", "", &[][..]), ("refused", BEARER, &refused)] {
        let mut setup = Setup::new(&mx).in_environment(r#"accept_version = "v20111101""#);
        setup.environments = setup
            .environments
            .lines()
            .filter(|line| !line.starts_with("bearer_operations"))
            .map(|line| format!("{line}\n"))
            .chain([format!("bearer_operations = \"{policy}\"\n")])
            .collect();
        let gateway = setup.start();
        for sdk in [Driver::Python, Driver::Node] {
            let token = ["--bearer", TOKEN, "--only", BEARER, "--expect-failures", expected];
            sdk.run(&base(&gateway), &token).has(4, failed);
            // On all others it is as wrong as any credential of a caller's.
            sdk.run(&base(&gateway), &["--bearer", TOKEN, "--only", "listUsers"]).has(1, &[]);
        }
    }
}

#[test]
fn the_sdks_are_known_by_a_token_as_their_basic_password_and_by_nothing_else() {
    let mx = strict_mx(|_| {});
    let setup = caller_tokens::setup(&mx).in_environment(r#"accept_version = "v20111101""#);
    let token = caller_tokens::issue(&setup, &["ledger"]);
    let gateway = setup.start();
    let wrong = format!("{}{}", &token[..64], if token.ends_with('0') { '1' } else { '0' });
    // Which takes a Bearer token instead.
    let sample = SAMPLE.replace("requestAccountNumber,", "");
    let refused = sample.split(',').map(|name| (name, 403)).collect::<Vec<_>>();
    for (n, sdk) in [Driver::Python, Driver::Node].into_iter().enumerate() {
        sdk.run(&base(&gateway), &["--password", &token, "--only", &sample]).has(SAMPLES - 1, &[]);
        gateway.stdout.wait_for_count("\"caller\":\"ledger\"", (n + 1) * (SAMPLES - 1));
        let options = ["--password", &wrong, "--only", &sample, "--expect-failures", &sample];
        sdk.run(&base(&gateway), &options).has(SAMPLES - 1, &refused);
    }
    for request in mx.requests() {
        assert!(!String::from_utf8_lossy(&request.head).contains("mxg_"));
    }
}

#[test]
fn the_sdks_are_known_by_their_client_certificate() {
    let mx = strict_mx(|_| {});
    let authority = mutual_tls::Authority::new();
    let (setup, ca) = mutual_tls::setup(&mx, &authority);
    let setup = setup.in_environment(r#"accept_version = "v20111101""#);
    let stranger = mutual_tls::Authority::new();
    for (name, own) in [("own", authority.dns("ledger.internal")), ("other", stranger.dns("ledger.internal"))]
    {
        setup.file(&format!("{name}.pem"), &own.certificate);
        setup.file(&format!("{name}-key.pem"), &own.key);
    }
    let gateway = setup.start();
    let base = format!("https://{}", gateway.addresses[0]);
    let file = |name: &str| gateway.setup.folder().join(name).display().to_string();
    let sample = SAMPLE.replace("requestAccountNumber,", "");
    // No answer at all: TLS said no.
    let refused = sample.split(',').map(|name| (name, 0)).collect::<Vec<_>>();
    let ca = ca.to_str().expect("UTF-8");
    for sdk in [Driver::Python, Driver::Node] {
        let (own, key) = (file("own.pem"), file("own-key.pem"));
        sdk.run(&base, &["--ca", ca, "--certificate", &own, "--key", &key, "--only", &sample])
            .has(SAMPLES - 1, &[]);
        let before = mx.received();
        let (other, key) = (file("other.pem"), file("other-key.pem"));
        let report = sdk.run(
            &base,
            &[
                "--ca",
                ca,
                "--certificate",
                &other,
                "--key",
                &key,
                "--only",
                &sample,
                "--expect-failures",
                &sample,
            ],
        );
        report.has_without_answers(SAMPLES - 1, &refused);
        assert_eq!(mx.received(), before);
    }
}

#[test]
fn an_id_that_has_to_be_encoded_arrives_as_it_was_sent() {
    let mx = strict_mx(|_| {});
    let gateway = Setup::new(&mx).in_environment(r#"accept_version = "v20111101""#).start();
    for sdk in [Driver::Python, Driver::Node] {
        let options = ["--only", "readUser", "--argument", "user_guid=a/b ü?x"];
        sdk.run(&base(&gateway), &options).has(1, &[]);
        assert_eq!(mx.requests().last().expect("it").target, "/users/a%2Fb%20%C3%BC%3Fx");
    }
}

#[test]
fn the_sdks_work_with_every_kind_of_credential() {
    let header = Scheme::Header {
        name: HeaderName::from_static("md-api-key"),
        value: HeaderValue::try_from(format!("Key {API_KEY}")).expect("a value"),
    };
    let query = |api_key: &str, client_id: &str| Scheme::Query {
        api_key_name: api_key.into(),
        client_id_name: client_id.into(),
    };
    let kinds = [
        (Scheme::Basic, r#"kind = "basic", client_id = ID, api_key = KEY"#),
        (Scheme::ApiKey, r#"kind = "api-key", client_id = ID, api_key = KEY"#),
        (Scheme::MxApiKey, r#"kind = "mx-api-key", client_id = ID, api_key = KEY"#),
        (query("api_key", "client_id"), r#"kind = "query", client_id = ID, api_key = KEY"#),
        (
            query("k", "c"),
            r#"kind = "query", client_id = ID, client_id_name = "c", api_key = KEY, api_key_name = "k""#,
        ),
        (Scheme::Bearer, r#"kind = "bearer", token = TOKEN"#),
        (header, r#"kind = "header", name = "MD-API-KEY", prefix = "Key ", value = KEY"#),
    ];
    let own = SAMPLE.replace("requestAccountNumber,", "");
    let refused = own.split(',').map(|name| (name, 401)).collect::<Vec<_>>();
    for (n, (scheme, credential)) in kinds.iter().enumerate() {
        // The stand-in takes this kind and no other.
        let mx = strict_mx(|options| options.environments[0].schemes = vec![scheme.clone()]);
        let gateway = with_credential(&mx, credential);
        for (sdk, own) in [(Driver::Python, "wrong"), (Driver::Node, "none")] {
            let options = ["--only", SAMPLE, "--credentials", own];
            sdk.run(&base(&gateway), &options).has(SAMPLES, &[]);
        }
        let (_, other) = kinds[(n + 1) % kinds.len()];
        let gateway = with_credential(&mx, other);
        let report = Driver::Node.run(&base(&gateway), &["--only", &own, "--expect-failures", &own]);
        report.has(SAMPLES - 1, &refused);
    }
}

/// A gateway whose environment attaches this credential.
fn with_credential(mx: &Running, credential: &str) -> Gateway {
    let mut setup = Setup::new(mx);
    let file = |name| format!("\"file:{}\"", setup.folder().join(name).display());
    let credential = credential
        .replace("ID", &format!("\"{CLIENT_ID}\""))
        .replace("= KEY", &format!("= {}", file("key")))
        .replace("= TOKEN", &format!("= {}", file("token")));
    setup.environments = format!(
        "[environment.test]\nurl = \"https://{}\"\nca_file = \"{}\"\naccept_version = \"v20111101\"\n\
         credential = {{ {credential} }}\nbearer_operations = {{ token = {} }}\n",
        mx.address(),
        setup.folder().join("ca.pem").display(),
        file("token")
    );
    setup.start()
}

#[test]
fn mxs_own_proxy_for_widget_urls_works_behind_the_gateway() {
    let mx = strict_mx(|_| {});
    let gateway = Setup::new(&mx).in_environment(r#"accept_version = "v20111101""#).start();
    Driver::SsoProxy.run(&base(&gateway), &[]).has(6, &[]);
    // A ping and its own refusal need no MX.
    assert_eq!((mx.count("requestWidgetURL"), mx.received()), (4, 4));
}

#[test]
fn the_atrium_client_works_with_its_own_host_and_paths() {
    let tls = ServerCertificate::for_default_names().expect("a certificate");
    let mut host = AtriumHost::start(&tls);
    let paths = Driver::Atrium.paths();
    assert_eq!(paths.len(), 48);
    let address = host.address;
    let mx = strict_mx(|_| {});
    let gateway = |paths: &[String]| {
        let mut setup = Setup::new(&mx);
        let ca = setup.file("atrium-ca.pem", tls.authority_pem());
        setup.environments = format!(
            "[environment.test]\nurl = \"https://{}\"\nca_file = \"{}\"\npaths = {paths:?}\n\
             credential = {{ kind = \"mx-api-key\", client_id = \"{CLIENT_ID}\", api_key = \"file:{}\" }}\n",
            address,
            ca.display(),
            setup.folder().join("key").display()
        );
        setup.start()
    };
    let all = gateway(&paths);
    for credentials in ["none", "wrong"] {
        Driver::Atrium.run(&base(&all), &["--credentials", credentials]).has(16, &[]);
    }
    let asked = host.next(32);
    assert_eq!(asked.iter().filter(|line| line.starts_with("DELETE")).count(), 4, "{asked:?}");

    let (deletions, others): (Vec<_>, Vec<_>) =
        paths.into_iter().partition(|path| path.starts_with("DELETE "));
    assert_eq!(deletions.len(), 2);
    let without = gateway(&others);
    let denied = [("delete_member", 405), ("delete_user", 405)];
    Driver::Atrium.run(&base(&without), &["--expect-failures", &names(&denied)]).has(16, &denied);
    let asked = host.next(14);
    assert!(!asked.iter().any(|line| line.starts_with("DELETE")), "{asked:?}");
    assert_eq!(host.end(), [""; 0]);
}

#[test]
fn the_drivers_say_no_to_every_bad_answer() {
    let ended =
        Driver::Python.interpreter().arg(clients().join("drivers_test.py")).output().expect("it runs");
    let text = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success() && text.ends_with("\nOK\n") && text.contains("\nRan 9 tests"), "{text}");
}

/// A stand-in whose jobs are finished at once, since the SDKs start several on the one member.
fn strict_mx(change: impl FnOnce(&mut Options)) -> Running {
    mx_with(|options| {
        options.strict = true;
        options.header_switches = false;
        options.job_reads = 0;
        options.requests_kept = ALL;
        change(options);
    })
}

fn base(gateway: &Gateway) -> String {
    format!("http://{}", gateway.addresses[0])
}

fn names(operations: &[(&str, u16)]) -> String {
    operations.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(",")
}

fn clients() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients")
}

#[derive(Debug, Clone, Copy)]
enum Driver {
    Python,
    Node,
    Atrium,
    SsoProxy,
}

impl Driver {
    /// The interpreter that has the client.
    fn interpreter(self) -> Command {
        let work = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/.work");
        let (stamp, program) = match self {
            Self::Python | Self::Atrium => ("venv/installed", work.join("venv/bin/python")),
            Self::Node | Self::SsoProxy => ("node/installed", "node".into()),
        };
        assert!(work.join(stamp).exists(), "MX's clients are not installed here: run tests/setup");
        Command::new(program)
    }

    fn command(self) -> Command {
        let mut command = self.interpreter();
        command.stdin(Stdio::null()).arg(clients().join(match self {
            Self::Python => "python/drive.py",
            Self::Node => "node/drive.mjs",
            Self::Atrium => "python/atrium_drive.py",
            Self::SsoProxy => "sso-proxy/drive.mjs",
        }));
        command
    }

    /// Drives what `options` ask for.
    fn run(self, base: &str, options: &[&str]) -> Report {
        let ended = self.command().args(["--base-url", base]).args(options).output().expect("it runs");
        let errors = String::from_utf8_lossy(&ended.stderr).into_owned();
        let parse = |line| serde_json::from_str::<Value>(line).expect("a JSON line");
        let mut lines: Vec<Value> =
            std::str::from_utf8(&ended.stdout).expect("UTF-8").lines().map(parse).collect();
        let summary =
            lines.pop().unwrap_or_else(|| panic!("{self:?} says nothing: {errors}"))["summary"].take();
        Report { succeeded: ended.status.success(), lines, summary, errors }
    }

    /// `METHOD PATH` of all that the client can send.
    fn paths(self) -> Vec<String> {
        let ended = self.command().arg("--list-paths").output().expect("it runs");
        let text = String::from_utf8(ended.stdout).expect("UTF-8");
        text.lines().filter_map(|line| Some(line.rsplit_once(' ')?.0.to_owned())).collect()
    }
}

/// What a driver reported.
struct Report {
    succeeded: bool,
    lines: Vec<Value>,
    summary: Value,
    errors: String,
}

impl Report {
    /// Asserts how many operations were driven, and that these failed, with these statuses, and no others.
    #[track_caller]
    fn has(&self, operations: usize, failed: &[(&str, u16)]) {
        self.has_without_answers(operations, failed);
        // Every answer that came through the gateway bears its request's id.
        if !self.summary["client"].as_str().is_some_and(|client| client.contains("proxy")) {
            assert!(self.lines.iter().all(|line| line["request_id"].is_string()));
        }
    }

    /// The same where some got no answer, which is status 0 here.
    #[track_caller]
    fn has_without_answers(&self, operations: usize, failed: &[(&str, u16)]) {
        let plain = |name: &str| name.replace('_', "").to_lowercase();
        let mut expected: Vec<_> =
            failed.iter().map(|(name, status)| (plain(name), u64::from(*status))).collect();
        let failures = self.lines.iter().filter(|line| line["ok"] != true);
        let mut found: Vec<_> = failures
            .map(|line| {
                (
                    plain(line["operation"].as_str().expect("a name")),
                    line["status"].as_u64().unwrap_or_default(),
                )
            })
            .collect();
        expected.sort();
        found.sort();
        assert_eq!(found, expected, "{}\n{}", self.failures(), self.errors);
        assert_eq!(self.lines.len(), operations);
        assert_eq!(self.summary["operations"], operations);
        assert_eq!(self.summary["ok"], operations - failed.len());
        assert!(self.succeeded, "{}\n{}", self.summary, self.errors);
    }

    fn failures(&self) -> String {
        let failures = self.lines.iter().filter(|line| line["ok"] != true);
        failures.map(|line| format!("{line}\n")).collect()
    }
}

/// The small host that takes Atrium's two headers.
struct AtriumHost {
    child: Child,
    address: SocketAddr,
    requests: Lines<BufReader<ChildStdout>>,
    _folder: TempDir,
}

impl AtriumHost {
    fn start(tls: &ServerCertificate) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        for (name, text) in [("certificate", tls.pem()), ("tls-key", tls.key_pem()), ("key", API_KEY)] {
            fs::write(folder.path().join(name), text).expect("a file");
        }
        let mut child = Driver::Atrium
            .interpreter()
            .arg(clients().join("python/atrium_host.py"))
            .args(["--certificate", "certificate", "--key", "tls-key", "--api-key-file", "key"])
            .args(["--client-id", CLIENT_ID])
            .current_dir(folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts");
        let mut requests = BufReader::new(child.stdout.take().expect("piped")).lines();
        let port = requests.next().expect("its port").expect("UTF-8").parse().expect("a port");
        Self { child, address: (Ipv4Addr::LOCALHOST, port).into(), requests, _folder: folder }
    }

    /// The next requests, `METHOD PATH STATUS`; waits for so many.
    fn next(&mut self, count: usize) -> Vec<String> {
        self.requests.by_ref().take(count).map(|line| line.expect("UTF-8")).collect()
    }

    /// Ends it; the requests that nobody asked for.
    fn end(mut self) -> Vec<String> {
        drop(self.child.stdin.take());
        self.requests.by_ref().map(|line| line.expect("UTF-8")).collect()
    }
}

impl Drop for AtriumHost {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
