//! The harness of the end-to-end tests: the real daemons as child processes on loopback, and clients.
//!
//! A test makes a [`site::Site`], packs modules and makes certificates in it with the real command,
//! starts agents and relays on free ports, and speaks to them as anybody could. No part of the product
//! runs in a test's own process.

pub mod checkout;
pub mod daemon;
pub mod docker_registry;
pub mod http;
pub mod inside;
pub mod load;
pub mod metrics;
pub mod models;
pub mod site;
pub mod wait;
