//! The one integration binary of the gateway crate: rules about the code and its documents, and
//! the command line as a process. The wire is tested by real clients in `tests/clients`.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod architecture;
mod command_line;
mod doors;
mod documents;
mod route_descriptions;
mod source;
mod upstream;
