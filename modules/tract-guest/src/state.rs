//! What lasts from call to call: the graph, the message under way, and the answer.
//!
//! A guest has one thread and its calls do not nest, so a borrow only fails inside a panic.

use std::cell::RefCell;

use tidegate_graph::message::{self, Fault, Refusal};
use tidegate_graph::{Graph, GraphError, RunError, Stop};
use tidegate_inference::Tensor;

use bytes::Bytes;

thread_local! {
    static GRAPH: RefCell<Option<Graph>> = const { RefCell::new(None) };
    static MESSAGE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    static ANSWER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    static LAST_WORDS: RefCell<String> = const { RefCell::new(String::new()) };
}

pub(crate) fn reserve(len: usize) -> u32 {
    MESSAGE.with_borrow_mut(|message| {
        *message = vec![0; len];
        address(message)
    })
}

/// Keeps what a panic says, since a guest has nowhere to write it.
pub(crate) fn keep_last_words() {
    std::panic::set_hook(Box::new(|panic| LAST_WORDS.set(panic.to_string())));
}

pub(crate) fn last_words() -> u64 {
    LAST_WORDS.with_borrow(|words| place(words.as_bytes()))
}

/// Takes the message, and keeps what `step` makes of it for the host to read.
pub(crate) fn answer(
    step: impl FnOnce(&mut Option<Graph>, Bytes) -> Result<Vec<u8>, Refusal>,
) -> u64 {
    let message = Bytes::from(MESSAGE.take());
    let answer = GRAPH
        .with_borrow_mut(|graph| step(graph, message))
        .unwrap_or_else(|refusal| message::write(&Err::<(), _>(refusal), &[]));
    ANSWER.with_borrow_mut(|kept| {
        *kept = answer;
        place(kept)
    })
}

pub(crate) fn with_graph<T>(
    graph: &Option<Graph>,
    step: impl FnOnce(&Graph) -> Result<T, Refusal>,
) -> Result<T, Refusal> {
    match graph {
        Some(graph) => step(graph),
        None => Err(Refusal::new(Fault::Graph, "no graph was read")),
    }
}

pub(crate) fn tensors(message: &Bytes) -> Result<Vec<Tensor>, Refusal> {
    message::read_tensors(message).map_err(|error| Refusal::new(Fault::Inputs, error))?
}

pub(crate) fn graph_fault(error: &GraphError) -> Refusal {
    let fault = match error {
        GraphError::NodeTooLarge { .. } | GraphError::RunTooLarge { .. } => Fault::TooLarge,
        GraphError::Operand { .. } => Fault::Values,
        _ => Fault::Graph,
    };
    Refusal::new(fault, error)
}

pub(crate) fn run_fault<S: Stop>(error: &RunError<S>) -> Refusal {
    let fault = match error {
        RunError::Input { .. } => Fault::Inputs,
        RunError::Operand { .. } => Fault::Values,
        RunError::TooLarge(_) => Fault::TooLarge,
        RunError::Plan(error) => return graph_fault(error),
        RunError::Failed { .. } | RunError::Stopped(_) => Fault::Graph,
    };
    Refusal::new(fault, error)
}

fn place(bytes: &[u8]) -> u64 {
    (u64::from(address(bytes)) << 32) | bytes.len() as u64
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "a guest's addresses have 32 bits"
)]
fn address(bytes: &[u8]) -> u32 {
    bytes.as_ptr() as usize as u32
}
