//! Certificates, real modules, and a relay on a free port.

use std::path::Path;

use bytes::Bytes;
use tempfile::TempDir;
use tidegate_cloud_relay::{Config, Relay, start};
use tidegate_identity::{IdentityFiles, make_dev_certs};
use tidegate_inference::{Dtype, NamedTensor, Shape, Tensor, TensorSpec};
use tidegate_runtime::module::pass_through;
use tidegate_runtime::{Manifest, ModuleFile};

/// Rows and columns of the matrix that [`slow_module`] takes.
pub(crate) const SLOW_AXIS: usize = 1536;

/// Products that it computes one after the other; each takes some 0.1 s, all of them 15 s.
const SLOW_PRODUCTS: usize = 128;

/// A folder with certificates for one machine.
pub(crate) fn certificates() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    make_dev_certs(folder.path()).unwrap();
    folder
}

pub(crate) fn identity(folder: &Path, role: &str) -> IdentityFiles {
    IdentityFiles {
        certificate: folder.join(format!("{role}.pem")),
        key: folder.join(format!("{role}.key")),
        ca: folder.join("ca.pem"),
    }
}

/// A relay with one slot and the lines of `extra` in its configuration; its patience is two seconds
/// unless they say otherwise.
pub(crate) async fn relay(certificates: &TempDir, extra: &str) -> Relay {
    let patience = if extra.contains("stall-ms") {
        ""
    } else {
        "stall-ms = 2000\n"
    };
    // Where trust is not what is tested.
    let trust = if extra.contains("trust") {
        ""
    } else {
        "trust.allow-unsigned = true\n"
    };
    let text = format!(
        "listen = \"127.0.0.1:0\"\ncertificate = \"relay.pem\"\nkey = \"relay.key\"\n\
         ca = \"ca.pem\"\nslots = 1\nstate-dir = \"state\"\n{trust}{patience}{extra}"
    );
    let mut config = Config::parse(&text, &certificates.path().join("relay.toml")).unwrap();
    // The program of these tests is no relay, which would vet graphs by itself.
    let vetting = config.vetting.as_mut().unwrap();
    vetting.program = env!("CARGO_BIN_EXE_tidegate-relay").into();
    start(config).await.unwrap()
}

/// Gives back the vector `x` as `y`, negative values as 0.
pub(crate) fn relu_module() -> Bytes {
    relu_module_named("relu")
}

/// The same under another name, so that it is another module.
pub(crate) fn relu_module_named(name: &str) -> Bytes {
    let nodes = [node("Relu", &["x"], "y")];
    module(name, &graph(&nodes, &[-1]), vec![-1])
}

/// Multiplies a matrix with itself again and again, for about 15 seconds.
pub(crate) fn slow_module() -> Bytes {
    let axis = i64::try_from(SLOW_AXIS).unwrap();
    let name = |index: usize| match index {
        0 => "x".to_owned(),
        SLOW_PRODUCTS => "y".to_owned(),
        middle => format!("m{middle}"),
    };
    let nodes: Vec<_> = (0..SLOW_PRODUCTS)
        .map(|index| node("MatMul", &[&name(index), "x"], &name(index + 1)))
        .collect();
    module("slow", &graph(&nodes, &[axis, axis]), vec![axis, axis])
}

pub(crate) fn slow_input() -> Vec<NamedTensor> {
    vec![tensor(
        &[SLOW_AXIS, SLOW_AXIS],
        &vec![0.0; SLOW_AXIS * SLOW_AXIS],
    )]
}

/// A module whose graph takes two bytes a node in the file and hundreds in memory: over a gigabyte.
pub(crate) fn bomb_module() -> Bytes {
    module("bomb", &graph(&vec![Vec::new(); 4 << 20], &[-1]), vec![-1])
}

/// The input `x`.
pub(crate) fn tensor(shape: &[usize], values: &[f32]) -> NamedTensor {
    let data: Vec<u8> = values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect();
    NamedTensor {
        name: "x".to_owned(),
        tensor: Tensor::new(Dtype::Fp32, Shape::from_slice(shape), data.into()).unwrap(),
    }
}

fn module(name: &str, onnx: &[u8], shape: Vec<i64>) -> Bytes {
    let spec = |name: &str| TensorSpec {
        name: name.to_owned(),
        dtype: Dtype::Fp32,
        shape: shape.clone(),
    };
    let manifest = Manifest::new(name, "1.0.0", vec![spec("x")], vec![spec("y")]);
    let component = pass_through("main").unwrap();
    let file = ModuleFile::assemble(&component, manifest, &[("main", onnx)]).unwrap();
    file.file().clone()
}

/// An ONNX `ModelProto` with an input `x` and an output `y` of this shape, -1 for a free axis.
fn graph(nodes: &[Vec<u8>], shape: &[i64]) -> Vec<u8> {
    let mut graph = Vec::new();
    nodes.iter().for_each(|node| put(&mut graph, 1, node));
    put(&mut graph, 2, b"main");
    put(&mut graph, 11, &value("x", shape));
    put(&mut graph, 12, &value("y", shape));

    let mut opset = Vec::new();
    put(&mut opset, 1, b"");
    put_number(&mut opset, 2, 13);
    let mut model = Vec::new();
    put_number(&mut model, 1, 8);
    put(&mut model, 7, &graph);
    put(&mut model, 8, &opset);
    model
}

fn node(operator: &str, inputs: &[&str], output: &str) -> Vec<u8> {
    let mut node = Vec::new();
    inputs
        .iter()
        .for_each(|input| put(&mut node, 1, input.as_bytes()));
    put(&mut node, 2, output.as_bytes());
    put(&mut node, 4, operator.as_bytes());
    node
}

/// A `ValueInfoProto` of 32-bit floats.
fn value(name: &str, shape: &[i64]) -> Vec<u8> {
    let mut dims = Vec::new();
    for extent in shape {
        let mut dim = Vec::new();
        match u64::try_from(*extent) {
            Ok(extent) => put_number(&mut dim, 1, extent),
            Err(_) => put(&mut dim, 2, b"N"),
        }
        put(&mut dims, 1, &dim);
    }
    let mut tensor = Vec::new();
    put_number(&mut tensor, 1, 1);
    put(&mut tensor, 2, &dims);
    let mut kind = Vec::new();
    put(&mut kind, 1, &tensor);
    let mut value = Vec::new();
    put(&mut value, 1, name.as_bytes());
    put(&mut value, 2, &kind);
    value
}

/// Appends a length-delimited protobuf field.
fn put(out: &mut Vec<u8>, field: u64, bytes: &[u8]) {
    varint(out, field << 3 | 2);
    varint(out, u64::try_from(bytes.len()).unwrap());
    out.extend_from_slice(bytes);
}

/// Appends a protobuf field that is a number.
fn put_number(out: &mut Vec<u8>, field: u64, number: u64) {
    varint(out, field << 3);
    varint(out, number);
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    loop {
        let low = u8::try_from(value & 0x7f).unwrap();
        value >>= 7;
        if value == 0 {
            return out.push(low);
        }
        out.push(low | 0x80);
    }
}
