//! The runtime through its public face: good modules, hostile ones, and broken files.

#![expect(clippy::unwrap_used, reason = "a panic is how a test reports")]

mod caching;
mod command;
mod compute;
mod data;
mod exports;
mod file;
mod fixture;
mod hostile;
mod samples;
mod slots;
mod strict;
mod values;
mod vetting;
