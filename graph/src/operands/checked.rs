//! The demands that only running can settle, as a node before the one that makes them.

use tract_onnx::prelude::{IntoArcTensor, OutletId, TValue, TVec, TractResult, TypedModel};
use tract_onnx::tract_core::plan::EvalContext;
use tract_onnx::tract_hir::internal::{
    EvalOp, Op, SpecialOps, StaticName, TypedFact, TypedOp, as_op, op_as_typed_op, op_out_of_plan,
    tvec,
};

use super::{Demand, Known};
use crate::error::NodeError;

/// The node's inputs in `target`, each of which meets the demands or is checked before the node runs.
pub(crate) fn checked(
    demands: &[Demand],
    node: &NodeName,
    target: &mut TypedModel,
    inputs: &[OutletId],
) -> TractResult<TVec<OutletId>> {
    let mut wired: TVec<OutletId> = inputs.into();
    for (index, demand) in demands.iter().enumerate() {
        let known = inputs
            .iter()
            .map(|outlet| target.outlet_fact(*outlet).map(Known::typed))
            .collect::<TractResult<Vec<_>>>()?;
        let settled = demand
            .check(&known)
            .map_err(|reason| node.refuse_operand(reason))?;
        let operand = target.outlet_fact(inputs[demand.operand])?;
        // What is still symbolic stays so, for the engine to see through.
        let is_symbolic = operand.datum_type.is_tdim() || operand.konst.is_some();
        if settled.is_some() || is_symbolic || !demand.is_of_values(operand.datum_type) {
            continue;
        }
        let shape = known[0].shape.clone();
        let mut taken = tvec![inputs[demand.operand]];
        if demand.is_of_data() && shape.is_none() {
            taken.push(inputs[0]);
        }
        let op = Checked {
            demand: Demand {
                operand: 1,
                ..demand.clone()
            },
            shape,
            node: node.clone(),
        };
        let name = format!("{}.checked-{index}", node.name);
        wired[demand.operand] = target.wire_node(name, op, &taken)?[0];
    }
    Ok(wired)
}

/// A node of the file, for messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NodeName {
    pub(crate) name: String,
    pub(crate) operator: String,
}

impl NodeName {
    pub(crate) fn refuse_operand(&self, reason: String) -> NodeError {
        NodeError::operand(&self.name, &self.operator, reason)
    }
}

/// Passes an operand on as it is, once it meets a demand.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Checked {
    demand: Demand,
    /// The shape of the node's first input; where it is not known beforehand, that input is taken too.
    shape: Option<TVec<usize>>,
    node: NodeName,
}

impl Op for Checked {
    fn name(&self) -> StaticName {
        "Checked".into()
    }

    op_as_typed_op!();
}

impl EvalOp for Checked {
    op_out_of_plan!();

    fn eval(
        &self,
        _context: &EvalContext<'_>,
        mut inputs: TVec<TValue>,
    ) -> TractResult<TVec<TValue>> {
        let shape = match inputs.get(1) {
            Some(data) => Some(data.shape().into()),
            None => self.shape.clone(),
        };
        let data = Known {
            shape,
            ..Known::default()
        };
        let operand = Known {
            value: Some(inputs[0].clone().into_arc_tensor()),
            ..Known::default()
        };
        self.demand
            .check(&[data, operand])
            .map_err(|reason| self.node.refuse_operand(reason))?;
        inputs.truncate(1);
        Ok(inputs)
    }
}

impl TypedOp for Checked {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        Ok(tvec![inputs[0].without_value()])
    }

    as_op!();
}
