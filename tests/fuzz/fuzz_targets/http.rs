//! cargo-fuzz's door to `bodies::http`.
#![no_main]

#[allow(dead_code)] // Each target uses one body of them all.
#[path = "../bodies.rs"]
mod bodies;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| bodies::http(bytes));
