//! Programs that pass what they should not: nothing traps, and the good call after it still works.

use tidegate_runtime::command::Options;

use super::{ANSWERS, READY, brought, ended, options, program, run, status};

/// Beyond the two pages of memory: just so, far, and where the sum of place and length overflows.
const NOWHERE: [&str; 6] = ["131072", "131069", "0x7fffffff", "-4", "-1", "0x80000000"];

/// Makes a call that must fail as invalid, with `AT` for each place that is not there, then a good one.
#[track_caller]
fn nowhere(call: &str) {
    for place in NOWHERE {
        let call = call.replace("AT", &format!("(i32.const {place})"));
        let body = format!("{READY} (local.set $i {call}) {ANSWERS} (local.get $i)");
        assert_eq!(status(&brought(), &body), 1, "{call}");
    }
}

#[test]
fn places_outside_the_memory_are_refused() {
    let graph = "(i32.load (i32.const 512))";
    let context = "(i32.load (i32.const 516))";
    let (g, one, zero) = ("(i32.const 256)", "(i32.const 1)", "(i32.const 0)");
    for call in [
        format!("(call $load AT {one} {one} {zero} (i32.const 520))"),
        format!("(call $load (i32.const 608) {one} {one} {zero} AT)"),
        "(call $load_by_name AT (i32.const 4) (i32.const 520))".to_owned(),
        format!("(call $load_by_name {g} {one} AT)"),
        format!("(call $load_by_name_with_config AT (i32.const 4) {zero} {zero} (i32.const 520))"),
        format!("(call $load_by_name_with_config {g} {one} AT (i32.const 4) (i32.const 520))"),
        format!("(call $load_by_name_with_config {g} {one} {zero} {zero} AT)"),
        format!("(call $init {graph} AT)"),
        format!("(call $set_input {context} {zero} AT)"),
        format!("(call $get_output {context} {zero} AT (i32.const 64) (i32.const 520))"),
        format!("(call $get_output {context} {zero} (i32.const 1024) (i32.const 64) AT)"),
    ] {
        nowhere(&call);
    }
}

#[test]
fn places_inside_what_is_passed_are_checked_as_well() {
    // The shape, then the data, of a tensor; then a part of a graph.
    nowhere(
        "(block (result i32) (i32.store (i32.const 768) AT)
            (call $set_input (i32.load (i32.const 516)) (i32.const 0) (i32.const 768)))",
    );
    nowhere(
        "(block (result i32) (i32.store (i32.const 780) AT)
            (call $set_input (i32.load (i32.const 516)) (i32.const 0) (i32.const 768)))",
    );
    nowhere(
        "(block (result i32) (i32.store (i32.const 608) AT)
            (call $load (i32.const 608) (i32.const 1) (i32.const 1) (i32.const 0) (i32.const 520)))",
    );
}

#[test]
fn lengths_that_cannot_be_are_refused() {
    let context = "(i32.load (i32.const 516))";
    for len in ["131073", "-1", "0x7fffffff", "0x80000000"] {
        let len = format!("(i32.const {len})");
        let set = |at: u32| {
            format!(
                "(block (result i32) (i32.store (i32.const {at}) {len})
                    (call $set_input {context} (i32.const 0) (i32.const 768)))"
            )
        };
        for call in [
            format!(
                "(call $load (i32.const 600) {len} (i32.const 1) (i32.const 0) (i32.const 520))"
            ),
            format!("(call $load_by_name (i32.const 256) {len} (i32.const 520))"),
            format!(
                "(call $load_by_name_with_config (i32.const 256) (i32.const 1) (i32.const 256) {len}
                    (i32.const 520))"
            ),
            format!(
                "(call $get_output {context} (i32.const 0) (i32.const 1024) {len} (i32.const 520))"
            ),
            format!(
                "(block (result i32) (i32.store (i32.const 612) {len}) (call $load (i32.const 608)
                    (i32.const 1) (i32.const 1) (i32.const 0) (i32.const 520)))"
            ),
            // The rank, then the length of the data, then the extent of the only axis.
            set(772),
            set(784),
            set(832),
        ] {
            let body = format!("{READY} (local.set $i {call}) {ANSWERS} (local.get $i)");
            assert_eq!(status(&brought(), &body), 1, "{call}");
        }
    }
}

#[test]
fn places_need_not_be_aligned() {
    let body = format!(
        "{READY}
         (memory.copy (i32.const 1537) (i32.const 768) (i32.const 20))
         (call $must (call $set_input (i32.load (i32.const 516)) (i32.const 0) (i32.const 1537)))
         (call $must (call $compute (i32.load (i32.const 516))))
         (call $must (call $get_output (i32.load (i32.const 516)) (i32.const 0) (i32.const 1025)
            (i32.const 9) (i32.const 521)))
         (i32.load (i32.const 521))"
    );
    assert_eq!(status("", &body), 8);
}

#[test]
fn text_that_is_not_utf_8_names_nothing() {
    let body = "(i32.store8 (i32.const 256) (i32.const 0xff))
        (call $load_by_name (i32.const 256) (i32.const 1) (i32.const 512))";
    assert_eq!(status("", body), 1);
}

#[test]
fn what_is_no_graph_is_no_graph() {
    for (list, count, errno) in [(600, 0, 1), (600, 1, 1), (608, 2, 2), (600, 17, 1)] {
        let body = format!(
            "(call $load (i32.const {list}) (i32.const {count}) (i32.const 1) (i32.const 0)
                (i32.const 512))"
        );
        assert_eq!(
            status(&brought(), &body),
            errno,
            "{count} parts from {list}"
        );
    }
    let broken = "(i32.store (i32.const 4096) (i32.const -1))
        (call $load (i32.const 608) (i32.const 1) (i32.const 1) (i32.const 0) (i32.const 512))";
    assert_eq!(status(&brought(), broken), 2);
}

#[test]
fn handles_of_nothing_and_of_other_kinds_are_refused() {
    let graph = "(i32.load (i32.const 512))";
    let context = "(i32.load (i32.const 516))";
    let number = |number: &str| format!("(i32.const {number})");
    let calls = |graph: &str, context: &str| {
        [
            format!("(call $init {graph} (i32.const 520))"),
            format!("(call $unload {graph})"),
            format!("(call $set_input {context} (i32.const 0) (i32.const 768))"),
            format!("(call $compute {context})"),
            format!(
                "(call $get_output {context} (i32.const 0) (i32.const 1024) (i32.const 64)
                    (i32.const 520))"
            ),
            format!("(call $finalize {context})"),
        ]
    };
    let wrong = ["77", "-1", "0x7fffffff", "0x80000000"].map(number);
    let wrong = wrong.iter().flat_map(|handle| calls(handle, handle));
    // A context for a graph, a graph for a context; the handle after both is the input's tensor.
    let tensor = "(i32.add (i32.load (i32.const 516)) (i32.const 1))";
    let swapped = calls(context, graph)
        .into_iter()
        .chain(calls(tensor, tensor));
    for call in wrong.chain(swapped) {
        let body = format!("{READY} (local.set $i {call}) {ANSWERS} (local.get $i)");
        assert_eq!(status("", &body), 1, "{call}");
    }
}

#[test]
fn what_was_given_back_is_gone() {
    let after = |call: &str, then: &str| {
        let body = format!("{READY} (call $must {call}) {then}");
        assert_eq!(status("", &body), 1, "{call} {then}");
    };
    let unload = "(call $unload (i32.load (i32.const 512)))";
    let finalize = "(call $finalize (i32.load (i32.const 516)))";
    let compute = "(call $compute (i32.load (i32.const 516)))";
    after(unload, unload);
    after(unload, compute);
    after(unload, finalize);
    after(
        unload,
        "(call $init (i32.load (i32.const 512)) (i32.const 520))",
    );
    after(finalize, finalize);
    after(finalize, compute);
    let others = format!(
        "{READY} (call $must {finalize}) {READY} {ANSWERS} (call $must {unload})
        {READY} {ANSWERS} (i32.const 0)"
    );
    assert_eq!(status("", &others), 0);
}

/// Repeats a call until it does not answer 0, for at most 200 000 times, and gives what it answers.
fn flood(call: &str) -> String {
    format!(
        "(local $n i32)
         (loop $again
            (local.set $n (i32.add (local.get $n) (i32.const 1)))
            (local.set $i {call})
            (br_if $again (i32.and (i32.eqz (local.get $i)) (i32.lt_u (local.get $n) (i32.const 200000)))))
         (call $exit (local.get $i))"
    )
}

#[test]
fn floods_of_handles_end_at_a_limit() {
    for (before, call) in [
        (
            "",
            "(call $load_by_name (i32.const 256) (i32.const 1) (i32.const 512))",
        ),
        (
            READY,
            "(call $init (i32.load (i32.const 512)) (i32.const 520))",
        ),
    ] {
        let body = flood(call).replacen("(loop", &format!("{before} (loop"), 1);
        let program = program("", &body);
        assert_eq!(ended(run(&program, options())), 7, "{call}");
    }
}

#[test]
fn floods_of_tensors_and_graphs_end_at_the_program_s_memory() {
    // As much as the program's own two pages take.
    let small = || Options {
        memory_bytes_max: 1 << 17,
        ..options()
    };
    // Contexts that keep their inputs: the third handle of each round is a tensor of eight bytes.
    let context = format!("(block (result i32) {READY} (i32.const 0))");
    let tensors = program("", &flood(&context));
    assert_eq!(ended(run(&tensors, small())), 99);
    let graph =
        "(call $load (i32.const 608) (i32.const 1) (i32.const 1) (i32.const 0) (i32.const 512))";
    let graphs = program(&brought(), &flood(graph));
    assert_eq!(ended(run(&graphs, small())), 7);
    // What is given back can be had again.
    let given_back = format!(
        "(block (result i32) (call $must {graph}) (call $unload (i32.load (i32.const 512))))"
    );
    let again = flood(&given_back).replace("200000", "3000");
    let again = program(&brought(), &again);
    assert_eq!(ended(run(&again, small())), 0);
}

#[test]
fn replaced_inputs_and_outputs_are_given_back() {
    let body = format!(
        "{READY} (loop $again
            (call $must (call $set_input (i32.load (i32.const 516)) (i32.const 0) (i32.const 768)))
            {ANSWERS}
            (br_if $again (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1)))
                (i32.const 70000))))"
    );
    assert_eq!(ended(run(&program("", &body), options())), 0);
}
