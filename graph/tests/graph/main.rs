//! Graphs through the crate's border: what is refused, in which words, and what runs.

#![expect(clippy::unwrap_used, reason = "a panic is how a test reports")]

mod bounds;
mod case;
mod hostile;
mod mistakes;
mod moved;
mod operators;
