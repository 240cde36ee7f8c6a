//! `cargo +nightly fuzz run castore`; what must hold is in `src/properties.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| igloo_protos_fuzz::properties::castore(bytes));
