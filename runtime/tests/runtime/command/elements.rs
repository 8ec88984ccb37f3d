//! Tensors under the numbers that their element types have had.

use tidegate_runtime::command::Options;
use tract_onnx::pb::tensor_proto::DataType;

use super::{ended, escaped, program, run};
use crate::fixture::{node, onnx, value};

/// Passes two elements under a number through the identity of a type, and gives the exit status: 0 if
/// they came back as they went, the error number of `set_input` plus 50 otherwise.
fn passes(dtype: DataType, number: u8, data: &[u8]) -> u8 {
    let graph = onnx(
        vec![value("x", dtype, vec![2.into()])],
        vec![],
        vec![node("Identity", &["x"], "y")],
        vec![value("y", dtype, vec![2.into()])],
    );
    let len = u8::try_from(data.len()).unwrap();
    let items = format!(
        r#"(data (i32.const 1536) "\40\03\00\00\01\00\00\00{}\aa\bb\cc\80\03\00\00{}\00\00\00")
        (data (i32.const 896) "{}")"#,
        escaped(&[number]),
        escaped(&[len]),
        escaped(data)
    );
    let body = format!(
        "(call $must (call $load_by_name (i32.const 256) (i32.const 1) (i32.const 512)))
         (call $must (call $init (i32.load (i32.const 512)) (i32.const 516)))
         (local.set $i (call $set_input (i32.load (i32.const 516)) (i32.const 0) (i32.const 1536)))
         (if (local.get $i) (then (call $exit (i32.add (local.get $i) (i32.const 50)))))
         (call $must (call $compute (i32.load (i32.const 516))))
         (call $must (call $get_output (i32.load (i32.const 516)) (i32.const 0) (i32.const 1024)
            (i32.const 64) (i32.const 520)))
         (call $must (i32.ne (i32.load (i32.const 520)) (i32.const {len})))
         (loop $next
            (call $must (i32.ne
                (i32.load8_u (i32.add (i32.const 1024) (local.get $i)))
                (i32.load8_u (i32.add (i32.const 896) (local.get $i)))))
            (br_if $next (i32.lt_u
                (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const {len}))))"
    );
    let options = Options {
        graphs: vec![("g".to_owned(), graph.into())],
        ..Options::new("program")
    };
    ended(run(&program(&items, &body), options))
}

#[test]
fn the_numbers_of_every_revision_are_understood() {
    let eight = [1, 2, 3, 4, 5, 6, 7, 8];
    let sixteen = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16];
    for (dtype, numbers, data) in [
        (DataType::Float16, &[0][..], &eight[..4]),
        (DataType::Float, &[1], &eight),
        (DataType::Double, &[2], &sixteen),
        (DataType::Uint8, &[2, 3, 4], &eight[..2]),
        (DataType::Int32, &[3, 4, 5], &eight),
        (DataType::Int64, &[5, 6], &sixteen),
        (DataType::Int8, &[2, 3], &eight[..2]),
        (DataType::Bool, &[2, 3], &[1, 0]),
        (DataType::Uint32, &[3, 4], &eight),
        (DataType::Uint64, &[5], &sixteen),
    ] {
        for number in numbers {
            assert_eq!(passes(dtype, *number, data), 0, "{dtype:?} as {number}");
        }
    }
}

#[test]
fn a_type_that_the_graph_does_not_take_is_refused() {
    let bytes = [0; 16];
    for (dtype, number, len) in [
        (DataType::Float, 4, 8),
        (DataType::Int32, 1, 8),
        (DataType::Double, 5, 16),
        (DataType::Float, 2, 2),
        (DataType::Float, 1, 7),
        (DataType::Float, 7, 8),
        (DataType::Float, 255, 8),
        (DataType::Uint8, 3, 8),
    ] {
        assert_eq!(
            passes(dtype, number, &bytes[..len]),
            51,
            "{dtype:?} as {number}"
        );
    }
    assert_eq!(passes(DataType::Bool, 3, &[1, 2]), 51);
}
