//! Operators of the default domain.

use tract_onnx::model::OnnxOpRegister;

pub(super) fn register(_operators: &mut OnnxOpRegister) {}
