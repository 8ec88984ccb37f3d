//! TreeEnsembleRegressor and TreeEnsemble: a number for each target.

use tract_onnx::prelude::{DatumType, TValue, TVec, Tensor, TractResult};
use tract_onnx::tract_hir::internal::{bail, ensure, tvec};

use super::super::attributes::Attributes;
use super::super::numbers::Real;
use super::super::scores::{CLASSES_MAX, PostTransform};
use super::super::tensors::{extents, row_count, table, tensor};
use super::super::{Fact, Kernel};
use super::grow::{Finish, Forest, listed};
use super::numbered::numbered;
use super::walk::{Aggregate, Score};

fn targets(attributes: &Attributes<'_>) -> TractResult<usize> {
    let targets = attributes.int("n_targets", 0)?;
    match usize::try_from(targets) {
        Ok(targets) if (1..=CLASSES_MAX).contains(&targets) => Ok(targets),
        Ok(_) | Err(_) => bail!("\"n_targets\" is {targets}, not 1 to {CLASSES_MAX}"),
    }
}

/// Trees whose leaves are listed with numbers of trees and nodes.
#[derive(Debug)]
pub(in super::super) struct TreeEnsembleRegressor {
    forest: Forest,
    rule: Rule,
}

impl Kernel for TreeEnsembleRegressor {
    const NAME: &'static str = "TreeEnsembleRegressor";

    fn read(attributes: &Attributes<'_>) -> TractResult<Self> {
        let targets = targets(attributes)?;
        let forest = listed(attributes, "target", targets)?;
        let aggregate = match attributes.text("aggregate_function", "SUM")? {
            "SUM" => Aggregate::Sum,
            "AVERAGE" => Aggregate::Average,
            "MIN" => Aggregate::Min,
            "MAX" => Aggregate::Max,
            other => bail!("there is no aggregate_function {other:?}"),
        };
        let base_values = attributes
            .reals("base_values", "base_values_as_tensor")?
            .doubles();
        let post_transform = PostTransform::read(attributes)?;
        Ok(Self {
            rule: Rule::new(&forest, targets, aggregate, base_values, post_transform)?,
            forest,
        })
    }

    fn facts(&self, inputs: &[Fact]) -> TractResult<TVec<Fact>> {
        let rows = row_count(&inputs[0])?;
        Ok(tvec![table(DatumType::F32, rows, self.rule.targets)])
    }

    fn compute(&self, inputs: &[TValue]) -> TractResult<TVec<Tensor>> {
        Ok(tvec![self.rule.compute(&self.forest, &inputs[0])?])
    }
}

/// Trees whose branches and leaves are lists of their own.
#[derive(Debug)]
pub(in super::super) struct TreeEnsemble {
    forest: Forest,
    rule: Rule,
}

impl Kernel for TreeEnsemble {
    const NAME: &'static str = "TreeEnsemble";

    fn read(attributes: &Attributes<'_>) -> TractResult<Self> {
        let targets = targets(attributes)?;
        let forest = numbered(attributes, targets)?;
        let aggregate = match attributes.int("aggregate_function", 1)? {
            0 => Aggregate::Average,
            1 => Aggregate::Sum,
            2 => Aggregate::Min,
            3 => Aggregate::Max,
            other => bail!("there is no aggregate_function {other}"),
        };
        let post_transform = match attributes.int("post_transform", 0)? {
            0 => PostTransform::None,
            1 => PostTransform::Softmax,
            2 => PostTransform::Logistic,
            3 => PostTransform::SoftmaxZero,
            4 => PostTransform::Probit,
            other => bail!("there is no post_transform {other}"),
        };
        Ok(Self {
            rule: Rule::new(&forest, targets, aggregate, Vec::new(), post_transform)?,
            forest,
        })
    }

    fn facts(&self, inputs: &[Fact]) -> TractResult<TVec<Fact>> {
        let (datum_type, _) = inputs[0];
        ensure!(
            matches!(datum_type, DatumType::F32 | DatumType::F64),
            "the input has elements of type {datum_type:?}"
        );
        let rows = row_count(&inputs[0])?;
        Ok(tvec![table(datum_type, rows, self.rule.targets)])
    }

    fn compute(&self, inputs: &[TValue]) -> TractResult<TVec<Tensor>> {
        let output = self.rule.compute(&self.forest, &inputs[0])?;
        let output = output.cast_to_dt(inputs[0].datum_type())?.into_owned();
        Ok(tvec![output])
    }
}

/// How the weights of a row's leaves become what the row gives.
#[derive(Debug)]
struct Rule {
    targets: usize,
    trees: f64,
    aggregate: Aggregate,
    /// One for each target, or none.
    base_values: Vec<f64>,
    post_transform: PostTransform,
}

impl Rule {
    fn new(
        forest: &Forest,
        targets: usize,
        aggregate: Aggregate,
        base_values: Vec<f64>,
        post_transform: PostTransform,
    ) -> TractResult<Self> {
        let given = base_values.len();
        ensure!(
            given == 0 || given == targets,
            "there are {given} base_values for {targets} targets"
        );
        #[expect(clippy::cast_precision_loss, reason = "fewer than 2^32 trees")]
        let trees = forest.trees() as f64;
        Ok(Self {
            targets,
            trees,
            aggregate,
            base_values,
            post_transform,
        })
    }

    fn compute(&self, forest: &Forest, input: &TValue) -> TractResult<Tensor> {
        let (rows, _) = extents(input)?;
        let mut done = Rows {
            rule: self,
            values: Vec::with_capacity(rows * self.targets),
        };
        forest.score(input, self.targets, self.aggregate, &mut done)?;
        tensor(&[rows, self.targets], done.values)
    }
}

struct Rows<'a> {
    rule: &'a Rule,
    values: Vec<f32>,
}

impl Finish for Rows<'_> {
    fn finish<X: Real>(&mut self, scores: &mut [Score<X>]) {
        let rule = self.rule;
        let value = |(target, score): (usize, &Score<X>)| {
            let value = match rule.aggregate {
                Aggregate::Average => score.value / X::from_double(rule.trees),
                Aggregate::Sum | Aggregate::Min | Aggregate::Max => score.value,
            };
            match rule.base_values.get(target) {
                Some(base) => value + X::from_double(*base),
                None => value,
            }
        };
        if let [score] = scores {
            let value = rule.post_transform.apply_alone(value((0, score)));
            self.values.push(value.single());
            return;
        }
        // ONNX Runtime adds no base value to a target that no leaf of the row is for.
        let mut values: Vec<X> = scores
            .iter()
            .enumerate()
            .map(|(target, score)| match score.is_given {
                true => value((target, score)),
                false => X::zero(),
            })
            .collect();
        rule.post_transform.apply(&mut values);
        self.values.extend(values.into_iter().map(X::single));
    }
}
