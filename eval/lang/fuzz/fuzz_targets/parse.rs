//! `cargo +nightly fuzz run parse`; what must hold is in `src/properties.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| igloo_eval_fuzz::properties::parse(bytes));
