//! The decisions: one per request without any forecast, one per tick with it.
//!
//! ```text
//! Local ──upper forecast ≥ enter on two ticks, or the queue breaches──▶ Bursting
//! Bursting ──arrivals ≤ leave and upper < enter for the dwell─────────▶ Local
//! ```
//!
//! The mode only opens the gate. What passes it is the share of arrivals above capacity, and every
//! request is still placed by its own deadline.

mod gate;
mod lead;
mod place;

pub(crate) use gate::{Gate, Seen};
pub(crate) use lead::Lead;
pub(crate) use place::{Choice, Options, Thinning, place};
