//! A chunked body: the scanner reads what a plain second reading reads, however it is cut.
//!
//! One byte chooses the pieces; the rest is the body and what follows it.

use super::{reading, split_choices, wire::Plan};
use crate::framing::{
    Violation,
    chunked::{ChunkedScanner, Scanned},
};

const DATA_MAX: u64 = 4_096;

pub(super) fn check(input: &[u8]) {
    let ([seed], body) = split_choices(input);
    let whole = ChunkedScanner::of_request(DATA_MAX).scan(body);
    assert_eq!(in_pieces(body, Plan::new(seed), false), whole, "{}", body.escape_ascii());
    assert_eq!(in_pieces(body, Plan::new(seed), true), whole, "with bytes that pass unseen");
    if let Ok(scanned) = whole {
        assert!(scanned.done || scanned.accepted == body.len());
        let (data, _, after) = reading::dechunked(&body[..scanned.accepted])
            .unwrap_or_else(|fault| panic!("{fault}: {}", body.escape_ascii()));
        assert_eq!(after, scanned.done.then_some(&[][..]), "{}", body.escape_ascii());
        assert!(data.len() as u64 <= DATA_MAX);
    }
}

/// As the gate calls it; `unseen`: data that is sure to pass is not shown to the scanner.
fn in_pieces(body: &[u8], mut plan: Plan, unseen: bool) -> Result<Scanned, Violation> {
    let mut scanner = ChunkedScanner::of_request(DATA_MAX);
    let (mut accepted, mut done) = (0, false);
    while !done && accepted < body.len() {
        let rest = &body[accepted..];
        let piece = &rest[..plan.next_some().min(rest.len())];
        if unseen && scanner.certain() > piece.len() as u64 {
            scanner.pass(piece.len() as u64);
            accepted += piece.len();
            continue;
        }
        let scanned = scanner.scan(piece)?;
        assert!(scanned.done || scanned.accepted == piece.len());
        accepted += scanned.accepted;
        done = scanned.done;
    }
    Ok(Scanned { accepted, done })
}
