#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzzing::smtp_client(data));
