//! Benches live in `benches/`; this crate exists so that the gateway itself needs no criterion.
#![forbid(unsafe_code)]
