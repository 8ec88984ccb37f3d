//! From raw scores to what a model gives: the `post_transform` of trees, linear models and vector
//! machines, and the labels of classes.

use tract_onnx::prelude::{Datum, DatumType, Tensor, TractResult};
use tract_onnx::tract_hir::internal::{bail, ensure};

use super::attributes::Attributes;
use super::numbers::Real;
use super::tensors::tensor;

/// Most classes or targets of a model, so that a few bytes cannot ask for much memory.
pub(super) const CLASSES_MAX: usize = 1 << 16;

/// What is done to the scores of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PostTransform {
    None,
    Logistic,
    Softmax,
    SoftmaxZero,
    Probit,
}

impl PostTransform {
    pub(super) fn read(attributes: &Attributes<'_>) -> TractResult<Self> {
        match attributes.text("post_transform", "NONE")? {
            "NONE" => Ok(Self::None),
            "LOGISTIC" => Ok(Self::Logistic),
            "SOFTMAX" => Ok(Self::Softmax),
            "SOFTMAX_ZERO" => Ok(Self::SoftmaxZero),
            "PROBIT" => Ok(Self::Probit),
            other => bail!("there is no post_transform {other:?}"),
        }
    }

    /// Transforms the scores of one row that has a score for each of several classes.
    pub(super) fn apply<T: Real>(self, scores: &mut [T]) {
        match self {
            Self::None => {}
            Self::Logistic => each(scores, logistic),
            Self::Softmax => softmax(scores),
            Self::SoftmaxZero => softmax_zero(scores),
            Self::Probit => each(scores, probit),
        }
    }

    /// Transforms the one score of a row that has no other. ONNX Runtime leaves it alone but for
    /// `PROBIT`.
    pub(super) fn apply_alone<T: Real>(self, score: T) -> T {
        match self {
            Self::Probit => T::from_single(probit(score.single())),
            Self::None | Self::Logistic | Self::Softmax | Self::SoftmaxZero => score,
        }
    }

    /// Makes the score of a second class, as a linear model gives it, that of two. What ONNX Runtime
    /// leaves unset after `PROBIT` is zero.
    pub(super) fn apply_shared(self, score: f32) -> [f32; 2] {
        match self {
            Self::None | Self::Softmax | Self::SoftmaxZero => [1.0 - score, score],
            Self::Logistic => logistic_pair(score),
            Self::Probit => [probit(score), 0.0],
        }
    }
}

/// The score of a second class and against the first, as that of two classes.
pub(super) fn logistic_pair(score: f32) -> [f32; 2] {
    [logistic(-score), logistic(score)]
}

fn each<T: Real>(scores: &mut [T], transform: fn(f32) -> f32) {
    for score in scores {
        *score = T::from_single(transform(score.single()));
    }
}

/// `1 / (1 + exp(-x))`, in the form that does not overflow.
pub(super) fn logistic(score: f32) -> f32 {
    let upper = 1.0 / (1.0 + (-score.abs()).exp());
    if score < 0.0 { 1.0 - upper } else { upper }
}

/// The inverse of the normal distribution, by the approximation that ONNX Runtime uses.
fn probit(score: f32) -> f32 {
    const A: f32 = 0.147;
    let x = 2.0 * score - 1.0;
    let sign = if x < 0.0 { -1.0 } else { 1.0 };
    let log = ((1.0 - x) * (1.0 + x)).ln();
    #[expect(clippy::approx_constant, reason = "ONNX Runtime's constant")]
    let first = 2.0 / (3.14159 * A) + 0.5 * log;
    let second = 1.0 / A * log;
    let inverse = sign * ((first * first - second).sqrt() - first).sqrt();
    std::f32::consts::SQRT_2 * inverse
}

fn largest<T: Real>(scores: &[T]) -> T {
    let lowest = T::min_value();
    scores.iter().fold(
        lowest,
        |most, score| if *score > most { *score } else { most },
    )
}

fn softmax<T: Real>(scores: &mut [T]) {
    let largest = largest(scores);
    let mut sum = T::zero();
    for score in &mut *scores {
        *score = (*score - largest).exp();
        sum = sum + *score;
    }
    for score in scores {
        *score = *score / sum;
    }
}

/// Softmax over the scores that are not zero, which stay zero.
fn softmax_zero<T: Real>(scores: &mut [T]) {
    let zero_below = T::from_single(1e-7);
    let largest = largest(scores);
    let mut sum = T::zero();
    for score in &mut *scores {
        if score.abs() > zero_below {
            *score = (*score - largest).exp();
            sum = sum + *score;
        } else {
            *score = *score * (-largest).exp();
        }
    }
    for score in scores {
        *score = *score / sum;
    }
}

/// The labels of classes, in order.
#[derive(Debug)]
pub(super) enum Labels {
    Ints(Vec<i64>),
    Texts(Vec<String>),
}

/// The label that a row gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    /// That of the class at this index.
    Class(usize),
    /// One or zero, whatever the labels are: what ONNX Runtime says where a model's classes and
    /// its scores do not match one to one. Where labels are text it is the class at that index.
    Yes,
    /// See [`Choice::Yes`].
    No,
}

impl Labels {
    /// Reads them; text goes before numbers.
    pub(super) fn read(attributes: &Attributes<'_>, ints: &str, texts: &str) -> TractResult<Self> {
        let found_texts = attributes.texts(texts)?;
        let labels = if found_texts.is_empty() {
            Self::Ints(attributes.ints(ints)?.to_vec())
        } else {
            Self::Texts(found_texts.into_iter().map(str::to_owned).collect())
        };
        let count = labels.len();
        ensure!(count > 0, "neither {ints:?} nor {texts:?} has a label");
        ensure!(
            count <= CLASSES_MAX,
            "there are {count} classes, at most {CLASSES_MAX} are allowed"
        );
        Ok(labels)
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::Ints(labels) => labels.len(),
            Self::Texts(labels) => labels.len(),
        }
    }

    pub(super) fn datum_type(&self) -> DatumType {
        match self {
            Self::Ints(_) => i64::datum_type(),
            Self::Texts(_) => String::datum_type(),
        }
    }

    /// The labels of rows, as a tensor of one axis. Indices are below [`Labels::len`].
    pub(super) fn of(&self, choices: &[Choice]) -> TractResult<Tensor> {
        let shape = [choices.len()];
        match self {
            Self::Ints(labels) => {
                let label = |choice: &Choice| match choice {
                    Choice::Class(index) => labels[*index],
                    Choice::Yes => 1,
                    Choice::No => 0,
                };
                tensor(&shape, choices.iter().map(label).collect())
            }
            Self::Texts(labels) => {
                let label = |choice: &Choice| match choice {
                    Choice::Class(index) => labels[*index].clone(),
                    Choice::Yes => labels.get(1).map_or_else(|| "1".to_owned(), Clone::clone),
                    Choice::No => labels[0].clone(),
                };
                tensor(&shape, choices.iter().map(label).collect())
            }
        }
    }
}

/// The index of the first of the largest scores; 0 if there is none.
pub(super) fn first_largest<T: PartialOrd + Copy>(scores: &[T]) -> usize {
    let mut best = 0;
    for (index, score) in scores.iter().enumerate() {
        if *score > scores[best] {
            best = index;
        }
    }
    best
}
