//! `MatMul` of two vectors too, which the engine leaves out.

use tract_onnx::model::OnnxOpRegister;
use tract_onnx::prelude::*;
use tract_onnx::tract_core::ops::change_axes::AxisOp;
use tract_onnx::tract_hir::internal::*;
use tract_onnx::tract_hir::ops::matmul::MatMulInference;

pub(super) fn register(operators: &mut OnnxOpRegister) {
    operators.insert("MatMul", |_, _| Ok((expand(MatMul::default()), vec![])));
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct MatMul(MatMulInference);

impl Expansion for MatMul {
    fn name(&self) -> StaticName {
        "MatMul".into()
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        solver: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        self.0.rules(solver, inputs, outputs)
    }

    fn wire(
        &self,
        prefix: &str,
        model: &mut TypedModel,
        inputs: &[OutletId],
    ) -> TractResult<TVec<OutletId>> {
        let is_vector = |at: usize| Ok::<_, TractError>(model.outlet_fact(inputs[at])?.rank() == 1);
        if !(is_vector(0)? && is_vector(1)?) {
            return self.0.wire(prefix, model, inputs);
        }
        let row = model.wire_node(format!("{prefix}.row"), AxisOp::Add(0), &inputs[..1])?;
        let product = format!("{prefix}.product");
        let product = self.0.wire(&product, model, &[row[0], inputs[1]])?;
        model.wire_node(prefix, AxisOp::Rm(0), &product)
    }
}
