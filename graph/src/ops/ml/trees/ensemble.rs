//! The trees of an ensemble as one array of nodes, checked once so that walking cannot go wrong.
//!
//! A node names its children by their places. A leaf is its own child, so that a walk needs no test
//! for leaves but that nothing moves any more. What a node's comparison accepts is four bits: below,
//! equal, above, and neither (not a number), which makes all modes and the track of missing values
//! one operation without a branch. Children may be shared, as exports of LightGBM do for categories.

use tract_onnx::prelude::TractResult;
use tract_onnx::tract_hir::internal::{bail, ensure};

use super::super::numbers::Real;

/// Most features that a node may ask for; the rest of the word holds the comparison.
const FEATURES_MAX: u32 = 1 << FEATURE_BITS;
const FEATURE_BITS: u32 = 28;

/// Most nodes that one row may pass through: some seconds of time for a hundred rows.
const STEPS_MAX: u64 = 1 << 24;

/// A set of outcomes of comparing a feature with a threshold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Comparison(u32);

impl Comparison {
    pub(super) const LEQ: Self = Self(0b0011);
    pub(super) const LT: Self = Self(0b0001);
    pub(super) const GTE: Self = Self(0b0110);
    pub(super) const GT: Self = Self(0b0100);
    pub(super) const EQ: Self = Self(0b0010);
    /// What is not a number differs from all.
    pub(super) const NEQ: Self = Self(0b1101);

    /// The same, but true for what is not a number.
    pub(super) fn or_missing(self) -> Self {
        Self(self.0 | 0b1000)
    }
}

/// A comparison and the places of its two children, or a leaf.
#[derive(Clone, Copy, Debug)]
pub(super) struct Node<T> {
    /// What the feature is compared with; of a leaf the weight.
    pub(super) value: T,
    /// The feature in the lower bits, the comparison in the upper.
    choice: u32,
    on_true: u32,
    on_false: u32,
}

impl<T: Real> Node<T> {
    /// The feature's place in a row.
    #[inline]
    pub(super) fn feature(&self) -> usize {
        (self.choice & (FEATURES_MAX - 1)) as usize
    }

    /// The place of the child that `value` leads to.
    #[inline]
    pub(super) fn next<X: Real>(&self, value: X, threshold: X) -> u32 {
        let outcome = u32::from(value < threshold)
            | u32::from(value == threshold) << 1
            | u32::from(value > threshold) << 2;
        let outcome = if outcome == 0 { 8 } else { outcome };
        let is_true = outcome & (self.choice >> FEATURE_BITS) != 0;
        std::hint::select_unpredictable(is_true, self.on_true, self.on_false)
    }

    /// The same where each comparison is [`Comparison::LEQ`].
    #[inline]
    pub(super) fn next_below<X: Real>(&self, value: X, threshold: X) -> u32 {
        std::hint::select_unpredictable(value <= threshold, self.on_true, self.on_false)
    }
}

/// What a leaf adds to one target.
#[derive(Clone, Copy, Debug)]
pub(super) struct Weight<T> {
    pub(super) target: u32,
    pub(super) value: T,
}

/// A node as files have it, with places of other nodes in the same list.
#[derive(Clone, Copy, Debug)]
pub(super) enum Growth<T> {
    Branch {
        feature: i64,
        comparison: Comparison,
        threshold: T,
        on_true: usize,
        on_false: usize,
    },
    Leaf,
}

/// What the leaves of an ensemble give.
#[derive(Debug)]
pub(super) enum Leaves<T> {
    /// Each the one weight that its node holds, all for the same target.
    Single { target: usize },
    /// Each a range of weights, by the place of its node.
    Many {
        ranges: Vec<[u32; 2]>,
        weights: Vec<Weight<T>>,
    },
}

/// Trees that have been checked: places of children exist, no path is endless.
#[derive(Debug)]
pub(super) struct Ensemble<T> {
    pub(super) nodes: Vec<Node<T>>,
    pub(super) roots: Vec<u32>,
    pub(super) leaves: Leaves<T>,
    /// Whether each comparison is [`Comparison::LEQ`].
    pub(super) is_plain: bool,
    /// Columns that a row must have.
    pub(super) features: usize,
    /// Of all leaves.
    pub(super) has_negative_weight: bool,
}

impl<T: Real> Ensemble<T> {
    /// Checks and packs trees. `weights` names the place of a leaf for each weight; all those of one
    /// leaf follow one another. Targets are below `targets`. A leaf without weights is refused.
    pub(super) fn new(
        growth: &[Growth<T>],
        roots: Vec<u32>,
        weights: &[(usize, Weight<T>)],
        targets: usize,
    ) -> TractResult<Self> {
        let mut is_plain = true;
        let mut features = 1;
        let mut nodes = Vec::with_capacity(growth.len());
        for (place, node) in growth.iter().enumerate() {
            let node = pack(place, node, growth.len())?;
            if let Growth::Branch { comparison, .. } = &growth[place] {
                is_plain &= *comparison == Comparison::LEQ;
                features = features.max(node.feature() + 1);
            }
            nodes.push(node);
        }
        check_paths(&nodes, &roots)?;
        for (_, weight) in weights {
            ensure!(
                (weight.target as usize) < targets,
                "a leaf adds to target {}, there are {targets}",
                weight.target
            );
        }
        let leaves = attach(&mut nodes, growth, weights, targets)?;
        Ok(Self {
            nodes,
            roots,
            leaves,
            is_plain,
            features,
            has_negative_weight: weights.iter().any(|(_, weight)| weight.value < T::zero()),
        })
    }
}

fn pack<T: Real>(place: usize, node: &Growth<T>, count: usize) -> TractResult<Node<T>> {
    let to_place = |child: usize| match u32::try_from(child) {
        Ok(packed) if child < count => Ok(packed),
        Ok(_) | Err(_) => bail!("node {place} has child {child} of {count} nodes"),
    };
    match node {
        Growth::Leaf => Ok(Node {
            value: T::zero(),
            choice: 0,
            on_true: to_place(place)?,
            on_false: to_place(place)?,
        }),
        Growth::Branch {
            feature,
            comparison,
            threshold,
            on_true,
            on_false,
        } => {
            let feature = u32::try_from(*feature).ok();
            let Some(feature) = feature.filter(|feature| *feature < FEATURES_MAX) else {
                bail!("node {place} asks for a feature that is not below {FEATURES_MAX}");
            };
            ensure!(
                *on_true != place && *on_false != place,
                "node {place} is its own child"
            );
            Ok(Node {
                value: *threshold,
                choice: feature | comparison.0 << FEATURE_BITS,
                on_true: to_place(*on_true)?,
                on_false: to_place(*on_false)?,
            })
        }
    }
}

/// Gives the leaves their weights.
fn attach<T: Real>(
    nodes: &mut [Node<T>],
    growth: &[Growth<T>],
    weights: &[(usize, Weight<T>)],
    targets: usize,
) -> TractResult<Leaves<T>> {
    let mut ranges = vec![[0_u32; 2]; nodes.len()];
    let mut kept: Vec<Weight<T>> = Vec::with_capacity(weights.len());
    for (place, weight) in weights {
        // Old converters give weights to branches too, where they mean nothing.
        if matches!(growth[*place], Growth::Branch { .. }) {
            continue;
        }
        let [start, end] = &mut ranges[*place];
        let at = u32::try_from(kept.len())?;
        if start == end {
            *start = at;
            nodes[*place].value = weight.value;
        }
        *end = at + 1;
        kept.push(*weight);
    }
    for (place, node) in growth.iter().enumerate() {
        if matches!(node, Growth::Leaf) && ranges[place][0] == ranges[place][1] {
            bail!("leaf {place} has no weight");
        }
    }
    // ONNX Runtime takes the first weight of a leaf where there is one target.
    if targets == 1 {
        return Ok(Leaves::Single { target: 0 });
    }
    let target = kept.first().map_or(0, |weight| weight.target);
    let is_single = ranges.iter().all(|[start, end]| end - start <= 1)
        && kept.iter().all(|weight| weight.target == target);
    if is_single {
        let target = target as usize;
        return Ok(Leaves::Single { target });
    }
    let weights = kept;
    Ok(Leaves::Many { ranges, weights })
}

/// Refuses endless paths, and more steps for a row than it may take.
fn check_paths<T: Real>(nodes: &[Node<T>], roots: &[u32]) -> TractResult<()> {
    const NEW: u32 = 0;
    const OPEN: u32 = u32::MAX;
    // Steps to the farthest leaf and one more, once it is known.
    let mut heights = vec![NEW; nodes.len()];
    let mut open = Vec::new();
    let mut steps = 0_u64;
    for root in roots {
        let root = *root as usize;
        ensure!(root < nodes.len(), "a tree begins at node {root}");
        open.push(root);
        while let Some(place) = open.last().copied() {
            let node = &nodes[place];
            let children = [node.on_true as usize, node.on_false as usize];
            if children[0] == place {
                heights[place] = 1;
            }
            if heights[place] != NEW && heights[place] != OPEN {
                open.pop();
                continue;
            }
            let is_first_visit = heights[place] == NEW;
            heights[place] = OPEN;
            let waiting = open.len();
            for child in children {
                match heights[child] {
                    NEW => open.push(child),
                    OPEN if is_first_visit => bail!("node {child} can be reached from itself"),
                    _ => {}
                }
            }
            if open.len() == waiting {
                heights[place] = 1 + heights[children[0]].max(heights[children[1]]);
                open.pop();
            }
        }
        steps += u64::from(heights[root]);
    }
    ensure!(
        steps <= STEPS_MAX,
        "a row may pass through {steps} nodes, at most {STEPS_MAX} are allowed"
    );
    Ok(())
}
