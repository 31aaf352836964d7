//! Nothing leaks: secrets are planted in every way there is, the gateway is driven through all that can happen to
//! it, and then every byte that came out of it is searched, with a search of its own ([`search`]).
//!
//! Searched are: standard output and error, the record file, every answer as it came over the wire, the pages
//! of the health listener, the control socket's answers, what the commands print, the process's arguments
//! and environment as the system shows them, and every file in its folder but those that the secrets were
//! planted in. What cannot be read is a failure. An `env:` secret is in the process's environment: that is
//! what `env:` means, and the one exception.

mod drive;
pub mod search;

use std::{fs, path::Path};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use mxgate::{
    redaction::Masker,
    stand_in::{Running, StandIn, certificate::ServerCertificate, options, options::Scheme},
    vault::secret::Secret,
};

use self::{
    drive::Evidence,
    search::{Canary, Search, forms},
};
use crate::harness::{CLIENT_ID, Gateway, Setup};

/// MX's own keys are 40 hex digits.
const IN_VAULT: &str = "7d1f0c5e9ab23846fb70e1d4c8a5923b6e0f1d7a";
const IN_ENVIRONMENT: &str = "Zk8rQ2mXw5Tn1LbV9cHs4JyDgA7pUe3F";
/// What needs an escape in JSON, HTML, URLs or Base64.
const IN_FILE: &str = r#"q"9\Wd/x+R&t<Vz'o=J%b~M>p?s;Yk!3"#;
const IN_QUERY: &str = "Gh6+Nw/Xe2=Qa8&Lu4%Ri0?Tv5#Cs9";
const MX_KEY: &str = "bE3nVx7KpR5tZy1WqL9mHc2JfD8sGa4U";
const TOKEN: &str = "eyUo3Lk8.Wn5Xb2-Pq7Vc4_Ty9Rf6.Zm1Jd0Hs";
/// The caller's own: passed through, and no business of any log.
const CALLERS: &str = "callEr0wn.Tk7Yq3Bv9Nz5Xm1.Lc8Jh4Gd6Fs2";
/// Parts of a path and of a query: identifiers of persons, and a code that mints a token.
const IN_PATH: &str = "USR-4a7c2e90-Kq3Zx8Wv6Nb1";
const CODE: &str = "onetime-Hj5Rt8Yu2Io6Pl3Ak9";

/// Where each secret was planted.
struct Planted {
    /// What the gateway holds for itself.
    held: Vec<Canary>,
    /// What passes by: searched for in what the process writes, not in the answers to the one whose it is.
    passing: Vec<Canary>,
    /// The files that hold secrets because they were put there.
    files: Vec<&'static str>,
}

#[test]
fn nothing_leaks_while_the_log_is_json() {
    nothing_leaks("json");
}

#[test]
fn nothing_leaks_while_the_log_is_text() {
    nothing_leaks("text");
}

fn nothing_leaks(format: &str) {
    let mx = upstream();
    let mut evidence = Evidence::default();
    let (setup, planted) = plant(&mx, format, &mut evidence);
    let folder = setup.folder().to_owned();
    let mut gateway = setup.start();

    drive::refusals(&gateway, &mut evidence);
    drive::over_tls(&gateway, &mut evidence);
    drive::forwarded(&gateway, &mx, &mut evidence);
    for (listener, key) in [(0, IN_VAULT), (1, IN_ENVIRONMENT), (2, IN_FILE), (3, IN_QUERY), (4, MX_KEY)] {
        drive::echoes(&gateway, &mx, (listener, "/users", key), &mut evidence);
    }
    drive::echoes(&gateway, &mx, (0, "/account/transactions", TOKEN), &mut evidence);
    drive::failures(&gateway, &mx, &mut evidence);
    drive::operators(&gateway, &mut evidence);
    as_the_system_shows_it(&gateway, &mut evidence);
    let masked = gateway.metric("mxgate_secrets_masked_total");

    gateway.signal("TERM");
    assert!(gateway.wait().success());
    evidence.assert_has("upstream");
    let search = Search::new(&planted.held);
    evidence.assert_clean(&search);

    let mut written = Evidence::default();
    written.add("standard error", gateway.stderr.bytes());
    written.add("standard output", gateway.stdout.bytes());
    collect_files(&folder, &planted.files, &mut written);
    assert_is_alive(&written, format);
    assert_eq!(recorded(&written, "masked"), masked, "records and metric count the same");
    written.assert_clean(&Search::new(planted.held.iter().chain(&planted.passing)));
    evidence.only(&["/metrics", "/status", "mxgate"]).assert_clean(&Search::new(&planted.passing));
    drop(gateway);
}

/// A stand-in that takes every kind of credential.
fn upstream() -> Running {
    let mut environment = options::Environment::new(CLIENT_ID, IN_VAULT);
    environment.api_keys = [IN_VAULT, IN_ENVIRONMENT, IN_QUERY, MX_KEY].map(str::to_owned).into();
    environment.bearer_tokens = vec![TOKEN.into(), CALLERS.into()];
    environment.schemes = vec![
        Scheme::Basic,
        Scheme::ApiKey,
        Scheme::MxApiKey,
        Scheme::Query { client_id_name: "client_id".into(), api_key_name: "api_key".into() },
        Scheme::Header { name: "x-partner-key".parse().unwrap(), value: IN_FILE.parse().unwrap() },
    ];
    StandIn::spawn(options::Options::new(vec![environment])).expect("the stand-in starts")
}

/// Every source of a secret and every way to send one, each on a listener of its own.
fn plant(mx: &Running, format: &str, evidence: &mut Evidence) -> (Setup, Planted) {
    let mut setup = Setup::new(mx);
    let folder = setup.folder().to_owned();
    let at = folder.display().to_string();
    drive::vault(&folder, &["init"], "", evidence);
    drive::vault(&folder, &["set", "test/api_key", "--host", "127.0.0.1"], IN_VAULT, evidence);
    let identity = fs::read_to_string(folder.join("identity")).expect("the identity");
    let identity = identity.lines().find_map(|line| line.strip_prefix("AGE-SECRET-KEY-1")).expect("its key");
    setup.file("key", IN_FILE);
    // One entry belongs to one environment; the same value may be stored for several.
    setup.file("passing-key", IN_VAULT);
    setup.file("dead-key", IN_VAULT);
    setup.file("token", TOKEN);
    setup.file("query-key", IN_QUERY);
    setup.file("mx-key", MX_KEY);
    setup.variables.push(("CANARY".into(), IN_ENVIRONMENT.into()));
    let tls = ServerCertificate::for_default_names().expect("a certificate");
    setup.file("tls.pem", tls.pem());
    setup.file("tls-ca.pem", tls.authority_pem());
    setup.file("tls-key.pem", tls.key_pem());
    let pem: String = tls.key_pem().lines().filter(|line| !line.starts_with('-')).collect();

    let id = format!("client_id = \"{CLIENT_ID}\"");
    let token = format!("bearer_operations = {{ token = \"file:{at}/token\" }}");
    let names = ["vault", "variable", "file", "query", "mx", "passing", "dead"];
    let credentials = [
        format!("kind = \"basic\", {id}, api_key = \"vault:test/api_key\""),
        format!("kind = \"api-key\", {id}, api_key = \"env:CANARY\""),
        format!("kind = \"header\", name = \"x-partner-key\", value = \"file:{at}/key\""),
        format!("kind = \"query\", {id}, api_key = \"file:{at}/query-key\""),
        format!("kind = \"mx-api-key\", {id}, api_key = \"file:{at}/mx-key\""),
        format!("kind = \"basic\", {id}, api_key = \"file:{at}/passing-key\""),
        format!("kind = \"basic\", {id}, api_key = \"file:{at}/dead-key\""),
    ];
    setup.listeners.clear();
    setup.environments.clear();
    for (name, credential) in names.into_iter().zip(credentials) {
        let (url, bearer) = match name {
            "passing" => (mx.address().to_string(), "bearer_operations = \"pass-through\""),
            "dead" => ("127.0.0.1:1".to_owned(), ""),
            "vault" => (mx.address().to_string(), token.as_str()),
            _ => (mx.address().to_string(), ""),
        };
        setup.listeners += &format!("[[listener]]\naddress = \"127.0.0.1:0\"\nenvironment = \"{name}\"\n");
        setup.environments += &format!(
            "[environment.{name}]\nurl = \"https://{url}\"\nca_file = \"{at}/ca.pem\"\n\
             credential = {{ {credential} }}\n{bearer}\nfirst_byte_timeout_ms = 1000\n"
        );
    }
    setup.listeners += &format!(
        "[[listener]]\naddress = \"127.0.0.1:0\"\nenvironment = \"vault\"\n\
         tls = {{ certificate = \"{at}/tls.pem\", key = \"{at}/tls-key.pem\" }}\n"
    );
    setup.tables = format!(
        "[vault]\nkind = \"file\"\npath = \"{at}/vault.age\"\nidentity = \"file:{at}/identity\"\n\
         [log]\nformat = \"{format}\"\nfilter = \"trace\"\n[health]\naddress = \"127.0.0.1:0\"\n\
         [control]\nsocket = \"{at}/control.sock\"\n[record]\ndestination = \"file:{at}/records.jsonl\"\n\
         [limits]\nbody_bytes_max = 10000\nheader_bytes_max = 4000\nrequest_line_bytes_max = 2000\n\
         header_read_timeout_ms = 300\nupload_timeout_ms = 300\n"
    );
    let held = vec![
        Canary::new("the key in the vault", IN_VAULT),
        Canary::new("the key in the environment", IN_ENVIRONMENT),
        Canary::new("the key in a file", IN_FILE),
        Canary::new("the key in the query", IN_QUERY),
        Canary::new("MX's key", MX_KEY),
        Canary::new("the token", TOKEN),
        Canary::new("the age identity", identity),
        // Bytes 36 to 68 of PKCS #8: the private number, without what stands in the certificate as well.
        Canary::new("the TLS key", &pem[48..90]),
    ];
    let passing = vec![
        Canary::new("the caller's token", CALLERS),
        Canary::new("a part of a path", IN_PATH),
        Canary::new("a code in a query", CODE),
    ];
    let files =
        vec!["key", "passing-key", "dead-key", "token", "query-key", "mx-key", "identity", "tls-key.pem"];
    (setup, Planted { held, passing, files })
}

/// `/proc` as another process of the same user, or `ps`, sees it.
fn as_the_system_shows_it(gateway: &Gateway, evidence: &mut Evidence) {
    for name in ["cmdline", "comm", "environ", "status", "maps"] {
        let path = format!("/proc/{}/{name}", gateway.pid());
        let mut bytes = fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        assert!(!bytes.is_empty(), "{path}");
        if name == "environ" {
            let planted = format!("CANARY={IN_ENVIRONMENT}\0");
            let text = String::from_utf8(bytes).expect("text");
            assert!(text.contains(&planted), "the one way that shows it: {text}");
            bytes = text.replacen(&planted, "CANARY=\0", 1).into_bytes();
        }
        evidence.add(&path, bytes);
    }
}

/// Everything below `folder` but `without`; sockets hold nothing.
fn collect_files(folder: &Path, without: &[&str], evidence: &mut Evidence) {
    let mut count = 0;
    for entry in fs::read_dir(folder).expect("the folder") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        let kind = fs::symlink_metadata(&path).expect("its kind").file_type();
        if kind.is_dir() {
            collect_files(&path, &[], evidence);
        } else if kind.is_file() && !without.contains(&name.as_str()) {
            count += 1;
            evidence.add(&name, fs::read(&path).unwrap_or_else(|error| panic!("{name}: {error}")));
        }
    }
    assert!(count > 0, "{} is empty", folder.display());
}

/// A search finds nothing in what says nothing.
fn assert_is_alive(written: &Evidence, format: &str) {
    written.assert_has("mxgate starts");
    written.assert_has("no new snapshot");
    written.assert_has("\"template\":\"/users/{user_guid}\"");
    written.assert_has("\"operation\":\"readUser\"");
    written.assert_has("\"code\":\"unknown_operation\"");
    let lines = written.text("standard error");
    assert!(lines.lines().count() > 5);
    for line in lines.lines() {
        assert!(!line.contains(|c: char| c.is_control()), "{line:?}");
        assert_eq!(format == "json", serde_json::from_str::<serde_json::Value>(line).is_ok(), "{line}");
    }
    for line in written.text("records.jsonl").lines() {
        let record: serde_json::Value = serde_json::from_str(line).expect("a record");
        assert!(record["template"].is_string() == record["operation"].is_string(), "{line}");
    }
}

/// The sum of a field of all records.
fn recorded(written: &Evidence, field: &str) -> f64 {
    let text = written.text("records.jsonl");
    let records = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("a record"));
    records.map(|record| record[field].as_f64().expect("a number")).sum()
}

/// What holds no secret is passed on byte for byte, in pieces or not, and nothing is counted.
#[test]
fn binary_bodies_are_untouched() {
    let mx = upstream();
    let setup = Setup::new(&mx);
    setup.file("key", IN_VAULT);
    let gateway = setup.start();
    // Every pair of bytes, and all beginnings of the key that are not all of it.
    let pairs = (0..=255_u8).flat_map(|first| (0..=255_u8).flat_map(move |second| [first, second]));
    let starts = (1..IN_VAULT.len()).flat_map(|length| IN_VAULT.bytes().take(length).chain([b' ']));
    let body: Vec<u8> = pairs.chain(starts).collect();
    for size in [64_usize, 1000, 4096, body.len()] {
        drive::answer_in_pieces(&mx, &body, size);
        let answer = gateway.get("/users", "");
        assert!(answer.status == 200 && answer.whole && answer.body == body, "in pieces of {size}");
        let id = answer.header("x-mxgate-request-id").expect("an id");
        let record = gateway.record(|record| record["request_id"] == id);
        assert_eq!((&record["masked"], &record["bytes_out"]), (&0.into(), &body.len().into()));
    }
    assert_eq!(gateway.metric("mxgate_secrets_masked_total"), 0.0);
}

/// The same search finds every echo where masking is left out, and none where it is not.
#[test]
fn the_search_finds_every_form_that_is_not_masked() {
    for value in [IN_VAULT, IN_ENVIRONMENT, IN_FILE, IN_QUERY, MX_KEY, TOKEN] {
        let search = Search::new(&[Canary::new("it", value)]);
        let secret = Secret::new(value.into()).unwrap();
        let (masker, left_out) =
            (Masker::new([&secret]), Masker::left_out_to_prove_that_a_test_finds_the_secret());
        let basic = BASE64_STANDARD.encode(format!("{CLIENT_ID}:{value}")).into_bytes();
        for (form, text) in forms(value.as_bytes()).into_iter().chain([("Basic", basic)]) {
            let mut masked = [b"<", text.as_slice(), b">"].concat();
            let mut bare = masked.clone();
            assert_eq!(left_out.mask(&mut bare), 0);
            assert!(search.first(&bare).is_some(), "{form} of {value} is not found");
            assert_eq!(masker.mask(&mut masked), 1, "{form} of {value}");
            search.assert_clean(form, &masked);
            let half = &text[..text.len() / 2];
            assert!(search.first(half).is_some(), "half of {form} of {value} is not found");
        }
    }
}
