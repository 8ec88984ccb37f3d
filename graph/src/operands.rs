//! What operators demand of the values that they take.
//!
//! A request may give an index, a step or a divisor that means nothing. The engine then panics, says
//! something obscure, or goes on with other numbers. So what a node demands is taken from the file, and
//! looked at as soon as the value is known: when shapes are inferred, when the node is translated, or, by
//! a node of ours before it, when it runs.

mod checked;
mod windows;

use std::sync::Arc;

use tract_onnx::pb::NodeProto;
use tract_onnx::prelude::{DatumType, InferenceFact, TVec, Tensor};
use tract_onnx::tract_hir::infer::Factoid;
use tract_onnx::tract_hir::internal::{DimLike, TypedFact};

pub(super) use self::checked::{NodeName, checked};
use self::windows::Window;

/// What a node demands of one of its operands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Demand {
    /// Which of the node's inputs it is about, as the engine counts them.
    operand: usize,
    kind: Kind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    /// Numbers of at least this, of this name.
    AtLeast(i64, &'static str),
    /// Numbers that are no zero, of this name.
    NotZero(&'static str),
    /// Numbers above zero, of this name.
    Positive(&'static str),
    /// Integers that are no zero. Of others zero may be.
    Divisor,
    /// Places on this axis of the first input.
    Places(i64),
    /// Places in the first input, behind so many axes that both have.
    Tuples(i64),
    /// The shape that the first input is given; whether zero is an extent.
    Shape(bool),
    /// How much is put before and behind each axis of the first input, and of what.
    Pads(Padding),
    /// Weights that slide over the first input.
    Window(Window),
    /// An axis of the first input that something is chosen from.
    Chosen(i64),
    /// An axis of the first input: the engine counts up to it.
    Axis(i64),
}

/// What is put around a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Padding {
    Constant,
    /// What is at the edge, which there must be.
    Edge,
    /// What is next to the edge, as far as there is any.
    Reflect,
}

/// What is known of an operand.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    rank: Option<usize>,
    shape: Option<TVec<usize>>,
    value: Option<Arc<Tensor>>,
}

impl Known {
    pub(super) fn inferred(fact: &InferenceFact) -> Self {
        let shape = fact.shape.concretize();
        let rank = fact.shape.rank().concretize();
        Self {
            rank: rank.and_then(|rank| usize::try_from(rank).ok()),
            shape: shape.and_then(|shape| extents(&shape)),
            value: fact.value.concretize(),
        }
    }

    fn typed(fact: &TypedFact) -> Self {
        Self {
            rank: Some(fact.rank()),
            shape: fact.shape.as_concrete().map(TVec::from),
            value: fact.konst.clone(),
        }
    }
}

pub(super) fn extents<D: DimLike>(shape: &[D]) -> Option<TVec<usize>> {
    shape.iter().map(|extent| extent.to_usize().ok()).collect()
}

/// What a node of the file demands.
pub(super) fn of(node: &NodeProto) -> Vec<Demand> {
    // The engine does not count operands that are left out.
    let place = |at: usize| {
        let is_there = node.input.get(at).is_some_and(|name| !name.is_empty());
        let before = node.input.iter().take(at);
        is_there.then(|| before.filter(|name| !name.is_empty()).count())
    };
    let demand = |at: usize, kind: Kind| {
        let operand = place(at)?;
        Some(Demand { operand, kind })
    };
    let number = |name: &str| {
        let found = node.attribute.iter().find(|found| found.name == name);
        found.map_or(0, |found| found.i)
    };
    let demands = match node.op_type.as_str() {
        "ConstantOfShape" => [demand(0, Kind::AtLeast(0, "an extent")), None],
        "Expand" => [demand(1, Kind::AtLeast(0, "an extent")), None],
        "Tile" => [demand(1, Kind::AtLeast(0, "a repeat")), None],
        "Reshape" => [demand(1, Kind::Shape(number("allowzero") != 0)), None],
        "Pad" => [demand(1, Kind::Pads(padding(node))), None],
        "ArgMax" | "ArgMin" => [demand(0, Kind::Chosen(number("axis"))), None],
        "NonMaxSuppression" => [demand(2, Kind::AtLeast(1, "the limit of boxes")), None],
        "LayerNormalization" => [demand(0, Kind::Axis(number("axis"))), None],
        "Slice" => [demand(4, Kind::NotZero("a step")), None],
        "Range" => [demand(2, Kind::NotZero("the step")), None],
        "OneHot" => [demand(1, Kind::AtLeast(1, "the depth")), None],
        "Div" | "Mod" => [demand(1, Kind::Divisor), None],
        "Gather" | "GatherElements" | "ScatterElements" | "Scatter" => {
            [demand(1, Kind::Places(number("axis"))), None]
        }
        "GatherND" => [demand(1, Kind::Tuples(number("batch_dims"))), None],
        "ScatterND" => [demand(1, Kind::Tuples(0)), None],
        "Resize" if node.input.len() == 2 => [demand(1, Kind::Positive("a scale")), None],
        "Resize" => [
            demand(2, Kind::Positive("a scale")),
            demand(3, Kind::AtLeast(1, "a size")),
        ],
        _ => match windows::of(node) {
            Some((window, weights)) => [demand(weights, Kind::Window(window)), None],
            None => [None, None],
        },
    };
    demands.into_iter().flatten().collect()
}

fn no_axis(axis: i64, rank: usize) -> Option<String> {
    let rank = i64::try_from(rank).ok()?;
    let is_one = (-rank..rank).contains(&axis);
    (!is_one).then(|| format!("axis {axis} is not one of {rank}"))
}

fn padding(node: &NodeProto) -> Padding {
    let mode = node.attribute.iter().find(|found| found.name == "mode");
    match mode.map(|mode| &*mode.s) {
        Some(b"edge") => Padding::Edge,
        Some(b"reflect") => Padding::Reflect,
        _ => Padding::Constant,
    }
}

impl Demand {
    /// Whether the demand is met: `None` where too little is known, an error in words where it is not.
    pub(super) fn check(&self, operands: &[Known]) -> Result<Option<()>, String> {
        let data = operands.first().and_then(|known| known.shape.as_deref());
        match (&self.kind, data) {
            (Kind::Window(window), Some(data)) => {
                let weights = operands.get(self.operand);
                let weights = weights.and_then(|known| known.shape.as_deref());
                return refuse(weights.and_then(|weights| window.misfit(data, weights)));
            }
            (Kind::Chosen(axis), Some(data)) => return refuse(chosen_of_none(data, *axis)),
            _ => {}
        }
        if let Kind::Axis(axis) = self.kind {
            let rank = operands.first().and_then(|known| known.rank);
            return rank.map_or(Ok(None), |rank| refuse(no_axis(axis, rank)));
        }
        let Some(value) = operands
            .get(self.operand)
            .and_then(|known| known.value.as_ref())
        else {
            return Ok(None);
        };
        match &self.kind {
            Kind::AtLeast(least, what) => numbers(value).map_or(Ok(None), |numbers| {
                let wrong = numbers.iter().find(|number| *number < least);
                refuse(wrong.map(|wrong| format!("{what} is {wrong}")))
            }),
            Kind::Positive(what) => floats(value).map_or(Ok(None), |numbers| {
                let is_positive = |number: &f64| *number > 0.0 && number.is_finite();
                let wrong = numbers.iter().find(|number| !is_positive(number));
                refuse(wrong.map(|wrong| format!("{what} is {wrong}")))
            }),
            Kind::NotZero(what) => floats(value).map_or(Ok(None), |numbers| {
                refuse(numbers.contains(&0.0).then(|| format!("{what} is 0")))
            }),
            Kind::Divisor if value.datum_type().is_integer() => numbers(value)
                .map_or(Ok(None), |numbers| {
                    refuse(numbers.contains(&0).then(|| "a divisor is 0".to_owned()))
                }),
            Kind::Divisor => Ok(Some(())),
            Kind::Places(axis) => match (numbers(value), data) {
                (Some(places), Some(data)) => refuse(outside(&places, data, *axis)),
                _ => Ok(None),
            },
            Kind::Tuples(shared) => match (numbers(value), data) {
                (Some(places), Some(data)) => {
                    let shared = usize::try_from(*shared).unwrap_or(0);
                    refuse(tuple_outside(&places, value.shape(), data, shared))
                }
                _ => Ok(None),
            },
            Kind::Shape(allows_zero) => match (numbers(value), data) {
                (Some(shape), Some(data)) => refuse(unfit(&shape, data, *allows_zero)),
                _ => Ok(None),
            },
            Kind::Pads(padding) => numbers(value).map_or(Ok(None), |pads| {
                refuse(unpaddable(&pads, data.unwrap_or_default(), *padding))
            }),
            Kind::Window(_) | Kind::Chosen(_) | Kind::Axis(_) => Ok(None),
        }
    }

    /// Whether it is about the first input's shape too.
    fn is_of_data(&self) -> bool {
        match self.kind {
            Kind::Places(_) | Kind::Tuples(_) | Kind::Shape(_) | Kind::Pads(_) => true,
            Kind::AtLeast(..)
            | Kind::NotZero(_)
            | Kind::Positive(_)
            | Kind::Divisor
            | Kind::Window(_)
            | Kind::Chosen(_)
            | Kind::Axis(_) => false,
        }
    }

    /// Whether it is about the values of a tensor of this type, which running may have to look at.
    fn is_of_values(&self, datum_type: DatumType) -> bool {
        match self.kind {
            Kind::Divisor => datum_type.is_integer(),
            Kind::Window(_) | Kind::Chosen(_) | Kind::Axis(_) => false,
            Kind::AtLeast(..)
            | Kind::NotZero(_)
            | Kind::Positive(_)
            | Kind::Places(_)
            | Kind::Tuples(_)
            | Kind::Shape(_)
            | Kind::Pads(_) => true,
        }
    }
}

fn refuse(wrong: Option<String>) -> Result<Option<()>, String> {
    wrong.map_or(Ok(Some(())), Err)
}

/// The elements of a tensor of integers; `None` where they are symbolic.
fn numbers(tensor: &Tensor) -> Option<Vec<i64>> {
    let cast = tensor.cast_to::<i64>().ok()?;
    let slice = cast.try_as_plain_ram().ok()?.as_slice::<i64>().ok()?;
    Some(slice.to_vec())
}

fn floats(tensor: &Tensor) -> Option<Vec<f64>> {
    let cast = tensor.cast_to::<f64>().ok()?;
    let slice = cast.try_as_plain_ram().ok()?.as_slice::<f64>().ok()?;
    Some(slice.to_vec())
}

/// The place on an axis, counted from the end if it is negative.
fn is_inside(place: i64, extent: usize) -> bool {
    let extent = i64::try_from(extent).unwrap_or(i64::MAX);
    (-extent..extent).contains(&place)
}

fn on_axis(axis: i64, rank: usize) -> Option<usize> {
    let rank = i64::try_from(rank).ok()?;
    usize::try_from(if axis < 0 { axis + rank } else { axis }).ok()
}

fn outside(places: &[i64], data: &[usize], axis: i64) -> Option<String> {
    let extent = *data.get(on_axis(axis, data.len())?)?;
    let wrong = places.iter().find(|place| !is_inside(**place, extent))?;
    Some(format!("index {wrong} is outside an axis of {extent}"))
}

fn tuple_outside(places: &[i64], shape: &[usize], data: &[usize], shared: usize) -> Option<String> {
    let width = *shape.last()?;
    let indexed = data.get(shared..)?;
    if width > indexed.len() {
        let axes = indexed.len();
        return Some(format!("an index of {width} numbers for {axes} axes"));
    }
    let mut pairs = places.iter().zip(indexed[..width].iter().cycle());
    let (wrong, extent) = pairs.find(|(place, extent)| !is_inside(**place, **extent))?;
    Some(format!("index {wrong} is outside an axis of {extent}"))
}

fn chosen_of_none(data: &[usize], axis: i64) -> Option<String> {
    let axis = on_axis(axis, data.len())?;
    let others = data.iter().enumerate().filter(|(at, _)| *at != axis);
    let is_wanted = others.clone().all(|(_, extent)| *extent > 0);
    (data.get(axis) == Some(&0) && is_wanted)
        .then(|| format!("axis {axis} has no elements to choose from"))
}

/// The engine only adds, where ONNX would have a negative number take away.
fn unpaddable(pads: &[i64], data: &[usize], padding: Padding) -> Option<String> {
    if let Some(wrong) = pads.iter().find(|pad| **pad < 0) {
        return Some(format!("a padding is {wrong}"));
    }
    if pads.len() != 2 * data.len() {
        return None;
    }
    let mut padded = pads.iter().zip(data.iter().cycle());
    let (wrong, extent) = padded.find(|(pad, extent)| {
        let pad = usize::try_from(**pad).unwrap_or(usize::MAX);
        match padding {
            Padding::Constant => false,
            Padding::Edge => pad > 0 && **extent == 0,
            Padding::Reflect => pad > 0 && pad >= **extent,
        }
    })?;
    Some(format!("a padding of {wrong} from an axis of {extent}"))
}

fn unfit(shape: &[i64], data: &[usize], allows_zero: bool) -> Option<String> {
    let elements: usize = data.iter().product();
    let told = || {
        Some(format!(
            "{elements} elements do not fit the shape {shape:?}"
        ))
    };
    let mut known = 1_usize;
    let mut open = 0;
    for (at, extent) in shape.iter().enumerate() {
        let extent = match extent {
            -1 => {
                open += 1;
                continue;
            }
            0 if !allows_zero => match data.get(at) {
                Some(extent) => *extent,
                None => return told(),
            },
            extent => match usize::try_from(*extent) {
                Ok(extent) => extent,
                Err(_) => return told(),
            },
        };
        known = known.saturating_mul(extent);
    }
    let fits = match open {
        0 => known == elements,
        // What is left open beside nothing may have any extent; the engine takes it for none.
        1 => known != 0 && elements.is_multiple_of(known) || known == 0 && elements == 0,
        _ => false,
    };
    if fits { None } else { told() }
}
