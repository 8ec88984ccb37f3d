//! What a guest may import, and what it may not.

use tidegate_inference::FailureKind;
use tidegate_runtime::LoadError;

use super::fails;
use crate::fixture::{ECHO, budget, guest, load, module, run, runtime, world};

#[test]
fn a_guest_has_a_clock_and_random_numbers_but_cannot_wait() {
    let clock = "(import \"wasi:clocks/monotonic-clock@0.2.3\" \"now\" (func $now (result i64)))
        (import \"wasi:random/random@0.2.3\" \"get-random-bytes\" (func $random (param i64 i32)))";
    let body = format!(
        "(if (i64.lt_u (call $now) (call $now)) (then) (else))
        (call $random (i64.const 16) (i32.const 1024))
        (if (i32.ne (i32.load (i32.const 1028)) (i32.const 16)) (then unreachable))
        {ECHO}"
    );
    let runtime = runtime();
    run(
        &load(&runtime, &module(&guest(clock, "", &body))),
        &budget(),
    )
    .unwrap();

    let wait = "(import \"wasi:clocks/monotonic-clock@0.2.3\" \"subscribe-duration\"
        (func $wait (param i64) (result i32)))";
    let body = format!("(drop (call $wait (i64.const 1))) {ECHO}");
    let file = module(&guest(wait, "", &body));
    let error = runtime.load(file.file().clone()).unwrap_err();
    assert!(matches!(error, LoadError::Link { .. }), "{error:?}");
    assert!(error.to_string().contains("subscribe-duration"), "{error}");
}

#[test]
fn imports_that_are_not_on_the_list_are_refused_by_name() {
    let runtime = runtime();
    for name in [
        "wasi:sockets/tcp@0.2.0",
        "wasi:filesystem/types@0.2.0",
        "wasi:cli/environment@0.2.0",
        "wasi:http/outgoing-handler@0.2.0",
        "wasi:io/poll@0.2.0",
        "host",
    ] {
        let text = format!("(component (import \"{name}\" (instance)))");
        let file = module(&wat::parse_str(text).unwrap());
        let error = runtime.load(file.file().clone()).unwrap_err();
        assert!(
            matches!(&error, LoadError::Import { name: got } if got == name),
            "{error:?}"
        );
        assert!(error.to_string().contains(name), "{error}");
    }
}

#[test]
fn every_function_of_the_world_links() {
    let (resolve, _, id) = world();
    let abi = wit_parser::ManglingAndAbi::Legacy(wit_parser::LiftLowerAbi::Sync);
    let mut core = wit_component::dummy_module(&resolve, id, abi);
    let encoding = wit_component::StringEncoding::UTF8;
    wit_component::embed_component_metadata(&mut core, &resolve, id, encoding).unwrap();
    let encoder = wit_component::ComponentEncoder::default().validate(true);
    let component = encoder.module(&core).unwrap().encode().unwrap();
    let runtime = runtime();
    let file = module(&component);
    assert_eq!(file.imports().len(), 5, "{:?}", file.imports());
    let model = load(&runtime, &file);
    fails(&model, &budget(), FailureKind::Module, "unreachable");
}

#[test]
fn a_component_without_infer_is_refused() {
    let runtime = runtime();
    for text in [
        "(component)",
        "(component (component $c) (instance $i (instantiate $c)) (export \"infer\" (instance $i)))",
    ] {
        let file = module(&wat::parse_str(text).unwrap());
        let error = runtime.load(file.file().clone()).unwrap_err();
        assert!(matches!(error, LoadError::Export { .. }), "{error:?}");
    }
}
