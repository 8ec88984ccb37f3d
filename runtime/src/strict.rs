//! Graphs that run inside the sandbox, for authors whom one does not trust.
//!
//! The engine of graphs, compiled for WebAssembly (`modules/tract-guest`), reads and plans a graph in an
//! instance; what its memory then holds becomes the start of an instance for each request, so a graph is
//! prepared once and no request sees another's data. The host never parses the graph: what it
//! knows of it is what the guest answers, and it believes none of that.
//!
//! A graph without free axes has one such image, which is kept from one start to the next. One with free
//! axes has an image for each of the last few sets of input shapes, begun when a request first brings them:
//! the compiler works for seconds, on a thread beside the slots. A request waits for that as long as its own
//! time lasts, and leaves the image to the next. So that nobody can have the compiler work all the time,
//! there are so many new sets in [`PLANS_SPAN`] and no more.

mod guest;
mod image;

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tidegate_graph::message::{self, Interface, Read, ReadMessageError, Refusal};
use tidegate_inference::{Shape, Tensor, TensorSpec};

use self::guest::Guest;
pub(crate) use self::guest::TractGuest;
pub use self::guest::TractGuestError;
use self::image::{Image, Lasting};
use crate::budget::{Budget, Stop};
use crate::limits::Limits;

/// Longest preparation of a graph, or of a plan for new shapes.
const PREPARE_TIME_MAX: Duration = Duration::from_secs(120);

/// The time in which a graph is planned for at most [`Limits::plans_max`] new sets of shapes. With eight of
/// them, of ten seconds of a core each, who chooses shapes takes at most an eighth of a core for a graph.
const PLANS_SPAN: Duration = Duration::from_secs(600);

/// How low the claim of planning on the processor is, of 19: requests are served meanwhile.
const NICENESS: i32 = 10;

/// How often a request that waits for a plan looks at its time.
const CHECK_EVERY: Duration = Duration::from_millis(5);

/// The file of the engine's guest where the project is installed (beside the program, or in
/// `../share/tidegate`) or was built (in `../modules`), if it is there.
#[must_use]
pub fn tract_guest_beside_program() -> Option<PathBuf> {
    let program = std::env::current_exe().ok()?;
    let folder = program.parent()?;
    [".", "../share/tidegate", "../modules"]
        .into_iter()
        .map(|place| folder.join(place).join("tract-guest.wasm"))
        .find(|path| path.is_file())
}

/// Why a graph inside the sandbox gives no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StrictError {
    /// The budget ended.
    #[error(transparent)]
    Stopped(Stop),
    /// The engine inside refuses the graph or the inputs.
    #[error(transparent)]
    Refused(Refusal),
    /// The graph was planned for as many sets of shapes as it may be for now.
    #[error(
        "a graph inside the sandbox is planned for at most {plans_max} new sets of input shapes in {} s",
        PLANS_SPAN.as_secs()
    )]
    Plans {
        /// How many.
        plans_max: usize,
    },
    /// The instance ended: a trap, a limit, or a panic of the engine.
    #[error("the graph's sandbox failed: {reason}")]
    Failed {
        /// What the guest or wasmtime says.
        reason: String,
    },
    /// The guest answered what no guest of ours would.
    #[error("the graph's sandbox answered nonsense: {reason}")]
    Answer {
        /// What is wrong with it.
        reason: String,
    },
}

impl From<ReadMessageError> for StrictError {
    fn from(error: ReadMessageError) -> Self {
        let reason = error.to_string();
        Self::Answer { reason }
    }
}

/// A graph that runs inside the sandbox.
#[derive(Debug)]
pub(crate) struct StrictGraph {
    guest: Arc<TractGuest>,
    onnx: Bytes,
    limits: Limits,
    interface: Interface,
    /// The one image of a graph whose inputs leave nothing open.
    base: Option<Image>,
    plans: Mutex<Plans>,
}

/// The plans of a graph whose inputs leave something open.
#[derive(Debug, Default)]
struct Plans {
    /// In the order in which they were asked for last.
    kept: Vec<Planned>,
    /// When those of the last [`PLANS_SPAN`] were begun, also those that failed.
    begun: VecDeque<Instant>,
}

/// An image that is there or being made, for one set of input shapes.
#[derive(Clone, Debug)]
struct Planned {
    shapes: Vec<Shape>,
    image: Arc<Making>,
}

impl StrictGraph {
    /// Reads a graph in a sandbox, and prepares it if no axis of its inputs is free. Takes seconds.
    pub(crate) fn read(
        guest: Arc<TractGuest>,
        onnx: Bytes,
        limits: &Limits,
    ) -> Result<Self, StrictError> {
        let instance = read(&guest, &onnx, limits)?;
        let (interface, _) = message::read::<Result<Interface, Refusal>>(&instance.answer)?;
        let interface = interface.map_err(StrictError::Refused)?;
        let base = match interface.has_free_axes {
            true => None,
            false => Some(instance.guest.image(Lasting::Kept)?),
        };
        Ok(Self {
            guest,
            onnx,
            limits: limits.clone(),
            interface,
            base,
            plans: Mutex::default(),
        })
    }

    /// What it takes, in the order in which a run wants it.
    pub(crate) fn inputs(&self) -> &[TensorSpec] {
        &self.interface.inputs
    }

    /// The names of what it gives.
    pub(crate) fn outputs(&self) -> &[String] {
        &self.interface.outputs
    }

    /// Whether the caller chooses a shape.
    pub(crate) fn has_free_axes(&self) -> bool {
        self.interface.has_free_axes
    }

    /// Runs the graph on inputs in its order, in an instance of its own.
    pub(crate) fn run(
        &self,
        inputs: &[Tensor],
        budget: &Budget,
    ) -> Result<Vec<Tensor>, StrictError> {
        let planned;
        let image = match &self.base {
            Some(base) => base,
            None => {
                planned = self.planned(inputs, budget)?;
                &planned
            }
        };
        let mut instance = image.start(&self.guest, &self.limits, budget.clone())?;
        let answer = instance.call("run", &[&message::write_tensors(inputs)])?;
        let outputs = message::read_tensors(&answer)?.map_err(StrictError::Refused)?;
        if outputs.len() != self.interface.outputs.len() {
            let reason = format!("{} outputs", outputs.len());
            return Err(StrictError::Answer { reason });
        }
        Ok(outputs)
    }

    /// The image for inputs of these shapes. If it is not there it is begun, and waited for within `budget`.
    fn planned(&self, inputs: &[Tensor], budget: &Budget) -> Result<Image, StrictError> {
        let shapes: Vec<Shape> = inputs
            .iter()
            .map(|input| Shape::from_slice(input.shape()))
            .collect();
        let planned = {
            let plans_max = self.limits.plans_max.max(1);
            let mut plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
            let planned = match plans.kept.iter().position(|plan| plan.shapes == shapes) {
                Some(at) => plans.kept.remove(at),
                None => {
                    plans.begin(plans_max)?;
                    if plans.kept.len() >= plans_max {
                        plans.kept.remove(0);
                    }
                    let image = self.make(inputs.to_vec());
                    Planned { shapes, image }
                }
            };
            plans.kept.push(planned.clone());
            planned
        };
        let image = planned.image.wait(budget).map_err(StrictError::Stopped)?;
        if let Err(error) = &image
            && !matches!(error, StrictError::Refused(_))
        {
            // Only what the engine says of these shapes would be said again.
            let mut plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
            plans
                .kept
                .retain(|other| !Arc::ptr_eq(&other.image, &planned.image));
        }
        image
    }

    /// Begins an image for inputs of the shapes of these, on a thread that ends by itself: planning within
    /// [`PREPARE_TIME_MAX`], and the compiler then.
    fn make(&self, inputs: Vec<Tensor>) -> Arc<Making> {
        let making = Arc::new(Making::default());
        let (guest, onnx, limits) = (
            Arc::clone(&self.guest),
            self.onnx.clone(),
            self.limits.clone(),
        );
        let beside = {
            let making = Arc::clone(&making);
            move || {
                if let Err(error) = rustix::process::nice(NICENESS) {
                    tracing::debug!(%error, "the priority of planning was not lowered");
                }
                let planning = AssertUnwindSafe(|| plan(&guest, &onnx, &limits, &inputs));
                let made = catch_unwind(planning);
                making.finish(made.unwrap_or_else(|_| Err(cannot_plan("it panicked"))));
            }
        };
        let thread = std::thread::Builder::new().name("tidegate-plan".to_owned());
        if let Err(error) = thread.spawn(beside) {
            making.finish(Err(cannot_plan(&error.to_string())));
        }
        making
    }
}

fn plan(
    guest: &TractGuest,
    onnx: &[u8],
    limits: &Limits,
    inputs: &[Tensor],
) -> Result<Image, StrictError> {
    let _one = guest
        .planning
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    let mut instance = read(guest, onnx, limits)?;
    let answer = instance
        .guest
        .call("warm", &[&message::write_tensors(inputs)])?;
    message::read_tensors(&answer)?.map_err(StrictError::Refused)?;
    instance.guest.image(Lasting::Passing)
}

fn cannot_plan(reason: &str) -> StrictError {
    StrictError::Failed {
        reason: format!("planning failed: {reason}"),
    }
}

/// What becomes of an image that a thread makes.
#[derive(Debug, Default)]
struct Making {
    made: Mutex<Option<Result<Image, StrictError>>>,
    done: Condvar,
}

impl Making {
    fn finish(&self, made: Result<Image, StrictError>) {
        *self.made.lock().unwrap_or_else(PoisonError::into_inner) = Some(made);
        self.done.notify_all();
    }

    fn wait(&self, budget: &Budget) -> Result<Result<Image, StrictError>, Stop> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(made) = &*made {
                return Ok(made.clone());
            }
            budget.check()?;
            let waited = self.done.wait_timeout(made, CHECK_EVERY);
            made = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Plans {
    /// Counts a plan that is about to be made, unless too many were of late.
    fn begin(&mut self, plans_max: usize) -> Result<(), StrictError> {
        let now = Instant::now();
        while let Some(first) = self.begun.front()
            && now.duration_since(*first) >= PLANS_SPAN
        {
            self.begun.pop_front();
        }
        if self.begun.len() >= plans_max {
            return Err(StrictError::Plans { plans_max });
        }
        self.begun.push_back(now);
        Ok(())
    }
}

/// An instance that has read a graph, and what it answered.
struct Reading<'a> {
    guest: Guest<'a>,
    answer: Bytes,
}

fn read<'a>(
    guest: &'a TractGuest,
    onnx: &[u8],
    limits: &Limits,
) -> Result<Reading<'a>, StrictError> {
    let header = Read {
        tensor_bytes_max: limits.graph_tensor_bytes_max,
        plans_max: 1,
    };
    let budget = Budget::until(Instant::now() + PREPARE_TIME_MAX);
    let mut guest = guest.start(limits, budget)?;
    let answer = guest.call("read", &[&message::write(&header, &[]), onnx])?;
    Ok(Reading { guest, answer })
}
