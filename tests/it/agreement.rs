//! `explain` and a running gateway say the same, about thousands of generated requests.
//!
//! The gateway is the built binary and decides over real connections, with a stand-in behind it; `explain` decides in
//! this process. What the gateway decided is read from its access records. Generated requests come from many callers (a
//! source address each), are made from the catalogue's templates, and about half of them are bent.

use std::{
    collections::HashMap,
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::{Duration, SystemTime},
};

use mxgate::{
    config::{Config, overrides::Overrides},
    explain::{Asker, Explainer, Question},
    mx::catalogue::{Operation, OperationCredential, catalogue},
};
use serde_json::Value;

use crate::harness::{Client, Setup, mx};

const REQUESTS: usize = 10_400;

#[test]
fn explain_agrees_with_the_gateway() {
    let mx = mx();
    let setup = setup(&mx);
    let text = setup.configuration();
    let records = setup.folder().join("records.jsonl");
    let mut gateway = setup.start();
    let cases = cases();
    let ids = ask_all(&cases, &gateway.addresses);
    gateway.signal("TERM");
    assert!(gateway.wait().success());
    let decided = read(&records);
    let decided: Vec<&Decided> = ids.iter().map(|id| decided.get(id).expect("a record")).collect();

    let first: Vec<String> = disagreements(&text, &cases, &decided).take(3).collect();
    assert_eq!(first, [""; 0]);
    is_varied(&decided);
    would_be_noticed(&text, &cases, &decided);
}

/// What the gateway decided: a refusal's code, `allowed` or `observed`, and the operation.
type Decided = (String, Option<String>);

/// Whether the comparison means something: each of these occurred, and not by accident.
fn is_varied(decided: &[&Decided]) {
    let mut counts: HashMap<&str, usize> = HashMap::new();
    decided.iter().for_each(|(code, _)| *counts.entry(code).or_default() += 1);
    for (code, least) in [
        ("allowed", 1800),
        ("operation_denied", 500),
        ("observed", 50),
        ("caller_not_allowed", 500),
        ("unknown_operation", 500),
        ("method_not_allowed", 100),
        ("malformed_target", 100),
        ("malformed_request", 50),
        ("method_not_supported", 20),
        ("browser_not_allowed", 50),
        ("misdirected_request", 50),
        ("no_credential", 10),
        ("expectation_failed", 20),
    ] {
        assert!(counts.get(code).is_some_and(|count| *count >= least), "{code}: {counts:?}");
    }
    let operations: std::collections::HashSet<_> =
        decided.iter().filter_map(|(_, operation)| operation.as_ref()).collect();
    assert!(operations.len() > 150, "{} operations", operations.len());
}

/// The same records, compared with another configuration: a difference shows.
fn would_be_noticed(text: &str, cases: &[Case], decided: &[&Decided]) {
    for (from, to) in [
        ("\"read\", \"-tag:insights\"", "\"read\""),
        ("\"-deleteUser\"", "\"-listUsers\""),
        ("127.0.2.0/24", "127.0.9.0/24"),
        ("https://app.example", "https://another.example"),
        ("bearer_operations = \"pass-through\"", "bearer_operations = \"refused\""),
        ("GET /reports/{id}", "GET /report/{id}"),
        ("127.0.0.0/16", "127.0.0.0/24"),
        ("observe_until = ", "# observe_until = "),
    ] {
        assert!(text.contains(from), "{from}");
        let other = text.replace(from, to);
        let mut changed = disagreements(&other, cases, decided);
        assert!(changed.next().is_some(), "{from} changed to {to} makes no difference");
    }
}

fn disagreements(text: &str, cases: &[Case], decided: &[&Decided]) -> impl Iterator<Item = String> {
    let config = Config::parse(text, "f", &Overrides::none()).expect("a configuration").config;
    let explainer = Explainer::new(&config).expect("an explainer");
    cases.iter().zip(decided).filter_map(move |(case, decided)| {
        let told = explainer.explain(&case.question()).expect("an answer");
        let code = match (&told.refused, &told.would_refuse) {
            (Some(refused), _) => refused.code,
            (None, Some(_)) => "observed",
            (None, None) => "allowed",
        };
        let agree = (code, told.operation) == (&*decided.0, decided.1.as_deref());
        (!agree).then(|| format!("{case:?}: the gateway {decided:?}, explain {code} {:?}", told.operation))
    })
}

fn setup(mx: &mxgate::stand_in::Running) -> Setup {
    let mut setup = Setup::new(mx)
        .top("allow = [\"127.0.0.0/16\", \"10.0.0.0/8\"]\ntrusted_proxies = [\"127.0.200.0/24\"]");
    setup.environments += &setup.other_environment("listed", mx.address());
    setup =
        setup.in_environment("paths = [\"GET /reports/{id}\", \"POST /reports\", \"GET /files/{*rest}\"]");
    setup.environments = setup.environments.replacen(
        &format!("bearer_operations = {{ token = \"file:{}/token\" }}", setup.folder().display()),
        "bearer_operations = \"pass-through\"",
        1,
    );
    setup.listeners += "origins = [\"https://app.example\"]\n\
                        [[listener]]\naddress = \"127.0.0.1:0\"\nenvironment = \"listed\"\n";
    let grants = [
        r#"{ test = ["read", "-tag:insights"], listed = ["paths"] }"#,
        r#"{ test = ["read", "write", "destructive", "bank-data", "mints-access", "carries-bank-login", "money", "-deleteUser"] }"#,
        r#"{ test = ["tag:members", "method:POST", "bank-data"], listed = ["path:GET /reports/{id}"] }"#,
        r#"{ test = ["listUsers", "createMember", "path:GET /new/{id}", "path:PATCH /users"] }"#,
        r#"{ listed = ["method:GET"] }"#,
        r#"{ test = [] }"#,
    ];
    let caller = |(at, grant): (usize, &&str)| {
        format!(
            "[[caller]]\nname = \"caller-{at}\"\nnetworks = [\"127.0.{at}.0/24\", \"10.0.{at}.0/24\"]\ngrant = {grant}\n"
        )
    };
    let soon = humantime::format_rfc3339_seconds(SystemTime::now() + Duration::from_secs(3600));
    let observed = format!("observe_until = \"{soon}\"\n");
    setup.callers = Some(grants.iter().enumerate().map(caller).collect::<String>() + &observed);
    let records = setup.folder().join("records.jsonl").display().to_string();
    setup.table(&format!("[record]\ndestination = \"file:{records}\""))
}

/// A request and where it comes from.
#[derive(Debug, Clone)]
struct Case {
    from: Ipv4Addr,
    environment: usize,
    method: &'static str,
    target: String,
    headers: Vec<(&'static str, String)>,
}

const ENVIRONMENTS: [&str; 2] = ["test", "listed"];

impl Case {
    fn question(&self) -> Question {
        let field = |(name, value): &(&str, String)| ((*name).to_owned(), value.clone());
        Question {
            asker: Asker::Address(IpAddr::V4(self.from)),
            listener: None,
            tls_names: Vec::new(),
            environment: Some(ENVIRONMENTS[self.environment].to_owned()),
            method: self.method.to_owned(),
            target: self.target.clone(),
            headers: self.headers.iter().map(field).collect(),
        }
    }

    fn text(&self) -> String {
        let mut text = format!("{} {} HTTP/1.1\r\n", self.method, self.target);
        if !self.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            text.push_str("Host: localhost\r\n");
        }
        for (name, value) in &self.headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text + "\r\n"
    }
}

/// Asks for all of them, over a connection for each caller and listener that is kept as long as the gateway keeps it; the
/// ids of the answers, in order.
fn ask_all(cases: &[Case], addresses: &[SocketAddr]) -> Vec<String> {
    const THREADS: usize = 4;
    let part = |thread: usize| {
        let mut connections: HashMap<(Ipv4Addr, usize), Client> = HashMap::new();
        let mut ids = Vec::new();
        for case in cases.iter().skip(thread).step_by(THREADS) {
            let key = (case.from, case.environment);
            let connect = || Client::connect_from(case.from.into(), addresses[case.environment]);
            let client = connections.entry(key).or_insert_with(connect);
            client.raw(case.text().as_bytes());
            let answer = if case.method == "HEAD" { client.answer_to_head() } else { client.answer() };
            ids.push(answer.header("x-mxgate-request-id").expect("an id").to_owned());
            if answer.header("connection") == Some("close") {
                connections.remove(&key);
            }
        }
        ids
    };
    let parts: Vec<Vec<String>> = std::thread::scope(|scope| {
        let running: Vec<_> = (0..THREADS).map(|thread| scope.spawn(move || part(thread))).collect();
        running.into_iter().map(|thread| thread.join().expect("a thread")).collect()
    });
    (0..cases.len()).map(|at| parts[at % THREADS][at / THREADS].clone()).collect()
}

fn read(records: &std::path::Path) -> HashMap<String, Decided> {
    let text = fs::read_to_string(records).expect("records");
    let one = |line: &str| {
        let record: Value = serde_json::from_str(line).expect("a record");
        let word = |name: &str| record[name].as_str().map(str::to_owned);
        let decision = word("decision").expect("a decision");
        assert!(["allowed", "refused"].contains(&&*decision), "{line}");
        let observed = word("would_refuse").map(|_| "observed".to_owned());
        let code = word("code").or(observed).unwrap_or(decision);
        (word("request_id").expect("an id"), (code, word("operation")))
    };
    text.lines().map(one).collect()
}

/// A generator whose numbers are the same everywhere (SplitMix64).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % bound as u64) as usize
    }

    fn one<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())].clone()
    }
}

fn cases() -> Vec<Case> {
    let mut random = Random(20_261_122);
    (0..REQUESTS).map(|_| case(&mut random)).collect()
}

fn case(random: &mut Random) -> Case {
    let environment = usize::from(random.below(6) == 0);
    let mut headers = Vec::new();
    let (method, target) = if environment == 1 && random.below(2) == 0 {
        let path = ["/reports/R-1", "/reports", "/files/a/b", "/files", "/files/a//b", "/reports/R-1/x"];
        (random.one(&["GET", "HEAD", "POST", "PUT"]), random.one(&path).to_owned())
    } else {
        let with_token = |one: &&Operation| one.credential == OperationCredential::Bearer;
        let rare = random.below(12) == 0;
        let all: Vec<_> = catalogue().operations().iter().filter(|one| !rare || with_token(one)).collect();
        let operation = random.one(&all);
        if with_token(&operation) && random.below(2) == 0 {
            headers.push(("Authorization", "Bearer abc.def".to_owned()));
        }
        (method(random, operation.method.as_str()), target(random, operation.template))
    };
    for _ in 0..random.below(6).saturating_sub(3) {
        headers.push(header(random));
    }
    // 127.0.6.x is nobody, 127.1.x.x may not call at all, 127.0.200.x is a proxy.
    let network = [[0, 0], [0, 1], [0, 2], [0, 3], [0, 4], [0, 5], [0, 6], [1, 1], [0, 200]];
    let [second, third] =
        if random.below(3) == 0 { random.one(&network) } else { [0, random.one(&[0, 1, 1, 1, 2])] };
    let from = Ipv4Addr::new(127, second, third, random.one(&[1, 2]));
    Case { from, environment, method, target, headers }
}

fn method(random: &mut Random, own: &str) -> &'static str {
    const METHODS: [&str; 7] = ["GET", "POST", "PUT", "DELETE", "HEAD", "PATCH", "OPTIONS"];
    let own = METHODS.into_iter().find(|method| *method == own).expect("a method");
    match random.below(24) {
        0..=17 => own,
        18 => "HEAD",
        19 => random.one(&["BREW", "TRACE", "get", "CONNECT"]),
        _ => random.one(&METHODS),
    }
}

fn target(random: &mut Random, template: &str) -> String {
    let id = ["USR-1", "MBR-4a7c", "7", "a%20b", "%C3%BC", "x;y", "a@b:c", "current", "."];
    let mut path: String = template
        .split('/')
        .skip(1)
        .map(|segment| match segment.split_once('}') {
            Some((_, suffix)) => {
                format!("/{}{suffix}", if random.below(12) == 0 { random.one(&id) } else { "X-1" })
            }
            None => format!("/{segment}"),
        })
        .collect();
    if random.below(3) == 0 {
        path = bent(random, path);
    }
    let query = ["", "", "", "", "", "", "?page=2", "?api_key=x&page=1", "?", "?q=[x]&y=a+b", "?a=%zz"];
    path + random.one(&query)
}

/// One change that makes another path of it, or no path at all.
fn bent(random: &mut Random, path: String) -> String {
    let at = path.char_indices().map(|(at, _)| at).nth(random.below(path.chars().count())).unwrap_or(0);
    let slash = path.rfind('/').unwrap_or(0);
    let (before, after) = path.split_at(at);
    match random.below(18) {
        0 => path + "/",
        1 => path.replacen('/', "//", 1),
        2 => path.to_uppercase(),
        3 => format!("{before}%41{after}"),
        4 => format!("{before}%2F{after}"),
        5 => format!("{before}%2f{after}"),
        6 => format!("{before}/../{after}"),
        7 => format!("{before}\\{after}"),
        8 => format!("{before}#{after}"),
        9 => path[..slash].to_owned(),
        10 => path + "/more",
        11 => path + ".json",
        12 => format!("{before};x=1{after}"),
        13 => format!("{before}%{after}"),
        14 => path.replacen("users", "userz", 1),
        15 => format!("http://localhost{path}"),
        16 => format!("/new{path}"),
        _ => "/new/X-1".to_owned(),
    }
}

fn header(random: &mut Random) -> (&'static str, String) {
    let (name, value) = random.one(&[
        ("Accept", "application/json"),
        ("Accept", "application/vnd.mx.api.v1+json"),
        ("Accept-Version", "v20111101"),
        ("Authorization", "Bearer abc.def"),
        ("Authorization", "Bearer a b"),
        ("Authorization", "Basic eDp5"),
        ("Cookie", "a=b"),
        ("X-HTTP-Method-Override", "DELETE"),
        ("X-Original-URL", "/clients"),
        ("X-Forwarded-For", "10.0.1.7"),
        ("X-Forwarded-For", "10.0.3.7, 127.0.200.9"),
        ("X-Forwarded-For", "unknown"),
        ("Forwarded", "for=10.0.1.7"),
        ("Connection", "keep-alive"),
        ("Connection", "accept"),
        ("Origin", "https://app.example"),
        ("Origin", "https://evil.example"),
        ("Sec-Fetch-Site", "cross-site"),
        ("Host", "evil.example"),
        ("Host", "127.0.0.1"),
        ("Host", "a b"),
        ("Expect", "a-pony"),
        ("X Y", "a space in a name"),
        ("X-Trace", "1"),
    ]);
    (name, value.to_owned())
}
