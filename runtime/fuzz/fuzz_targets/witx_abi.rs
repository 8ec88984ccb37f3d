//! Makes arbitrary calls of `wasi_ephemeral_nn` from a program. Run with
//! `cargo +nightly fuzz run witx_abi corpus/witx_abi seeds/witx_abi`.
//!
//! Nothing may panic: a program ends by itself, by a trap or by a limit.
#![no_main]

use std::sync::LazyLock;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use tidegate_runtime::command::{CommandError, Options, Program};
use tidegate_runtime_fuzz::{Call, call, identity, imports, interpreter};

const NN: &str = "wasi_ephemeral_nn";

const CALLS: &[Call] = &[
    call(NN, "load", "iiiii", "i"),
    call(NN, "load_by_name", "iii", "i"),
    call(NN, "load_by_name_with_config", "iiiii", "i"),
    call(NN, "init_execution_context", "ii", "i"),
    call(NN, "set_input", "iii", "i"),
    call(NN, "compute", "i", "i"),
    call(NN, "get_output", "iiiii", "i"),
    call(NN, "unload", "i", "i"),
    call(NN, "finalize_execution_context", "i", "i"),
    call(NN, "compute_single", "i", "i"),
    call(NN, "fini_single", "i", "i"),
    call(NN, "get_output_single", "iiiii", "i"),
];

/// What the program has from the start: a name at 768, a tensor of two floats at 776 with its dimensions at
/// 800 and its elements at 808, and a graph in one part at 832.
fn data(graph: &[u8]) -> String {
    let escaped = |bytes: &[u8]| -> String {
        let escapes = bytes.iter().map(|byte| format!("\\{byte:02x}"));
        escapes.collect()
    };
    let len = u32::try_from(graph.len()).expect("it is small");
    format!(
        r#"(data (i32.const 768) "g")
        (data (i32.const 776) "\20\03\00\00\01\00\00\00\01\00\00\00\28\03\00\00\08\00\00\00")
        (data (i32.const 800) "\02\00\00\00")
        (data (i32.const 808) "\00\00\c0\3f\00\00\00\c0")
        (data (i32.const 832) "\00\04\00\00{}")
        (data (i32.const 1024) "{}")"#,
        escaped(&len.to_le_bytes()),
        escaped(graph),
    )
}

/// Takes the script from its argument, where each byte is two letters from `a` to `p`.
static PROGRAM: LazyLock<Program> = LazyLock::new(|| {
    let text = format!(
        r#"(module {}
            (import "wasi_snapshot_preview1" "args_get" (func $args (param i32 i32) (result i32)))
            (memory (export "memory") 16)
            {}
            {}
            (func (export "_start") (local $from i32) (local $to i32)
                (drop (call $args (i32.const 8) (i32.const 65536)))
                (local.set $from (i32.load (i32.const 12)))
                (local.set $to (i32.const 65536))
                (block $end (loop $next
                    (br_if $end (i32.eqz (i32.load8_u (local.get $from))))
                    (i32.store8 (local.get $to) (i32.or
                        (i32.shl (i32.sub (i32.load8_u (local.get $from)) (i32.const 97)) (i32.const 4))
                        (i32.sub (i32.load8_u offset=1 (local.get $from)) (i32.const 97))))
                    (local.set $from (i32.add (local.get $from) (i32.const 2)))
                    (local.set $to (i32.add (local.get $to) (i32.const 1)))
                    (br $next)))
                (call $run (i32.const 65536) (local.get $to))))"#,
        imports(CALLS),
        data(&identity()),
        interpreter(CALLS),
    );
    let file = wat::parse_str(text).expect("the text is well-formed");
    Program::compile(&file).expect("the program compiles")
});

fuzz_target!(|script: &[u8]| {
    let letters = script.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    let script: String = letters.map(|nibble| char::from(b'a' + nibble)).collect();
    let options = Options {
        arguments: vec![script],
        graphs: vec![("g".to_owned(), identity().into())],
        timeout: Some(Duration::from_secs(10)),
        memory_bytes_max: 8 << 20,
        ..Options::new("script")
    };
    match PROGRAM.run(options) {
        Ok(ended) => assert_eq!(ended.status, 0),
        Err(CommandError::Trapped { .. } | CommandError::TimedOut(_)) => {}
        Err(error) => panic!("{error}"),
    }
});
