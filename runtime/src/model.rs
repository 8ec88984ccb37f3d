//! A loaded module, and the run of one request in it.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use tidegate_graph::GraphError;
use tidegate_inference::{Digest, Failure, FailureKind, ModelMetadata, NamedTensor, TensorSpec};
use wasmtime::component::{ComponentExportIndex, InstancePre, Resource};
use wasmtime::{PoolConcurrencyLimitError, Store, Trap, UpdateDeadline};

use crate::budget::{Budget, Stop};
use crate::module::{Manifest, ModuleFile};
use crate::runtime::Shared;
use crate::sandbox::{HostTensor, NamedGraph, Refusal, Sandbox, Terms};

/// Longest text of a guest that is passed on.
const GUEST_TEXT_CHARS_MAX: usize = 1024;

/// `wasi:nn/inference.named-tensor`, many of them.
type NamedHandles = Vec<(String, Resource<HostTensor>)>;

/// What `infer` of world `tidegate:model/module` takes.
pub(crate) type Inputs = (NamedHandles,);

/// What `infer` gives.
pub(crate) type Outputs = (Result<NamedHandles, String>,);

/// A module, ready to run.
pub struct Model {
    pub(crate) shared: Arc<Shared>,
    pub(crate) module: ModuleFile,
    pub(crate) metadata: ModelMetadata,
    pub(crate) pre: InstancePre<Sandbox>,
    pub(crate) infer: ComponentExportIndex,
    pub(crate) terms: Arc<Terms>,
}

impl fmt::Debug for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Model({:?}, {})", self.metadata.name, self.digest())
    }
}

impl Model {
    /// What the module says of itself.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        self.module.manifest()
    }

    /// The model in the terms of the inference protocol.
    #[must_use]
    pub fn metadata(&self) -> &ModelMetadata {
        &self.metadata
    }

    /// SHA-256 of the whole file.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.module.digest()
    }

    /// The whole file, as it is offered to relays.
    #[must_use]
    pub fn file(&self) -> &Bytes {
        self.module.file()
    }

    /// Brings `outputs` that a module says in line with what its graph of this name gives, as
    /// [`tidegate_graph::Graph::reconcile`] does, and says what it changed. Of a graph that runs inside the
    /// sandbox nothing is known here.
    pub fn reconcile(
        &self,
        graph: &str,
        outputs: &mut [TensorSpec],
    ) -> Result<Vec<String>, GraphError> {
        let named = |found: &&NamedGraph| found.name == graph;
        match self.terms.graphs.iter().find(named) {
            Some(found) => found.graph.reconcile(outputs),
            None => Ok(Vec::new()),
        }
    }

    /// Runs one request on this thread, in an instance of its own.
    ///
    /// The inputs are checked against the manifest and passed in its order; the outputs come back so.
    /// The run ends soon after `budget` does: guest code within some milliseconds, a graph when the
    /// node that it is in ends. A graph with free axes is prepared for each set of input shapes
    /// that is not among the last `Limits::plans_max`, which takes as long as loading the graph did; the
    /// run waits for that until the budget ends. Fails as
    /// - `Invalid` if an input does not fit, its shape or a value suits no run of the graph, or the guest
    ///   says that it is wrong;
    /// - `TooLarge` if the inputs are above what an instance may hold, or make a tensor inside a graph
    ///   that is, or more of them at once than there may be;
    /// - `DeadlineExceeded` or `Cancelled` when the budget ends;
    /// - `Module` if the guest traps, breaks a limit, or breaks its manifest's promise;
    /// - `Overloaded` if more requests run at once than the runtime has slots.
    pub fn infer(
        &self,
        inputs: Vec<NamedTensor>,
        budget: &Budget,
    ) -> Result<Vec<NamedTensor>, Failure> {
        self.metadata.check_inputs(&inputs)?;
        budget.check()?;
        let _ticking = self.shared.ticker.run();
        let mut store = self.store(budget);
        let inputs = self.hand_over(&mut store, inputs)?;
        let answer = self.call(&mut store, inputs);
        let sandbox = store.data_mut();
        match answer {
            Ok(Ok(outputs)) => self.collect(sandbox, outputs),
            Ok(Err(text)) => Err(sandbox
                .take_compute_failure()
                .unwrap_or_else(|| Failure::new(FailureKind::Invalid, clip(&text)))),
            Err(error) => Err(failure(sandbox, &error)),
        }
    }

    fn store(&self, budget: &Budget) -> Store<Sandbox> {
        let longest = Instant::now() + self.terms.limits.run_time_max;
        let ends_early = longest < budget.deadline;
        let budget = Budget {
            deadline: budget.deadline.min(longest),
            cancelled: Arc::clone(&budget.cancelled),
        };
        let sandbox = Sandbox::new(Arc::clone(&self.terms), budget, ends_early);
        let mut store = Store::new(&self.shared.engine, sandbox);
        store.limiter(|sandbox| sandbox);
        store.set_hostcall_fuel(self.terms.limits.tensor_bytes_max);
        store.set_max_component_handles(self.terms.limits.handles_max);
        store.set_epoch_deadline(1);
        store.epoch_deadline_callback(|context| {
            context.data().check_budget()?;
            Ok(UpdateDeadline::Continue(1))
        });
        store
    }

    /// Puts the inputs where the guest can get at them, in the manifest's order.
    fn hand_over(
        &self,
        store: &mut Store<Sandbox>,
        mut inputs: Vec<NamedTensor>,
    ) -> Result<NamedHandles, Failure> {
        let order = |input: &NamedTensor| {
            let specs = &self.metadata.inputs;
            specs.iter().position(|spec| spec.name == input.name)
        };
        inputs.sort_by_key(order);
        let sandbox = store.data_mut();
        inputs
            .into_iter()
            .map(|NamedTensor { name, tensor }| {
                let handle = sandbox.push_tensor(tensor).map_err(|refusal| {
                    let message = format!("the inputs are above {refusal}");
                    Failure::new(FailureKind::TooLarge, message)
                })?;
                Ok((name, handle))
            })
            .collect()
    }

    fn call(
        &self,
        store: &mut Store<Sandbox>,
        inputs: NamedHandles,
    ) -> wasmtime::Result<Result<NamedHandles, String>> {
        let instance = self.pre.instantiate(&mut *store)?;
        let infer = instance.get_typed_func::<Inputs, Outputs>(&mut *store, &self.infer)?;
        let (answer,) = infer.call(&mut *store, (inputs,))?;
        Ok(answer)
    }

    /// Takes the outputs, each promised one once, in the manifest's order.
    fn collect(
        &self,
        sandbox: &mut Sandbox,
        outputs: NamedHandles,
    ) -> Result<Vec<NamedTensor>, Failure> {
        let broken = |message: String| Failure::new(FailureKind::Module, message);
        let mut taken = Vec::with_capacity(outputs.len());
        for (name, handle) in outputs {
            let tensor = sandbox
                .take_tensor(handle)
                .map_err(|_| broken(format!("the module gave output {:?} twice", clip(&name))))?;
            taken.push(NamedTensor { name, tensor });
        }
        let bytes: usize = taken.iter().map(|output| output.tensor.data().len()).sum();
        let limit = self.terms.limits.output_bytes_max;
        if bytes > limit {
            return Err(broken(format!(
                "the module gave {bytes} bytes of outputs, above the limit of {limit}"
            )));
        }
        let mut ordered = Vec::with_capacity(self.metadata.outputs.len());
        for spec in &self.metadata.outputs {
            let name = &spec.name;
            let at = taken
                .iter()
                .position(|output| output.name == *name)
                .ok_or_else(|| broken(format!("the module did not give output {name:?}")))?;
            let output = taken.swap_remove(at);
            if !spec.accepts(output.tensor.dtype(), output.tensor.shape()) {
                return Err(broken(format!(
                    "the module gave output {name:?} as {:?}, its manifest says {} of shape {:?}",
                    output.tensor, spec.dtype, spec.shape
                )));
            }
            ordered.push(output);
        }
        match taken.first() {
            Some(extra) => Err(broken(format!(
                "the module gave output {:?}, which its manifest does not name",
                clip(&extra.name)
            ))),
            None => Ok(ordered),
        }
    }
}

/// Whose fault it was that a guest did not answer.
fn failure(sandbox: &mut Sandbox, error: &wasmtime::Error) -> Failure {
    if let Some(stop) = error.downcast_ref::<Stop>() {
        return (*stop).into();
    }
    let broken = |message: String| Failure::new(FailureKind::Module, message);
    if let Some(refusal) = error.downcast_ref::<Refusal>() {
        return broken(format!("the module was stopped by {refusal}"));
    }
    if error.is::<PoolConcurrencyLimitError>() {
        let message = "every instance of the runtime is busy";
        return Failure::new(FailureKind::Overloaded, message);
    }
    // A guest that traps on the error of its graph is not to blame for what the graph met.
    if error.is::<Trap>()
        && let Some(failure) = sandbox.take_compute_failure()
    {
        return failure;
    }
    let after = match sandbox.refusal() {
        Some(refusal) => format!(" after it met {refusal}"),
        None => String::new(),
    };
    let what = match error.downcast_ref::<Trap>() {
        Some(Trap::StackOverflow) => "exhausted its stack".to_owned(),
        Some(trap) => format!("trapped: {trap}"),
        None => format!("failed: {}", clip(&error.root_cause().to_string())),
    };
    broken(format!("the module {what}{after}"))
}

/// The beginning of a text that a guest wrote, without control characters.
fn clip(text: &str) -> String {
    text.chars()
        .take(GUEST_TEXT_CHARS_MAX)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}
