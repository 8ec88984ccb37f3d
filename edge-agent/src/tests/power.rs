//! The model of these tests: `y = x · x · ... · x`, a chain of matrix products over a square matrix.
//!
//! One model gives both a request of microseconds (two rows) and one that keeps a slot busy for the
//! better part of a second (a thousand rows). The ONNX file is written field by field, so no binary
//! fixture needs an explanation.

use bytes::Bytes;
use tidegate_inference::{Dtype, NamedTensor, Shape, Tensor};
use tidegate_runtime::module::pass_through;
use tidegate_runtime::{Manifest, ModuleFile};

/// Matrix products in the chain.
const DEPTH: usize = 8;

/// Rows of a matrix that takes long.
pub(super) const SLOW_ROWS: usize = 1024;

/// A module file of this name.
pub(super) fn module(name: &str) -> Bytes {
    let onnx = onnx();
    let (inputs, outputs) = tidegate_graph::describe(&onnx).unwrap();
    let manifest = Manifest::new(name, "1.2.0", inputs, outputs);
    let component = pass_through("graph").unwrap();
    let file = ModuleFile::assemble(&component, manifest, &[("graph", &onnx)]).unwrap();
    file.file().clone()
}

/// The input `x` of so many rows: twice the identity.
pub(super) fn input(rows: usize) -> NamedTensor {
    let cell = |index: usize| {
        if index / rows == index % rows {
            2.0_f32
        } else {
            0.0
        }
    };
    let data: Vec<u8> = (0..rows * rows)
        .flat_map(|index| cell(index).to_le_bytes())
        .collect();
    let shape = Shape::from_slice(&[rows, rows]);
    NamedTensor {
        name: "x".to_owned(),
        tensor: Tensor::new(Dtype::Fp32, shape, data.into()).unwrap(),
    }
}

/// What the diagonal of the output holds for [`input`].
pub(super) const DIAGONAL: f32 = 512.0;

/// Protocol buffers: a length-delimited field.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    let mut len = bytes.len();
    while len >= 0x80 {
        out.push(u8::try_from(len & 0x7f).unwrap() | 0x80);
        len >>= 7;
    }
    out.push(u8::try_from(len).unwrap());
    out.extend_from_slice(bytes);
    out
}

/// Protocol buffers: a small number.
fn number(number: u8, value: u8) -> Vec<u8> {
    vec![number << 3, value]
}

/// `ValueInfoProto` of a square FP32 matrix.
fn matrix(name: &str) -> Vec<u8> {
    let axis = field(1, &field(2, b"n"));
    let tensor = [number(1, 1), field(2, &[axis.clone(), axis].concat())].concat();
    [field(1, name.as_bytes()), field(2, &field(1, &tensor))].concat()
}

/// `ModelProto`, IR version 8, operator set 17.
fn onnx() -> Vec<u8> {
    let name = |step: usize| match step {
        0 => "x".to_owned(),
        DEPTH => "y".to_owned(),
        _ => format!("x{step}"),
    };
    let node = |step: usize| {
        let fields = [
            field(1, name(step).as_bytes()),
            field(1, b"x"),
            field(2, name(step + 1).as_bytes()),
            field(4, b"MatMul"),
        ];
        field(1, &fields.concat())
    };
    let mut graph: Vec<u8> = (0..DEPTH).flat_map(node).collect();
    graph.extend(field(2, b"power"));
    graph.extend(field(11, &matrix("x")));
    graph.extend(field(12, &matrix("y")));
    let opset = [field(1, b""), number(2, 17)].concat();
    [number(1, 8), field(7, &graph), field(8, &opset)].concat()
}
