//! A guest that makes the host calls which a fuzzer wants.
//!
//! Its input is a script, not code, so that nothing has to be compiled for it.
//!
//! A script is a row of records of 32 bytes: which call, where its result goes, and for each of up to six
//! parameters a kind and a 32-bit number. By its kind a parameter is the number itself, its lowest 12 bits
//! (a place among the data that a guest has from the start), what lies in one of 64 words of memory, or the
//! place of such a word.

use std::fmt::Write as _;

use prost::Message;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::tensor_shape_proto::{Dimension, dimension};
use tract_onnx::pb::{
    GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorShapeProto, TypeProto,
    ValueInfoProto, type_proto,
};

/// A graph that gives back any number of 32-bit floats.
pub fn identity() -> Vec<u8> {
    let value = |name: &str| ValueInfoProto {
        name: name.to_owned(),
        r#type: Some(TypeProto {
            value: Some(type_proto::Value::TensorType(type_proto::Tensor {
                elem_type: DataType::Float.into(),
                shape: Some(TensorShapeProto {
                    dim: vec![Dimension {
                        value: Some(dimension::Value::DimParam("N".to_owned())),
                        ..Dimension::default()
                    }],
                }),
            })),
            ..TypeProto::default()
        }),
        ..ValueInfoProto::default()
    };
    let graph = GraphProto {
        name: "g".to_owned(),
        input: vec![value("x")],
        node: vec![NodeProto {
            op_type: "Identity".to_owned(),
            input: vec!["x".to_owned()],
            output: vec!["y".to_owned()],
            ..NodeProto::default()
        }],
        output: vec![value("y")],
        ..GraphProto::default()
    };
    ModelProto {
        ir_version: 8,
        opset_import: vec![OperatorSetIdProto {
            version: 17,
            ..OperatorSetIdProto::default()
        }],
        graph: Some(graph),
        ..ModelProto::default()
    }
    .encode_to_vec()
}

/// A host call in terms of a core module.
pub struct Call {
    /// The module, or the interface, that it is imported from.
    pub module: &'static str,
    /// Its name there.
    pub name: &'static str,
    /// `i` for each 32-bit parameter, `l` for each 64-bit one, at most six.
    pub parameters: &'static str,
    /// The same for its result.
    pub result: &'static str,
}

/// Short for a table of calls.
pub const fn call(
    module: &'static str,
    name: &'static str,
    parameters: &'static str,
    result: &'static str,
) -> Call {
    Call {
        module,
        name,
        parameters,
        result,
    }
}

/// The imports of these calls, as `$call0` and so on.
pub fn imports(calls: &[Call]) -> String {
    let mut text = String::new();
    for (index, call) in calls.iter().enumerate() {
        let Call { module, name, .. } = call;
        let types = |letters: &str| -> String {
            let names = letters
                .chars()
                .map(|letter| if letter == 'l' { " i64" } else { " i32" });
            names.collect()
        };
        writeln!(
            text,
            "(import \"{module}\" \"{name}\" (func $call{index} (param{}) (result{})))",
            types(call.parameters),
            types(call.result),
        )
        .expect("a string takes everything");
    }
    text
}

/// `$run`, which makes the calls of the script from `$at` to `$end`. The 64 words begin at 512.
pub fn interpreter(calls: &[Call]) -> String {
    let mut text = String::from(
        "(func $parameter (param $at i32) (param $index i32) (result i32) (local $kind i32)
            (local.set $at (i32.add (i32.add (local.get $at) (i32.const 2))
                (i32.mul (local.get $index) (i32.const 5))))
            (local.set $kind (i32.and (i32.load8_u (local.get $at)) (i32.const 3)))
            (local.set $at (i32.load offset=1 align=1 (local.get $at)))
            (if (i32.eqz (local.get $kind)) (then (return (local.get $at))))
            (if (i32.eq (local.get $kind) (i32.const 1))
                (then (return (i32.and (local.get $at) (i32.const 0xfff)))))
            (local.set $at (i32.add (i32.const 512)
                (i32.shl (i32.and (local.get $at) (i32.const 63)) (i32.const 2))))
            (if (i32.eq (local.get $kind) (i32.const 2))
                (then (return (i32.load (local.get $at)))))
            (local.get $at))
        (func $run (param $at i32) (param $end i32) (local $to i32)
            (loop $next
                (if (i32.gt_u (i32.add (local.get $at) (i32.const 32)) (local.get $end))
                    (then (return)))
                (local.set $to (i32.add (i32.const 512)
                    (i32.shl (i32.and (i32.load8_u offset=1 (local.get $at)) (i32.const 63))
                        (i32.const 2))))\n",
    );
    text.push_str(&"(block ".repeat(calls.len() + 1));
    let labels: Vec<String> = (0..calls.len()).map(|index| index.to_string()).collect();
    writeln!(
        text,
        "(br_table {} (i32.rem_u (i32.load8_u (local.get $at)) (i32.const {})))",
        labels.join(" "),
        calls.len(),
    )
    .expect("a string takes everything");
    for (index, call) in calls.iter().enumerate() {
        let parameters: String = call
            .parameters
            .chars()
            .enumerate()
            .map(|(at, letter)| {
                let parameter = format!("(call $parameter (local.get $at) (i32.const {at}))");
                match letter {
                    'l' => format!("(i64.extend_i32_s {parameter})"),
                    _ => parameter,
                }
            })
            .collect();
        let made = format!("(call $call{index} {parameters})");
        let kept = match call.result {
            "l" => format!("(i64.store (local.get $to) {made})"),
            "i" => format!("(i32.store (local.get $to) {made})"),
            _ => made,
        };
        let out = calls.len() - index - 1;
        writeln!(text, ") {kept} (br {out})").expect("a string takes everything");
    }
    text.push_str(
        ")
                (local.set $at (i32.add (local.get $at) (i32.const 32)))
                (br $next)))",
    );
    text
}
