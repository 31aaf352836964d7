//! Properties of every key, taken from the schema: it is read, its bounds hold, it has an effect, what
//! is said about reloading is true, and what is written as its value is never repeated.

use std::collections::{BTreeMap, BTreeSet};

use super::super::{
    Config, check,
    document::{self, Data, Entry, Node},
    fault::{Fault, Place, Report, Severity},
    schema::{Key, Kind, Need, Reload, keys::FILE},
};

const EVERY_KEY: &str = include_str!("../../../config/every-key.toml");

/// One credential of each kind, besides `header`, which the example has.
const CREDENTIALS: [(&str, &str); 7] = [
    ("basic", r#"{ kind = "basic", client_id = "ID", api_key = "vault:a" }"#),
    ("api-key", r#"{ kind = "api-key", client_id = "ID", api_key = "vault:a" }"#),
    ("mx-api-key", r#"{ kind = "mx-api-key", client_id = "ID", api_key = "vault:a" }"#),
    ("query", r#"{ kind = "query", client_id = "ID", api_key = "vault:a" }"#),
    ("bearer", r#"{ kind = "bearer", token = "vault:a" }"#),
    ("oauth2", r#"{ kind = "oauth2", provider = "bank" }"#),
    ("header", r#"{ kind = "header", name = "MD-API-KEY", value = "vault:a" }"#),
];

/// One login at OpenBao of each kind.
const LOGINS: [(&str, &str); 4] = [
    ("token", r#"{ kind = "token", token = "env:T" }"#),
    ("approle", r#"{ kind = "approle", role_id = "ID", secret_id = "env:S" }"#),
    ("kubernetes", r#"{ kind = "kubernetes", role = "mxgate" }"#),
    ("jwt", r#"{ kind = "jwt", role = "mxgate", jwt = "env:J" }"#),
];

/// A key, and a file in which it can be written.
struct Case {
    path: String,
    key: &'static Key,
    restart: bool,
    base: Node,
}

impl Case {
    /// The file with `data` as the key's value.
    fn with(&self, data: Data) -> Node {
        let mut root = self.base.clone();
        set(&mut root, &self.path, data);
        root
    }

    /// The faults that the key has in this file.
    fn faults_with(&self, data: Data) -> Vec<Fault> {
        let (_, faults) = checked(&self.with(data));
        let mine = |fault: &Fault| fault.key.starts_with(&self.path) && fault.severity == Severity::Error;
        faults.into_iter().filter(mine).collect()
    }
}

#[test]
fn every_key_is_read_and_refuses_another_type() {
    let cases = cases();
    assert!(cases.len() > 60, "{}", cases.len());
    for case in cases {
        let wrong = match case.key.kind {
            Kind::Flag | Kind::Integer { .. } | Kind::Texts => text("1"),
            _ => Data::Integer(Some(1)),
        };
        assert!(!case.faults_with(wrong).is_empty(), "{} takes another type", case.path);
        assert!(checked(&case.base).0.is_some(), "{}: its base is faulty", case.path);
    }
}

#[test]
fn every_bound_is_inclusive_and_holds() {
    let mut count = 0;
    for case in cases() {
        let Kind::Integer { min, max, unit } = case.key.kind else { continue };
        let integer = |number: i64| case.faults_with(Data::Integer(Some(number)));
        let (min, max) = (i64::try_from(min).unwrap(), i64::try_from(max).unwrap());
        assert_eq!((integer(min), integer(max)), (vec![], vec![]), "{}", case.path);
        for outside in [min - 1, max + 1] {
            let allowed = integer(outside)[0].problem.allowed.clone();
            assert_eq!(allowed, Some(format!("{min} to {max} {unit}")), "{}", case.path);
        }
        count += 1;
    }
    assert!(count > 15, "{count}");
}

#[test]
fn every_key_has_an_effect_and_says_truly_whether_a_reload_takes_it_up() {
    for case in cases() {
        let (before, after) = (checked(&case.base).0.unwrap(), checked(&case.with(another(&case))));
        let after = after.0.unwrap_or_else(|| panic!("{}: {:#?}", case.path, after.1));
        assert_ne!(format!("{before:?}"), format!("{after:?}"), "{} has no effect", case.path);
        let named = before.restart_only_changes(&after);
        assert_eq!(!named.is_empty(), case.restart, "{}: {named:?}", case.path);
        assert!(named.iter().all(|name| case.path.starts_with(name)), "{}: {named:?}", case.path);
        assert_eq!(before.restart_only_changes(&before), [""; 0]);
    }
}

/// Whatever is written as a value, and whichever way it is wrong, no message repeats it.
#[test]
fn no_fault_repeats_what_was_written() {
    const CANARY: &str = "c4n4ry-S3CR3T";
    for case in cases() {
        let nested = |value: Data| Data::Table([("x".to_owned(), entry(value))].into());
        let list = Data::List(vec![node(text(CANARY)), node(nested(text(CANARY)))]);
        for data in
            [text(CANARY), text(&format!("vault: {CANARY}")), list, nested(text(CANARY)), unknown_key(CANARY)]
        {
            for fault in checked(&case.with(data)).1 {
                let printed = format!("{fault} {}", fault.to_json());
                assert!(!printed.contains("c4n4ry"), "{}: {printed}", case.path);
            }
        }
    }
}

fn unknown_key(name: &str) -> Data {
    Data::Table([(name.to_owned(), entry(text("x")))].into())
}

/// Every key that has a value of its own, in every kind of table.
fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    walk(FILE, "", false, &base(""), &mut cases);
    let is_of_the_second =
        |path: &str| ["caller[0].unix_", "caller[0].connections"].iter().any(|one| path.starts_with(one));
    for case in cases.iter_mut().filter(|case| is_of_the_second(&case.path)) {
        swap(&mut case.base, "caller");
    }
    // What one of the two providers reads in a document, the other has written.
    for case in cases.iter_mut().filter(|case| case.path.ends_with("_endpoint")) {
        case.path = case.path.replace(".bank.", ".other.");
    }
    cases
}

/// Makes the second of several tables the first: not every key goes with every other.
fn swap(root: &mut Node, list: &str) {
    let Data::Table(entries) = &mut root.data else { unreachable!() };
    let Data::List(values) = &mut entries.get_mut(list).unwrap().value.data else { unreachable!() };
    values.swap(0, 1);
}

fn walk(keys: &'static [Key], prefix: &str, restart: bool, base: &Node, cases: &mut Vec<Case>) {
    for key in keys {
        let restart = restart || key.reload == Reload::Restart;
        let path = format!("{prefix}{}", key.name);
        match &key.kind {
            Kind::Section(_) if key.name == "aws" && !cfg!(feature = "aws") => {}
            // Only MX's Platform API has it.
            Kind::Section(keys) if key.name == "rotation" => {
                let (path, mut base) = (path.replace("reporting", "production"), base.clone());
                set(&mut base, &format!("{path}.warn_days"), Data::Integer(Some(3_650)));
                walk(keys, &format!("{path}."), restart, &base, cases);
            }
            Kind::Flag if key.name == "token_handles" => {
                let path = path.replace("reporting", "production");
                cases.push(Case { path, key, restart, base: base.clone() });
            }
            // They stand in the place of a file.
            Kind::Section(keys) if key.name == "postgres" => {
                let mut base = base.clone();
                remove(&mut base, "connections", "file");
                set(&mut base, &format!("{path}.host"), text("db.internal"));
                walk(keys, &format!("{path}."), restart, &base, cases);
            }
            Kind::Section(keys) => walk(keys, &format!("{path}."), restart, base, cases),
            Kind::Sections(keys) => walk(keys, &format!("{path}[0]."), restart, base, cases),
            Kind::Named(keys) if key.name == "provider" => {
                walk(keys, &format!("{path}.bank."), restart, base, cases);
            }
            Kind::Named(keys) => walk(keys, &format!("{path}.reporting."), restart, base, cases),
            Kind::Variants(variants) if key.name == "credential" => {
                for variant in *variants {
                    let text = CREDENTIALS.iter().find(|(kind, _)| *kind == variant.kind).unwrap().1;
                    walk(variant.keys, &format!("{path}."), restart, &self::base(text), cases);
                }
            }
            Kind::Variants(variants) if key.name == "login" => {
                for variant in *variants {
                    let text = LOGINS.iter().find(|(kind, _)| *kind == variant.kind).unwrap().1;
                    let mut base = base.clone();
                    set(&mut base, &path, value(text));
                    walk(variant.keys, &format!("{path}."), restart, &base, cases);
                }
            }
            Kind::Variants(variants) => {
                variants
                    .iter()
                    .for_each(|variant| walk(variant.keys, &format!("{path}."), restart, base, cases));
            }
            Kind::WordOrSection(_, keys) => {
                walk(keys, &format!("{path}."), restart, base, cases);
                cases.push(Case { path, key, restart, base: base.clone() });
            }
            _ => cases.push(Case { path, key, restart, base: base.clone() }),
        }
    }
}

/// `every-key.toml`; `reporting` has what it lacks there, and this credential.
fn base(credential: &str) -> Node {
    let parsed = document::parse(EVERY_KEY, "every-key.toml");
    assert_eq!(parsed.faults, []);
    let mut root = parsed.root;
    for key in ["certificate", "key"] {
        set(&mut root, &format!("environment.reporting.client_certificate.{key}"), text("/pem"));
    }
    for methods in ["get", "other"] {
        let path = format!("environment.reporting.budget.{methods}.requests_per_second");
        set(&mut root, &path, Data::Integer(Some(10)));
    }
    let proxy = "environment.reporting.proxy";
    for (key, value) in [("url", "http://proxy:1"), ("username", "name"), ("password", "vault:proxy")] {
        set(&mut root, &format!("{proxy}.{key}"), text(value));
    }
    // The example is for every build.
    if cfg!(feature = "aws") {
        set(&mut root, "aws.region", text("eu-central-1"));
    }
    if !credential.is_empty() {
        set(&mut root, "environment.reporting.credential", value(credential));
    }
    root
}

/// What a text of TOML is as a value.
fn value(toml: &str) -> Data {
    let Data::Table(mut table) = document::parse(&format!("c = {toml}"), "").root.data else {
        unreachable!()
    };
    table.remove("c").unwrap().value.data
}

/// A valid value that is neither the key's default nor the one in `base`.
fn another(case: &Case) -> Data {
    let list = |value: &str| Data::List(vec![node(text(value))]);
    match (&case.key.kind, case.key.name) {
        (Kind::Integer { min, max, .. }, _) => {
            let default = if let Need::Integer(default) = case.key.need { default } else { 2 };
            Data::Integer(Some(i64::try_from(if default == *min { *max } else { *min }).unwrap()))
        }
        (Kind::Flag, _) => Data::Flag(true),
        (Kind::Choice(words) | Kind::WordOrSection(words, _), _) => text(words[1]),
        (Kind::Path, _) => text("/other"),
        (Kind::Reference, _) => text("env:OTHER"),
        (Kind::Integers { min, .. }, _) => {
            Data::List(vec![node(Data::Integer(Some(i64::try_from(*min).unwrap())))])
        }
        (Kind::NamedTexts, "scopes") => Data::Table([("paths".to_owned(), entry(list("other")))].into()),
        (Kind::NamedTexts, _) => Data::Table([("sandbox".to_owned(), entry(list("write")))].into()),
        (Kind::NamedText, _) => Data::Table([("other".to_owned(), entry(text("other")))].into()),
        (_, "allow" | "trusted_proxies" | "networks") => list("192.0.2.0/24"),
        (_, "tls_names") => list("dns:other.internal"),
        (_, "header") => text("x-other"),
        (_, "hosts") => list("other"),
        (_, "scopes") => list("other"),
        (_, "discovery") => text("https://other.example/.well-known/openid-configuration"),
        (_, "resource") => text("urn:other"),
        (_, "provider") => text("other"),
        (_, "providers") => list("other"),
        (_, "of") => list("batch"),
        (_, "return_urls") => list("https://other.example/other"),
        (_, "schema") => text("other"),
        (Kind::Text, name) if name.ends_with("_endpoint") || name == "redirect_uri" => {
            text("https://other.example/other")
        }
        (_, "command") => list("/bin/other"),
        (_, "variables") => list("OTHER"),
        (_, "mounts") => list("other/kv"),
        (_, "users") => list("USR-9"),
        (_, "mask_fields") => list("other.*"),
        (_, "pass_headers") => list("X-Other-Token"),
        (_, "algorithms") => list("EdDSA"),
        (_, "jwks") => text("https://other.example"),
        (_, "origins") => list("https://other.example"),
        (_, "paths") => list("GET /other"),
        (_, "address") => text("127.0.0.1:1"),
        (_, "environment") => text("sandbox"),
        (_, "url") if case.path.ends_with("proxy.url") => text("http://other.example:1"),
        (_, "url" | "endpoint") => text("https://other.example"),
        (_, "bind") => text("192.0.2.1"),
        (_, "pins") => Data::List(
            [b"one", b"two"].map(|key| node(text(&crate::config::Pin::of(key).to_string()))).into(),
        ),
        (_, "accept_version") => text("v20111101"),
        (_, "filter") => text("debug"),
        (_, "observe_until") => {
            let soon = std::time::SystemTime::now() + std::time::Duration::from_secs(3600);
            text(&humantime::format_rfc3339_seconds(soon).to_string())
        }
        (_, "destination") => text("off"),
        (Kind::Text, _) => text("other"),
        (kind, name) => panic!("no other value for {name}, {kind:?}"),
    }
}

fn checked(root: &Node) -> (Option<Config>, Vec<Fault>) {
    let report = Report::new("f", root, BTreeSet::new());
    let config = check::config(root, &report);
    let faults = report.into_faults();
    (config.filter(|_| faults.iter().all(|fault| fault.severity == Severity::Warning)), faults)
}

fn text(text: &str) -> Data {
    Data::Text(text.to_owned())
}

fn node(data: Data) -> Node {
    Node { place: Place::File, data }
}

fn entry(data: Data) -> Entry {
    Entry { key_place: Place::File, value: node(data) }
}

/// Takes a key out of a section.
fn remove(root: &mut Node, section: &str, key: &str) {
    let Data::Table(sections) = &mut root.data else { unreachable!() };
    let Data::Table(entries) = &mut sections.get_mut(section).unwrap().value.data else { unreachable!() };
    entries.remove(key);
}

/// Replaces or adds the value at `path`, making tables on the way.
fn set(root: &mut Node, path: &str, data: Data) {
    let mut node = root;
    for step in path.split(['.', '[']) {
        if let Some(index) = step.strip_suffix(']') {
            let Data::List(values) = &mut node.data else { panic!("{path} is no list") };
            node = &mut values[index.parse::<usize>().unwrap()];
            continue;
        }
        if !matches!(node.data, Data::Table(_)) {
            node.data = Data::Table(BTreeMap::new());
        }
        let Data::Table(entries) = &mut node.data else { unreachable!() };
        node = &mut entries.entry(step.to_owned()).or_insert_with(|| entry(Data::Flag(false))).value;
    }
    node.data = data;
}
