//! A PROXY protocol header: any prefix is incomplete or has the whole's verdict.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mxgate::listener::proxy_protocol::read;

fuzz_target!(|input: (usize, &[u8])| {
    let (cut, bytes) = input;
    let whole = read(bytes);
    let early = read(&bytes[..cut % (bytes.len() + 1)]);
    assert!(early == Ok(None) || early == whole);
    assert!(whole != Ok(None) || bytes.len() < 2_048);
});
