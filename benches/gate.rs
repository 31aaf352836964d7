//! What the gate's scanners cost for each message. The design allows 200 ns for a head of 350 bytes.

#![allow(missing_docs, reason = "criterion_group! makes a function without any")]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use mxgate::{
    framing::{HeadLimits, answer, chunked::ChunkedScanner, request},
    policy::target::Target,
};

const LIMITS: HeadLimits = HeadLimits {
    header_bytes_max: 16_384,
    header_count_max: 64,
    request_line_bytes_max: 8_192,
    body_bytes_max: 10 << 20,
};

const SHORT: &str = "GET /users HTTP/1.1\r\nHost: localhost:8080\r\n\r\n";

/// What MX's Python client sends, 370 bytes.
const USUAL: &str = "GET /users/USR-fa7537f3-48aa-a683-a02a-b18940482f54/members?page=1&records_per_page=100 HTTP/1.1\r\n\
    Host: mxgate.internal:8080\r\nAccept-Encoding: identity\r\nAccept: application/vnd.mx.api.v1+json\r\n\
    Accept-Version: v20250224\r\nUser-Agent: OpenAPI-Generator/1.12.0/python\r\n\
    Authorization: Basic Og==\r\nX-Request-Id: 0b2d7d6a-3a51-4c0f-9f3e-7f2a1f4f9d11\r\n\
    Connection: keep-alive\r\n\r\n";

const ANSWER: &str = "HTTP/1.1 200 OK\r\nDate: Mon, 02 Mar 2026 10:00:00 GMT\r\n\
    Content-Type: application/vnd.mx.api.v1+json\r\nTransfer-Encoding: chunked\r\nConnection: keep-alive\r\n\
    Vary: Accept\r\nETag: W/\"f2a1f4f9d11\"\r\nCache-Control: max-age=0, private, must-revalidate\r\n\
    X-Request-Id: 0b2d7d6a-3a51-4c0f-9f3e-7f2a1f4f9d11\r\nX-Runtime: 0.041\r\n\r\n";

fn heads(criterion: &mut Criterion) {
    let long = USUAL.replace("X-Request-Id", &format!("X-Long: {}\r\nX-Request-Id", "a".repeat(1_000)));
    let mut group = criterion.benchmark_group("request head");
    for head in [SHORT, USUAL, &long] {
        group.throughput(Throughput::Bytes(head.len() as u64));
        group.bench_function(format!("{} bytes", head.len()), |bencher| {
            bencher.iter(|| request::scan(black_box(head.as_bytes()), 0, &LIMITS));
        });
    }
    group.finish();
    criterion.bench_function("answer head", |bencher| {
        bencher.iter(|| answer::scan_head(black_box(ANSWER.as_bytes()), 0, &LIMITS, false));
    });
}

fn bodies(criterion: &mut Criterion) {
    let chunk = format!("1000\r\n{}\r\n", "a".repeat(4_096));
    let body = format!("{}0\r\n\r\n", chunk.repeat(16));
    criterion.bench_function("chunked body of 64 KiB", |bencher| {
        bencher.iter(|| ChunkedScanner::of_request(LIMITS.body_bytes_max).scan(black_box(body.as_bytes())));
    });
}

fn targets(criterion: &mut Criterion) {
    let target = "/users/USR-fa7537f3-48aa-a683-a02a-b18940482f54/members?page=1&records_per_page=100";
    criterion.bench_function("target", |bencher| bencher.iter(|| Target::parse(black_box(target))));
    criterion.bench_function("target without credentials", |bencher| {
        bencher.iter(|| {
            Target::parse(black_box(target)).map(|target| target.without(&["api_key", "client_id"]).len())
        });
    });
}

criterion_group!(gate, heads, bodies, targets);
criterion_main!(gate);
