#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pve_span_fuzz::span_cfg::check(data));
