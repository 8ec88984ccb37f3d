//! `tidegate run`.

use crate::pack::Folder;
use crate::{onnx, tidegate};

/// A program that leaves with the number of its arguments, or traps if its environment is not empty.
const COUNTING: &str = r#"(module
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (import "wasi_snapshot_preview1" "args_sizes_get" (func $args (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "environ_sizes_get" (func $environ (param i32 i32) (result i32)))
  (import "wasi_ephemeral_nn" "load_by_name" (func $load (param i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 32) "doubler")
  (func (export "_start")
    (drop (call $environ (i32.const 0) (i32.const 4)))
    (if (i32.load (i32.const 0)) (then unreachable))
    (drop (call $args (i32.const 0) (i32.const 4)))
    (call $exit (i32.load (i32.const 0))))
  (func (export "graph") (result i32)
    (call $load (i32.const 32) (i32.const 7) (i32.const 0)))
  (func (export "half") (param f64) (result f64) (f64.div (local.get 0) (f64.const 2)))
  (func (export "forever") (loop $forever (br $forever))))"#;

fn counting(folder: &Folder) -> String {
    folder.put("counting.wasm", &wat::parse_str(COUNTING).unwrap())
}

#[test]
fn the_status_is_the_program_s_and_the_environment_is_not_ours() {
    let folder = Folder::new();
    let program = counting(&folder);
    for (arguments, count) in [(&[][..], 1), (&["--"], 1), (&["--", "a", "--graph"], 3)] {
        let ran = tidegate(&[&["run", &program], arguments].concat());
        assert_eq!(ran.code, Some(count), "{arguments:?}: {}", ran.err);
    }
    let variable = ["run", &program, "--env", "A=1"];
    tidegate(&variable).fails(1, &[&program, "unreachable"]);
}

#[test]
fn a_function_gives_its_results_on_lines_of_their_own() {
    let folder = Folder::new();
    let program = counting(&folder);
    let half = ["run", &program, "--invoke", "half", "--", "-3"];
    assert_eq!(tidegate(&half).ok(), "-1.5\n");
    let graph = format!("doubler={}", folder.path("doubler.onnx"));
    let load = ["run", &program, "--invoke", "graph", "--graph", &graph];
    assert_eq!(tidegate(&load).ok(), "0\n");
    // Without the graph it is not found, which the log explains.
    let ran = tidegate(&load[..4]);
    assert!(
        ran.err.contains("there is no graph \"doubler\""),
        "{}",
        ran.err
    );
    assert_eq!(ran.ok(), "8\n");
    let forever = ["run", &program, "--invoke", "forever", "--timeout", "50ms"];
    tidegate(&forever).fails(1, &[&program, "longer than 50ms"]);
}

/// Reading it in the command's own process would end that by a signal, without an exit code.
#[test]
fn a_graph_that_takes_processes_down_is_an_error() {
    let folder = Folder::new();
    let program = counting(&folder);
    let graph = format!("deep={}", folder.put("deep.onnx", &onnx::deep()));
    tidegate(&["run", &program, "--graph", &graph])
        .fails(1, &["graph \"deep\"", "overflowed its stack"]);
    // One that the program brings is the program's error, `runtime_error`.
    let onnx: String = onnx::deep()
        .iter()
        .map(|byte| format!("\\{byte:02x}"))
        .collect();
    let len = onnx.len() / 3;
    let bringing = format!(
        r#"(module
          (import "wasi_ephemeral_nn" "load" (func $load (param i32 i32 i32 i32 i32) (result i32)))
          (memory (export "memory") 64)
          (data (i32.const 4096) "{onnx}")
          (func (export "graph") (result i32)
            (i32.store (i32.const 16) (i32.const 4096))
            (i32.store (i32.const 20) (i32.const {len}))
            (call $load (i32.const 16) (i32.const 1) (i32.const 1) (i32.const 0) (i32.const 32))))"#
    );
    let program = folder.put("bringing.wasm", &wat::parse_str(bringing).unwrap());
    let ran = tidegate(&["run", &program, "--invoke", "graph"]);
    assert!(ran.err.contains("overflowed its stack"), "{}", ran.err);
    assert_eq!(ran.ok(), "5\n");
}

#[test]
fn what_cannot_run_is_named() {
    let folder = Folder::new();
    let program = counting(&folder);
    let text = folder.put("text.wasm", b"text");
    folder.pack(&[]).ok();
    let (module, nowhere) = (folder.path("doubler.wasm"), folder.path("nowhere"));
    let onnx = format!("a={text}");
    for (arguments, code, named) in [
        (&["run"][..], 64, "PROGRAM.wasm"),
        (&["run", &program, "surplus"], 64, "surplus"),
        (&["run", &program, "--graph", "a"], 64, "NAME=MODEL.onnx"),
        (&["run", &program, "--memory", "0"], 64, "--memory"),
        (&["run", &program, "--stand-in", "a"], 64, "\"a\""),
        (&["run", &program, "--invoke", "third"], 64, "third"),
        (
            &["run", &program, "--invoke", "half", "--", "x"],
            64,
            "\"x\"",
        ),
        (&["run", &nowhere], 1, &nowhere),
        (&["run", &text], 1, "not WebAssembly"),
        (&["run", &module], 1, "tidegate agent"),
        (&["run", &program, "--dir", &nowhere], 1, &nowhere),
        (&["run", &program, "--graph", &onnx], 1, "graph \"a\""),
    ] {
        tidegate(arguments).fails(code, &[named]);
    }
}
