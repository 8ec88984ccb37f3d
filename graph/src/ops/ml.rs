//! The domain `ai.onnx.ml`: what exports of scikit-learn and of boosted trees are made of.

use tract_onnx::model::OnnxOpRegister;

pub(super) fn register(_operators: &mut OnnxOpRegister) {}
