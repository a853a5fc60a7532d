//! The target of this name, under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ctrl_exec_fuzz::wire::run_body(bytes));
