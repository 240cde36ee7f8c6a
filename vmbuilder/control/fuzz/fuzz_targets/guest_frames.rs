//! `cargo +nightly fuzz run guest_frames`; what must hold is in `src/properties.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| igloo_control_fuzz::properties::guest_frames(bytes));
