//! `Size`, known as soon as the shape is: the engine waits for the values.

use tract_onnx::model::OnnxOpRegister;
use tract_onnx::prelude::*;
use tract_onnx::tract_hir::internal::*;

pub(super) fn register(operators: &mut OnnxOpRegister) {
    operators.insert("Size", |_, _| Ok((expand(Size), vec![])));
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Size;

fn volume(shape: &[TDim]) -> Tensor {
    tensor0(shape.iter().product::<TDim>())
}

impl Expansion for Size {
    fn name(&self) -> StaticName {
        "Size".into()
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        solver: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        check_input_arity(inputs, 1)?;
        check_output_arity(outputs, 1)?;
        solver.equals(&outputs[0].datum_type, DatumType::TDim)?;
        solver.equals(&outputs[0].rank, 0)?;
        solver.given(&inputs[0].shape, |solver, shape| {
            solver.equals(&outputs[0].value, volume(&shape).into_arc_tensor())
        })
    }

    fn wire(
        &self,
        prefix: &str,
        model: &mut TypedModel,
        inputs: &[OutletId],
    ) -> TractResult<TVec<OutletId>> {
        let shape = model.outlet_fact(inputs[0])?.shape.to_tvec();
        Ok(tvec![model.add_const(prefix, volume(&shape))?])
    }
}
