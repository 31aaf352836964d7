//! An answer's head: any split gives the same verdict, and httparse reads the same message.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mxgate::framing::{HeadLimits, answer::scan_head};

const LIMITS: HeadLimits = HeadLimits {
    header_bytes_max: 4_096,
    header_count_max: 16,
    request_line_bytes_max: 512,
    body_bytes_max: u64::MAX,
};

fuzz_target!(|input: (usize, bool, &[u8])| {
    let (cut, to_head, bytes) = input;
    let whole = scan_head(bytes, 0, &LIMITS, to_head);
    let cut = cut % (bytes.len() + 1);
    match scan_head(&bytes[..cut], 0, &LIMITS, to_head) {
        Ok(None) => assert_eq!(scan_head(bytes, cut, &LIMITS, to_head), whole),
        early => assert_eq!(early, whole),
    }
    let Ok(Some(head)) = whole else { return };
    let mut slots = [httparse::EMPTY_HEADER; 100];
    let mut parsed = httparse::Response::new(&mut slots);
    assert_eq!(parsed.parse(bytes), Ok(httparse::Status::Complete(head.len)));
    assert_eq!(parsed.code, Some(head.status));
});
