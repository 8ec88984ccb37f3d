//! Trees of `TreeEnsemble`: lists of branches and of leaves, whose places are their numbers.

use tract_onnx::prelude::TractResult;
use tract_onnx::tract_hir::internal::{bail, ensure};

use super::super::attributes::{Attributes, Reals};
use super::super::numbers::Real;
use super::super::tensors::elements;
use super::ensemble::{Comparison, Ensemble, Growth, Weight};
use super::grow::{Forest, Width, same_length};

/// Reads them for `targets` targets.
pub(super) fn numbered(attributes: &Attributes<'_>, targets: usize) -> TractResult<Forest> {
    let reals = |name: &str| match attributes.tensor(name)? {
        Some(tensor) => Reals::from_tensor(&tensor, name),
        None => Ok(Reals::Single(Vec::new())),
    };
    let splits = reals("nodes_splits")?;
    let weights = reals("leaf_weights")?;
    let members = reals("membership_values")?;
    if splits.is_double() || weights.is_double() {
        let trees = numbered_as::<f64>(attributes, targets, &splits, &weights, &members)?;
        return Ok(Forest::Double(trees));
    }
    let trees = numbered_as::<f32>(attributes, targets, &splits, &weights, &members)?;
    Ok(Forest::Single(trees))
}

fn numbered_as<T: Width>(
    attributes: &Attributes<'_>,
    targets: usize,
    splits: &Reals,
    weights: &Reals,
    members: &Reals,
) -> TractResult<Ensemble<T>> {
    let target_ids = attributes.ints("leaf_targetids")?;
    same_length(weights.len(), &[("leaf_targetids", target_ids.len())])?;
    let growth = numbered_branches(attributes, &T::all(splits), weights.len(), &T::all(members))?;
    let branch_count = splits.len();
    let mut placed = Vec::with_capacity(weights.len());
    for (at, (target, value)) in target_ids.iter().zip(T::all(weights)).enumerate() {
        let Ok(target) = u32::try_from(*target) else {
            bail!("a leaf adds to target {target}");
        };
        placed.push((branch_count + at, Weight { target, value }));
    }
    let roots = attributes.ints("tree_roots")?;
    let roots = roots
        .iter()
        .map(|root| match u32::try_from(*root) {
            Ok(packed) if (packed as usize) < branch_count => Ok(packed),
            Ok(_) | Err(_) => bail!("a tree begins at node {root} of {branch_count}"),
        })
        .collect::<TractResult<Vec<u32>>>()?;
    ensure!(!roots.is_empty(), "there are no trees");
    Ensemble::new(&growth, roots, &placed, targets)
}

/// Branches, then leaves, then what branches by membership need beside their own place: such a branch
/// becomes a chain, one comparison for each member.
fn numbered_branches<T: Real>(
    attributes: &Attributes<'_>,
    splits: &[T],
    leaf_count: usize,
    members: &[T],
) -> TractResult<Vec<Growth<T>>> {
    const MEMBER: u8 = 6;
    let count = splits.len();
    let modes = match attributes.tensor("nodes_modes")? {
        Some(modes) => elements::<u8>(&modes)?.to_vec(),
        None => Vec::new(),
    };
    let features = attributes.ints("nodes_featureids")?;
    let missing = attributes.ints("nodes_missing_value_tracks_true")?;
    let on_true = children(attributes, "true", count, leaf_count)?;
    let on_false = children(attributes, "false", count, leaf_count)?;
    same_length(
        count,
        &[
            ("nodes_modes", modes.len()),
            ("nodes_featureids", features.len()),
        ],
    )?;
    let mut sets = members.split(|value| value.is_nan());
    let mut growth: Vec<Growth<T>> = Vec::with_capacity(count + leaf_count);
    let mut chains: Vec<Growth<T>> = Vec::new();
    for at in 0..count {
        let track = |comparison: Comparison| match missing.get(at) {
            Some(0) | None => comparison,
            Some(_) => comparison.or_missing(),
        };
        let branch = |comparison: Comparison, threshold: T, on_false: usize| Growth::Branch {
            feature: features[at],
            comparison: track(comparison),
            threshold,
            on_true: on_true[at],
            on_false,
        };
        if modes[at] != MEMBER {
            growth.push(branch(numbered_mode(modes[at])?, splits[at], on_false[at]));
            continue;
        }
        let Some([first, rest @ ..]) = sets.next() else {
            bail!("node {at} asks for membership of an empty set");
        };
        let first_link = count + leaf_count + chains.len();
        for (link, value) in rest.iter().enumerate() {
            let is_last = link + 1 == rest.len();
            let next = if is_last {
                on_false[at]
            } else {
                first_link + link + 1
            };
            chains.push(branch(Comparison::EQ, *value, next));
        }
        let next = if rest.is_empty() {
            on_false[at]
        } else {
            first_link
        };
        growth.push(branch(Comparison::EQ, *first, next));
    }
    growth.extend(std::iter::repeat_n(Growth::Leaf, leaf_count));
    growth.extend(chains);
    Ok(growth)
}

/// Where each branch leads: leaves stand after the branches.
fn children(
    attributes: &Attributes<'_>,
    side: &str,
    count: usize,
    leaf_count: usize,
) -> TractResult<Vec<usize>> {
    let ids_name = format!("nodes_{side}nodeids");
    let leaves_name = format!("nodes_{side}leafs");
    let ids = attributes.ints(&ids_name)?;
    let are_leaves = attributes.ints(&leaves_name)?;
    same_length(
        count,
        &[(&ids_name, ids.len()), (&leaves_name, are_leaves.len())],
    )?;
    let place = |(id, is_leaf): (&i64, &i64)| {
        let (first, limit) = match is_leaf {
            0 => (0, count),
            _ => (count, leaf_count),
        };
        match usize::try_from(*id) {
            Ok(id) if id < limit => Ok(first + id),
            Ok(_) | Err(_) => bail!("{ids_name:?} has {id}, not below {limit}"),
        }
    };
    ids.iter().zip(are_leaves).map(place).collect()
}

fn numbered_mode(mode: u8) -> TractResult<Comparison> {
    match mode {
        0 => Ok(Comparison::LEQ),
        1 => Ok(Comparison::LT),
        2 => Ok(Comparison::GTE),
        3 => Ok(Comparison::GT),
        4 => Ok(Comparison::EQ),
        5 => Ok(Comparison::NEQ),
        other => bail!("there is no mode {other}"),
    }
}
