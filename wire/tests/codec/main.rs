//! The codec through its border: what it writes reads back, and nothing else is read.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod cddl;
mod frames;
mod hostile;
mod limits;
mod prefix;
mod round_trip;
mod strategies;
