//! Certificates from files to a finished handshake, and every way in which that must fail.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod authority;
mod dev_certs;
mod files;
mod handshake;
