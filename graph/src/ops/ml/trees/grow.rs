//! Reads trees from attributes, and runs them in the width in which the file has its numbers.

use std::collections::{HashMap, HashSet};

use tract_onnx::prelude::{DatumType, TValue, TractResult};
use tract_onnx::tract_hir::internal::{bail, ensure};

use super::super::attributes::{Attributes, Reals};
use super::super::numbers::Real;
use super::super::tensors::{cast, extents};
use super::ensemble::{Comparison, Ensemble, Growth, Weight};
use super::walk::{Aggregate, Score};

/// An ensemble in the width in which the file has its numbers.
#[derive(Debug)]
pub(super) enum Forest {
    Single(Ensemble<f32>),
    Double(Ensemble<f64>),
}

/// What receives the scores of each row, in the width in which they were computed.
pub(super) trait Finish {
    fn finish<X: Real>(&mut self, scores: &mut [Score<X>]);
}

impl Forest {
    /// Scores each row of the input, which is a table of numbers.
    pub(super) fn score(
        &self,
        input: &TValue,
        targets: usize,
        aggregate: Aggregate,
        finish: &mut impl Finish,
    ) -> TractResult<()> {
        match (self, input.datum_type()) {
            (Self::Single(trees), DatumType::F64) => {
                run::<f32, f64>(trees, input, targets, aggregate, finish)
            }
            (Self::Single(trees), _) => run::<f32, f32>(trees, input, targets, aggregate, finish),
            (Self::Double(trees), _) => run::<f64, f64>(trees, input, targets, aggregate, finish),
        }
    }

    pub(super) fn trees(&self) -> usize {
        match self {
            Self::Single(trees) => trees.roots.len(),
            Self::Double(trees) => trees.roots.len(),
        }
    }

    pub(super) fn has_negative_weight(&self) -> bool {
        match self {
            Self::Single(trees) => trees.has_negative_weight,
            Self::Double(trees) => trees.has_negative_weight,
        }
    }
}

fn run<T: Real, X: Real + From<T>>(
    trees: &Ensemble<T>,
    input: &TValue,
    targets: usize,
    aggregate: Aggregate,
    finish: &mut impl Finish,
) -> TractResult<()> {
    let (_, columns) = extents(input)?;
    ensure!(
        columns >= trees.features,
        "the input has {columns} columns, the trees use {} features",
        trees.features
    );
    let rows = cast::<X>(input)?;
    trees.score(&rows, columns, targets, aggregate, |scores| {
        finish.finish(scores);
    });
    Ok(())
}

/// Numbers of a file in one width.
pub(super) trait Width: Real {
    /// All of a list.
    fn all(values: &Reals) -> Vec<Self>;
}

impl Width for f32 {
    fn all(values: &Reals) -> Vec<Self> {
        match values {
            Reals::Single(values) => values.clone(),
            Reals::Double(values) => values.iter().map(|value| value.single()).collect(),
        }
    }
}

impl Width for f64 {
    fn all(values: &Reals) -> Vec<Self> {
        values.doubles()
    }
}

/// Trees of `TreeEnsembleClassifier` and `TreeEnsembleRegressor`, whose leaves' attributes begin with
/// `leaf`: a list of nodes, each with the numbers of its tree and within that.
pub(super) fn listed(
    attributes: &Attributes<'_>,
    leaf: &str,
    targets: usize,
) -> TractResult<Forest> {
    let values = attributes.reals("nodes_values", "nodes_values_as_tensor")?;
    let weights = attributes.reals(
        &format!("{leaf}_weights"),
        &format!("{leaf}_weights_as_tensor"),
    )?;
    if values.is_double() || weights.is_double() {
        let trees = listed_as::<f64>(attributes, leaf, targets, &values, &weights)?;
        return Ok(Forest::Double(trees));
    }
    let trees = listed_as::<f32>(attributes, leaf, targets, &values, &weights)?;
    Ok(Forest::Single(trees))
}

fn listed_as<T: Width>(
    attributes: &Attributes<'_>,
    leaf: &str,
    targets: usize,
    values: &Reals,
    weights: &Reals,
) -> TractResult<Ensemble<T>> {
    let ids = ids(attributes)?;
    let (places, roots) = places(&ids)?;
    let growth = branches(attributes, &ids, &places, &T::all(values))?;
    let list = |what: &str| attributes.ints(&format!("{leaf}_{what}"));
    let (trees, nodes) = (list("treeids")?, list("nodeids")?);
    let target_ids = list("ids")?;
    let weights = T::all(weights);
    same_length(
        weights.len(),
        &[
            (&format!("{leaf}_treeids"), trees.len()),
            (&format!("{leaf}_nodeids"), nodes.len()),
            (&format!("{leaf}_ids"), target_ids.len()),
        ],
    )?;
    let mut placed = Vec::with_capacity(weights.len());
    for (((tree, node), target), value) in trees.iter().zip(nodes).zip(target_ids).zip(weights) {
        let Some(place) = places.get(&(*tree, *node)) else {
            bail!("a weight is for node {node} of tree {tree}, which is not there");
        };
        let Ok(target) = u32::try_from(*target) else {
            bail!("a weight is for target {target}");
        };
        placed.push((*place, Weight { target, value }));
    }
    placed.sort_by_key(|(place, _)| *place);
    Ensemble::new(&growth, roots, &placed, targets)
}

/// The numbers of each node's tree and of the node within it.
type Ids = Vec<(i64, i64)>;

/// Where the node with these numbers stands.
type Places = HashMap<(i64, i64), usize>;

fn ids(attributes: &Attributes<'_>) -> TractResult<Ids> {
    let trees = attributes.ints("nodes_treeids")?;
    let nodes = attributes.ints("nodes_nodeids")?;
    ensure!(!nodes.is_empty(), "there are no trees");
    same_length(nodes.len(), &[("nodes_treeids", trees.len())])?;
    Ok(trees.iter().copied().zip(nodes.iter().copied()).collect())
}

/// Where each node stands, and the first node of each tree.
fn places(ids: &Ids) -> TractResult<(Places, Vec<u32>)> {
    let mut places = HashMap::with_capacity(ids.len());
    let mut roots = Vec::new();
    let mut trees = HashSet::new();
    let mut last = None;
    for (place, (tree, node)) in ids.iter().enumerate() {
        if places.insert((*tree, *node), place).is_some() {
            bail!("node {node} of tree {tree} is there twice");
        }
        if last != Some(*tree) {
            ensure!(
                trees.insert(*tree),
                "the nodes of tree {tree} do not follow one another"
            );
            roots.push(u32::try_from(place)?);
            last = Some(*tree);
        }
    }
    Ok((places, roots))
}

fn branches<T: Real>(
    attributes: &Attributes<'_>,
    ids: &Ids,
    places: &Places,
    values: &[T],
) -> TractResult<Vec<Growth<T>>> {
    let features = attributes.ints("nodes_featureids")?;
    let on_true = attributes.ints("nodes_truenodeids")?;
    let on_false = attributes.ints("nodes_falsenodeids")?;
    let missing = attributes.ints("nodes_missing_value_tracks_true")?;
    let modes = attributes.texts("nodes_modes")?;
    same_length(
        ids.len(),
        &[
            ("nodes_featureids", features.len()),
            ("nodes_truenodeids", on_true.len()),
            ("nodes_falsenodeids", on_false.len()),
            ("nodes_modes", modes.len()),
            ("nodes_values", values.len()),
        ],
    )?;
    let child = |tree: i64, node: i64| match places.get(&(tree, node)) {
        Some(place) => Ok(*place),
        None => bail!("node {node} of tree {tree} is a child, but not there"),
    };
    let mut growth = Vec::with_capacity(ids.len());
    for (at, (tree, _)) in ids.iter().enumerate() {
        let Some(comparison) = named(modes[at])? else {
            growth.push(Growth::Leaf);
            continue;
        };
        growth.push(Growth::Branch {
            feature: features[at],
            comparison: match missing.get(at) {
                Some(1) => comparison.or_missing(),
                Some(_) | None => comparison,
            },
            threshold: values[at],
            on_true: child(*tree, on_true[at])?,
            on_false: child(*tree, on_false[at])?,
        });
    }
    Ok(growth)
}

/// The comparison of a branch; none of a leaf.
fn named(mode: &str) -> TractResult<Option<Comparison>> {
    match mode {
        "BRANCH_LEQ" => Ok(Some(Comparison::LEQ)),
        "BRANCH_LT" => Ok(Some(Comparison::LT)),
        "BRANCH_GTE" => Ok(Some(Comparison::GTE)),
        "BRANCH_GT" => Ok(Some(Comparison::GT)),
        "BRANCH_EQ" => Ok(Some(Comparison::EQ)),
        "BRANCH_NEQ" => Ok(Some(Comparison::NEQ)),
        "LEAF" => Ok(None),
        other => bail!("there is no mode {other:?}"),
    }
}

/// Refuses lists of another length than the first of those that belong together.
pub(super) fn same_length(wanted: usize, lists: &[(&str, usize)]) -> TractResult<()> {
    for (name, got) in lists {
        ensure!(
            *got == wanted,
            "{name:?} has {got} elements where {wanted} are wanted"
        );
    }
    Ok(())
}
