//! Rounds 32-bit floats to 16-bit brain floats, and leaves them in 32 bits.

use half::bf16;
use tract_onnx::model::OnnxOpRegister;
use tract_onnx::prelude::*;
use tract_onnx::tract_core::ops::cast::cast;
use tract_onnx::tract_hir::internal::*;

pub(super) fn register(operators: &mut OnnxOpRegister) {
    operators.insert(crate::bf16::ROUND, |_, _| Ok((expand(RoundToBf16), vec![])));
}

/// Any numbers in, rounded 32-bit floats out.
#[derive(Clone, Debug, PartialEq, Eq)]
struct RoundToBf16;

impl Expansion for RoundToBf16 {
    fn name(&self) -> StaticName {
        "RoundToBf16".into()
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        solver: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        check_input_arity(inputs, 1)?;
        check_output_arity(outputs, 1)?;
        solver.equals(&outputs[0].datum_type, f32::datum_type())?;
        solver.equals(&inputs[0].shape, &outputs[0].shape)
    }

    fn wire(
        &self,
        prefix: &str,
        model: &mut TypedModel,
        inputs: &[OutletId],
    ) -> TractResult<TVec<OutletId>> {
        let wide = model.wire_node(format!("{prefix}.cast"), cast(f32::datum_type()), inputs)?;
        model.wire_node(prefix, Rounding, &wide)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Rounding;

impl Op for Rounding {
    fn name(&self) -> StaticName {
        "RoundToBf16".into()
    }

    op_as_typed_op!();
}

impl EvalOp for Rounding {
    op_out_of_plan!();

    fn eval(&self, _context: &EvalContext<'_>, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let input = args_1!(inputs);
        let mut tensor = input.into_tensor();
        for value in tensor.try_as_plain_ram_mut()?.as_slice_mut::<f32>()? {
            *value = bf16::from_f32(*value).to_f32();
        }
        Ok(tvec![tensor.into_tvalue()])
    }
}

impl TypedOp for Rounding {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        Ok(tvec![inputs[0].datum_type.fact(inputs[0].shape.clone())])
    }

    as_op!();
}
