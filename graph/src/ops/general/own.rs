//! How the engine is made to run a kernel of ours.
//!
//! What all kernels have alike: inputs that a node leaves out, outputs that it does not name, shapes
//! known only in part while the engine infers, symbolic shape tensors, and how much is folded.

use std::sync::Arc;

use tract_onnx::model::{ParsingContext, optional_inputs};
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::internal::*;

use super::kernel::{Facts, Kernel, Unknown, Values, check_bytes, volume};
use crate::error::OfOperand;

/// Largest output that is computed while the graph is prepared. Above it the node runs with the graph,
/// where its size is checked against the limits of the caller.
const FOLD_BYTES_MAX: usize = 16 << 20;

/// Longest tensor of integers that may be a shape.
const SHAPE_LEN_MAX: usize = 64;

/// Most inputs or outputs of a node of ours.
const OPERANDS_MAX: usize = 1024;

/// Wraps a kernel for a node of the graph.
pub(super) fn operator(
    context: &ParsingContext<'_>,
    node: &NodeProto,
    name: &'static str,
    kernel: impl Kernel,
) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)> {
    operator_closing_on(context, node, name, kernel, vec![])
}

/// Wraps a kernel that takes, after the node's own inputs, values of the graph around it.
pub(super) fn operator_closing_on(
    context: &ParsingContext<'_>,
    node: &NodeProto,
    name: &'static str,
    kernel: impl Kernel,
    closures: Vec<String>,
) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)> {
    ensure!(
        node.input.len() <= OPERANDS_MAX && node.output.len() <= OPERANDS_MAX,
        "more than {OPERANDS_MAX} inputs or outputs"
    );
    let mut places: TVec<Option<usize>> = optional_inputs(node).take(node.input.len()).collect();
    let named = places.iter().flatten().count();
    places.extend((named..named + closures.len()).map(Some));
    let outputs = node
        .output
        .iter()
        .enumerate()
        .filter(|(_, name)| !name.is_empty())
        .map(|(index, _)| index)
        .collect();
    let own = Own {
        name,
        kernel: Arc::new(kernel),
        places,
        outputs,
        unknown: Unknown::new(&context.template.symbols),
        inferring: Unknown::new(&context.template.symbols),
    };
    Ok((Box::new(own), closures))
}

/// A kernel at a place in a graph.
#[derive(Clone, Debug)]
struct Own {
    name: &'static str,
    kernel: Arc<dyn Kernel>,
    /// For each input of the operator, which of the node's inputs it is.
    places: TVec<Option<usize>>,
    /// Which outputs of the operator the node names.
    outputs: TVec<usize>,
    unknown: Unknown,
    /// Stands for extents of inputs that inference has not found yet.
    inferring: Unknown,
}

impl PartialEq for Own {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.kernel, &other.kernel)
    }
}

impl Eq for Own {}

impl Own {
    fn all_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let place = |place: &Option<usize>| place.map(|at| inputs.get(at).copied());
        let inputs = self
            .places
            .iter()
            .map(|at| match place(at) {
                Some(None) => bail!("an input is missing"),
                Some(found) => Ok(found),
                None => Ok(None),
            })
            .collect::<TractResult<_>>()?;
        let facts = self.kernel.facts(&Facts::new(inputs), &self.unknown)?;
        self.named(facts)
    }

    fn named<T>(&self, outputs: TVec<T>) -> TractResult<TVec<T>> {
        let count = outputs.len();
        let last = self.outputs.last().map_or(0, |last| last + 1);
        ensure!(count >= last, "{count} outputs, but {last} are named");
        Ok(outputs
            .into_iter()
            .enumerate()
            .filter(|(index, _)| self.outputs.contains(index))
            .map(|(_, output)| output)
            .collect())
    }

    /// Bytes of the largest output for these values, if that can be told without running.
    fn bytes(&self, inputs: &[TValue]) -> TractResult<Option<usize>> {
        let facts: TVec<TypedFact> = inputs.iter().map(fact).collect();
        let facts = self.all_facts(&facts.iter().collect::<TVec<_>>())?;
        let mut largest = 0;
        for fact in &facts {
            let Some(shape) = fact.shape.as_concrete() else {
                return Ok(None);
            };
            let bytes = volume(shape)?.saturating_mul(fact.datum_type.size_of());
            largest = largest.max(bytes);
        }
        Ok(Some(largest))
    }
}

/// What is known of a value without copying it, unless it is short and may be a shape.
fn fact(value: &TValue) -> TypedFact {
    let mut fact = value.datum_type().fact(value.shape());
    if value.datum_type().is_integer() && value.volume() <= SHAPE_LEN_MAX {
        fact.konst = Some(Tensor::clone(value).into_arc_tensor());
    }
    fact
}

impl Op for Own {
    fn name(&self) -> StaticName {
        self.name.into()
    }

    fn mints_runtime_symbols(&self) -> bool {
        true
    }

    op_as_typed_op!();
}

impl EvalOp for Own {
    fn eval_out_of_plan(&self, inputs: TVec<TValue>) -> TractResult<Option<TVec<TValue>>> {
        if !self.kernel.is_pure() {
            return Ok(None);
        }
        let mut whole: TVec<TValue> = tvec![];
        for input in inputs {
            if !input.datum_type().is_tdim() {
                whole.push(input);
                continue;
            }
            // A shape that is still symbolic has no numbers yet.
            let Ok(numbers) = input.cast_to::<i64>() else {
                return Ok(None);
            };
            whole.push(numbers.into_owned().into_tvalue());
        }
        if self
            .bytes(&whole)?
            .is_some_and(|bytes| bytes > FOLD_BYTES_MAX)
        {
            return Ok(None);
        }
        self.eval(&EvalContext::out_of_plan(), whole).map(Some)
    }

    fn eval(&self, _context: &EvalContext<'_>, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let refuse = || OfOperand(format!("{} cannot be computed", self.name));
        if !self.kernel.is_bounded()
            && let Some(bytes) = self.bytes(&inputs).with_context(refuse)?
        {
            check_bytes(&[bytes], 1)?;
        }
        let values = Values::new(
            self.places
                .iter()
                .map(|place| place.and_then(|at| inputs.get(at).map(|value| &**value)))
                .collect(),
        );
        let outputs = self.kernel.run(&values).with_context(refuse)?;
        let outputs = self.named(outputs)?;
        Ok(outputs.into_iter().map(Tensor::into_tvalue).collect())
    }
}

impl TypedOp for Own {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        self.all_facts(inputs)
            .with_context(|| format!("{} cannot take its inputs", self.name))
    }

    as_op!();
}

impl InferenceOp for Own {
    fn infer_facts(
        &mut self,
        inputs: TVec<&InferenceFact>,
        outputs: TVec<&InferenceFact>,
        observed: TVec<&InferenceFact>,
    ) -> TractResult<(
        TVec<InferenceFact>,
        TVec<InferenceFact>,
        TVec<InferenceFact>,
    )> {
        let mut found: TVec<InferenceFact> = outputs.into_iter().cloned().collect();
        let mut guesses = 0;
        let typed: Option<TVec<TypedFact>> = inputs
            .iter()
            .map(|fact| self.guess(fact, &mut guesses))
            .collect();
        if let Some(typed) = typed {
            match self.output_facts(&typed.iter().collect::<TVec<_>>()) {
                Ok(facts) => {
                    for (found, fact) in found.iter_mut().zip(&facts) {
                        let known = |extent: &TDim| {
                            if self.unknown.owns(extent) || self.inferring.owns(extent) {
                                DimFact::Any
                            } else {
                                DimFact::Only(extent.clone())
                            }
                        };
                        let shape = ShapeFactoid::closed(fact.shape.iter().map(known).collect());
                        let fact = InferenceFact::dt_shape(fact.datum_type, shape);
                        found.unify_with(&fact)?;
                    }
                }
                // What is known so far may not be enough; translating to types asks again.
                Err(_) if guesses > 0 || inputs.iter().any(|fact| !fact.value.is_concrete()) => (),
                Err(error) => return Err(error),
            }
        }
        let inputs = inputs.into_iter().cloned().collect();
        let observed = observed.into_iter().cloned().collect();
        Ok((inputs, found, observed))
    }

    fn nboutputs(&self) -> TractResult<usize> {
        Ok(self.outputs.len())
    }

    fn to_typed(
        &self,
        _source: &InferenceModel,
        node: &InferenceNode,
        target: &mut TypedModel,
        mapping: &HashMap<OutletId, OutletId>,
    ) -> TractResult<TVec<OutletId>> {
        let mut inputs: TVec<OutletId> = tvec![];
        for (index, input) in node.inputs.iter().enumerate() {
            let mut outlet = mapping[input];
            if target.outlet_fact(outlet)?.datum_type.is_tdim() {
                let name = format!("{}.numbers-{index}", node.name);
                let cast = tract_core::ops::cast::cast(i64::datum_type());
                outlet = target.wire_node(name, cast, &[outlet])?[0];
            }
            inputs.push(outlet);
        }
        target.wire_node(&node.name, self.clone(), &inputs)
    }

    as_op!();
}

impl Own {
    /// A fact with stand-ins for extents that inference has not found; `None` without type or rank.
    fn guess(&self, fact: &InferenceFact, guesses: &mut usize) -> Option<TypedFact> {
        let datum_type = fact.datum_type.concretize()?;
        if fact.shape.is_open() {
            return None;
        }
        let shape: TVec<TDim> = fact
            .shape
            .dims()
            .map(|extent| {
                extent.concretize().unwrap_or_else(|| {
                    *guesses += 1;
                    self.inferring.extent(*guesses)
                })
            })
            .collect();
        let value = fact.value.concretize();
        if !datum_type.is_tdim() {
            let mut typed = datum_type.fact(&*shape);
            typed.konst = value;
            return Some(typed);
        }
        let mut typed = i64::datum_type().fact(&*shape);
        typed.konst = value.and_then(|value| {
            let numbers = value.cast_to::<i64>().ok()?;
            Some(numbers.into_owned().into_arc_tensor())
        });
        Some(typed)
    }
}
