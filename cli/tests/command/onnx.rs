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
    graph(&node, output)
}

/// A model of one node, which makes its output of `x`.
fn graph(node: &[u8], output: &[u8]) -> Vec<u8> {
    let graph = [
        bytes(1, node),
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
    tensor(name, data_type, &extents)
}

/// A `ValueInfoProto` of these axes.
fn tensor(name: &str, data_type: u8, axes: &[u8]) -> Vec<u8> {
    let tensor = [number(1, data_type), bytes(2, axes)].concat();
    [text(1, name), bytes(2, &bytes(1, &tensor))].concat()
}

/// A model whose inner graph has an axis with a name that the engine reads as an expression, deeper than any
/// stack.
pub(crate) fn deep() -> Vec<u8> {
    let deep = "(".repeat(2 << 20);
    let inner = [
        bytes(
            1,
            &[text(1, "s"), text(2, "t"), text(4, "Identity")].concat(),
        ),
        text(2, "body"),
        bytes(11, &tensor("s", FLOAT, &bytes(1, &text(2, &deep)))),
        bytes(12, &tensor("t", FLOAT, &[])),
    ];
    // The kinds of attribute, a graph and an integer, are field 20.
    let body = [text(1, "body"), bytes(6, &inner.concat()), vec![0xa0, 1, 5]].concat();
    let inputs = [text(1, "num_scan_inputs"), number(3, 1), vec![0xa0, 1, 2]].concat();
    let scan = [
        text(1, "x"),
        text(2, "y"),
        text(4, "Scan"),
        bytes(5, &body),
        bytes(5, &inputs),
    ];
    graph(&scan.concat(), &value("y", FLOAT, 4))
}

fn number(field: u8, value: u8) -> Vec<u8> {
    assert!(value < 128, "one byte of varint");
    vec![field << 3, value]
}

fn text(field: u8, value: &str) -> Vec<u8> {
    bytes(field, value.as_bytes())
}

fn bytes(field: u8, value: &[u8]) -> Vec<u8> {
    let mut header = vec![field << 3 | 2];
    let mut len = value.len();
    while len >= 0x80 {
        header.push(u8::try_from(len & 0x7f).expect("seven bits") | 0x80);
        len >>= 7;
    }
    header.push(u8::try_from(len).expect("seven bits"));
    [&header, value].concat()
}
