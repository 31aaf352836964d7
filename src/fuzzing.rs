//! What is claimed of every input, in one place for fuzzing and for the ordinary tests.
//!
//! In: the bytes of one generated case. Out: nothing, or a panic: then a claim does not hold. The fuzz
//! targets (`fuzz/`, which says what each claims) only call these functions; the tests here replay the
//! corpus that fuzzing has collected, and try each claim on something that breaks it, so that neither the
//! corpus nor the claims can rot. It is in no released binary: `cfg(any(test, fuzzing))`.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a claim fails")]
#![cfg_attr(not(test), allow(dead_code, reason = "the tests use all of it"))]

mod answer;
mod chunked;
mod configuration;
mod forwarded;
mod gate_request;
mod headers;
mod masking;
mod proxy_protocol;
mod reading;
mod target;
#[cfg(test)]
mod tests;
mod upload;
mod wire;

/// Checks the claims about one input.
pub type Check = fn(&[u8]);

/// Every target by its name in `fuzz/`.
pub const TARGETS: [(&str, Check); 10] = [
    ("answer", answer::check),
    ("chunked", chunked::check),
    ("configuration", configuration::check),
    ("forwarded", forwarded::check),
    ("gate_request", gate_request::check),
    ("headers", headers::check),
    ("masking", masking::check),
    ("proxy_protocol", proxy_protocol::check),
    ("target", target::check),
    ("upload", upload::check),
];

/// Checks one input of the target `name`.
///
/// # Panics
/// When a claim does not hold, or there is no such target.
pub fn check(name: &str, input: &[u8]) {
    let (_, check) = TARGETS.iter().find(|(target, _)| *target == name).expect("a target of this name");
    check(input);
}

/// The first bytes of an input choose how it is tried; a byte that is not there is 0.
fn split_choices<const N: usize>(input: &[u8]) -> ([u8; N], &[u8]) {
    match input.split_first_chunk::<N>() {
        Some((choices, rest)) => (*choices, rest),
        None => ([0; N], &[]),
    }
}
