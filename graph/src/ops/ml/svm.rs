//! Support vector machines: SVMClassifier, SVMRegressor.
//!
//! A classifier with vectors asks one machine for each pair of classes, which votes for one of the two.
//! With `prob_a` and `prob_b` the scores of the pairs become probabilities (Platt), and those are coupled
//! into one probability for each class (Wu, Lin and Weng 2004, the second method).

mod coupling;
mod regressor;

use tract_onnx::prelude::{DatumType, TValue, TVec, Tensor, TractResult};
use tract_onnx::tract_hir::internal::{bail, ensure, tvec};

pub(super) use self::regressor::SvmRegressor;
use super::attributes::Attributes;
use super::linear::{Weights, dot};
use super::scores::{Choice, Labels, PostTransform, first_largest};
use super::tensors::{extents, floats, row_count, table, tensor};
use super::{Fact, Kernel};

/// Most classes of a machine with vectors: each pair of them has a score.
const PAIRED_CLASSES_MAX: usize = 1 << 10;

/// How alike two rows are.
#[derive(Clone, Copy, Debug)]
enum Likeness {
    Linear,
    Poly,
    Rbf,
    Sigmoid,
}

#[derive(Clone, Copy, Debug)]
struct Measure {
    likeness: Likeness,
    gamma: f32,
    offset: f32,
    degree: f32,
}

impl Measure {
    fn read(attributes: &Attributes<'_>) -> TractResult<Self> {
        let likeness = match attributes.text("kernel_type", "LINEAR")? {
            "LINEAR" => Likeness::Linear,
            "POLY" => Likeness::Poly,
            "RBF" => Likeness::Rbf,
            "SIGMOID" => Likeness::Sigmoid,
            other => bail!("there is no kernel_type {other:?}"),
        };
        let [gamma, offset, degree] = match attributes.floats("kernel_params")? {
            [] => [0.0; 3],
            [gamma, offset, degree] => [*gamma, *offset, *degree],
            other => bail!("\"kernel_params\" has {} values, not 3", other.len()),
        };
        Ok(Self {
            likeness,
            gamma,
            offset,
            degree,
        })
    }

    fn of(&self, left: &[f32], right: &[f32]) -> f32 {
        let scaled = || self.gamma * dot(left, right) + self.offset;
        match self.likeness {
            Likeness::Linear => dot(left, right),
            Likeness::Poly => scaled().powf(self.degree),
            Likeness::Sigmoid => scaled().tanh(),
            Likeness::Rbf => {
                let square = |(left, right): (&f32, &f32)| (left - right) * (left - right);
                let distance: f32 = left.iter().zip(right).map(square).sum();
                (-self.gamma * distance).exp()
            }
        }
    }
}

/// Rows of the training set that a row is compared with.
#[derive(Debug)]
struct Vectors {
    values: Vec<f32>,
    columns: usize,
    measure: Measure,
}

impl Vectors {
    fn read(attributes: &Attributes<'_>, count: usize) -> TractResult<Self> {
        let values = attributes.floats("support_vectors")?.to_vec();
        ensure!(
            !values.is_empty() && values.len().is_multiple_of(count),
            "\"support_vectors\" has {} values for {count} vectors",
            values.len()
        );
        Ok(Self {
            columns: values.len() / count,
            values,
            measure: Measure::read(attributes)?,
        })
    }

    fn check_columns(&self, columns: usize) -> TractResult<()> {
        ensure!(
            columns == self.columns,
            "the input has {columns} columns, the vectors have {}",
            self.columns
        );
        Ok(())
    }

    fn likeness(&self, row: &[f32]) -> impl Iterator<Item = f32> {
        let vectors = self.values.chunks_exact(self.columns);
        vectors.map(|vector| self.measure.of(row, vector))
    }
}

/// Weights for all classes, all with the same intercept.
fn linear(attributes: &Attributes<'_>, classes: usize) -> TractResult<Weights> {
    let Some(rho) = attributes.floats("rho")?.first() else {
        bail!("\"rho\" is empty");
    };
    Measure::read(attributes)?;
    let coefficients = attributes.floats("coefficients")?.to_vec();
    Weights::new(coefficients, vec![*rho; classes])
}

/// A class for each row, and scores of classes or of pairs of classes.
#[derive(Debug)]
pub(super) struct SvmClassifier {
    machine: Machine,
    labels: Labels,
    post_transform: PostTransform,
    is_positive: bool,
    has_probabilities: bool,
}

#[derive(Debug)]
enum Machine {
    Linear(Weights),
    Pairs(Pairs),
}

impl Kernel for SvmClassifier {
    const NAME: &'static str = "SVMClassifier";
    const OUTPUTS: usize = 2;

    fn read(attributes: &Attributes<'_>) -> TractResult<Self> {
        let labels = Labels::read(attributes, "classlabels_ints", "classlabels_strings")?;
        let by_class = attributes.ints("vectors_per_class")?;
        let coefficients = attributes.floats("coefficients")?;
        let machine = if by_class.iter().all(|count| *count == 0) {
            Machine::Linear(linear(attributes, labels.len())?)
        } else {
            Machine::Pairs(Pairs::read(attributes, labels.len())?)
        };
        Ok(Self {
            machine,
            labels,
            post_transform: PostTransform::read(attributes)?,
            is_positive: coefficients.iter().all(|weight| *weight >= 0.0),
            has_probabilities: !attributes.floats("prob_a")?.is_empty(),
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
        match &self.machine {
            Machine::Linear(weights) => weights.check_columns(columns)?,
            Machine::Pairs(pairs) => pairs.vectors.check_columns(columns)?,
        }
        let values = floats(&inputs[0])?;
        let mut choices = Vec::with_capacity(rows);
        let mut scores = Vec::with_capacity(rows * self.columns());
        for row in values.chunks_exact(columns) {
            choices.push(match &self.machine {
                Machine::Linear(weights) => self.linear(weights, row, &mut scores),
                Machine::Pairs(pairs) => self.paired(pairs, row, &mut scores),
            });
        }
        let shape = [rows, self.columns()];
        Ok(tvec![self.labels.of(&choices)?, tensor(&shape, scores)?])
    }
}

impl SvmClassifier {
    fn columns(&self) -> usize {
        let classes = self.labels.len();
        match &self.machine {
            Machine::Pairs(pairs) if pairs.platt.is_none() && classes > 2 => pair_count(classes),
            Machine::Pairs(_) | Machine::Linear(_) => classes,
        }
    }

    fn linear(&self, weights: &Weights, row: &[f32], scores: &mut Vec<f32>) -> Choice {
        let start = scores.len();
        scores.extend(weights.scores(row));
        let row = &mut scores[start..];
        let best = first_largest(row);
        let is_second = match self.is_positive {
            true => row[best] >= 0.5,
            false => row[best] > 0.0,
        };
        let is_second = is_second && row.len() == 2 && !self.has_probabilities;
        match row {
            [score] => *score = self.post_transform.apply_alone(*score),
            row => self.post_transform.apply(row),
        }
        Choice::Class(if is_second { 1 } else { best })
    }

    fn paired(&self, pairs: &Pairs, row: &[f32], scores: &mut Vec<f32>) -> Choice {
        let start = scores.len();
        let choice = Choice::Class(pairs.vote(row, scores));
        let classes = self.labels.len();
        if let Some(platt) = &pairs.platt {
            let coupled = coupling::couple(&scores[start..], platt, classes);
            scores.truncate(start);
            scores.extend(coupled);
        } else if classes == 2 {
            let score = scores[start];
            scores.truncate(start);
            scores.extend(match self.post_transform {
                PostTransform::None => [-score, score],
                other => other.apply_shared(score),
            });
            return choice;
        }
        self.post_transform.apply(&mut scores[start..]);
        choice
    }
}

fn pair_count(classes: usize) -> usize {
    classes * (classes - 1) / 2
}

/// A machine for each pair of classes.
#[derive(Debug)]
struct Pairs {
    vectors: Vectors,
    /// Where the vectors of each class begin, and where the last end.
    bounds: Vec<usize>,
    /// A weight for each vector against each of the other classes.
    coefficients: Vec<f32>,
    rho: Vec<f32>,
    /// For each pair what makes a score a probability.
    platt: Option<Vec<[f32; 2]>>,
}

impl Pairs {
    fn read(attributes: &Attributes<'_>, classes: usize) -> TractResult<Self> {
        ensure!(
            (2..=PAIRED_CLASSES_MAX).contains(&classes),
            "there are {classes} labels, not 2 to {PAIRED_CLASSES_MAX}"
        );
        let coefficients = attributes.floats("coefficients")?;
        let mut bounds = vec![0_usize];
        for count in attributes.ints("vectors_per_class")? {
            let last = bounds.last().copied().unwrap_or_default();
            match usize::try_from(*count) {
                Ok(count) if count <= coefficients.len() => bounds.push(last + count),
                Ok(_) | Err(_) => bail!("\"vectors_per_class\" has {count}"),
            }
        }
        ensure!(
            bounds.len() == classes + 1,
            "\"vectors_per_class\" has {} values for {classes} labels",
            bounds.len() - 1
        );
        let vectors = bounds.last().copied().unwrap_or_default();
        ensure!(
            coefficients.len() / vectors >= classes - 1,
            "there are {} coefficients for {vectors} vectors and {classes} classes",
            coefficients.len()
        );
        let pairs = pair_count(classes);
        let by_pair = |name: &str| {
            let values = attributes.floats(name)?;
            ensure!(
                values.is_empty() || values.len() >= pairs,
                "{name:?} has {} values for {pairs} pairs of classes",
                values.len()
            );
            Ok(values)
        };
        let (rho, a, b) = (by_pair("rho")?, by_pair("prob_a")?, by_pair("prob_b")?);
        ensure!(!rho.is_empty(), "\"rho\" is empty");
        ensure!(
            a.len() == b.len(),
            "\"prob_a\" and \"prob_b\" differ in length"
        );
        let platt: Vec<[f32; 2]> = a.iter().zip(b).map(|(a, b)| [*a, *b]).collect();
        Ok(Self {
            vectors: Vectors::read(attributes, vectors)?,
            bounds,
            coefficients: coefficients.to_vec(),
            rho: rho.to_vec(),
            platt: (!platt.is_empty()).then_some(platt),
        })
    }

    /// Appends the score of each pair and returns the first class with the most votes.
    fn vote(&self, row: &[f32], scores: &mut Vec<f32>) -> usize {
        let likeness: Vec<f32> = self.vectors.likeness(row).collect();
        let classes = self.bounds.len() - 1;
        let mut votes = vec![0_usize; classes];
        let mut rhos = self.rho.iter();
        for first in 0..classes {
            for second in first + 1..classes {
                let sum = self.weighted(&likeness, first, second - 1)
                    + self.weighted(&likeness, second, first)
                    + rhos.next().map_or(0.0, |rho| f64::from(*rho));
                #[expect(clippy::cast_possible_truncation, reason = "rounding is meant")]
                scores.push(sum as f32);
                votes[if sum > 0.0 { first } else { second }] += 1;
            }
        }
        first_largest(&votes)
    }

    /// What the vectors of a class say, by the weights of one row of coefficients.
    fn weighted(&self, likeness: &[f32], class: usize, row: usize) -> f64 {
        let range = self.bounds[class]..self.bounds[class + 1];
        let weights = &self.coefficients[row * likeness.len()..][range.clone()];
        let terms = weights.iter().zip(&likeness[range]);
        terms
            .map(|(weight, likeness)| f64::from(weight * likeness))
            .sum()
    }
}
