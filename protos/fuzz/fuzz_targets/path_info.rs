//! `cargo +nightly fuzz run path_info`; what must hold is in `src/properties.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| igloo_protos_fuzz::properties::path_info(bytes));
