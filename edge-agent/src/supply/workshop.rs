//! Makes models of module files, one at a time, beside the requests.
//!
//! In this order: whether its author is trusted, whether it is older than what proved itself here, whether it can be
//! loaded, whether it computes here what its author saw. The first that fails ends it.
//!
//! A version that follows another is made at a low priority, because a device that serves at its limit has
//! no second to give. A first version is waited for, so it is not held back. Neither takes a slot: the
//! pool has one instance more than there are slots. A model leaves the workshop warm: it has run, so its
//! code and weights are in memory and its plan is made. None of that belongs to one slot, so one run serves
//! them all.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tidegate_inference::{Dtype, Failure, NamedTensor, Shape, Tensor, TensorSpec};
use tidegate_registry::KeptModule;
use tidegate_registry::trust::{RollbackError, SeenError, TrustError, TrustPolicy};
use tidegate_runtime::samples::{CheckSamplesError, Tolerance};
use tidegate_runtime::{Budget, LoadError, Model, ModuleError, ModuleFile, Runtime};
use tokio::sync::{Mutex, oneshot};

use super::{Fetched, Memory};

/// How far the priority of the thread is below that of the slots, of the 19 steps that there are: it gets
/// about a tenth of a core that a slot wants too.
const NICE: i32 = 10;

/// Stack of the thread: preparing a graph recurses as running it does.
const STACK_BYTES: usize = 8 << 20;

/// Longest warm-up. A model that is not done by then, perhaps because zeros send it round for ever, is warmed
/// by its requests.
const WARM_UP_MAX: Duration = Duration::from_secs(2);

/// Largest tensor of zeros that a warm-up makes; a model that takes more is warmed by its requests.
const WARM_UP_BYTES_MAX: usize = 64 << 20;

/// Why a module file does not become a model.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// It is no module.
    #[error("the file was refused")]
    Parse(#[from] ModuleError),
    /// Nobody who is trusted with its name made it.
    #[error("the module is not trusted")]
    Trust(#[from] TrustError),
    /// A higher version proved itself here.
    #[error("the module is out of date")]
    Rollback(#[from] RollbackError),
    /// What proved itself here cannot be written down, so that nothing new may come after it.
    #[error("the module may not run before the highest versions can be kept")]
    Keep(#[from] SeenError),
    /// It is not a module that this agent can run.
    #[error("the module was refused")]
    Load(#[source] Box<LoadError>),
    /// It does not compute here what its author saw.
    #[error("a sample that the module carries does not come out: {0}")]
    Samples(String),
    /// The system gave no thread.
    #[error("failed to start a thread")]
    Thread(#[source] io::Error),
    /// A fault of this program.
    #[error("preparing the module panicked")]
    Panic,
}

/// Whether somebody waits for a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    /// Requests do, or the start of the agent.
    Awaited,
    /// The version before serves meanwhile.
    Beside,
}

/// Where modules become models.
#[derive(Debug)]
pub(crate) struct Workshop {
    bench: Arc<Bench>,
    one: Mutex<()>,
}

/// What preparing takes.
#[derive(Debug)]
struct Bench {
    runtime: Arc<Runtime>,
    trust: TrustPolicy,
    memory: Arc<Memory>,
}

/// A model that may serve.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) model: Arc<Model>,
    /// Keeps its file in the store as long as it serves.
    pub(crate) kept: Option<KeptModule>,
}

impl Workshop {
    pub(crate) fn new(runtime: Arc<Runtime>, trust: TrustPolicy, memory: Arc<Memory>) -> Self {
        let bench = Bench {
            runtime,
            trust,
            memory,
        };
        Self {
            bench: Arc::new(bench),
            one: Mutex::default(),
        }
    }

    /// Checks, compiles, prepares and warms a module. Waits for its turn.
    ///
    /// Dropping the future leaves the work to its end; its result is dropped then.
    pub(crate) async fn prepare(
        &self,
        fetched: Fetched,
        pace: Pace,
    ) -> Result<Prepared, PrepareError> {
        let _turn = self.one.lock().await;
        let bench = Arc::clone(&self.bench);
        let Fetched { file, kept, .. } = fetched;
        let (done, prepared) = oneshot::channel();
        std::thread::Builder::new()
            .name("tidegate-prepare".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(move || {
                if pace == Pace::Beside
                    && let Err(error) = rustix::process::nice(NICE)
                {
                    tracing::debug!(%error, "the priority of a preparation was not lowered");
                }
                // Nobody waits any more if the agent is stopping.
                drop(done.send(bench.prepare(file)));
            })
            .map_err(PrepareError::Thread)?;
        let model = prepared.await.unwrap_or(Err(PrepareError::Panic))?;
        Ok(Prepared { model, kept })
    }
}

impl Bench {
    fn prepare(&self, file: Bytes) -> Result<Arc<Model>, PrepareError> {
        let module = ModuleFile::parse(file)?;
        let (name, version) = (&module.manifest().name, &module.manifest().version);
        let trusted = self.trust.check(name, version, module.file())?;
        self.memory.check(name, version)?;
        if !trusted.signers.is_empty() {
            self.memory.keep()?;
        }
        tracing::debug!(?trusted, "a module is trusted");
        let loaded = self.runtime.load_module(module, trusted.isolation);
        let model = loaded.map_err(|error| PrepareError::Load(Box::new(error)))?;
        match model.check_samples(Tolerance::default()) {
            Ok(report) => match report.first_disagreement() {
                None => {}
                Some(disagreement) => return Err(PrepareError::Samples(disagreement)),
            },
            Err(CheckSamplesError::NoSamples) => {
                if let Err(failure) = warm_up(&model) {
                    // Zeros need not be an input that makes sense to it.
                    tracing::debug!(%failure, "a model refused its warm-up");
                }
            }
        }
        Ok(model)
    }
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
