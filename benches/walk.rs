//! What the stages between the gate and the upstream cost: admission, limits, match, injection; and admission and match
//! with many callers, with the memory that their snapshot takes.
//!
//! Each is asserted to do its work before it is measured.

#![allow(missing_docs, reason = "criterion_group! makes a function without any")]
#![allow(clippy::print_stdout, reason = "memory is none of criterion's measures")]
#![allow(clippy::expect_used, reason = "a benchmark that cannot be set up fails by panicking")]

use std::{fmt::Write as _, hint::black_box, io::Write as _, time::Duration};

use criterion::{Criterion, criterion_group, criterion_main};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use mxgate::stages::Stages;
use tokio::time::Instant;

const USER: &str = "USR-fa7537f3-48aa-a683-a02a-b18940482f54";
const MEMBER: &str = "MBR-7c6f361b-e582-15b6-60c0-358f12466b4b";
const ACCOUNT: &str = "ACT-06d7f44b-caae-0f6e-1384-01f52e75dcb1";

/// A gateway with `networks` allowed networks, and its key in a file.
fn stages(networks: usize) -> Stages {
    limited(networks, "", "breaker.failures_max = 0")
}

/// The same, with `limits` of its caller and more keys of its environment.
fn limited(networks: usize, limits: &str, environment: &str) -> Stages {
    let mut key = tempfile::NamedTempFile::new().expect("a file");
    key.write_all(b"8f3ac0e4b7d15926a0c4e8f1d2b36597a8c0f4e1").expect("a key");
    let mut allow = String::from("\"127.0.0.0/8\"");
    for n in 1..networks {
        // None adjoins another, so that none are merged.
        write!(allow, ", \"10.{}.{}.0/25\"", n >> 8, n & 255).expect("a text");
    }
    let configuration = format!(
        r#"
        allow = [{allow}]
        [[caller]]
        name = "benchmark"
        networks = ["127.0.0.0/8"]
        grant = {{ production = ["read", "write", "mints-access"] }}
        {limits}
        [[listener]]
        address = "127.0.0.1:0"
        environment = "production"
        [environment.production]
        credential = {{ kind = "basic", client_id = "benchmark", api_key = "file:{}" }}
        {environment}
        "#,
        key.path().display()
    );
    let peer = "127.0.0.1:40000".parse().expect("an address");
    Stages::new(&configuration, peer).expect("a configuration")
}

fn admission(criterion: &mut Criterion) {
    let headers = HeaderMap::new();
    let mut group = criterion.benchmark_group("admission");
    for networks in [10, 10_000] {
        let stages = stages(networks);
        assert!(stages.admit(&headers));
        group.bench_function(format!("{networks} networks"), |bencher| {
            bencher.iter(|| stages.admit(black_box(&headers)));
        });
    }
    group.finish();
}

fn matching(criterion: &mut Criterion) {
    let stages = stages(10);
    let mut group = criterion.benchmark_group("match");
    for (name, method, target, is_granted) in [
        ("both versions, shortest", Method::GET, "/users".to_owned(), true),
        (
            "both versions, usual",
            Method::GET,
            format!("/users/{USER}/members/{MEMBER}/accounts?page=1&records_per_page=100"),
            true,
        ),
        ("v20111101 only", Method::POST, "/payment_processor_authorization_code".to_owned(), true),
        (
            "v20250224 only, longest",
            Method::GET,
            format!("/users/{USER}/members/{MEMBER}/accounts/{ACCOUNT}/transactions/TRN-265abee9"),
            true,
        ),
        ("unknown", Method::GET, format!("/users/{USER}/no/such/thing"), false),
    ] {
        assert_eq!(stages.decide(&method, &target).is_some(), is_granted, "{target}");
        group.bench_function(name, |bencher| {
            bencher.iter(|| stages.decide(black_box(&method), black_box(&target)));
        });
    }
    group.finish();
}

/// A request is let in and is over at once. `find` is not the limits' part: it is in each of them.
fn limits(criterion: &mut Criterion) {
    const MUCH: &str = "requests_per_second = 1_000_000, burst = 1_000_000";
    let all = format!(
        "limits = {{ {MUCH}, in_flight_max = 100, connections_max = 100, bytes_per_second = 1_000_000_000 }}"
    );
    let budget = format!("budget.get = {{ {MUCH}, in_flight_max = 100 }}");
    let mut group = criterion.benchmark_group("limits");
    let none = stages(10);
    group.bench_function("the caller found, no limits asked", |bencher| bencher.iter(|| none.find()));
    for (name, limits) in [
        ("a caller without any", ""),
        ("rate", &format!("limits = {{ {MUCH} }}")),
        ("requests in flight", "limits = { in_flight_max = 100 }"),
        ("connections", "limits = { connections_max = 100 }"),
        ("all of them", &all),
    ] {
        let stages = limited(10, limits, "");
        let now = Instant::now();
        assert!(stages.limit(now));
        // The rate's clock goes on, so that it lets every request through.
        let mut at = now;
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                at += Duration::from_micros(2);
                stages.limit(black_box(at))
            });
        });
        assert!(stages.limit(at + Duration::from_secs(2)), "{name}");
    }
    for (name, environment) in [
        ("neither budget nor breaker", "breaker.failures_max = 0".to_owned()),
        ("a breaker that is closed", "breaker.failures_max = 20".to_owned()),
        ("budget and breaker", format!("{budget}\nbreaker.failures_max = 20")),
    ] {
        let stages = limited(10, "", &environment);
        let mut at = Instant::now();
        assert!(stages.budget(&Method::GET, at));
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                at += Duration::from_micros(2);
                stages.budget(&Method::GET, black_box(at))
            });
        });
        assert!(stages.budget(&Method::GET, at + Duration::from_secs(2)), "{name}");
    }
    group.finish();
}

/// As the gateway has, so that memory is given back as there.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// `count` callers with an address each, of which the one in the middle calls.
fn many_callers(count: usize) -> String {
    let mut text = String::from(
        r#"
        allow = ["10.0.0.0/8"]
        [[listener]]
        address = "127.0.0.1:0"
        environment = "production"
        [environment.production]
        credential = { kind = "basic", client_id = "benchmark", api_key = "file:KEY" }
        "#,
    );
    for n in 0..count {
        let address = address(n);
        let grant = match n % 3 {
            0 => r#""read", "createMember", "-tag:insights""#,
            1 => r#""bundle:aggregation", "bundle:connect", "mints-access", "carries-bank-login""#,
            _ => r#""read", "write", "bank-data", "path:GET /new/thing/{id}""#,
        };
        // The one in the middle has the same grant whatever the count is.
        let grant = if n == count / 2 { r#""read", "write", "-tag:insights""# } else { grant };
        write!(
            text,
            "[[caller]]\nname = \"caller-{n}\"\nnetworks = [\"{address}/32\"]\ngrant = {{ production = [{grant}] }}\n"
        )
        .expect("a text");
    }
    text
}

fn address(n: usize) -> String {
    format!("10.0.{}.{}", n >> 8, n & 255)
}

/// Memory in use once the allocator has given back what it does not need.
fn settled() -> usize {
    let resident = || {
        let status = std::fs::read_to_string("/proc/self/status").expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its size").trim();
        line.trim_end_matches(" kB").parse::<usize>().expect("a number") << 10
    };
    let mut last = usize::MAX;
    loop {
        // jemalloc looks at the clock when something is allocated.
        let end = std::time::Instant::now() + std::time::Duration::from_secs(1);
        while std::time::Instant::now() < end {
            (0..1000).for_each(|size| drop(black_box(Vec::<u8>::with_capacity(64 + size))));
        }
        let now = resident();
        if last.abs_diff(now) < 64 << 10 {
            return now;
        }
        last = now;
    }
}

fn callers(criterion: &mut Criterion) {
    let table = include_str!("../src/mx/operations.tsv").lines().skip(1);
    let all: Vec<(Method, String)> = table
        .map(|line| {
            let mut columns = line.split('\t');
            let method = columns.next().expect("a method").parse().expect("a method");
            (method, columns.next().expect("a path").replace(['{', '}'], "-"))
        })
        .collect();
    let mut group = criterion.benchmark_group("callers");
    for count in [10, 10_000] {
        let before = settled();
        let mut key = tempfile::NamedTempFile::new().expect("a file");
        key.write_all(b"8f3ac0e4b7d15926a0c4e8f1d2b36597a8c0f4e1").expect("a key");
        let configuration = many_callers(count).replace("KEY", &key.path().display().to_string());
        let bytes = configuration.len();
        let peer = format!("{}:40000", address(count / 2)).parse().expect("an address");
        let began = std::time::Instant::now();
        let stages = Stages::new(&configuration, peer).expect("a configuration");
        let built = began.elapsed();
        drop(configuration);
        let grown = settled().saturating_sub(before);
        println!(
            "{count} callers: {bytes} bytes of configuration, checked and built in {built:?}, {grown} bytes resident"
        );
        let granted = all.iter().filter(|(method, target)| stages.decide(method, target).is_some()).count();
        assert_eq!(granted, 114, "of {} operations", all.len());
        group.bench_function(format!("{count} callers, all {} operations", all.len()), |bencher| {
            bencher.iter(|| {
                all.iter()
                    .filter(|(method, target)| stages.decide(black_box(method), black_box(target)).is_some())
                    .count()
            });
        });
        let headers = HeaderMap::new();
        group.bench_function(format!("{count} callers, admission"), |bencher| {
            bencher.iter(|| stages.admit(black_box(&headers)));
        });
    }
    group.finish();
}

fn injection(criterion: &mut Criterion) {
    let stages = stages(10);
    let granted = stages.decide(&Method::GET, "/users").expect("a grant");
    let usual = [
        ("host", "mxgate.internal:8080"),
        ("accept-encoding", "identity"),
        ("accept", "application/vnd.mx.api.v1+json"),
        ("accept-version", "v20250224"),
        ("user-agent", "OpenAPI-Generator/1.12.0/python"),
        ("x-request-id", "0b2d7d6a-3a51-4c0f-9f3e-7f2a1f4f9d11"),
    ];
    let credentials = [
        ("authorization", "Basic Y2FsbGVyOnNlY3JldA=="),
        ("mx-api-key", "caller"),
        ("mx-client-id", "caller"),
        ("cookie", "session=caller"),
        ("x-api-key", "caller"),
        ("connection", "keep-alive, x-hop"),
        ("x-hop", "caller"),
    ];
    let map = |fields: &[(&'static str, &'static str)]| -> HeaderMap {
        let pair = |&(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value));
        fields.iter().map(pair).collect()
    };
    let mut group = criterion.benchmark_group("injection");
    for (name, fields) in [
        ("no credential from the caller", map(&usual)),
        ("the caller's credentials dropped", map(&[&usual[..], &credentials[..]].concat())),
    ] {
        let head = stages.write_head(&granted, "/users", &fields).expect("a head");
        let head = std::str::from_utf8(&head).expect("a text");
        assert!(head.starts_with("GET /users HTTP/1.1\r\n") && head.ends_with("\r\n\r\n"));
        assert_eq!(head.matches("\r\nauthorization: Basic ").count(), 1);
        assert!(!head.contains("caller"));
        group.bench_function(name, |bencher| {
            bencher.iter(|| stages.write_head(black_box(&granted), "/users", black_box(&fields)));
        });
    }
    group.finish();
}

criterion_group!(walk, admission, limits, matching, callers, injection);
criterion_main!(walk);
