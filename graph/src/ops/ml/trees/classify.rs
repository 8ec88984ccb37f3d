//! TreeEnsembleClassifier: a class for each row, and the scores of all classes.
//!
//! How two classes share one score, and what base values do then, is not in the specification; exports
//! depend on what ONNX Runtime makes of it, which is what this computes.

use tract_onnx::prelude::{DatumType, TValue, TVec, Tensor, TractResult};
use tract_onnx::tract_hir::internal::{ensure, tvec};

use super::super::attributes::Attributes;
use super::super::numbers::Real;
use super::super::scores::{Choice, Labels, PostTransform, logistic_pair};
use super::super::tensors::{extents, row_count, table, tensor};
use super::super::{Fact, Kernel};
use super::grow::{Finish, Forest, listed};
use super::walk::{Aggregate, Score};

#[derive(Debug)]
pub(in super::super) struct TreeEnsembleClassifier {
    forest: Forest,
    labels: Labels,
    rule: Rule,
}

impl Kernel for TreeEnsembleClassifier {
    const NAME: &'static str = "TreeEnsembleClassifier";
    const OUTPUTS: usize = 2;

    fn read(attributes: &Attributes<'_>) -> TractResult<Self> {
        let labels = Labels::read(attributes, "classlabels_int64s", "classlabels_strings")?;
        let classes = labels.len();
        let forest = listed(attributes, "class", classes)?;
        let base_values = attributes
            .reals("base_values", "base_values_as_tensor")?
            .doubles();
        let given = base_values.len();
        ensure!(
            given == 0 || given == classes || (given == 1 && classes == 2),
            "there are {given} base_values for {classes} classes"
        );
        let ids = attributes.ints("class_ids")?;
        let rule = Rule {
            classes,
            base_values,
            post_transform: PostTransform::read(attributes)?,
            is_positive: !forest.has_negative_weight(),
            is_binary: classes == 2 && ids.iter().all(|id| *id == ids[0]),
        };
        Ok(Self {
            forest,
            labels,
            rule,
        })
    }

    fn facts(&self, inputs: &[Fact]) -> TractResult<TVec<Fact>> {
        let rows = row_count(&inputs[0])?;
        Ok(tvec![
            (self.labels.datum_type(), tvec![rows.clone()]),
            table(DatumType::F32, rows, self.labels.len())
        ])
    }

    fn compute(&self, inputs: &[TValue]) -> TractResult<TVec<Tensor>> {
        let (rows, _) = extents(&inputs[0])?;
        let classes = self.labels.len();
        let mut rows_done = Rows {
            rule: &self.rule,
            choices: Vec::with_capacity(rows),
            scores: Vec::with_capacity(rows * classes),
        };
        let forest = &self.forest;
        forest.score(&inputs[0], classes, Aggregate::Sum, &mut rows_done)?;
        Ok(tvec![
            self.labels.of(&rows_done.choices)?,
            tensor(&[rows, classes], rows_done.scores)?
        ])
    }
}

struct Rows<'a> {
    rule: &'a Rule,
    choices: Vec<Choice>,
    scores: Vec<f32>,
}

impl Finish for Rows<'_> {
    fn finish<X: Real>(&mut self, scores: &mut [Score<X>]) {
        let choice = match scores {
            [_] => self.rule.one(scores, &mut self.scores),
            [_, _] => self.rule.two(scores, &mut self.scores),
            _ => self.rule.many(scores, &mut self.scores),
        };
        self.choices.push(choice);
    }
}

/// How scores become a class and what the row gives.
#[derive(Debug)]
struct Rule {
    classes: usize,
    base_values: Vec<f64>,
    post_transform: PostTransform,
    /// No weight is negative.
    is_positive: bool,
    /// There are two classes, and all weights are for the same of them.
    is_binary: bool,
}

/// What the second class gets where there is one score for two.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Second {
    /// Nothing is known of it.
    Absent,
    /// The score is a probability, and the first class has the rest.
    Complement,
    /// The score is for the second class and against the first.
    Opposite,
}

impl Rule {
    fn base<X: Real>(&self, class: usize) -> X {
        X::from_double(self.base_values[class])
    }

    fn one<X: Real>(&self, scores: &[Score<X>], out: &mut Vec<f32>) -> Choice {
        let base = match self.base_values.first() {
            Some(_) => self.base(0),
            None => X::zero(),
        };
        let score = scores[0].value + base;
        out.push(self.post_transform.apply_alone(score).single());
        yes_or_no(score > X::zero())
    }

    fn two<X: Real>(&self, scores: &mut [Score<X>], out: &mut Vec<f32>) -> Choice {
        let both = match self.base_values.len() {
            0 => scores[1].is_given,
            1 => {
                scores[0].value = scores[0].value + self.base(0);
                scores[1].is_given
            }
            _ if scores[1].is_given => {
                scores[1].value = scores[0].value + self.base(1);
                scores[0].value = -scores[1].value;
                true
            }
            _ => {
                scores[0].value = scores[0].value + self.base(0);
                scores[1].value = scores[1].value + self.base(1);
                true
            }
        };
        let weight = match scores {
            [_, second] if second.is_given => second.value,
            [first, ..] if first.is_given => first.value,
            _ => X::zero(),
        };
        let (choice, second) = self.choose(weight);
        if both {
            let mut pair = [scores[0].given(), scores[1].given()];
            self.post_transform.apply(&mut pair);
            out.extend(pair.map(X::single));
        } else {
            out.extend(self.share(scores[0].given(), second));
        }
        choice
    }

    fn choose<X: Real>(&self, weight: X) -> (Choice, Second) {
        if !self.is_binary {
            let second = match self.base_values.len() {
                0 => Second::Opposite,
                _ => Second::Absent,
            };
            return (yes_or_no(weight > X::zero()), second);
        }
        let (threshold, second) = match self.is_positive {
            true => (X::from_single(0.5), Second::Complement),
            false => (X::zero(), Second::Opposite),
        };
        (Choice::Class(usize::from(weight > threshold)), second)
    }

    /// One score as that of two classes.
    fn share<X: Real>(&self, score: X, second: Second) -> [f32; 2] {
        if self.post_transform == PostTransform::Probit || second == Second::Absent {
            return [self.post_transform.apply_alone(score).single(), 0.0];
        }
        match second {
            Second::Complement => [(X::one() - score).single(), score.single()],
            Second::Opposite if self.post_transform == PostTransform::Logistic => {
                logistic_pair(score.single())
            }
            Second::Opposite | Second::Absent => [-score.single(), score.single()],
        }
    }

    fn many<X: Real>(&self, scores: &mut [Score<X>], out: &mut Vec<f32>) -> Choice {
        for (class, score) in scores.iter_mut().take(self.base_values.len()).enumerate() {
            score.value = score.value + self.base(class);
            score.is_given = true;
        }
        let mut best: Option<usize> = None;
        for (class, score) in scores.iter().enumerate() {
            if score.is_given && best.is_none_or(|best| score.value > scores[best].value) {
                best = Some(class);
            }
        }
        let mut values: Vec<X> = scores.iter().map(Score::given).collect();
        self.post_transform.apply(&mut values);
        debug_assert_eq!(values.len(), self.classes);
        out.extend(values.into_iter().map(X::single));
        Choice::Class(best.unwrap_or(0))
    }
}

fn yes_or_no(is_yes: bool) -> Choice {
    if is_yes { Choice::Yes } else { Choice::No }
}
