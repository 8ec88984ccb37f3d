//! Graphs that run inside the sandbox, for authors whom one does not trust.
//!
//! The engine of graphs, compiled for WebAssembly (`modules/tract-guest`), reads and plans a graph in an
//! instance; what its memory then holds becomes the start of an instance for each request, so a graph is
//! prepared once and no request sees another's data. The host never parses the graph: what it
//! knows of it is what the guest answers, and it believes none of that.
//!
//! A graph without free axes has one such image. One with free axes has an image for each of the last
//! few sets of input shapes, made when a request first brings them.

mod guest;
mod image;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tidegate_graph::message::{self, Interface, Read, ReadMessageError, Refusal};
use tidegate_inference::{Shape, Tensor, TensorSpec};

use self::guest::Guest;
pub(crate) use self::guest::TractGuest;
pub use self::guest::TractGuestError;
use self::image::Image;
use crate::budget::{Budget, Stop};
use crate::limits::Limits;

/// Longest preparation of a graph, or of a plan for new shapes.
const PREPARE_TIME_MAX: Duration = Duration::from_secs(120);

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
    planned: Mutex<Vec<Planned>>,
}

/// An image that is there or being made, for one set of input shapes.
#[derive(Clone, Debug)]
struct Planned {
    shapes: Vec<Shape>,
    image: Arc<OnceLock<Result<Image, StrictError>>>,
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
            false => Some(instance.guest.image()?),
        };
        Ok(Self {
            guest,
            onnx,
            limits: limits.clone(),
            interface,
            base,
            planned: Mutex::default(),
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
                planned = self.planned(inputs)?;
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

    /// The image for inputs of these shapes, made now if it is not there, which takes at most
    /// [`PREPARE_TIME_MAX`] and the compiler's time, whatever the request's deadline. Of several threads that
    /// want the same image one makes it and the others wait for it.
    fn planned(&self, inputs: &[Tensor]) -> Result<Image, StrictError> {
        let shapes: Vec<Shape> = inputs
            .iter()
            .map(|input| Shape::from_slice(input.shape()))
            .collect();
        let planned = {
            let mut all = self.planned.lock().unwrap_or_else(PoisonError::into_inner);
            let planned = match all.iter().position(|planned| planned.shapes == shapes) {
                Some(at) => all.remove(at),
                None => {
                    if all.len() >= self.limits.plans_max.max(1) {
                        all.remove(0);
                    }
                    let image = Arc::default();
                    Planned { shapes, image }
                }
            };
            all.push(planned.clone());
            planned
        };
        let image = planned.image.get_or_init(|| {
            let mut instance = read(&self.guest, &self.onnx, &self.limits)?;
            let answer = instance
                .guest
                .call("warm", &[&message::write_tensors(inputs)])?;
            message::read_tensors(&answer)?.map_err(StrictError::Refused)?;
            instance.guest.image()
        });
        let image = image.clone();
        if let Err(error) = &image
            && !matches!(error, StrictError::Refused(_))
        {
            // Only what the engine says of these shapes would be said again.
            let mut all = self.planned.lock().unwrap_or_else(PoisonError::into_inner);
            all.retain(|other| !Arc::ptr_eq(&other.image, &planned.image));
        }
        image
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
