//! Fuzzing of what reads foreign bytes. The properties are shared with `tests/mutations.rs`, which needs no fuzzer.

pub mod properties;
