//! A node that hands on what it takes, and through which the engine moves no other node.
//!
//! Where the engine's rewriting is wrong, `graph/src/seal.rs` puts one between the two nodes.

use tract_onnx::model::OnnxOpRegister;
use tract_onnx::prelude::*;
use tract_onnx::tract_core::plan::EvalContext;
use tract_onnx::tract_hir::internal::*;

pub(super) fn register(operators: &mut OnnxOpRegister) {
    operators.insert(crate::seal::OPERATOR, |_, _| Ok((expand(Seal), vec![])));
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Seal;

impl Expansion for Seal {
    fn name(&self) -> StaticName {
        "Seal".into()
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        solver: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        check_input_arity(inputs, 1)?;
        check_output_arity(outputs, 1)?;
        solver.equals(&inputs[0].datum_type, &outputs[0].datum_type)?;
        solver.equals(&inputs[0].shape, &outputs[0].shape)?;
        solver.equals(&inputs[0].value, &outputs[0].value)
    }

    fn wire(
        &self,
        prefix: &str,
        model: &mut TypedModel,
        inputs: &[OutletId],
    ) -> TractResult<TVec<OutletId>> {
        if model.outlet_fact(inputs[0])?.konst.is_some() {
            return Ok(inputs.into());
        }
        model.wire_node(prefix, TypedSeal, inputs)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct TypedSeal;

impl Op for TypedSeal {
    fn name(&self) -> StaticName {
        "Seal".into()
    }

    op_as_typed_op!();
}

impl EvalOp for TypedSeal {
    op_out_of_plan!();

    fn eval(&self, _context: &EvalContext<'_>, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        Ok(inputs)
    }
}

impl TypedOp for TypedSeal {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        Ok(tvec![inputs[0].without_value()])
    }

    as_op!();
}
