//! Programs of others: they run as published, and what they pass wrong comes back as an error number.

mod component;
mod elements;
mod hostile;
mod process;

use tidegate_runtime::command::{CommandError, Ended, Options, Program};

use crate::fixture::identity;

/// Every import of `wasi_ephemeral_nn`, and the way out.
const IMPORTS: &str = r#"
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (import "wasi_ephemeral_nn" "load" (func $load (param i32 i32 i32 i32 i32) (result i32)))
  (import "wasi_ephemeral_nn" "load_by_name" (func $load_by_name (param i32 i32 i32) (result i32)))
  (import "wasi_ephemeral_nn" "load_by_name_with_config"
    (func $load_by_name_with_config (param i32 i32 i32 i32 i32) (result i32)))
  (import "wasi_ephemeral_nn" "init_execution_context" (func $init (param i32 i32) (result i32)))
  (import "wasi_ephemeral_nn" "set_input" (func $set_input (param i32 i32 i32) (result i32)))
  (import "wasi_ephemeral_nn" "compute" (func $compute (param i32) (result i32)))
  (import "wasi_ephemeral_nn" "get_output"
    (func $get_output (param i32 i32 i32 i32 i32) (result i32)))
  (import "wasi_ephemeral_nn" "unload" (func $unload (param i32) (result i32)))
  (import "wasi_ephemeral_nn" "finalize_execution_context" (func $finalize (param i32) (result i32)))
  (import "wasi_ephemeral_nn" "compute_single" (func $compute_single (param i32) (result i32)))
  (import "wasi_ephemeral_nn" "fini_single" (func $fini_single (param i32) (result i32)))
  (import "wasi_ephemeral_nn" "get_output_single"
    (func $get_output_single (param i32 i32 i32 i32 i32) (result i32)))"#;

/// What lies in the memory of a program: the name of the graph at 256, a tensor of two floats at 768
/// with its shape at 832 and its data at 896. Results go to 512, outputs to 1024.
const DATA: &str = r#"
  (data (i32.const 256) "g")
  (data (i32.const 768) "\40\03\00\00\01\00\00\00\01\00\00\00\80\03\00\00\08\00\00\00")
  (data (i32.const 832) "\02\00\00\00")
  (data (i32.const 896) "\00\00\c0\3f\00\00\00\c0")"#;

/// Leaves the graph's handle at 512 and the context's at 516, with its input set.
const READY: &str = "
  (call $must (call $load_by_name (i32.const 256) (i32.const 1) (i32.const 512)))
  (call $must (call $init (i32.load (i32.const 512)) (i32.const 516)))
  (call $must (call $set_input (i32.load (i32.const 516)) (i32.const 0) (i32.const 768)))";

/// Runs the context, and fails unless the output at 1024 is the input.
const ANSWERS: &str = "
  (call $must (call $compute (i32.load (i32.const 516))))
  (call $must (call $get_output (i32.load (i32.const 516)) (i32.const 0) (i32.const 1024) (i32.const 64)
    (i32.const 520)))
  (call $must (i32.ne (i32.load (i32.const 520)) (i32.const 8)))
  (call $must (i64.ne (i64.load (i32.const 1024)) (i64.load (i32.const 896))))";

/// A program of this body, in which `$must` leaves with 99 unless it gets 0.
fn program(items: &str, body: &str) -> Vec<u8> {
    let text = format!(
        r#"(module {IMPORTS}
          (memory (export "memory") 2)
          {DATA} {items}
          (func $must (param i32)
            (if (local.get 0) (then (call $exit (i32.const 99)))))
          (func (export "_start") (local $i i32) {body}))"#
    );
    wat::parse_str(text).unwrap()
}

/// Compiles a program, and runs it to its end.
fn run(file: &[u8], options: Options) -> Result<Ended, CommandError> {
    Program::compile(file)?.run(options)
}

/// A program with the identity of two floats as its graph `g`.
fn options() -> Options {
    Options {
        graphs: vec![("g".to_owned(), identity().into())],
        ..Options::new("program")
    }
}

/// Runs a program whose body leaves an exit status.
#[track_caller]
fn status(items: &str, body: &str) -> u8 {
    let program = program(items, &format!("(call $exit (block (result i32) {body}))"));
    ended(run(&program, options()))
}

#[track_caller]
fn ended(result: Result<Ended, CommandError>) -> u8 {
    match result {
        Ok(Ended { status, .. }) => status,
        Err(error) => panic!("{error}"),
    }
}

/// Bytes as WebAssembly text has them.
fn escaped(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("\\{byte:02x}")).collect()
}

#[test]
fn a_graph_by_name_runs_as_often_as_the_program_likes() {
    let body = format!("{READY} {ANSWERS} {ANSWERS} (i32.const 0)");
    assert_eq!(status("", &body), 0);
    let config =
        "(call $load_by_name_with_config (i32.const 256) (i32.const 1) (i32.const 0) (i32.const 9)
        (i32.const 512))";
    assert_eq!(status("", config), 0);
}

#[test]
fn a_graph_that_is_not_there_is_not_found() {
    let body = "(call $load_by_name (i32.const 832) (i32.const 1) (i32.const 512))";
    assert_eq!(status("", body), 8);
}

/// Text that puts the identity into the memory, and two parts at 600: nothing, and it.
fn brought() -> String {
    let onnx = identity();
    let len = escaped(&u32::try_from(onnx.len()).unwrap().to_le_bytes());
    format!(
        r#"(data (i32.const 4096) "{}")
        (data (i32.const 600) "\00\00\00\00\00\00\00\00\00\10\00\00{len}\00\10\00\00{len}")"#,
        escaped(&onnx)
    )
}

#[test]
fn a_program_may_bring_a_graph_under_any_encoding_and_target() {
    for (encoding, target) in [(1, 0), (5, 1), (6, 2), (3, 3), (0, 0), (14, 0)] {
        let body = format!(
            "(call $must (call $load (i32.const 600) (i32.const 2) (i32.const {encoding})
                (i32.const {target}) (i32.const 512)))
             (call $must (call $init (i32.load (i32.const 512)) (i32.const 516)))
             (call $must (call $set_input (i32.load (i32.const 516)) (i32.const 0) (i32.const 768)))
             {ANSWERS} (i32.const 0)"
        );
        assert_eq!(status(&brought(), &body), 0, "{encoding} {target}");
    }
    for (encoding, target, errno) in [(15, 0, 2), (1, 4, 1), (-1, 0, 2), (1, -1, 1)] {
        let body = format!(
            "(call $load (i32.const 600) (i32.const 2) (i32.const {encoding}) (i32.const {target})
                (i32.const 512))"
        );
        assert_eq!(status(&brought(), &body), errno, "{encoding} {target}");
    }
}

#[test]
fn another_graph_stands_in_for_one_that_is_not_onnx() {
    // Two parts, as OpenVINO's graphs have them.
    let body = format!(
        "(call $must (call $load (i32.const 608) (i32.const 2) (i32.const 0) (i32.const 0)
            (i32.const 512)))
         (call $must (call $init (i32.load (i32.const 512)) (i32.const 516)))
         (call $must (call $set_input (i32.load (i32.const 516)) (i32.const 0) (i32.const 768)))
         {ANSWERS}"
    );
    let program = program(&brought(), &body);
    let with = Options {
        stand_in: Some("g".to_owned()),
        ..options()
    };
    assert_eq!(ended(run(&program, with)), 0);
    assert_eq!(ended(run(&program, options())), 99);
    let nowhere = Options {
        stand_in: Some("h".to_owned()),
        ..options()
    };
    let error = run(&program, nowhere).unwrap_err();
    assert!(matches!(error, CommandError::StandIn { .. }), "{error}");
}

#[test]
fn an_output_that_does_not_fit_leaves_the_buffer_and_says_its_size() {
    let body = format!(
        "{READY} (call $must (call $compute (i32.load (i32.const 516))))
         (call $must (i32.ne (i32.const 7) (call $get_output (i32.load (i32.const 516)) (i32.const 0)
            (i32.const 1024) (i32.const 7) (i32.const 520))))
         (call $must (i64.ne (i64.const 0) (i64.load (i32.const 1024))))
         (i32.load (i32.const 520))"
    );
    assert_eq!(status("", &body), 8);
}

#[test]
fn an_output_is_there_once_the_graph_has_run() {
    let get = |index: u32| {
        format!(
            "(call $get_output (i32.load (i32.const 516)) (i32.const {index}) (i32.const 1024)
                (i32.const 64) (i32.const 520))"
        )
    };
    assert_eq!(status("", &format!("{READY} {}", get(0))), 5);
    assert_eq!(status("", &format!("{READY} {}", get(1))), 1);
    let again = format!("{READY} {ANSWERS} {}", get(1));
    assert_eq!(status("", &again), 1);
}

#[test]
fn a_run_without_its_inputs_fails() {
    let body = "
      (call $must (call $load_by_name (i32.const 256) (i32.const 1) (i32.const 512)))
      (call $must (call $init (i32.load (i32.const 512)) (i32.const 516)))
      (call $compute (i32.load (i32.const 516)))";
    assert_eq!(status("", body), 1);
}

#[test]
fn what_no_graph_here_can_do_is_unsupported() {
    for call in [
        "(call $compute_single (i32.load (i32.const 516)))",
        "(call $fini_single (i32.load (i32.const 516)))",
        "(call $get_output_single (i32.load (i32.const 516)) (i32.const 0) (i32.const 1024) (i32.const 64)
            (i32.const 520))",
    ] {
        assert_eq!(status("", &format!("{READY} {call}")), 6, "{call}");
    }
}

#[test]
fn a_program_without_a_memory_is_told_so() {
    let text = format!(
        r#"(module {IMPORTS} (memory 1) (func (export "load") (result i32)
          (call $load_by_name (i32.const 0) (i32.const 1) (i32.const 16))))"#
    );
    let load = Options {
        invoke: Some("load".to_owned()),
        ..options()
    };
    let ended = run(&wat::parse_str(text).unwrap(), load).unwrap();
    assert_eq!(ended.results, ["3"]);
}
