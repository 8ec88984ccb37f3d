//! Makes models of module files, one at a time, beside the requests.
//!
//! The thread runs at a low priority, and so do those that the compiler starts from it, because a device
//! that serves at its limit has no second to give. It takes no slot: the pool has one instance more than
//! there are slots. A model leaves the workshop warm: it has run, so its code and weights are in memory
//! and its plan is made. None of that belongs to one slot, so one run serves them all.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tidegate_inference::{Dtype, Failure, NamedTensor, Shape, Tensor, TensorSpec};
use tidegate_runtime::{Budget, LoadError, Model, Runtime};
use tokio::sync::{Mutex, oneshot};

/// How far the priority of the thread is below that of the slots, of the 19 steps that there are: it gets
/// about a tenth of a core that a slot wants too.
const NICE: i32 = 10;

/// Stack of the thread: preparing a graph recurses as running it does.
const STACK_BYTES: usize = 8 << 20;

/// Longest warm-up. What a model does not do in that time it will not do within any deadline.
const WARM_UP_MAX: Duration = Duration::from_secs(60);

/// Largest tensor of zeros that a warm-up makes; a model that takes more is warmed by its requests.
const WARM_UP_BYTES_MAX: usize = 64 << 20;

/// Why a module file does not become a model.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// It is not a module that this agent can run.
    #[error("the module was refused")]
    Load(#[from] LoadError),
    /// The system gave no thread.
    #[error("failed to start a thread")]
    Thread(#[source] io::Error),
    /// A fault of this program.
    #[error("preparing the module panicked")]
    Panic,
}

/// Where modules become models.
#[derive(Debug)]
pub(crate) struct Workshop {
    runtime: Arc<Runtime>,
    one: Mutex<()>,
}

impl Workshop {
    pub(crate) fn new(runtime: Arc<Runtime>) -> Self {
        Self {
            runtime,
            one: Mutex::default(),
        }
    }

    /// Checks, compiles, prepares and warms a module. Waits for its turn.
    ///
    /// Dropping the future leaves the work to its end; its result is dropped then.
    pub(crate) async fn prepare(&self, file: Bytes) -> Result<Arc<Model>, PrepareError> {
        let _turn = self.one.lock().await;
        let runtime = Arc::clone(&self.runtime);
        let (done, prepared) = oneshot::channel();
        std::thread::Builder::new()
            .name("tidegate-prepare".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(move || {
                if let Err(error) = rustix::process::nice(NICE) {
                    tracing::debug!(%error, "the priority of a preparation was not lowered");
                }
                // Nobody waits any more if the agent is stopping.
                drop(done.send(prepare(&runtime, file)));
            })
            .map_err(PrepareError::Thread)?;
        prepared.await.unwrap_or(Err(PrepareError::Panic))
    }
}

fn prepare(runtime: &Runtime, file: Bytes) -> Result<Arc<Model>, PrepareError> {
    let model = runtime.load(file)?;
    if let Err(failure) = warm_up(&model) {
        // Zeros need not be an input that makes sense to it.
        tracing::debug!(%failure, "a model refused its warm-up");
    }
    Ok(model)
}

fn warm_up(model: &Model) -> Result<(), Failure> {
    let inputs: Option<Vec<_>> = model.metadata().inputs.iter().map(zeros).collect();
    let Some(inputs) = inputs else { return Ok(()) };
    let budget = Budget::until(Instant::now() + WARM_UP_MAX);
    model.infer(inputs, &budget).map(drop)
}

/// A tensor of zeros, or of empty strings, with one element along each free axis. None if it were larger
/// than [`WARM_UP_BYTES_MAX`].
fn zeros(spec: &TensorSpec) -> Option<NamedTensor> {
    let extents = spec.shape.iter().map(|extent| match extent {
        -1 => Some(1),
        fixed => usize::try_from(*fixed).ok(),
    });
    let shape: Shape = extents.collect::<Option<_>>()?;
    // An element of BYTES is its length, of four bytes, and nothing else.
    let size = spec.dtype.size().unwrap_or(const { size_of::<u32>() });
    let bytes = shape
        .iter()
        .try_fold(size, |bytes, extent| bytes.checked_mul(*extent))
        .filter(|bytes| *bytes <= WARM_UP_BYTES_MAX)?;
    debug_assert!(spec.dtype != Dtype::Bytes || bytes % 4 == 0);
    let tensor = Tensor::new(spec.dtype, shape, vec![0; bytes].into()).ok()?;
    Some(NamedTensor {
        name: spec.name.clone(),
        tensor,
    })
}
