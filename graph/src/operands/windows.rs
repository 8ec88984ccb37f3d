//! Windows that slide over axes, as convolutions and pools have them: which fit, and which do not.
//!
//! The engine gives something for a window that is larger than what it slides over: nothing, or a value of
//! the part that is there. ONNX Runtime refuses that, and so it is refused here.

use tract_onnx::pb::{AttributeProto, NodeProto};

/// Axes in front of those that a window slides over: the batch and the channels.
const AXES_BEFORE: usize = 2;

/// The window of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Window {
    kind: Kind,
    /// Extents, where an attribute says them; the weights' are they otherwise.
    kernel: Option<Vec<i64>>,
    pads: Vec<i64>,
    strides: Vec<i64>,
    dilations: Vec<i64>,
    added: Vec<i64>,
    /// The engine pads as much as the window needs.
    is_same: bool,
    ends_outside: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Convolution,
    Transposed,
    Pool,
    /// Over all there is.
    Global,
}

/// The window of a node that has one, and which of the inputs holds its weights.
pub(super) fn of(node: &NodeProto) -> Option<(Window, usize)> {
    let (kind, weights) = match node.op_type.as_str() {
        "Conv" | "ConvInteger" => (Kind::Convolution, 1),
        "QLinearConv" => (Kind::Convolution, 3),
        "ConvTranspose" => (Kind::Transposed, 1),
        "MaxPool" | "AveragePool" | "LpPool" => (Kind::Pool, 0),
        "GlobalMaxPool" | "GlobalAveragePool" | "GlobalLpPool" => (Kind::Global, 0),
        _ => return None,
    };
    let attribute = |name: &str| node.attribute.iter().find(|found| found.name == name);
    let numbers = |found: Option<&AttributeProto>| found.map(|found| found.ints.clone());
    let list = |name: &str| numbers(attribute(name)).unwrap_or_default();
    let window = Window {
        kind,
        kernel: numbers(attribute("kernel_shape")),
        pads: list("pads"),
        strides: list("strides"),
        dilations: list("dilations"),
        added: list("output_padding"),
        is_same: attribute("auto_pad").is_some_and(|found| found.s.starts_with(b"SAME"))
            || attribute("output_shape").is_some(),
        ends_outside: attribute("ceil_mode").is_some_and(|found| found.i != 0),
    };
    Some((window, weights))
}

impl Window {
    /// Why it does not fit over `data`, if it does not. `weights` is the shape of the weights.
    pub(super) fn misfit(&self, data: &[usize], weights: &[usize]) -> Option<String> {
        let extents = data.get(AXES_BEFORE..)?;
        (0..extents.len()).find_map(|axis| self.misfit_on(axis, extents[axis], weights))
    }

    fn misfit_on(&self, axis: usize, extent: usize, weights: &[usize]) -> Option<String> {
        let number = |list: &[i64], at: usize, default| list.get(at).copied().unwrap_or(default);
        let has = i64::try_from(extent).ok()?;
        let nothing = || {
            Some(format!(
                "a window over axis {} of no elements",
                axis + AXES_BEFORE
            ))
        };
        if self.kind == Kind::Global {
            return (has == 0).then(nothing).flatten();
        }
        let kernel = match &self.kernel {
            Some(kernel) => *kernel.get(axis)?,
            None => i64::try_from(*weights.get(axis + AXES_BEFORE)?).ok()?,
        };
        let reach = (kernel - 1)
            .saturating_mul(number(&self.dilations, axis, 1))
            .saturating_add(1);
        let behind = self.pads.len() / 2 + axis;
        let (before, behind) = (number(&self.pads, axis, 0), number(&self.pads, behind, 0));
        let stride = number(&self.strides, axis, 1);
        let padded = has.saturating_add(before).saturating_add(behind);
        match self.kind {
            Kind::Pool if has == 0 => nothing(),
            Kind::Pool if before.max(behind) >= reach => Some(format!(
                "a window that reaches {reach} beside a padding of {}",
                before.max(behind)
            )),
            Kind::Transposed if !self.is_same => {
                let made = (has - 1)
                    .saturating_mul(stride)
                    .saturating_add(reach)
                    .saturating_add(number(&self.added, axis, 0))
                    .saturating_sub(before.saturating_add(behind));
                (has > 0 && made < 1)
                    .then(|| format!("axis {} would have {made} elements", axis + AXES_BEFORE))
            }
            Kind::Convolution | Kind::Pool if !self.is_same => {
                let beyond = reach - padded;
                let is_reached = beyond <= 0 || self.ends_outside && beyond < stride;
                (!is_reached)
                    .then(|| format!("a window that reaches {reach} over {padded} elements"))
            }
            Kind::Convolution | Kind::Transposed | Kind::Pool | Kind::Global => None,
        }
    }
}
