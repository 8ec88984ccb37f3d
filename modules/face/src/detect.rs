//! From the network's raw output to faces: priors, box decoding, non-maximum suppression.
//!
//! The network (version RFB-320 of Linzaer/Ultra-Light-Fast-Generic-Face-Detector-1MB) is an SSD: it
//! looks at [`PRIOR_COUNT`] boxes that are fixed beforehand, the priors, and says for each how sure
//! it is of a face and how the face's box differs from the prior. Neighbouring priors find the same
//! face, so of boxes that overlap by more than [`OVERLAP_MAX`] only the surest stays.

/// Width of the network's input, in pixels.
pub const INPUT_WIDTH: usize = 320;

/// Height of the network's input, in pixels.
pub const INPUT_HEIGHT: usize = 240;

/// Boxes that the network looks at.
pub const PRIOR_COUNT: usize = 4420;

/// A face must be surer than this.
pub const SCORE_MIN: f32 = 0.7;

/// Of two boxes whose intersection over union is above this, the less sure one is dropped. The
/// value that the network's authors use.
pub const OVERLAP_MAX: f32 = 0.3;

/// Most candidates that are compared with each other: a pair takes a few nanoseconds, so an image
/// that makes every prior fire still costs less than a run of the network.
pub const CANDIDATES_MAX: usize = 512;

/// Scales of the regression, as in training.
const CENTRE_VARIANCE: f32 = 0.1;
const SIZE_VARIANCE: f32 = 0.2;

/// The feature maps: pixels a cell, and the sides of each cell's priors in pixels.
const LAYERS: [(usize, &[f32]); 4] = [
    (8, &[10.0, 16.0, 24.0]),
    (16, &[32.0, 48.0]),
    (32, &[64.0, 96.0]),
    (64, &[128.0, 192.0, 256.0]),
];

const _: () = assert!(prior_count() == PRIOR_COUNT);

/// One face.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Face {
    /// Left, top, right and bottom in pixels of the image, within it.
    pub corners: [f32; 4],
    /// How sure the network is, above [`SCORE_MIN`] and at most 1.
    pub score: f32,
}

/// The faces in the network's output, surest first.
///
/// `scores` holds two numbers for each prior (background, face) and `boxes` four (centre and size
/// relative to the prior). Fails if there are not as many as priors: another graph than this code is
/// for. A box that is not finite, as from a graph gone wrong, is no face.
pub fn faces(
    scores: &[f32],
    boxes: &[f32],
    width: usize,
    height: usize,
) -> Result<Vec<Face>, String> {
    let (score_pairs, boxes_each) = (scores.as_chunks::<2>().0, boxes.as_chunks::<4>().0);
    if scores.len() != 2 * PRIOR_COUNT || boxes.len() != 4 * PRIOR_COUNT {
        return Err(format!(
            "the graph gave {} scores and {} boxes, wanted {PRIOR_COUNT} of each",
            score_pairs.len(),
            boxes_each.len()
        ));
    }
    let mut candidates: Vec<Face> = priors()
        .zip(score_pairs.iter().zip(boxes_each))
        .filter(|(_, ([_, score], _))| *score > SCORE_MIN)
        .map(|(prior, ([_, score], regression))| Face {
            corners: corners(prior, *regression, width, height),
            score: score.min(1.0),
        })
        .filter(|face| area(face.corners) > 0.0)
        .collect();
    candidates.sort_by(|a, b| b.score.total_cmp(&a.score));
    candidates.truncate(CANDIDATES_MAX);

    let mut kept: Vec<Face> = Vec::new();
    for face in candidates {
        if kept
            .iter()
            .all(|better| overlap(better.corners, face.corners) <= OVERLAP_MAX)
        {
            kept.push(face);
        }
    }
    Ok(kept)
}

/// Intersection over union of two boxes, 0 to 1.
#[must_use]
pub fn overlap(a: [f32; 4], b: [f32; 4]) -> f32 {
    let shared = area([
        a[0].max(b[0]),
        a[1].max(b[1]),
        a[2].min(b[2]),
        a[3].min(b[3]),
    ]);
    shared / (area(a) + area(b) - shared).max(f32::MIN_POSITIVE)
}

/// Centre and size of each prior, as parts of the input's width and height, in the order of the
/// network's output: by layer, row, column and size.
pub fn priors() -> impl Iterator<Item = [f32; 4]> {
    let extent =
        |pixels: usize| f32::from(u16::try_from(pixels).expect("a layer is below 64 KiPx"));
    LAYERS.into_iter().flat_map(move |(stride, sides)| {
        let (columns, rows) = (INPUT_WIDTH.div_ceil(stride), INPUT_HEIGHT.div_ceil(stride));
        let part = move |cell: usize, input: usize| {
            ((extent(cell) + 0.5) * extent(stride) / extent(input)).min(1.0)
        };
        (0..rows * columns).flat_map(move |cell| {
            let centre = [
                part(cell % columns, INPUT_WIDTH),
                part(cell / columns, INPUT_HEIGHT),
            ];
            sides.iter().map(move |side| {
                let size = |input: usize| (side / extent(input)).min(1.0);
                [centre[0], centre[1], size(INPUT_WIDTH), size(INPUT_HEIGHT)]
            })
        })
    })
}

const fn prior_count() -> usize {
    let mut count = 0;
    let mut layer = 0;
    while layer < LAYERS.len() {
        let (stride, sides) = LAYERS[layer];
        count += INPUT_WIDTH.div_ceil(stride) * INPUT_HEIGHT.div_ceil(stride) * sides.len();
        layer += 1;
    }
    count
}

/// Corners of a face's box in pixels of the image, clipped to it.
#[expect(
    clippy::cast_precision_loss,
    reason = "an image's sides are far below 2^24"
)]
fn corners(prior: [f32; 4], regression: [f32; 4], width: usize, height: usize) -> [f32; 4] {
    let side = |axis: usize, pixels: usize| {
        let pixels = pixels as f32;
        let centre = regression[axis] * CENTRE_VARIANCE * prior[axis + 2] + prior[axis];
        let half = (regression[axis + 2] * SIZE_VARIANCE).exp() * prior[axis + 2] / 2.0;
        [(centre - half) * pixels, (centre + half) * pixels].map(|edge| {
            if edge.is_finite() {
                edge.clamp(0.0, pixels)
            } else {
                f32::NAN
            }
        })
    };
    let ([left, right], [top, bottom]) = (side(0, width), side(1, height));
    [left, top, right, bottom]
}

fn area([left, top, right, bottom]: [f32; 4]) -> f32 {
    (right - left).max(0.0) * (bottom - top).max(0.0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SIDES: (usize, usize) = (512, 400);

    fn quiet() -> (Vec<f32>, Vec<f32>) {
        (vec![0.0; 2 * PRIOR_COUNT], vec![0.0; 4 * PRIOR_COUNT])
    }

    #[test]
    fn priors_are_those_of_the_network() {
        let priors: Vec<_> = priors().collect();
        assert_eq!(priors.len(), PRIOR_COUNT);
        // First and last of the list that the network's authors generate.
        assert_eq!(priors[0], [0.0125, 4.0 / 240.0, 10.0 / 320.0, 10.0 / 240.0]);
        assert_eq!(priors[PRIOR_COUNT - 1], [0.9, 224.0 / 240.0, 0.8, 1.0]);
    }

    #[test]
    fn zero_regression_gives_the_prior_itself() {
        let (mut scores, boxes) = quiet();
        let index = PRIOR_COUNT - 12 * 10;
        scores[2 * index + 1] = 0.9;
        let found = faces(&scores, &boxes, 320, 240).unwrap();
        let [x, y, w, h] = priors().nth(index).unwrap();
        let wanted = [
            (x - w / 2.0) * 320.0,
            (y - h / 2.0) * 240.0,
            (x + w / 2.0) * 320.0,
            (y + h / 2.0) * 240.0,
        ];
        assert_eq!(found.len(), 1);
        for (got, wanted) in found[0].corners.iter().zip(wanted) {
            assert!((got - wanted.max(0.0)).abs() < 1e-3, "{:?}", found[0]);
        }
    }

    #[test]
    fn every_prior_firing_is_bounded_and_without_overlap() {
        let (_, boxes) = quiet();
        let found = faces(&vec![1.0; 2 * PRIOR_COUNT], &boxes, SIDES.0, SIDES.1).unwrap();
        assert!(!found.is_empty() && found.len() <= CANDIDATES_MAX);
    }

    #[test]
    fn another_graphs_output_is_refused() {
        let error = faces(&[0.0; 4], &[0.0; 8], 10, 10).unwrap_err();
        assert_eq!(
            error,
            "the graph gave 2 scores and 2 boxes, wanted 4420 of each"
        );
    }

    #[test]
    fn overlap_is_symmetric_and_one_only_for_the_same_box() {
        let (a, b) = ([0.0, 0.0, 2.0, 2.0], [1.0, 0.0, 3.0, 2.0]);
        assert_eq!(overlap(a, a), 1.0);
        assert_eq!(overlap(a, b), overlap(b, a));
        assert!((overlap(a, b) - 1.0 / 3.0).abs() < 1e-6);
        assert_eq!(overlap(a, [5.0, 5.0, 6.0, 6.0]), 0.0);
    }

    proptest! {
        #[test]
        fn any_output_gives_sound_faces(
            fired in prop::collection::vec((0..PRIOR_COUNT, any::<f32>(), any::<[f32; 4]>()), 0..60),
        ) {
            let (mut scores, mut boxes) = quiet();
            for (index, score, regression) in fired {
                scores[2 * index + 1] = score;
                boxes[4 * index..4 * index + 4].copy_from_slice(&regression);
            }
            let found = faces(&scores, &boxes, SIDES.0, SIDES.1).unwrap();
            for (index, face) in found.iter().enumerate() {
                let [left, top, right, bottom] = face.corners;
                prop_assert!(0.0 <= left && left < right && right <= 512.0, "{face:?}");
                prop_assert!(0.0 <= top && top < bottom && bottom <= 400.0, "{face:?}");
                prop_assert!(face.score > SCORE_MIN && face.score <= 1.0);
                for better in &found[..index] {
                    prop_assert!(better.score >= face.score);
                    prop_assert!(overlap(better.corners, face.corners) <= OVERLAP_MAX);
                }
            }
        }
    }
}
