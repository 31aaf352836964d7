//! What masking costs: bytes of an answer per second, clean and with hits, whole and in frames.
//! The clean path is what nearly every answer takes; it is to be far above what a connection carries.

#![allow(missing_docs, reason = "criterion's macro makes a public function")]

use std::{hint::black_box, sync::Arc};

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use mxgate::{
    redaction::{Masker, body::StreamMasker},
    vault::secret::Secret,
};

const KEY: &str = "8f3ac0e4b7d15926a0c4e8f1d2b36597a8c0f4e1";
const FRAME_BYTES: usize = 16 * 1024;

/// One megabyte of what MX answers most: members' transactions.
fn answer() -> Vec<u8> {
    let line = r#"{"guid":"TRN-265abee9-889b-af6a-c69b-25157db2bdd9","amount":61.11,"description":"Café \u0026 Bar","date":"2026-03-01","api_url":"https:\/\/int-api.mx.com\/"},"#;
    line.bytes().cycle().take(1_000_000).collect()
}

fn masking(c: &mut Criterion) {
    // Keys that differ from their first bytes on: each adds its own patterns.
    let key = |n: usize| {
        Secret::new(format!("{:08x}{KEY}", 0x8f3a_c0e4_usize.wrapping_mul(n + 1) as u32).into_bytes()).ok()
    };
    let masker = |keys: usize| Arc::new(Masker::new(&(0..keys).filter_map(key).collect::<Vec<_>>()));
    let one = masker(1);
    let clean = answer();
    let mut echo = clean.clone();
    for at in (0..clean.len() - 100).step_by(10_000) {
        echo[at..at + 8].copy_from_slice(b"8f3ac0e4");
        echo[at + 8..at + 8 + KEY.len()].copy_from_slice(KEY.as_bytes());
    }

    let mut group = c.benchmark_group("masking");
    group.throughput(Throughput::Bytes(clean.len() as u64));
    group.bench_function("clean, 1 MB, 1 secret", |b| b.iter(|| one.is_hit(black_box(&clean))));
    for keys in [3, 20, 1_000] {
        let many = masker(keys);
        group.bench_function(format!("clean, 1 MB, {keys} secrets"), |b| {
            b.iter(|| many.is_hit(black_box(&clean)))
        });
    }
    for (name, text) in [("clean", &clean), ("100 hits", &echo)] {
        group.bench_function(format!("{name}, 1 MB in frames of 16 KiB"), |b| {
            let frames = || text.chunks(FRAME_BYTES).map(Bytes::copy_from_slice).collect::<Vec<_>>();
            let run = |frames: Vec<Bytes>| {
                let mut stream = StreamMasker::new(Arc::clone(&one));
                frames.into_iter().for_each(|frame| drop(black_box(stream.push(frame))));
                stream.finish()
            };
            b.iter_batched(frames, run, BatchSize::LargeInput);
        });
    }
    group.finish();

    let small = Bytes::copy_from_slice(&clean[..600]);
    let mut group = c.benchmark_group("masking, small");
    group.throughput(Throughput::Bytes(small.len() as u64));
    group.bench_function("clean, 600 bytes, streamed", |b| {
        b.iter(|| StreamMasker::new(Arc::clone(&one)).push(black_box(small.clone())));
    });
    // What a line of the access record costs.
    let line = Bytes::copy_from_slice(&clean[..550]);
    for keys in [1, 1_000] {
        let masker = masker(keys);
        group.bench_function(format!("clean, 550 bytes, {keys} secrets"), |b| {
            b.iter(|| masker.is_hit(black_box(&line)))
        });
    }
    group.bench_function("compile 1,000 secrets", |b| {
        let keys = (0..1_000).filter_map(key).collect::<Vec<_>>();
        b.iter(|| Masker::new(&keys));
    });
    group.bench_function("compile 1 secret", |b| {
        let key = Secret::new(KEY.into());
        b.iter(|| Masker::new(&key));
    });
    group.finish();
}

criterion_group!(benches, masking);
criterion_main!(benches);
