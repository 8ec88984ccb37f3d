//! Operators of our own: those that tract lacks, or computes otherwise than ONNX says.

mod general;
mod ml;

use tract_onnx::model::OnnxOpRegister;

/// Adds our operators to the engine's. One of the same name takes the engine's place.
pub(crate) fn register(operators: &mut OnnxOpRegister) {
    ml::register(operators);
    general::register(operators);
}
