//! Operators that the engine has in one of their modes only.

use tract_onnx::pb::NodeProto;

use super::write::{Writer, integer, integers};
use crate::GraphError;

/// Whether `SpaceToDepth` puts the places of a block behind the channels.
pub(super) fn is_column_row_depth(node: &NodeProto) -> bool {
    node.attribute
        .iter()
        .any(|found| found.name == "mode" && found.s == b"CRD")
}

/// `SpaceToDepth` in mode `CRD`: that of mode `DCR`, with its two parts of the channels exchanged.
pub(super) fn space_to_depth(node: &NodeProto, writer: &mut Writer) -> Result<(), GraphError> {
    let mut plain = node.clone();
    plain.attribute.retain(|attribute| attribute.name != "mode");
    let size = plain
        .attribute
        .iter()
        .find(|attribute| attribute.name == "blocksize");
    let size = size.map_or(1, |attribute| attribute.i);
    let Some(output) = plain.output.first_mut() else {
        return Ok(());
    };
    let wanted = std::mem::replace(output, format!("{output}/tidegate.plain"));
    let made = output.clone();
    writer.push(plain);
    let shape = writer.node("Shape", &[&made], vec![]);
    let (two, three, four) = (
        writer.integers(&[2]),
        writer.integers(&[3]),
        writer.integers(&[4]),
    );
    let height = writer.node("Slice", &[&shape, &two, &three], vec![]);
    let width = writer.node("Slice", &[&shape, &three, &four], vec![]);
    let head = writer.integers(&[0, size.saturating_mul(size), -1]);
    let parts = [head.as_str(), &height, &width];
    let split = writer.node("Concat", &parts, vec![integer("axis", 0)]);
    let split = writer.node("Reshape", &[&made, &split], vec![]);
    let exchanged = writer.node(
        "Transpose",
        &[&split],
        vec![integers("perm", &[0, 2, 1, 3, 4])],
    );
    writer.node_to("Reshape", &[&exchanged, &shape], vec![], &wanted);
    Ok(())
}

/// Whether `Swish` has a slope, which the engine does not read.
pub(super) fn has_slope(node: &NodeProto) -> bool {
    node.attribute
        .iter()
        .any(|found| found.name == "alpha" && found.f != 1.0)
}

/// `Swish` of a slope: `x * sigmoid(alpha * x)`.
pub(super) fn swish(node: &NodeProto, writer: &mut Writer) -> Result<(), GraphError> {
    let ([values], [output]) = (&node.input[..], &node.output[..]) else {
        return Ok(());
    };
    let slope = node.attribute.iter().find(|found| found.name == "alpha");
    let slope = writer.float_like(slope.map_or(1.0, |found| found.f), values);
    let steep = writer.node("Mul", &[values, &slope], vec![]);
    let gate = writer.node("Sigmoid", &[&steep], vec![]);
    writer.node_to("Mul", &[values, &gate], vec![], output);
    Ok(())
}

/// `Celu`: `max(0, x) + min(0, alpha * (exp(x / alpha) - 1))`.
pub(super) fn celu(node: &NodeProto, writer: &mut Writer) -> Result<(), GraphError> {
    let ([values], [output]) = (&node.input[..], &node.output[..]) else {
        return Ok(());
    };
    let slope = node.attribute.iter().find(|found| found.name == "alpha");
    let slope = writer.float_like(slope.map_or(1.0, |found| found.f), values);
    let (zero, one) = (
        writer.float_like(0.0, values),
        writer.float_like(1.0, values),
    );
    let quotient = writer.node("Div", &[values, &slope], vec![]);
    let power = writer.node("Exp", &[&quotient], vec![]);
    let shifted = writer.node("Sub", &[&power, &one], vec![]);
    let scaled = writer.node("Mul", &[&shifted, &slope], vec![]);
    let below = writer.node("Min", &[&zero, &scaled], vec![]);
    let above = writer.node("Max", &[&zero, values], vec![]);
    writer.node_to("Add", &[&above, &below], vec![], output);
    Ok(())
}

/// `Compress`: a gathering of the places that the condition holds at.
pub(super) fn compress(node: &NodeProto, writer: &mut Writer) -> Result<(), GraphError> {
    let ([values, condition], [output]) = (&node.input[..], &node.output[..]) else {
        return Ok(());
    };
    let places = writer.node("NonZero", &[condition], vec![]);
    let places = writer.reshape(&places, &[-1]);
    let axis = node.attribute.iter().find(|found| found.name == "axis");
    let (values, axis) = match axis {
        Some(axis) => (values.clone(), axis.i),
        None => (writer.reshape(values, &[-1]), 0),
    };
    writer.node_to(
        "Gather",
        &[&values, &places],
        vec![integer("axis", axis)],
        output,
    );
    Ok(())
}

/// An operator with these operands as scalars, which files also give as arrays of one element.
pub(super) fn with_scalars(node: &NodeProto, writer: &mut Writer, operands: &[usize]) {
    let mut plain = node.clone();
    for operand in operands {
        if let Some(name) = plain
            .input
            .get_mut(*operand)
            .filter(|name| !name.is_empty())
        {
            *name = writer.reshape(name, &[]);
        }
    }
    writer.push(plain);
}

/// `QLinearMatMul` with its scales in 32 bits.
pub(super) fn quantized_product(node: &NodeProto, writer: &mut Writer) -> Result<(), GraphError> {
    let mut plain = node.clone();
    for scale in [1, 4, 6] {
        if let Some(name) = plain.input.get_mut(scale) {
            *name = writer.node("Cast", &[name], vec![integer("to", 1)]);
        }
    }
    writer.push(plain);
    Ok(())
}

/// `PRelu` as it was before opset 7: a slope for each channel, whatever axes follow.
pub(super) fn channel_relu(node: &NodeProto, writer: &mut Writer) -> Result<(), GraphError> {
    let ([values, slopes], [output]) = (&node.input[..], &node.output[..]) else {
        return Ok(());
    };
    let shape = writer.node("Shape", &[values], vec![]);
    let places = writer.node(
        "Slice",
        &[&shape],
        vec![
            integers("axes", &[0]),
            integers("starts", &[2]),
            integers("ends", &[i64::from(i32::MAX)]),
        ],
    );
    // A one for each axis behind the channels.
    let ones = writer.node("Div", &[&places, &places], vec![]);
    let channels = writer.integers(&[-1]);
    let shape = writer.node("Concat", &[&channels, &ones], vec![integer("axis", 0)]);
    let slopes = writer.node("Reshape", &[slopes, &shape], vec![]);
    writer.node_to("PRelu", &[values, &slopes], vec![], output);
    Ok(())
}

/// Whether a transform takes a length of its own, and gives as many elements.
pub(super) fn has_length(node: &NodeProto) -> bool {
    let is_set = |name: &str| {
        let mut found = node.attribute.iter().filter(|found| found.name == name);
        found.any(|found| found.i != 0)
    };
    node.input.get(1).is_some_and(|name| !name.is_empty())
        && !(is_set("inverse") && is_set("onesided"))
}

/// `DFT` of a length: that of as many elements, the last of them cut off or zero. The engine takes the
/// length without a word where it differs from what is there.
pub(super) fn transform_of_length(node: &NodeProto, writer: &mut Writer) -> Result<(), GraphError> {
    let mut plain = node.clone();
    let named = plain.attribute.iter().find(|found| found.name == "axis");
    let axis = match (plain.input.get(2), named) {
        (Some(axis), _) => writer.reshape(axis, &[1]),
        (None, Some(axis)) => writer.integers(&[axis.i]),
        (None, None) if writer.opset() < 20 => writer.integers(&[1]),
        (None, None) => writer.integers(&[-2]),
    };
    let length = writer.reshape(&plain.input[1], &[1]);
    let first = writer.integers(&[0]);
    let pads = writer.node("Concat", &[&first, &length], vec![integer("axis", 0)]);
    let padded = writer.node("Pad", &[&plain.input[0], &pads, "", &axis], vec![]);
    plain.input[0] = writer.node("Slice", &[&padded, &first, &length, &axis], vec![]);
    plain.input[1].clear();
    while plain.input.last().is_some_and(String::is_empty) {
        plain.input.pop();
    }
    writer.push(plain);
    Ok(())
}
