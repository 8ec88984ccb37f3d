//! Tidegate from the outside: real daemons, real sockets, real models.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod burst;
mod clients;
mod config;
mod faces;
mod faults;
mod guests;
mod hostile_http;
mod hostile_quic;
mod languages;
mod registry_rollout;
mod rollout;
mod serving;
