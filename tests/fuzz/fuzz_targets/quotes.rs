//! libFuzzer's way into `lb_fuzz::targets::quotes`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| lb_fuzz::targets::quotes(bytes));
