//! `cargo +nightly fuzz run directory`; what must hold is in `src/properties.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| igloo_castore_fuzz::properties::directory(bytes));
