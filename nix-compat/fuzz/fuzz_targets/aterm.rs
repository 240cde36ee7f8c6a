//! `cargo fuzz run aterm`; what must hold is in `src/properties.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| nix_compat_fuzz::properties::aterm(bytes));
