//! Models made on the spot: ONNX files field by field, guests in WebAssembly text.

use std::time::Duration;

use serde_json::{Value, json};
use wit_component::{ComponentEncoder, StringEncoding};
use wit_parser::Resolve;

const NN_WIT: &str = include_str!("../../modules/wit/deps/wasi-nn/nn.wit");
const MODEL_WIT: &str = include_str!("../../modules/wit/model.wit");

/// What guests of the tests import beside the world of a module: the clock and the log that they may have,
/// and a socket that they may not.
const EXTRA_WIT: &str = "
package tidegate:test;

world clock {
    import wasi:clocks/monotonic-clock@0.2.0;
}

world log {
    import wasi:cli/stderr@0.2.0;
}

world socket {
    import wasi:sockets/instance-network@0.2.0;
}

package wasi:clocks@0.2.0 {
    interface monotonic-clock {
        now: func() -> u64;
    }
}

package wasi:io@0.2.0 {
    interface error {
        resource error;
    }

    interface streams {
        use error.{error};

        variant stream-error {
            last-operation-failed(error),
            closed
        }

        resource output-stream {
            blocking-write-and-flush: func(contents: list<u8>) -> result<_, stream-error>;
        }
    }
}

package wasi:cli@0.2.0 {
    interface stderr {
        use wasi:io/streams@0.2.0.{output-stream};
        get-stderr: func() -> output-stream;
    }
}

package wasi:sockets@0.2.0 {
    interface instance-network {
        instance-network: func() -> u32;
    }
}
";

/// An ONNX model that adds its input `x`, FP32 of shape `[n, 4]`, to itself, giving `y`.
#[must_use]
pub fn doubler() -> Vec<u8> {
    let node = [text(1, "x"), text(1, "x"), text(2, "y"), text(4, "Add")].concat();
    model(&field(1, &node))
}

/// An ONNX model from `x` to `y`, both FP32 of shape `[n, 4]`, with these nodes and initialisers: fields 1
/// and 5 of a `GraphProto`.
#[must_use]
pub fn model(parts: &[u8]) -> Vec<u8> {
    let graph = [
        parts,
        &text(2, "g"),
        &field(11, &value("x")),
        &field(12, &value("y")),
    ];
    let opset = [text(1, ""), number(2, 13)].concat();
    [number(1, 8), field(7, &graph.concat()), field(8, &opset)].concat()
}

/// A `ValueInfoProto`: FP32 of shape `[n, 4]`.
fn value(name: &str) -> Vec<u8> {
    let extents = [field(1, &text(2, "n")), field(1, &number(1, 4))].concat();
    let tensor = [number(1, 1), field(2, &extents)].concat();
    [text(1, name), field(2, &field(1, &tensor))].concat()
}

/// A field of a Protocol Buffers message that is a number. Fields go up to 15.
#[must_use]
pub fn number(field: u8, value: u64) -> Vec<u8> {
    [vec![field << 3], varint(value)].concat()
}

/// A field that is a text.
#[must_use]
pub fn text(number: u8, value: &str) -> Vec<u8> {
    field(number, value.as_bytes())
}

/// A field that is bytes or another message.
#[must_use]
pub fn field(number: u8, value: &[u8]) -> Vec<u8> {
    [&[number << 3 | 2], &varint(value.len() as u64)[..], value].concat()
}

/// A number as Protocol Buffers write it: seven bits a byte, the lowest first.
fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    bytes.push(value.to_le_bytes()[0]);
    bytes
}

/// What a guest does with a request.
#[derive(Clone, Copy, Debug)]
pub enum Behaviour {
    /// Gives its inputs back after this long.
    EchoAfter(Duration),
    /// Never comes back.
    Loop,
    /// Traps.
    Trap,
    /// Traps in one run of four, as the clock has it; gives its inputs back in the others.
    TrapAtTimes,
    /// Takes memory until there is none, and then traps.
    Allocate,
    /// Calls itself without end.
    Recurse,
    /// Wants a socket.
    Socket,
}

impl Behaviour {
    /// The guest as a component.
    #[must_use]
    pub fn component(self) -> Vec<u8> {
        let (extra, imports, body) = self.parts();
        guest(extra, imports, "(func $recurse (call $recurse))", &body)
    }

    /// The world of its further imports, they, and the body of its `infer`.
    fn parts(self) -> (Option<&'static str>, &'static str, String) {
        let clock =
            r#"(import "wasi:clocks/monotonic-clock@0.2.0" "now" (func $now (result i64)))"#;
        let network = r#"(import "wasi:sockets/instance-network@0.2.0" "instance-network" (func (result i32)))"#;
        match self {
            Self::EchoAfter(Duration::ZERO) => (None, "", String::new()),
            Self::EchoAfter(wait) => {
                let wait = wait.as_nanos();
                let body = format!(
                    "(local.set $end (i64.add (call $now) (i64.const {wait})))
                     (loop $again (br_if $again (i64.lt_u (call $now) (local.get $end))))"
                );
                (Some("clock"), clock, body)
            }
            Self::Loop => (None, "", "(loop $again (br $again))".to_owned()),
            Self::Trap => (None, "", "unreachable".to_owned()),
            Self::TrapAtTimes => {
                // Bits of the nanoseconds that change from run to run.
                let body =
                    "(if (i64.eqz (i64.and (call $now) (i64.const 0x300))) (then unreachable))";
                (Some("clock"), clock, body.to_owned())
            }
            Self::Allocate => {
                let body = "(loop $again
                    (br_if $again (i32.ne (memory.grow (i32.const 16)) (i32.const -1))))
                    unreachable";
                (None, "", body.to_owned())
            }
            Self::Recurse => (None, "", "(call $recurse)".to_owned()),
            Self::Socket => (Some("socket"), network, String::new()),
        }
    }
}

/// A component whose `infer` runs `body` and then gives its inputs back. `extra` is the world of its further
/// `imports`, `items` are what else its core module has; the body has a 64-bit local `$end`.
#[must_use]
pub fn guest(extra: Option<&str>, imports: &str, items: &str, body: &str) -> Vec<u8> {
    let mut resolve = Resolve::default();
    resolve
        .push_source("nn.wit", NN_WIT)
        .expect("the interface is valid");
    let package = resolve
        .push_source("model.wit", MODEL_WIT)
        .expect("the world is valid");
    let world = resolve
        .select_world(&[package], Some("module"))
        .expect("the world is there");
    if let Some(name) = extra {
        let package = resolve.push_source("extra.wit", EXTRA_WIT).expect("valid");
        let extra = resolve
            .select_world(&[package], Some(name))
            .expect("the world is there");
        let merged = resolve.merge_worlds(extra, world, &mut Default::default());
        merged.expect("the worlds have no name in common");
    }
    let text = format!(
        r#"(module {imports}
            (memory (export "memory") 2)
            (global $heap (mut i32) (i32.const 65536))
            (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
                global.get $heap
                (global.set $heap (i32.and
                    (i32.add (i32.add (global.get $heap) (local.get 3)) (i32.const 7))
                    (i32.const -8))))
            {items}
            (func (export "infer") (param $inputs i32) (param $len i32) (result i32)
                (local $end i64)
                {body}
                (i32.store8 (i32.const 1024) (i32.const 0))
                (i32.store (i32.const 1028) (local.get $inputs))
                (i32.store (i32.const 1032) (local.get $len))
                (i32.const 1024)))"#
    );
    let mut core = wat::parse_str(text).expect("the text is valid");
    wit_component::embed_component_metadata(&mut core, &resolve, world, StringEncoding::UTF8)
        .expect("the world can be embedded");
    let encoder = ComponentEncoder::default().validate(true);
    let component = encoder
        .module(&core)
        .and_then(|mut encoder| encoder.encode());
    component.expect("the guest fits its world")
}

/// The same in another version.
#[must_use]
pub fn in_version(mut manifest: Value, version: &str) -> Value {
    manifest["version"] = version.into();
    manifest
}

/// The manifest of a guest that takes `x`, INT32 of shape `[n]`, and gives it back.
#[must_use]
pub fn echo_manifest(name: &str) -> Value {
    let x = json!({"name": "x", "datatype": "INT32", "shape": [-1]});
    json!({
        "format": 1, "name": name, "version": "1.0.0", "inputs": [x], "outputs": [x],
    })
}

/// A request to a model of [`echo_manifest`].
#[must_use]
pub fn echo_request(id: &str, value: i32) -> Value {
    let x = json!({"name": "x", "datatype": "INT32", "shape": [1], "data": [value]});
    json!({"id": id, "inputs": [x]})
}

/// A request to the [`doubler`].
#[must_use]
pub fn doubler_request() -> Value {
    let x = json!({"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2.5, -3, 0]});
    json!({"inputs": [x]})
}

/// What the [`doubler`] answers to [`doubler_request`].
#[must_use]
pub fn doubled() -> Value {
    json!([{"name": "y", "datatype": "FP32", "shape": [1, 4], "data": [2.0, 5.0, -6.0, 0.0]}])
}
