#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| mxgate::fuzzing::check("masking", input));
