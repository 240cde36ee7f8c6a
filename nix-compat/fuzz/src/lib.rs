//! Fuzzing of the parsers of foreign bytes. The properties are shared with `tests/mutations.rs`, which needs no fuzzer.

pub mod properties;
