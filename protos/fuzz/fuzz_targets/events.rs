//! `cargo +nightly fuzz run events`; what must hold is in `src/properties.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| igloo_protos_fuzz::properties::events(bytes));
