//! Operators of our own: those that tract lacks, or computes otherwise than ONNX says.

mod batch_norm;
mod bit_shift;
mod conditional;
mod extremes;
mod general;
mod ml;
mod product;
mod quantize;
mod rounding;
mod seal;
mod size;

use tract_onnx::model::OnnxOpRegister;

pub(crate) use self::ml::zip_map::pass_through as pass_zip_maps;

/// Adds our operators to the engine's. One of the same name takes the engine's place.
pub(crate) fn register(operators: &mut OnnxOpRegister) {
    batch_norm::register(operators);
    bit_shift::register(operators);
    extremes::register(operators);
    product::register(operators);
    quantize::register(operators);
    size::register(operators);
    conditional::register(operators);
    rounding::register(operators);
    seal::register(operators);
    ml::register(operators);
    general::register(operators);
}
