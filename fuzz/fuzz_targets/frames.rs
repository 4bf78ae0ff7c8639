#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pve_span_fuzz::frames::check(data));
