//! One probability for each class from the scores of pairs of classes.
//!
//! Minimises, over distributions p, the sum over pairs of `(r_ji p_i - r_ij p_j)^2`, where `r_ij` is the
//! probability of class i among i and j, by the fixed-point iteration of Wu, Lin and Weng (2004).
//! In 32-bit floats and with the same end as ONNX Runtime, since the iteration stops while still far
//! enough from the optimum to be seen in the results.

use super::super::scores::logistic;

/// Rounds after which the distribution is taken as it is.
const ROUNDS_MAX: usize = 100;

/// Probabilities of pairs keep this distance from 0 and 1.
const MARGIN: f32 = 1e-7;

/// The probability of each class. `scores` and `platt` have an element for each pair.
pub(super) fn couple(scores: &[f32], platt: &[[f32; 2]], classes: usize) -> Vec<f32> {
    let mut pairs = vec![0.0; classes * classes];
    let mut each = scores.iter().zip(platt);
    for first in 0..classes {
        for second in first + 1..classes {
            if let Some((score, [a, b])) = each.next() {
                let probability = 1.0 - logistic(score * a + b);
                let probability = probability.clamp(MARGIN, 1.0 - MARGIN);
                pairs[first * classes + second] = probability;
                pairs[second * classes + first] = 1.0 - probability;
            }
        }
    }
    distribution(&pairs, classes)
}

fn distribution(pairs: &[f32], classes: usize) -> Vec<f32> {
    let matrix = matrix(pairs, classes);
    #[expect(clippy::cast_precision_loss, reason = "there are few classes")]
    let count = classes as f32;
    let tolerance = 0.005 / count;
    let mut p = vec![1.0 / count; classes];
    for _ in 0..ROUNDS_MAX {
        let mut product: Vec<f32> = matrix
            .chunks_exact(classes)
            .map(|row| sum_of_products(row, &p))
            .collect();
        let mut quadratic = sum_of_products(&p, &product);
        let farthest = product
            .iter()
            .fold(0.0_f32, |most, value| most.max((value - quadratic).abs()));
        if farthest < tolerance {
            break;
        }
        for class in 0..classes {
            let row = &matrix[class * classes..][..classes];
            let step = (quadratic - product[class]) / row[class];
            let scale = 1.0 + step;
            p[class] += step;
            quadratic =
                (quadratic + step * (step * row[class] + 2.0 * product[class])) / scale / scale;
            for other in 0..classes {
                product[other] = (product[other] + step * row[other]) / scale;
                p[other] /= scale;
            }
        }
    }
    p
}

/// In order from the first, as the tolerance expects.
fn sum_of_products(left: &[f32], right: &[f32]) -> f32 {
    left.iter()
        .zip(right)
        .map(|(left, right)| left * right)
        .sum()
}

fn matrix(pairs: &[f32], classes: usize) -> Vec<f32> {
    let mut matrix = vec![0.0; classes * classes];
    for row in 0..classes {
        for column in (0..classes).filter(|column| *column != row) {
            let against = pairs[column * classes + row];
            matrix[row * classes + row] += against * against;
            matrix[row * classes + column] = -against * pairs[row * classes + column];
        }
    }
    matrix
}
