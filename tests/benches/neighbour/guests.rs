//! Guests that do harm when they are asked.

use serde_json::json;
use tidegate_tests::http::Http;
use tidegate_tests::models::{echo_manifest, echo_request, guest};
use tidegate_tests::site::Site;

use super::TIMEOUT_US;

/// A guest, and how a request to it must end.
#[derive(Clone, Copy)]
pub(super) struct Guest {
    pub(super) name: &'static str,
    extra: Option<&'static str>,
    imports: &'static str,
    items: &'static str,
    body: &'static str,
    status: u16,
}

const HARMLESS: Guest = Guest {
    name: "",
    extra: None,
    imports: "",
    items: "",
    body: "",
    status: 500,
};

pub(super) fn all() -> impl Iterator<Item = Guest> {
    [
        Guest {
            name: "endless-loop",
            body: "(loop $again (br $again))",
            status: 504,
            ..HARMLESS
        },
        Guest {
            name: "endless-loop-at-start",
            items: "(func $begin (loop $again (br $again))) (start $begin)",
            status: 504,
            ..HARMLESS
        },
        Guest {
            name: "memory-bomb",
            body: "(loop $again
                (br_if $again (i32.ne (memory.grow (i32.const 16)) (i32.const -1))))
                unreachable",
            ..HARMLESS
        },
        Guest {
            name: "memory-touched",
            body: "(drop (memory.grow (i32.const 3000)))
                (memory.fill (i32.const 131072) (i32.const 1) (i32.const 196608000))
                unreachable",
            ..HARMLESS
        },
        Guest {
            name: "table-bomb",
            items: "(table $t 1 funcref)",
            body: "(loop $again
                (br_if $again (i32.ne
                    (table.grow $t (ref.null func) (i32.const 1000)) (i32.const -1))))
                unreachable",
            ..HARMLESS
        },
        Guest {
            name: "deep-recursion",
            items: "(func $recurse (call $recurse))",
            body: "(call $recurse)",
            ..HARMLESS
        },
        Guest {
            name: "bad-pointers",
            imports: BY_NAME,
            body: "(call $by_name (i32.const 0x7fffffff) (i32.const -1) (i32.const -8))",
            ..HARMLESS
        },
        Guest {
            name: "errors-without-end",
            imports: BY_NAME,
            body: "(loop $again
                (call $by_name (i32.const 16) (i32.const 1000) (i32.const 2048)) (br $again))",
            ..HARMLESS
        },
        Guest {
            name: "handle-flood",
            imports: MAKE,
            body: "(i32.store (i32.const 2048) (i32.const 1))
                (loop $again
                    (drop (call $make (i32.const 2048) (i32.const 1) (i32.const 4)
                        (i32.const 4096) (i32.const 1)))
                    (br $again))",
            ..HARMLESS
        },
        Guest {
            name: "tensor-flood",
            imports: MAKE,
            body: "(drop (memory.grow (i32.const 1000)))
                (i32.store (i32.const 2048) (i32.const 60000000))
                (loop $again
                    (drop (call $make (i32.const 2048) (i32.const 1) (i32.const 4)
                        (i32.const 4096) (i32.const 60000000)))
                    (br $again))",
            ..HARMLESS
        },
        Guest {
            name: "outputs-above-the-limit",
            imports: MAKE,
            body: "(drop (memory.grow (i32.const 1100)))
                (i32.store (i32.const 2048) (i32.const 17500000))
                (i32.store (i32.const 2064) (i32.const 2080))
                (i32.store (i32.const 2068) (i32.const 1))
                (i32.store8 (i32.const 2080) (i32.const 0x78))
                (i32.store (i32.const 2072)
                    (call $make (i32.const 2048) (i32.const 1) (i32.const 5)
                        (i32.const 4096) (i32.const 70000000)))
                (i32.store8 (i32.const 1024) (i32.const 0))
                (i32.store (i32.const 1028) (i32.const 2064))
                (i32.store (i32.const 1032) (i32.const 1))
                (return (i32.const 1024))",
            ..HARMLESS
        },
        Guest {
            name: "log-flood",
            extra: Some("log"),
            imports: r#"
                (import "wasi:cli/stderr@0.2.0" "get-stderr" (func $stderr (result i32)))
                (import "wasi:io/streams@0.2.0" "[method]output-stream.blocking-write-and-flush"
                    (func $write (param i32 i32 i32 i32)))"#,
            items: r#"(data (i32.const 16) "noise\0a")"#,
            body: "(loop $again
                (call $write (call $stderr) (i32.const 16) (i32.const 6) (i32.const 2048))
                (br $again))",
            ..HARMLESS
        },
        Guest {
            name: "traps",
            body: "unreachable",
            ..HARMLESS
        },
    ]
    .into_iter()
}

const MAKE: &str = r#"(import "wasi:nn/tensor@0.2.0-rc-2024-10-28" "[constructor]tensor"
    (func $make (param i32 i32 i32 i32 i32) (result i32)))"#;
const BY_NAME: &str = r#"(import "wasi:nn/graph@0.2.0-rc-2024-10-28" "load-by-name"
    (func $by_name (param i32 i32 i32)))"#;

impl Guest {
    /// Packs it as `NAME.wasm`.
    pub(super) fn pack(&self, site: &Site) {
        let component = guest(self.extra, self.imports, self.items, self.body);
        site.must_pack(self.name, &component, &echo_manifest(self.name));
    }

    /// Asks it once, and checks how that ends.
    pub(super) async fn ask(self, http: &Http) {
        let mut request = echo_request("1", 1);
        request["parameters"] = json!({"timeout": TIMEOUT_US});
        let answer = http.infer(self.name, &request).await;
        let answer = answer.expect("the agent answers");
        // Where all slots are taken it may time out before it runs, or be refused.
        let ends = [self.status, 503, 504];
        assert!(
            ends.contains(&answer.status.as_u16()),
            "{}: {answer:?}",
            self.name
        );
    }
}
