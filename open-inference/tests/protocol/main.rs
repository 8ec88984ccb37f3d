//! The protocol as a client sees it, through the router, in front of models that give back their
//! inputs.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod binary;
mod echo;
mod endpoints;
mod hostile;
mod json;
mod replies;
mod round_trip;
