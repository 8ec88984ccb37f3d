//! Graphs inside a node, which an operator runs as often as it wants.
//!
//! A body is planned when it is run, for the shapes that it is given; those of a loop rarely change.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tract_onnx::model::{ParseResult, ParsingContext};
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::type_proto::{Tensor as TensorType, Value as Kind};
use tract_onnx::pb::{GraphProto, TypeProto};
use tract_onnx::prelude::TypedModel;
use tract_onnx::tract_hir::internal::*;
use tract_onnx::tract_hir::ops::unimpl::UnimplementedOp;

use super::kernel::check_bytes;
use crate::bounded::wrap;
use crate::optimise::optimise;
use crate::steps::Steps;

/// Plans kept for a body whose shapes change.
const PLANS_MAX: usize = 8;

/// Most elements of a value from around a body that shapes may depend on, so that a plan is made for it.
const FIXED_ELEMENTS_MAX: usize = 32;

/// What a plan is made for: the type and shape of each input, and the value of those that are fixed.
type Signature = Vec<(DatumType, TVec<usize>, Option<Tensor>)>;

/// A graph of a node. Its inputs are those that it declares, then those that it takes from around it.
#[derive(Debug)]
pub(super) struct Body {
    model: InferenceModel,
    plans: Mutex<Vec<(Signature, Arc<Steps>)>>,
    /// Whether shapes depend on numbers that change from run to run, so that each needs its own plan.
    is_planned_by_values: AtomicBool,
}

impl Body {
    /// Reads a graph, with the names of values that it takes from the graph around it.
    pub(super) fn parse(
        context: &ParsingContext<'_>,
        graph: &GraphProto,
    ) -> TractResult<(Self, Vec<String>)> {
        let ParseResult {
            mut model,
            unresolved_inputs,
            ..
        } = context.parse_graph(&typed(graph))?;
        let missing = model
            .nodes
            .iter()
            .find(|node| node.op_is::<UnimplementedOp>());
        if let Some(node) = missing {
            let name: String = node.op.name().chars().take(64).collect();
            bail!("an inner graph needs an operator that is not implemented: {name}");
        }
        wrap(&mut model, graph);
        let body = Self {
            model,
            plans: Mutex::default(),
            is_planned_by_values: AtomicBool::new(false),
        };
        Ok((body, unresolved_inputs))
    }

    pub(super) fn inputs(&self) -> TractResult<usize> {
        Ok(self.model.input_outlets()?.len())
    }

    pub(super) fn outputs(&self) -> TractResult<usize> {
        Ok(self.model.output_outlets()?.len())
    }

    fn typed(&self, inputs: &[TypedFact]) -> TractResult<TypedModel> {
        let mut model = self.model.clone();
        for (index, fact) in inputs.iter().enumerate() {
            model.set_input_fact(index, InferenceFact::from(fact))?;
        }
        let typed = model.into_typed()?;
        for node in &typed.nodes {
            for output in &node.outputs {
                if let Some(shape) = output.fact.shape.as_concrete() {
                    check_bytes(shape, output.fact.datum_type.size_of())?;
                }
            }
        }
        Ok(typed)
    }

    /// The types and shapes of its outputs, for inputs of these. Symbolic numbers count as integers.
    pub(super) fn facts(&self, inputs: &[TypedFact]) -> TractResult<TVec<TypedFact>> {
        let typed = self.typed(inputs)?;
        let outputs = typed.output_outlets()?.iter();
        outputs
            .map(|outlet| {
                let mut fact = typed.outlet_fact(*outlet)?.clone();
                if fact.datum_type.is_tdim() {
                    fact = i64::datum_type().fact(fact.shape);
                }
                Ok(fact)
            })
            .collect()
    }

    /// Runs it once. Inputs from `first_fixed` on are alike whenever it is run for one request.
    pub(super) fn run(
        &self,
        inputs: TVec<TValue>,
        first_fixed: usize,
    ) -> TractResult<TVec<Tensor>> {
        if !self.is_planned_by_values.load(Ordering::Relaxed) {
            let outputs = self.run_planned(inputs.clone(), first_fixed);
            if outputs.is_ok() {
                return outputs;
            }
            // The engine finds no way around a shape that a number decides, such as that of the round.
            self.is_planned_by_values.store(true, Ordering::Relaxed);
        }
        self.run_planned(inputs, 0)
    }

    fn run_planned(&self, inputs: TVec<TValue>, first_fixed: usize) -> TractResult<TVec<Tensor>> {
        let signature: Signature = inputs
            .iter()
            .enumerate()
            .map(|(place, input)| {
                let datum_type = input.datum_type();
                let is_fixed = place >= first_fixed
                    && (datum_type.is_integer() || datum_type == DatumType::Bool)
                    && input.volume() <= FIXED_ELEMENTS_MAX;
                let value = is_fixed.then(|| Tensor::clone(input));
                (datum_type, input.shape().into(), value)
            })
            .collect();
        let outputs = self.plan(signature)?.run(inputs)?;
        outputs
            .into_iter()
            .map(|output| {
                if output.datum_type().is_tdim() {
                    return Ok(output.cast_to::<i64>()?.into_owned());
                }
                Ok(output.into_tensor())
            })
            .collect()
    }

    fn plan(&self, signature: Signature) -> TractResult<Arc<Steps>> {
        let mut plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, plan)) = plans.iter().find(|(known, _)| *known == signature) {
            return Ok(plan.clone());
        }
        let facts: Vec<TypedFact> = signature
            .iter()
            .map(|(datum_type, shape, value)| {
                let mut fact = datum_type.fact(&**shape);
                fact.konst = value.clone().map(Tensor::into_arc_tensor);
                fact
            })
            .collect();
        let plan = Arc::new(Steps::new(optimise(self.typed(&facts)?)?)?);
        if plans.len() >= PLANS_MAX {
            plans.remove(0);
        }
        plans.push((signature, plan.clone()));
        Ok(plan)
    }
}

/// A graph whose inputs all have a type. What they really are is said before each use.
fn typed(graph: &GraphProto) -> GraphProto {
    let mut graph = graph.clone();
    for input in &mut graph.input {
        let known = input.r#type.as_ref().is_some_and(|kind| match &kind.value {
            Some(Kind::TensorType(tensor)) => tensor.elem_type != 0,
            None => false,
        });
        if !known {
            input.r#type = Some(TypeProto {
                value: Some(Kind::TensorType(TensorType {
                    elem_type: DataType::Float.into(),
                    shape: None,
                })),
                ..TypeProto::default()
            });
        }
    }
    graph
}
