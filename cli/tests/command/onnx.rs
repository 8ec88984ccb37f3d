//! ONNX files, written field by field as Protocol Buffers.

/// A model that adds its input `x`, four FP32 numbers, to itself, giving `y`.
pub(crate) fn doubler() -> Vec<u8> {
    model("Add")
}

/// The same interface with another operator of two inputs.
pub(crate) fn model(operator: &str) -> Vec<u8> {
    declaring(operator, &value("y", FLOAT, 4))
}

/// The doubler, which says that it gives elements of another type, or more of them than it does.
pub(crate) fn boasting(data_type: u8, extent: u8) -> Vec<u8> {
    declaring("Add", &value("y", data_type, extent))
}

fn declaring(operator: &str, output: &[u8]) -> Vec<u8> {
    let node = [text(1, "x"), text(1, "x"), text(2, "y"), text(4, operator)].concat();
    let graph = [
        bytes(1, &node),
        text(2, "g"),
        bytes(11, &value("x", FLOAT, 4)),
        bytes(12, output),
    ];
    let opset = [text(1, ""), number(2, 13)].concat();
    [number(1, 8), bytes(7, &graph.concat()), bytes(8, &opset)].concat()
}

/// `TensorProto.DataType`.
pub(crate) const FLOAT: u8 = 1;
pub(crate) const INT64: u8 = 7;

/// A `ValueInfoProto` of shape `[1, extent]`.
fn value(name: &str, data_type: u8, extent: u8) -> Vec<u8> {
    let extents = [bytes(1, &number(1, 1)), bytes(1, &number(1, extent))].concat();
    let tensor = [number(1, data_type), bytes(2, &extents)].concat();
    [text(1, name), bytes(2, &bytes(1, &tensor))].concat()
}

fn number(field: u8, value: u8) -> Vec<u8> {
    assert!(value < 128, "one byte of varint");
    vec![field << 3, value]
}

fn text(field: u8, value: &str) -> Vec<u8> {
    bytes(field, value.as_bytes())
}

fn bytes(field: u8, value: &[u8]) -> Vec<u8> {
    let len = u8::try_from(value.len()).expect("short");
    let varint = if len < 128 {
        vec![len]
    } else {
        vec![len | 0x80, len >> 7]
    };
    [&[field << 3 | 2], &varint[..], value].concat()
}
