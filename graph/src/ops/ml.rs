//! The domain `ai.onnx.ml`: what exports of scikit-learn and of boosted trees are made of.
//!
//! Each operator is a [`Kernel`]: it reads its attributes once, refuses those that cannot be meant, says
//! what it gives for inputs of some types and shapes, and computes it. [`Node`] makes one an operator of
//! the engine. Where the specification is silent the result is ONNX Runtime's, for that is what the
//! author of a model has seen.

mod attributes;
mod encoders;
mod features;
mod linear;
mod numbers;
mod scaling;
mod scores;
mod svm;
mod tensors;
mod trees;
pub(super) mod zip_map;

use std::fmt::Debug;
use std::sync::Arc;

use tract_onnx::model::{OnnxOpRegister, ParsingContext};
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_core::plan::EvalContext;
use tract_onnx::tract_hir::infer::rules::InferenceResult;
use tract_onnx::tract_hir::internal::*;

use self::attributes::Attributes;

/// The name of the domain in files.
const DOMAIN: &str = "ai.onnx.ml";

pub(super) fn register(operators: &mut OnnxOpRegister) {
    insert::<encoders::CategoryMapper>(operators);
    insert::<encoders::LabelEncoder>(operators);
    insert::<encoders::OneHotEncoder>(operators);
    insert::<features::ArrayFeatureExtractor>(operators);
    insert::<features::FeatureVectorizer>(operators);
    insert::<linear::LinearClassifier>(operators);
    insert::<linear::LinearRegressor>(operators);
    insert::<scaling::Binarizer>(operators);
    insert::<scaling::Imputer>(operators);
    insert::<scaling::Normalizer>(operators);
    insert::<scaling::Scaler>(operators);
    insert::<svm::SvmClassifier>(operators);
    insert::<svm::SvmRegressor>(operators);
    insert::<trees::TreeEnsemble>(operators);
    insert::<trees::TreeEnsembleClassifier>(operators);
    insert::<trees::TreeEnsembleRegressor>(operators);
}

/// The element type and the shape of a tensor.
type Fact = (DatumType, TVec<TDim>);

/// What an operator computes, once its attributes have been read.
trait Kernel: Debug + Send + Sync + Sized + 'static {
    /// The operator's name in files.
    const NAME: &'static str;

    /// Outputs that it can give.
    const OUTPUTS: usize = 1;

    /// Reads the attributes. Everything that `compute` indexes by is checked here.
    fn read(attributes: &Attributes<'_>) -> TractResult<Self>;

    /// Inputs that it takes.
    fn inputs(&self) -> usize {
        1
    }

    /// What it gives for these inputs, of which there are [`Kernel::inputs`].
    fn facts(&self, inputs: &[Fact]) -> TractResult<TVec<Fact>>;

    /// All outputs for these inputs, whose types [`Kernel::facts`] has accepted.
    fn compute(&self, inputs: &[TValue]) -> TractResult<TVec<Tensor>>;
}

fn insert<K: Kernel>(operators: &mut OnnxOpRegister) {
    operators.insert(K::NAME, build::<K>);
}

fn build<K: Kernel>(
    context: &ParsingContext<'_>,
    node: &NodeProto,
) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)> {
    // The engine finds an operator by its name alone.
    ensure!(
        node.domain == DOMAIN,
        "{} of domain {:?} is not implemented",
        K::NAME,
        node.domain
    );
    let kernel = K::read(&Attributes::new(context, node))?;
    let wanted = kernel.inputs();
    let got = node.input.iter().filter(|name| !name.is_empty()).count();
    ensure!(got == wanted, "it takes {wanted} inputs and is given {got}");
    let outputs: TVec<usize> = (0..node.output.len())
        .filter(|index| !node.output[*index].is_empty())
        .collect();
    ensure!(
        outputs.last().is_some_and(|last| *last < K::OUTPUTS),
        "it gives {} outputs and {} are named",
        K::OUTPUTS,
        node.output.len()
    );
    let node = Node {
        kernel: Arc::new(kernel),
        outputs,
    };
    Ok((expand(node), vec![]))
}

/// A kernel in a graph.
#[derive(Debug)]
struct Node<K> {
    kernel: Arc<K>,
    /// Those of the kernel's outputs that the file names; the engine numbers only those.
    outputs: TVec<usize>,
}

impl<K> Clone for Node<K> {
    fn clone(&self) -> Self {
        Self {
            kernel: Arc::clone(&self.kernel),
            outputs: self.outputs.clone(),
        }
    }
}

impl<K> PartialEq for Node<K> {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.kernel, &other.kernel) && self.outputs == other.outputs
    }
}

impl<K> Eq for Node<K> {}

impl<K: Kernel> Node<K> {
    fn facts(&self, inputs: &[Fact]) -> TractResult<TVec<Fact>> {
        let facts = self.kernel.facts(inputs)?;
        Ok(self
            .outputs
            .iter()
            .map(|index| facts[*index].clone())
            .collect())
    }
}

impl<K: Kernel> Expansion for Node<K> {
    fn name(&self) -> StaticName {
        K::NAME.into()
    }

    fn nboutputs(&self) -> TractResult<usize> {
        Ok(self.outputs.len())
    }

    fn runs_out_of_plan(&self) -> bool {
        false
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        solver: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        check_output_arity(outputs, self.outputs.len())?;
        let types = inputs.iter().map(|input| &input.datum_type);
        solver.given_all(types, move |solver, types: Vec<DatumType>| {
            let shapes = inputs.iter().map(|input| &input.shape);
            solver.given_all(shapes, move |solver, shapes: Vec<TVec<TDim>>| {
                let given: Vec<Fact> = types.iter().copied().zip(shapes).collect();
                let facts = self.facts(&given)?;
                for (output, (datum_type, shape)) in outputs.iter().zip(facts) {
                    solver.equals(&output.datum_type, datum_type)?;
                    solver.equals(&output.shape, ShapeFactoid::from(shape))?;
                }
                Ok(())
            })
        })
    }

    fn wire(
        &self,
        prefix: &str,
        model: &mut TypedModel,
        inputs: &[OutletId],
    ) -> TractResult<TVec<OutletId>> {
        model.wire_node(prefix, self.clone(), inputs)
    }
}

impl<K: Kernel> Op for Node<K> {
    fn name(&self) -> StaticName {
        K::NAME.into()
    }

    op_as_typed_op!();
}

impl<K: Kernel> EvalOp for Node<K> {
    // Folding a constant would make a tensor before its size is checked.
    not_out_of_plan!();

    fn eval(&self, _context: &EvalContext<'_>, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let mut all: TVec<Option<Tensor>> = self
            .kernel
            .compute(&inputs)?
            .into_iter()
            .map(Some)
            .collect();
        self.outputs
            .iter()
            .map(|index| {
                let output = all.get_mut(*index).and_then(Option::take);
                let output = output.ok_or_else(|| format_err!("output {index} is missing"))?;
                Ok(output.into_tvalue())
            })
            .collect()
    }
}

impl<K: Kernel> TypedOp for Node<K> {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let given: Vec<Fact> = inputs
            .iter()
            .map(|fact| (fact.datum_type, fact.shape.iter().cloned().collect()))
            .collect();
        let facts = self.facts(&given)?;
        Ok(facts
            .into_iter()
            .map(|(datum_type, shape)| datum_type.fact(shape.iter()))
            .collect())
    }

    as_op!();
}
