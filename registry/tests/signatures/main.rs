//! Signatures through the public face: with `wasmsign2` both ways, and under attack.

#![expect(clippy::unwrap_used, reason = "a panic is how a test reports")]

mod attacks;
mod fixture;
mod interoperate;
