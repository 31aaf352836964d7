//! A chunked body: any split gives the same verdict, and httparse reads the same sizes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mxgate::framing::chunked::ChunkedScanner;

fuzz_target!(|input: (usize, &[u8])| {
    let (cut, body) = input;
    let whole = ChunkedScanner::new(4_096).scan(body);
    let (one, other) = body.split_at(cut % (body.len() + 1));
    let mut scanner = ChunkedScanner::new(4_096);
    let split = scanner.scan(one).and_then(|first| {
        let mut second = scanner.scan(other)?;
        second.accepted += first.accepted;
        Ok(second)
    });
    assert_eq!(split, whole);
    let Ok(scanned) = whole else { return };
    let mut rest = &body[..scanned.accepted];
    while let Ok(httparse::Status::Complete((line, size))) = httparse::parse_chunk_size(rest) {
        let end = line + usize::try_from(size).unwrap();
        if size == 0 {
            assert!(!scanned.done || rest.ends_with(b"\r\n\r\n"));
            return;
        }
        assert!(matches!(rest.get(end..), None | Some([] | [b'\r'] | [b'\r', b'\n', ..])));
        rest = rest.get(end + 2..).unwrap_or_default();
    }
    assert!(!scanned.done);
});
