//! Linear models: LinearClassifier, LinearRegressor.

use tract_onnx::prelude::{DatumType, TValue, TVec, Tensor, TractResult};
use tract_onnx::tract_hir::internal::{ensure, tvec};

use super::attributes::Attributes;
use super::scores::{CLASSES_MAX, Choice, Labels, PostTransform, first_largest};
use super::tensors::{extents, floats, row_count, table, tensor};
use super::{Fact, Kernel};

/// Weights by target and feature, and what is added to each target.
#[derive(Debug)]
pub(super) struct Weights {
    coefficients: Vec<f32>,
    intercepts: Vec<f32>,
}

impl Weights {
    /// Weights for a target each of `intercepts`, of which there is at least one.
    pub(super) fn new(coefficients: Vec<f32>, intercepts: Vec<f32>) -> TractResult<Self> {
        let (weights, targets) = (coefficients.len(), intercepts.len());
        ensure!(
            (1..=CLASSES_MAX).contains(&targets),
            "there are {targets} targets, not 1 to {CLASSES_MAX}"
        );
        ensure!(
            weights > 0 && weights.is_multiple_of(targets),
            "{weights} coefficients do not divide among {targets} targets"
        );
        Ok(Self {
            coefficients,
            intercepts,
        })
    }

    pub(super) fn targets(&self) -> usize {
        self.intercepts.len()
    }

    /// The score of each target for one row.
    pub(super) fn scores<'a>(&'a self, row: &'a [f32]) -> impl Iterator<Item = f32> + 'a {
        let by_target = self.coefficients.chunks_exact(self.features());
        by_target
            .zip(&self.intercepts)
            .map(|(weights, intercept)| dot(row, weights) + intercept)
    }

    pub(super) fn check_columns(&self, columns: usize) -> TractResult<()> {
        let features = self.features();
        ensure!(
            columns == features,
            "the input has {columns} columns, the model has {features} features"
        );
        Ok(())
    }

    fn features(&self) -> usize {
        self.coefficients.len() / self.targets()
    }
}

/// The sum of products, in several sums that the processor adds at once.
pub(super) fn dot(left: &[f32], right: &[f32]) -> f32 {
    const LANES: usize = 8;
    let (left_chunks, left_rest) = left.as_chunks::<LANES>();
    let (right_chunks, right_rest) = right.as_chunks::<LANES>();
    let mut sums = [0.0_f32; LANES];
    for (left, right) in left_chunks.iter().zip(right_chunks) {
        for lane in 0..LANES {
            sums[lane] += left[lane] * right[lane];
        }
    }
    let rest = left_rest.iter().zip(right_rest);
    sums.iter().sum::<f32>() + rest.map(|(left, right)| left * right).sum::<f32>()
}

/// A class for each row, and the scores of all classes.
#[derive(Debug)]
pub(super) struct LinearClassifier {
    weights: Weights,
    labels: Labels,
    post_transform: PostTransform,
}

impl Kernel for LinearClassifier {
    const NAME: &'static str = "LinearClassifier";
    const OUTPUTS: usize = 2;

    fn read(attributes: &Attributes<'_>) -> TractResult<Self> {
        let labels = Labels::read(attributes, "classlabels_ints", "classlabels_strings")?;
        let coefficients = attributes.floats("coefficients")?.to_vec();
        let intercepts = match attributes.floats("intercepts")? {
            [] => vec![0.0; labels.len()],
            intercepts => intercepts.to_vec(),
        };
        let weights = Weights::new(coefficients, intercepts)?;
        let (targets, classes) = (weights.targets(), labels.len());
        ensure!(
            classes > 1 && (targets == classes || (targets == 1 && classes == 2)),
            "there are {targets} intercepts and {classes} labels"
        );
        Ok(Self {
            weights,
            labels,
            post_transform: PostTransform::read(attributes)?,
        })
    }

    fn facts(&self, inputs: &[Fact]) -> TractResult<TVec<Fact>> {
        let rows = row_count(&inputs[0])?;
        Ok(tvec![
            (self.labels.datum_type(), tvec![rows.clone()]),
            table(DatumType::F32, rows, self.columns())
        ])
    }

    fn compute(&self, inputs: &[TValue]) -> TractResult<TVec<Tensor>> {
        let (rows, columns) = extents(&inputs[0])?;
        self.weights.check_columns(columns)?;
        let values = floats(&inputs[0])?;
        let mut choices = Vec::with_capacity(rows);
        let mut scores = Vec::with_capacity(rows * self.columns());
        for row in values.chunks_exact(columns) {
            let start = scores.len();
            scores.extend(self.weights.scores(row));
            choices.push(self.finish(start, &mut scores));
        }
        let shape = [rows, self.columns()];
        Ok(tvec![self.labels.of(&choices)?, tensor(&shape, scores)?])
    }
}

impl LinearClassifier {
    /// A score for each class, also where a single one tells two classes apart.
    fn columns(&self) -> usize {
        self.labels.len()
    }

    /// Chooses a class by the raw scores from `start` on, and makes of them what the row gives.
    fn finish(&self, start: usize, scores: &mut Vec<f32>) -> Choice {
        if let [score] = scores[start..] {
            scores.truncate(start);
            scores.extend(self.post_transform.apply_shared(score));
            return Choice::Class(usize::from(score > 0.0));
        }
        let choice = Choice::Class(first_largest(&scores[start..]));
        self.post_transform.apply(&mut scores[start..]);
        choice
    }
}

/// A weighted sum of each row's features for each target.
#[derive(Debug)]
pub(super) struct LinearRegressor {
    weights: Weights,
    post_transform: PostTransform,
}

impl Kernel for LinearRegressor {
    const NAME: &'static str = "LinearRegressor";

    fn read(attributes: &Attributes<'_>) -> TractResult<Self> {
        let targets = usize::try_from(attributes.int("targets", 1)?).unwrap_or(0);
        ensure!(
            (1..=CLASSES_MAX).contains(&targets),
            "\"targets\" is not 1 to {CLASSES_MAX}"
        );
        let intercepts = match attributes.floats("intercepts")? {
            intercepts if intercepts.len() == targets => intercepts.to_vec(),
            _ => vec![0.0; targets],
        };
        let coefficients = attributes.floats("coefficients")?.to_vec();
        Ok(Self {
            weights: Weights::new(coefficients, intercepts)?,
            post_transform: PostTransform::read(attributes)?,
        })
    }

    fn facts(&self, inputs: &[Fact]) -> TractResult<TVec<Fact>> {
        let rows = row_count(&inputs[0])?;
        Ok(tvec![table(DatumType::F32, rows, self.weights.targets())])
    }

    fn compute(&self, inputs: &[TValue]) -> TractResult<TVec<Tensor>> {
        let (rows, columns) = extents(&inputs[0])?;
        self.weights.check_columns(columns)?;
        let values = floats(&inputs[0])?;
        let targets = self.weights.targets();
        let mut scores = Vec::with_capacity(rows * targets);
        for row in values.chunks_exact(columns) {
            scores.extend(self.weights.scores(row));
        }
        for row in scores.chunks_exact_mut(targets) {
            match row {
                [score] => *score = self.post_transform.apply_alone(*score),
                row => self.post_transform.apply(row),
            }
        }
        Ok(tvec![tensor(&[rows, targets], scores)?])
    }
}
