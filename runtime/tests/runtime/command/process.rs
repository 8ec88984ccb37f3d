//! A program as a process: how it starts, ends, and is ended.

use std::time::{Duration, Instant};

use tidegate_runtime::command::{CommandError, Folder, InvokeError, Options};

use super::{ended, options, program, run};
use crate::fixture::{identity, packed};

/// A module of these items, without imports of graphs.
fn module(items: &str) -> Vec<u8> {
    let text = format!(
        r#"(module
          (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
          (import "wasi_snapshot_preview1" "fd_prestat_get" (func $prestat (param i32 i32) (result i32)))
          (import "wasi_snapshot_preview1" "environ_sizes_get" (func $environ (param i32 i32) (result i32)))
          (import "wasi_snapshot_preview1" "args_sizes_get" (func $args (param i32 i32) (result i32)))
          (import "wasi_snapshot_preview1" "poll_oneoff"
            (func $poll (param i32 i32 i32 i32) (result i32)))
          (memory (export "memory") 1)
          {items})"#
    );
    wat::parse_str(text).unwrap()
}

fn start(body: &str) -> Vec<u8> {
    module(&format!(r#"(func (export "_start") {body})"#))
}

#[track_caller]
fn fails(program: &[u8], options: Options, message: &str) -> CommandError {
    let error = run(program, options).unwrap_err();
    assert!(error.to_string().contains(message), "{error}");
    error
}

#[test]
fn the_status_is_the_program_s() {
    assert_eq!(ended(run(&start(""), options())), 0);
    assert_eq!(
        ended(run(&start("(call $exit (i32.const 42))"), options())),
        42
    );
    // WASI has no status above 125.
    fails(
        &start("(call $exit (i32.const 200))"),
        options(),
        "exit status",
    );
}

#[test]
fn a_trap_is_named_with_its_place() {
    let items = r#"(func $broken unreachable) (func (export "_start") (call $broken))"#;
    fails(
        &module(items),
        options(),
        r#"`unreachable` instruction executed in "broken""#,
    );
    let deep = r#"(func $deep (call $deep)) (func (export "_start") (call $deep))"#;
    fails(&module(deep), options(), "exhausted its stack");
    let at_start = r#"(func $s unreachable) (start $s) (func (export "_start"))"#;
    fails(&module(at_start), options(), "trapped");
}

#[test]
fn memory_ends_at_its_limit() {
    let small = || Options {
        memory_bytes_max: 1 << 20,
        ..options()
    };
    let grow = "(if (i32.eq (memory.grow (i32.const 15)) (i32.const -1)) (then unreachable))";
    assert_eq!(ended(run(&start(grow), small())), 0);
    let grow = grow.replace("15", "16");
    fails(
        &start(&grow),
        small(),
        "the limit of 1048576 bytes of memory",
    );
    let large = wat::parse_str(r#"(module (memory 17) (func (export "_start")))"#).unwrap();
    fails(&large, small(), "the limit of 1048576 bytes of memory");
}

#[test]
fn a_run_ends_in_time_wherever_it_is() {
    let short = || Options {
        timeout: Some(Duration::from_millis(100)),
        ..options()
    };
    // A subscription to the clock, ten minutes from now.
    let sleep = r#"(data (i32.const 16) "\01") (data (i32.const 24) "\00\70\c9\b2\8b")
        (func (export "_start") (drop (call $poll (i32.const 0) (i32.const 128) (i32.const 1)
            (i32.const 192))))"#;
    for program in [
        start("(loop $forever (br $forever))"),
        module(r#"(func $s (loop $forever (br $forever))) (start $s) (func (export "_start"))"#),
        module(sleep),
    ] {
        let began = Instant::now();
        let error = run(&program, short()).unwrap_err();
        assert!(matches!(error, CommandError::TimedOut(_)), "{error}");
        assert!(
            began.elapsed() < Duration::from_secs(20),
            "{:?}",
            began.elapsed()
        );
    }
}

#[test]
fn a_program_has_what_it_was_given_and_no_more() {
    let folder = start("(call $exit (call $prestat (i32.const 3) (i32.const 64)))");
    let badf = 8;
    assert_eq!(ended(run(&folder, options())), badf);
    let with = Options {
        folders: vec![Folder {
            host: std::env::temp_dir(),
            guest: "here".to_owned(),
        }],
        ..options()
    };
    assert_eq!(ended(run(&folder, with)), 0);
    let nowhere = Options {
        folders: vec![Folder {
            host: "/nowhere/at/all".into(),
            guest: "here".to_owned(),
        }],
        ..options()
    };
    fails(&folder, nowhere, "/nowhere/at/all");

    let count = |function: &str| {
        start(&format!(
            "(drop (call ${function} (i32.const 64) (i32.const 68))) (call $exit (i32.load (i32.const 64)))"
        ))
    };
    assert_eq!(ended(run(&count("environ"), options())), 0);
    assert_eq!(ended(run(&count("args"), options())), 1);
    let with = || Options {
        environment: vec![("A".to_owned(), "1".to_owned())],
        arguments: vec!["a".to_owned(), "b".to_owned()],
        ..options()
    };
    assert_eq!(ended(run(&count("environ"), with())), 1);
    assert_eq!(ended(run(&count("args"), with())), 3);
}

#[test]
fn what_is_no_program_is_refused_by_what_it_is() {
    fails(b"", options(), "not WebAssembly");
    fails(b"\0asm\x01\0\0\0\x0b", options(), "cannot be compiled");
    fails(packed(&identity()).file(), options(), "a model module");
    fails(&module(""), options(), "_start");
    let imports = wat::parse_str(
        r#"(module (import "env" "a" (func)) (import "wasi_snapshot_preview1" "sock_open" (func))
            (func (export "_start")))"#,
    );
    fails(
        &imports.unwrap(),
        options(),
        "env::a, wasi_snapshot_preview1::sock_open",
    );
    let other = r#"(module (import "wasi_ephemeral_nn" "load" (func)) (func (export "_start")))"#;
    fails(
        &wat::parse_str(other).unwrap(),
        options(),
        "cannot be linked",
    );
    let broken = Options {
        graphs: vec![("h".to_owned(), b"text".to_vec().into())],
        ..options()
    };
    fails(&program("", ""), broken, r#"graph "h""#);
}

#[test]
fn a_function_of_a_library_is_called_with_its_parameters() {
    let library = module(
        r#"(global $ready (mut i32) (i32.const 0))
        (func (export "_initialize") (global.set $ready (i32.const 1)))
        (func (export "add") (param i32 f64) (result f64 i32)
            (f64.add (f64.convert_i32_s (local.get 0)) (local.get 1)) (global.get $ready))
        (func (export "fail") unreachable)"#,
    );
    let call = |function: &str, arguments: &[&str]| Options {
        invoke: Some(function.to_owned()),
        arguments: arguments.iter().map(|text| (*text).to_owned()).collect(),
        ..options()
    };
    let ended = run(&library, call("add", &["-1", "2.5"])).unwrap();
    assert_eq!(ended.results, ["1.5", "1"]);
    fails(&library, call("fail", &[]), "trapped");
    for (function, arguments, refused) in [
        ("subtract", &[][..], InvokeError::Missing),
        ("memory", &[], InvokeError::Missing),
        ("add", &["1"], InvokeError::Count { wanted: 2, got: 1 }),
    ] {
        let error = run(&library, call(function, arguments)).unwrap_err();
        assert!(error.is_usage());
        match error {
            CommandError::Invoke { source, .. } => assert_eq!(source, refused),
            other => panic!("{other}"),
        }
    }
    let error = run(&library, call("add", &["1", "two"])).unwrap_err();
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(
        source.contains("parameter 2 is f64, not \"two\""),
        "{source}"
    );
}
