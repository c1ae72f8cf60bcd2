#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tower_oauth2_fuzz::replay_body(data));
