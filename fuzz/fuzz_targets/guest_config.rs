#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pve_span_fuzz::guest_config::check(data));
