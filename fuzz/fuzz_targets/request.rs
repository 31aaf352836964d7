//! A request's head: any split gives the same verdict, and httparse reads the same message.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mxgate::framing::{HeadLimits, request::scan};

const LIMITS: HeadLimits = HeadLimits {
    header_bytes_max: 4_096,
    header_count_max: 16,
    request_line_bytes_max: 512,
    body_bytes_max: 1 << 20,
};

fuzz_target!(|input: (usize, &[u8])| {
    let (cut, bytes) = input;
    let whole = scan(bytes, 0, &LIMITS);
    let cut = cut % (bytes.len() + 1);
    match scan(&bytes[..cut], 0, &LIMITS) {
        Ok(None) => assert_eq!(scan(bytes, cut, &LIMITS), whole),
        early => assert_eq!(early, whole),
    }
    let Ok(Some(head)) = whole else { return };
    let mut slots = [httparse::EMPTY_HEADER; 100];
    let mut parsed = httparse::Request::new(&mut slots);
    assert_eq!(parsed.parse(bytes), Ok(httparse::Status::Complete(head.len)));
    parsed.path.unwrap().parse::<http::Uri>().unwrap();
});
