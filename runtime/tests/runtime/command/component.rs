//! Components that are commands, with `wasi:nn`.

use tidegate_runtime::command::{CommandError, Options};
use wit_component::{ComponentEncoder, StringEncoding};
use wit_parser::Resolve;

use super::{brought, ended, options, run};
use crate::fixture::NN_WIT;

const WIT: &str = "
package tidegate:test;

world command {
    import wasi:nn/tensor@0.2.0-rc-2024-10-28;
    import wasi:nn/graph@0.2.0-rc-2024-10-28;
    import wasi:nn/inference@0.2.0-rc-2024-10-28;
    import wasi:nn/errors@0.2.0-rc-2024-10-28;
    import wasi:cli/exit@0.2.0;
    import wasi:sockets/instance-network@0.2.0;
    import wasi:sockets/network@0.2.0;
    import wasi:sockets/tcp-create-socket@0.2.0;
    export wasi:cli/run@0.2.0;
}

package wasi:cli@0.2.0 {
    interface run { run: func() -> result; }
    interface exit { exit: func(status: result); }
}

package wasi:sockets@0.2.0 {
    interface network {
        enum error-code {
            unknown, access-denied, not-supported, invalid-argument, out-of-memory, timeout,
            concurrency-conflict, not-in-progress, would-block, invalid-state, new-socket-limit,
            address-not-bindable, address-in-use, remote-unreachable, connection-refused,
            connection-reset, connection-aborted, datagram-too-large, name-unresolvable,
            temporary-resolver-failure, permanent-resolver-failure,
        }
        enum ip-address-family { ipv4, ipv6 }
        resource network;
    }
    interface instance-network {
        use network.{network};
        instance-network: func() -> network;
    }
    interface tcp { resource tcp-socket; }
    interface tcp-create-socket {
        use network.{error-code, ip-address-family};
        use tcp.{tcp-socket};
        create-tcp-socket: func(address-family: ip-address-family) -> result<tcp-socket, error-code>;
    }
}
";

/// A command whose `run` is this body: it leaves 0 for success and 1 for failure.
fn command(body: &str) -> Vec<u8> {
    let mut resolve = Resolve::default();
    resolve.push_source("nn.wit", NN_WIT).unwrap();
    let package = resolve.push_source("command.wit", WIT).unwrap();
    let world = resolve.select_world(&[package], Some("command")).unwrap();
    let brought = brought();
    let text = format!(
        r#"(module
          (import "wasi:nn/graph@0.2.0-rc-2024-10-28" "load"
            (func $load (param i32 i32 i32 i32 i32)))
          (import "wasi:nn/graph@0.2.0-rc-2024-10-28" "load-by-name"
            (func $load_by_name (param i32 i32 i32)))
          (import "wasi:nn/graph@0.2.0-rc-2024-10-28" "[method]graph.init-execution-context"
            (func $init (param i32 i32)))
          (import "wasi:nn/graph@0.2.0-rc-2024-10-28" "[resource-drop]graph" (func $drop (param i32)))
          (import "wasi:nn/inference@0.2.0-rc-2024-10-28"
            "[method]graph-execution-context.compute" (func $compute (param i32 i32 i32 i32)))
          (import "wasi:nn/tensor@0.2.0-rc-2024-10-28" "[constructor]tensor"
            (func $tensor (param i32 i32 i32 i32 i32) (result i32)))
          (import "wasi:nn/tensor@0.2.0-rc-2024-10-28" "[method]tensor.data"
            (func $data (param i32 i32)))
          (import "wasi:nn/errors@0.2.0-rc-2024-10-28" "[method]error.code"
            (func $code (param i32) (result i32)))
          (import "wasi:cli/exit@0.2.0" "exit" (func $exit (param i32)))
          (import "wasi:sockets/tcp-create-socket@0.2.0" "create-tcp-socket"
            (func $socket (param i32 i32)))
          (memory (export "memory") 2)
          (global $heap (mut i32) (i32.const 65536))
          (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
            global.get $heap
            (global.set $heap (i32.and
                (i32.add (i32.add (global.get $heap) (local.get 3)) (i32.const 7)) (i32.const -8))))
          (data (i32.const 256) "g")
          (data (i32.const 260) "0")
          (data (i32.const 832) "\02\00\00\00")
          (data (i32.const 896) "\00\00\c0\3f\00\00\00\c0")
          {brought}
          (func (export "wasi:cli/run@0.2.0#run") (result i32) {body}))"#
    );
    let mut core = wat::parse_str(text).unwrap();
    wit_component::embed_component_metadata(&mut core, &resolve, world, StringEncoding::UTF8)
        .unwrap();
    let encoder = ComponentEncoder::default().validate(true);
    encoder.module(&core).unwrap().encode().unwrap()
}

/// Runs the graph whose handle is at 516, on an input that is called by its place, and leaves 0 if the
/// output is the input.
const ANSWERS: &str = "
    (if (i32.load8_u (i32.const 512)) (then (return (i32.const 1))))
    (call $init (i32.load (i32.const 516)) (i32.const 520))
    (i32.store (i32.const 1024) (i32.const 260))
    (i32.store (i32.const 1028) (i32.const 1))
    (i32.store (i32.const 1032) (call $tensor (i32.const 832) (i32.const 1) (i32.const 1) (i32.const 896)
        (i32.const 8)))
    (call $compute (i32.load (i32.const 524)) (i32.const 1024) (i32.const 1) (i32.const 528))
    (if (i32.load8_u (i32.const 528)) (then (return (i32.const 1))))
    (call $data (i32.load offset=8 (i32.load (i32.const 532))) (i32.const 544))
    (i64.ne (i64.load (i32.load (i32.const 544))) (i64.load (i32.const 896)))";

#[test]
fn a_graph_by_name_or_brought_answers() {
    for load in [
        "(call $load_by_name (i32.const 256) (i32.const 1) (i32.const 512))",
        "(call $load (i32.const 600) (i32.const 2) (i32.const 6) (i32.const 1) (i32.const 512))",
    ] {
        let program = command(&format!("{load} {ANSWERS}"));
        assert_eq!(ended(run(&program, options())), 0, "{load}");
    }
}

#[test]
fn what_cannot_be_loaded_is_an_error_by_its_code() {
    let code = "(if (i32.eqz (i32.load8_u (i32.const 512))) (then (return (i32.const 1))))
        (i32.ne (call $code (i32.load (i32.const 516))) (i32.const WANTED))";
    for (load, wanted) in [
        (
            "(call $load_by_name (i32.const 260) (i32.const 1) (i32.const 512))",
            6,
        ),
        (
            "(call $load (i32.const 608) (i32.const 2) (i32.const 0) (i32.const 0) (i32.const 512))",
            1,
        ),
        (
            "(call $load (i32.const 0) (i32.const 17) (i32.const 1) (i32.const 0) (i32.const 512))",
            0,
        ),
        (
            "(call $load (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 0) (i32.const 512))",
            0,
        ),
    ] {
        let code = code.replace("WANTED", &wanted.to_string());
        let program = command(&format!("{load} {code}"));
        assert_eq!(ended(run(&program, options())), 0, "{load}");
    }
}

#[test]
fn graphs_that_are_dropped_make_room_for_others() {
    let load =
        "(call $load (i32.const 608) (i32.const 1) (i32.const 1) (i32.const 0) (i32.const 512))
        (if (i32.load8_u (i32.const 512)) (then (return (i32.const 1))))";
    let repeat = |body: &str| {
        command(&format!(
            "(local $i i32) (loop $again {body} (br_if $again (i32.lt_u
                (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 3000))))
             (i32.const 0)"
        ))
    };
    let small = || Options {
        memory_bytes_max: 1 << 17,
        ..options()
    };
    let dropped = repeat(&format!("{load} (call $drop (i32.load (i32.const 516)))"));
    assert_eq!(ended(run(&dropped, small())), 0);
    assert_eq!(ended(run(&repeat(load), small())), 1);
}

#[test]
fn the_status_says_whether_it_failed() {
    assert_eq!(ended(run(&command("(i32.const 1)"), options())), 1);
    let exits = "(call $exit (i32.const 1)) (i32.const 0)";
    assert_eq!(ended(run(&command(exits), options())), 1);
    let error = run(&command("unreachable"), options()).unwrap_err();
    assert!(matches!(error, CommandError::Trapped { .. }), "{error}");
}

#[test]
fn there_is_no_network() {
    let body = "(call $socket (i32.const 0) (i32.const 512))
        (if (i32.eqz (i32.load8_u (i32.const 512))) (then (return (i32.const 1))))
        (i32.ne (i32.load8_u (i32.const 516)) (i32.const 1))";
    assert_eq!(ended(run(&command(body), options())), 0);
}

#[test]
fn a_component_is_a_command_or_nothing() {
    let functions = Options {
        invoke: Some("run".to_owned()),
        ..options()
    };
    let error = run(&command("(i32.const 0)"), functions).unwrap_err();
    assert!(error.is_usage(), "{error}");
    let empty = wat::parse_str("(component)").unwrap();
    let error = run(&empty, options()).unwrap_err();
    assert!(matches!(error, CommandError::NoStart { .. }), "{error}");
    let other = r#"(component (import "wasi:http/types@0.2.0" (instance (export "f" (func)))))"#;
    let error = run(&wat::parse_str(other).unwrap(), options()).unwrap_err();
    assert!(error.to_string().contains("wasi:http/types"), "{error}");
}
