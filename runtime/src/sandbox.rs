//! What the host keeps for one instance: its handles, what it used, and why it was stopped.
//!
//! A [`Sandbox`] lives as long as one request. Every call of the guest goes through it, and each
//! thing that a guest can ask for is counted here against [`Limits`]. A guest can make a call fail or
//! end itself by a trap; no value that it passes makes the host panic.

mod link;
mod log;
mod nn;
mod tensors;
mod wasi;

use std::sync::Arc;
use std::time::Instant;

use tidegate_inference::{Failure, FailureKind, Tensor};
use wasmtime::component::{Resource, ResourceTable};

pub(crate) use self::link::{is_allowed, linker};
use self::log::GuestLog;
pub(crate) use self::log::LogGate;
pub(crate) use self::nn::{
    Brought, ErrorCode, HostError, HostGraph, PARTS_MAX, add_to_linker, by_name, compute, load,
    too_many_parts,
};
use crate::budget::{Budget, Stop};
use crate::limits::Limits;
use crate::runnable::RunnableGraph;

/// A tensor that a guest has a handle of.
#[derive(Debug)]
pub(crate) struct HostTensor(pub(crate) Tensor);

/// A graph under the name by which the guest loads it.
#[derive(Debug)]
pub(crate) struct NamedGraph {
    pub(crate) name: String,
    pub(crate) graph: RunnableGraph,
}

/// What does not change from request to request of a module.
#[derive(Debug)]
pub(crate) struct Terms {
    /// The model's name, for the log.
    pub(crate) model: String,
    /// Limits, lowered by the manifest.
    pub(crate) limits: Limits,
    /// The graphs of the module.
    pub(crate) graphs: Vec<NamedGraph>,
    /// What the guest may bring itself; `None` where it has the module's graphs only.
    pub(crate) brought: Option<Arc<Brought>>,
    /// What all requests of the module may write to the log.
    pub(crate) log: LogGate,
}

impl Terms {
    /// Tells the log, at the rate of a guest's lines, what the guest's errors may not say.
    pub(crate) fn note(&self, text: &str) {
        if let Some(left_out) = self.log.admit(Instant::now()) {
            let clean = |c: char| if c.is_control() { ' ' } else { c };
            let text: String = text.chars().map(clean).collect();
            tracing::warn!(model = self.model, left_out, "{text}");
        }
    }

    /// Tells the log if a guest wants a device that there is none of.
    pub(crate) fn note_target(&self, target: &str) {
        if target != "cpu" {
            self.note(&format!(
                "the guest wants its graph on {target}: it runs on the cpu"
            ));
        }
    }
}

/// A limit that an instance met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("the limit of {0} bytes of memory")]
    Memory(usize),
    #[error("the limit of {0} table elements")]
    Table(usize),
    #[error("the limit of {0} handles of tensors, graphs, contexts and errors")]
    Handles(usize),
    #[error("the limit of {0} bytes of tensors held in the host")]
    TensorBytes(usize),
}

/// The host's side of one instance.
pub(crate) struct Sandbox {
    pub(crate) terms: Arc<Terms>,
    budget: Budget,
    /// Whether the budget ends at the module's limit rather than at the request's deadline.
    ends_early: bool,
    pub(crate) table: ResourceTable,
    memory_bytes: usize,
    tensor_bytes: usize,
    refusal: Option<Refusal>,
    compute_failure: Option<Failure>,
    log: GuestLog,
}

impl Sandbox {
    pub(crate) fn new(terms: Arc<Terms>, budget: Budget, ends_early: bool) -> Self {
        let mut table = ResourceTable::new();
        table.set_max_capacity(terms.limits.handles_max);
        Self {
            log: GuestLog::new(terms.limits.log_bytes_max),
            terms,
            budget,
            ends_early,
            table,
            memory_bytes: 0,
            tensor_bytes: 0,
            refusal: None,
            compute_failure: None,
        }
    }

    /// Fails if the run must stop now.
    pub(crate) fn check_budget(&self) -> Result<(), Stop> {
        self.budget.check().map_err(|stop| self.blame(stop))
    }

    /// The limit that the instance met last, if it met one.
    pub(crate) fn refusal(&self) -> Option<Refusal> {
        self.refusal
    }

    /// Why the last run of a graph failed, if that was not the guest's fault.
    pub(crate) fn take_compute_failure(&mut self) -> Option<Failure> {
        self.compute_failure.take()
    }

    /// What does not change from request to request.
    pub(crate) fn terms_shared(&self) -> Arc<Terms> {
        Arc::clone(&self.terms)
    }

    /// Fails if the guest may not hold a further tensor of so many bytes.
    pub(crate) fn check_tensor_bytes(&mut self, bytes: usize) -> Result<(), Refusal> {
        let limit = self.terms.limits.tensor_bytes_max;
        if self.tensor_bytes.saturating_add(bytes) > limit {
            return Err(self.refuse(Refusal::TensorBytes(limit)));
        }
        Ok(())
    }

    /// Hands a tensor to the guest.
    pub(crate) fn push_tensor(&mut self, tensor: Tensor) -> Result<Resource<HostTensor>, Refusal> {
        let bytes = tensor.data().len();
        self.check_tensor_bytes(bytes)?;
        let handle = self.push(HostTensor(tensor))?;
        self.tensor_bytes += bytes;
        Ok(handle)
    }

    /// Takes a tensor back from the guest, whose handle is gone.
    pub(crate) fn take_tensor(&mut self, handle: Resource<HostTensor>) -> wasmtime::Result<Tensor> {
        let HostTensor(tensor) = self.table.delete(handle)?;
        self.tensor_bytes = self.tensor_bytes.saturating_sub(tensor.data().len());
        Ok(tensor)
    }

    pub(crate) fn tensor(&self, handle: &Resource<HostTensor>) -> wasmtime::Result<&Tensor> {
        Ok(&self.table.get(handle)?.0)
    }

    /// Hands anything else to the guest.
    pub(crate) fn push<T: Send + 'static>(&mut self, value: T) -> Result<Resource<T>, Refusal> {
        self.table
            .push(value)
            .map_err(|_| self.refuse(Refusal::Handles(self.terms.limits.handles_max)))
    }

    fn refuse(&mut self, refusal: Refusal) -> Refusal {
        self.refusal = Some(refusal);
        refusal
    }

    fn blame(&self, stop: Stop) -> Stop {
        match stop {
            Stop::DeadlineExceeded if self.ends_early => Stop::TooLong,
            Stop::DeadlineExceeded | Stop::Cancelled | Stop::TooLong => stop,
        }
    }

    fn fail_compute(&mut self, kind: FailureKind, message: &str) {
        self.compute_failure = Some(Failure::new(kind, message));
    }
}

impl AsMut<Self> for Sandbox {
    fn as_mut(&mut self) -> &mut Self {
        self
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        self.log.finish(&self.terms);
    }
}

impl wasmtime::ResourceLimiter for Sandbox {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let limit = self.terms.limits.memory_bytes_max;
        let total = self
            .memory_bytes
            .saturating_add(desired.saturating_sub(current));
        if total > limit {
            self.refuse(Refusal::Memory(limit));
            return Ok(false);
        }
        self.memory_bytes = total;
        Ok(true)
    }

    fn table_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let limit = self.terms.limits.table_elements_max;
        if desired > limit {
            self.refuse(Refusal::Table(limit));
            return Ok(false);
        }
        Ok(true)
    }
}
