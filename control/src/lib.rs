//! The brain: pure functions of (state, now, input), so that every run replays.
//!
//! A [`Controller`] learns what this device sustains (`monitor`), forecasts what will arrive
//! ([`predict`]), and decides where each request runs and how many relay slots to reserve
//! (`decide`, `balance`). [`scale`] turns the demand that agents announce into a number of relays,
//! [`rollout`] brings in new versions of a model and takes bad ones back, and [`simulate`] runs the
//! first two against virtual time. There is no IO, clock, lock or executor here:
//! time and randomness are arguments.
//!
//! A forecast is advice. It moves a share of the load and announces a need; it never refuses a
//! request, and it never stops a relay.

mod balance;
mod controller;
mod decide;
mod monitor;
mod policy;
pub mod predict;
pub mod rollout;
pub mod scale;
mod signal;
pub mod simulate;
mod time;

pub use controller::Controller;
pub use policy::{Foresight, Policy};
pub use signal::{Mode, Outcome, Plan, Query, RelayLoad, Route, SATURATION_MAX, Sample};
pub use time::{ModelIndex, RelayId, TICK, Time};
