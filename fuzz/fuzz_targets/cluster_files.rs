#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pve_span_fuzz::cluster_files::check(data));
