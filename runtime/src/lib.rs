//! Loads model modules and runs each request in a fresh sandbox.
//!
//! [`Runtime`] holds what all requests share: the WebAssembly engine with its pool of instances, the
//! linked host interfaces, and the prepared graphs. [`Runtime::load`] makes a [`Model`] of a module
//! file, which takes seconds unless an earlier start kept what it made; [`Model::infer`] then runs a request
//! on the calling thread, in an instance of its own, until a [`Budget`] ends. [`Slots`] are the threads that
//! do so, behind a bounded queue.
//!
//! Whatever a module or a request does ends in a [`tidegate_inference::Failure`] that says whose fault
//! it was; it never takes the process down or touches another request.

pub mod command;
pub mod module;
pub mod samples;
pub mod vet;

mod budget;
mod cache;
mod config;
mod engine;
mod limits;
mod model;
mod runnable;
mod runtime;
mod sandbox;
mod slots;
mod strict;

pub use budget::{Budget, Stop};
pub use config::{CacheConfig, RuntimeConfig};
pub use engine::StartError;
pub use limits::{Limits, SLOTS_MAX};
pub use model::Model;
pub use module::{Manifest, ModuleError, ModuleFile};
pub use runtime::{LoadError, Runtime};
pub use slots::{Completed, Denied, RunClock, Running, SlotLoad, Slots};
pub use strict::{StrictError, TractGuestError, tract_guest_beside_program};
pub use vet::{VetError, Vetting};
