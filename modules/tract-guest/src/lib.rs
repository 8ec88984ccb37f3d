//! The engine of graphs as a guest, so that even a graph runs inside the sandbox.
//!
//! It is the same engine as the host's, with the same operators, compiled for WebAssembly, and imports
//! nothing. The host makes room with [`reserve`], writes a message there, calls one of [`read`], [`warm`]
//! and [`run`], and finds the answer where the returned number says: its address in the upper half, its
//! length in the lower. The messages are those of [`tidegate_graph::message`].
//!
//! The host keeps the memory as it is after [`read`] or [`warm`] and starts every request from it, so a
//! graph is prepared once and no request sees another's data. A panic ends the instance; [`last_words`]
//! says what it was.

mod state;

use tidegate_graph::message::{self, Fault, Interface, Read, Refusal};
use tidegate_graph::{Graph, GraphLimits};

use crate::state::{answer, graph_fault, run_fault, tensors, with_graph};

/// Makes room for a message of `len` bytes. Returns its address.
#[expect(unsafe_code, reason = "exports a symbol that nothing else defines")]
#[unsafe(no_mangle)]
pub extern "C" fn reserve(len: u32) -> u32 {
    state::reserve(len as usize)
}

/// Reads the graph of the message, which follows its limits. Answers with its interface.
#[expect(unsafe_code, reason = "exports a symbol that nothing else defines")]
#[unsafe(no_mangle)]
pub extern "C" fn read() -> u64 {
    state::keep_last_words();
    answer(|graph, message| {
        let (limits, start) =
            message::read::<Read>(&message).map_err(|error| Refusal::new(Fault::Graph, error))?;
        let limits = GraphLimits {
            tensor_bytes_max: limits.tensor_bytes_max,
            plans_max: limits.plans_max,
        };
        let read = Graph::read(&message[start..], limits).map_err(|error| graph_fault(&error))?;
        let interface = Interface {
            inputs: read.inputs().to_vec(),
            outputs: read.outputs().to_vec(),
            has_free_axes: read.has_free_axes(),
        };
        *graph = Some(read);
        Ok(message::write(&Ok::<_, Refusal>(interface), &[]))
    })
}

/// Prepares the graph for inputs like those of the message. Answers with no tensors.
#[expect(unsafe_code, reason = "exports a symbol that nothing else defines")]
#[unsafe(no_mangle)]
pub extern "C" fn warm() -> u64 {
    answer(|graph, message| {
        let inputs = tensors(&message)?;
        with_graph(graph, |graph| {
            graph.plan(&inputs).map_err(|error| graph_fault(&error))?;
            Ok(message::write_tensors(&[]))
        })
    })
}

/// Runs the graph on the inputs of the message. Answers with the outputs.
#[expect(unsafe_code, reason = "exports a symbol that nothing else defines")]
#[unsafe(no_mangle)]
pub extern "C" fn run() -> u64 {
    answer(|graph, message| {
        let inputs = tensors(&message)?;
        drop(message);
        with_graph(graph, |graph| {
            // The host's epoch interrupts a run, so nothing is looked at between nodes.
            let outputs = graph
                .run(&inputs, || Ok::<(), std::fmt::Error>(()))
                .map_err(|error| run_fault(&error))?;
            Ok(message::write_tensors(&outputs))
        })
    })
}

/// What a panic said, as an answer is given: address and length of its text.
#[expect(unsafe_code, reason = "exports a symbol that nothing else defines")]
#[unsafe(no_mangle)]
pub extern "C" fn last_words() -> u64 {
    state::last_words()
}
