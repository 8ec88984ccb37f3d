//! `If`, with only the branch that is taken looked at where the condition is known.
//!
//! Exporters write conditions on shapes, which are known once a request brings its shapes. The branch
//! that is not taken is then often one that does not fit: it must not be inferred, and need not be kept.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use tract_onnx::model::{OnnxOpRegister, ParseResult, ParsingContext};
use tract_onnx::pb::{AttributeProto, GraphProto, NodeProto};
use tract_onnx::prelude::*;
use tract_onnx::tract_core::ops::logic::IfThenElse;
use tract_onnx::tract_hir::internal::*;

use crate::bounded;
use crate::optimise::optimise;
use crate::steps::Steps;

pub(super) fn register(operators: &mut OnnxOpRegister) {
    operators.insert("If", parse);
}

fn parse(
    context: &ParsingContext<'_>,
    node: &NodeProto,
) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)> {
    let branch = |name: &str| {
        let is_named = |attribute: &&AttributeProto| attribute.name == name;
        let graph = node.attribute.iter().find(is_named);
        let graph: Option<&GraphProto> = graph.and_then(|attribute| attribute.g.as_ref());
        let Some(graph) = graph else {
            bail!("If {:?} has no {name}", node.name);
        };
        let mut parsed = context.parse_graph(graph)?;
        bounded::wrap(&mut parsed.model, graph);
        Ok(parsed)
    };
    let (taken, other) = (branch("then_branch")?, branch("else_branch")?);
    let mut outer: Vec<String> = taken.unresolved_inputs.clone();
    outer.extend(other.unresolved_inputs.iter().cloned());
    outer.sort();
    outer.dedup();
    let branch = |parsed: ParseResult| {
        let place = |name: &String| outer.iter().position(|other| other == name);
        let inputs = parsed.unresolved_inputs.iter().filter_map(place);
        Branch {
            // The condition comes first.
            inputs: inputs.map(|place| place + 1).collect(),
            body: parsed.model,
        }
    };
    let op = If {
        then: branch(taken),
        otherwise: branch(other),
    };
    let (one, other) = (op.then.body.outputs.len(), op.otherwise.body.outputs.len());
    if one != other {
        bail!(
            "the branches of If {:?} give {one} and {other} values",
            node.name
        );
    }
    Ok((Box::new(op), outer))
}

#[derive(Clone, Debug)]
struct Branch {
    body: InferenceModel,
    /// For each input of the body the input of the node.
    inputs: Vec<usize>,
}

#[derive(Clone, Debug)]
struct If {
    then: Branch,
    otherwise: Branch,
}

impl PartialEq for If {
    fn eq(&self, _other: &Self) -> bool {
        false
    }
}

impl Eq for If {}

impl Op for If {
    fn name(&self) -> StaticName {
        "If".into()
    }

    not_a_typed_op!();
}

impl EvalOp for If {
    fn eval(&self, _context: &EvalContext<'_>, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let branch = if inputs[0].cast_to_scalar::<bool>()? {
            &self.then
        } else {
            &self.otherwise
        };
        let inputs = branch.inputs.iter().map(|at| inputs[*at].clone());
        branch.body.clone().into_runnable()?.run(inputs.collect())
    }

    // Inference follows the branch itself, and its sizes are checked there.
    not_out_of_plan!();
}

impl Branch {
    /// Infers the body from what the node takes, and gives the facts of its outputs.
    fn infer(&mut self, inputs: &mut [InferenceFact]) -> TractResult<TVec<InferenceFact>> {
        for (inner, outer) in self.inputs.iter().enumerate() {
            self.body
                .input_fact_mut(inner)?
                .unify_with_mut(&mut inputs[*outer])?;
        }
        self.body.analyse(false)?;
        let outlets = self.body.output_outlets()?.to_vec();
        outlets
            .iter()
            .map(|outlet| self.body.outlet_fact(*outlet).cloned())
            .collect()
    }
}

impl InferenceOp for If {
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
        let mut inputs: TVec<InferenceFact> = inputs.into_iter().cloned().collect();
        let mut outputs: TVec<InferenceFact> = outputs.into_iter().cloned().collect();
        inputs[0]
            .datum_type
            .unify_with(&bool::datum_type().into())?;
        match inputs[0].value.concretize() {
            Some(condition) => {
                let branch = if condition.cast_to_scalar::<bool>()? {
                    &mut self.then
                } else {
                    &mut self.otherwise
                };
                let inferred = branch.infer(&mut inputs)?;
                for (output, inferred) in outputs.iter_mut().zip(&inferred) {
                    output.unify_with(inferred)?;
                }
            }
            None => {
                // The condition may become known later, so a branch that does not fit is no error yet.
                let then = self.then.clone().infer(&mut inputs.clone());
                let otherwise = self.otherwise.clone().infer(&mut inputs.clone());
                if let (Ok(then), Ok(otherwise)) = (then, otherwise) {
                    for (output, (then, otherwise)) in
                        outputs.iter_mut().zip(then.iter().zip(&otherwise))
                    {
                        if then.datum_type == otherwise.datum_type {
                            output.datum_type.unify_with(&then.datum_type)?;
                        }
                        if then.shape == otherwise.shape {
                            output.shape.unify_with(&then.shape)?;
                        }
                    }
                }
            }
        }
        Ok((inputs, outputs, observed.into_iter().cloned().collect()))
    }

    fn nboutputs(&self) -> TractResult<usize> {
        Ok(self.then.body.outputs.len())
    }

    fn to_typed(
        &self,
        source: &InferenceModel,
        node: &InferenceNode,
        target: &mut TypedModel,
        mapping: &HashMap<OutletId, OutletId>,
    ) -> TractResult<TVec<OutletId>> {
        let inputs: TVec<OutletId> = node.inputs.iter().map(|outlet| mapping[outlet]).collect();
        let facts = source.node_input_facts(node.id)?;
        let Some(condition) = facts[0].value.concretize() else {
            let mut given: TVec<InferenceFact> = facts.into_iter().cloned().collect();
            let (mut then, mut otherwise) = (self.then.clone(), self.otherwise.clone());
            then.infer(&mut given)?;
            otherwise.infer(&mut given)?;
            let bodies = IfThenElse {
                then_body: then.body.into_typed()?,
                else_body: otherwise.body.into_typed()?,
                then_input_mapping: then.inputs,
                else_input_mapping: otherwise.inputs,
            };
            let steps = Arc::default();
            return target.wire_node(&*node.name, Chosen { bodies, steps }, &inputs);
        };
        let branch = if condition.cast_to_scalar::<bool>()? {
            &self.then
        } else {
            &self.otherwise
        };
        let mut branch = branch.clone();
        let mut given: TVec<InferenceFact> = facts.into_iter().cloned().collect();
        branch.infer(&mut given)?;
        let outer: TVec<OutletId> = branch.inputs.iter().map(|at| inputs[*at]).collect();
        inline(branch.body.into_typed()?, &node.name, target, &outer)
    }

    as_op!();
}

/// An `If` whose branch only running can choose. The engine has one too, which runs a branch outside of
/// the scope, and plans it anew each time.
#[derive(Clone, Debug)]
struct Chosen {
    bodies: IfThenElse,
    /// The branches as they are run, each from when it is first chosen.
    steps: Arc<[OnceLock<Steps>; 2]>,
}

impl PartialEq for Chosen {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.steps, &other.steps)
    }
}

impl Eq for Chosen {}

impl Op for Chosen {
    fn name(&self) -> StaticName {
        "If".into()
    }

    op_as_typed_op!();
}

impl EvalOp for Chosen {
    fn eval(&self, _context: &EvalContext<'_>, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let bodies = &self.bodies;
        let (body, mapping, steps) = if inputs[0].cast_to_scalar::<bool>()? {
            (
                &bodies.then_body,
                &bodies.then_input_mapping,
                &self.steps[0],
            )
        } else {
            (
                &bodies.else_body,
                &bodies.else_input_mapping,
                &self.steps[1],
            )
        };
        let inputs = mapping.iter().map(|at| inputs[*at].clone()).collect();
        if let Some(steps) = steps.get() {
            return steps.run(inputs);
        }
        let made = Steps::new(optimise(body.clone())?)?;
        steps.get_or_init(|| made).run(inputs)
    }

    not_out_of_plan!();
}

impl TypedOp for Chosen {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        self.bodies.output_facts(inputs)
    }

    fn declutter(
        &self,
        model: &TypedModel,
        node: &TypedNode,
    ) -> TractResult<Option<TypedModelPatch>> {
        self.bodies.declutter(model, node)
    }

    as_op!();
}

/// Puts the nodes of a body into `target`, and gives what they make.
fn inline(
    body: TypedModel,
    prefix: &str,
    target: &mut TypedModel,
    inputs: &[OutletId],
) -> TractResult<TVec<OutletId>> {
    let mut mapping: HashMap<OutletId, OutletId> = HashMap::new();
    for (inner, outer) in body.input_outlets()?.iter().zip(inputs) {
        mapping.insert(*inner, *outer);
    }
    for id in body.eval_order()? {
        let node = body.node(id);
        if mapping.contains_key(&OutletId::new(id, 0)) {
            continue;
        }
        let inputs: TVec<OutletId> = node.inputs.iter().map(|outlet| mapping[outlet]).collect();
        let name = format!("{prefix}.{}", node.name);
        let outputs = target.wire_node(name, node.op.clone(), &inputs)?;
        for (slot, output) in outputs.into_iter().enumerate() {
            mapping.insert(OutletId::new(id, slot), output);
        }
    }
    let outputs = body.output_outlets()?;
    Ok(outputs.iter().map(|outlet| mapping[outlet]).collect())
}
