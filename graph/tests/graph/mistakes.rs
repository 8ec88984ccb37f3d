//! Values that a request gives and that mean nothing: each is refused in words that name the node, the
//! operator and what is wrong, and is the caller's fault; so is each in a file, when it is read.

use tidegate_graph::{GraphError, RunError};
use tidegate_inference::Dtype;
use tract_onnx::pb::GraphProto;
use tract_onnx::pb::tensor_proto::DataType;

use crate::case::{Case, Refused, tensor};

/// Refused as a value of the request, and as a constant of the file.
#[track_caller]
fn refused(given: Case, fixed: Case, reason: &str) {
    let operator = given.node.op_type.clone();
    let told = format!("node \"node\" ({operator}): {reason}");
    for (case, place) in [(given, "given"), (fixed, "fixed")] {
        let refusal = case.outcome().expect_err("it runs");
        let text = refusal.to_string();
        assert!(
            text.contains(&told),
            "{place}: {text:?} does not say {told:?}"
        );
        match (place, refusal) {
            ("given", Refused::Run(RunError::Operand { .. } | RunError::Plan(_))) => {}
            ("fixed", Refused::Read(_)) => {}
            (_, other) => panic!("{place}: {other:?}"),
        }
    }
}

/// Four floats, then numbers that the request or the file gives.
#[track_caller]
fn numbers(make: impl Fn() -> Case, numbers: &[i64], reason: &str) {
    let given = make().integers(&[numbers.len()], numbers);
    refused(given, make().constant(numbers), reason);
}

#[test]
fn shapes_that_no_tensor_has() {
    let on =
        |operator: &'static str, shape: &'static [usize]| move || Case::new(operator).floats(shape);
    numbers(on("Expand", &[1]), &[-1], "an extent is -1");
    numbers(on("Tile", &[2]), &[-1], "a repeat is -1");
    numbers(on("Pad", &[2]), &[0, -3], "a padding is -3");
    numbers(
        on("Reshape", &[7]),
        &[2, 3],
        "7 elements do not fit the shape [2, 3]",
    );
    numbers(
        on("Reshape", &[7]),
        &[2, -1],
        "7 elements do not fit the shape [2, -1]",
    );
    numbers(on("Reshape", &[7]), &[-1, -1], "7 elements do not fit");
    numbers(on("Reshape", &[7]), &[7, 0], "7 elements do not fit");
    numbers(on("Reshape", &[7]), &[-2], "7 elements do not fit");
    numbers(|| Case::new("ConstantOfShape"), &[-2], "an extent is -2");
    let slice = || {
        let slice = Case::new("Slice").floats(&[4]);
        slice.constant(&[0]).constant(&[4]).constant(&[0])
    };
    numbers(slice, &[0], "a step is 0");
    let sizes = || Case::new("Resize").floats(&[1, 1, 2, 2]).absent().absent();
    numbers(sizes, &[1, 1, 0, 2], "a size is 0");
    numbers(sizes, &[1, 1, 2, -2], "a size is -2");
}

#[test]
fn scalars_that_no_operator_takes() {
    let range = || Case::new("Range").scalar(0).scalar(4);
    refused(
        range().integers(&[], &[0]),
        range().scalar(0),
        "the step is 0",
    );
    for depth in [0, -2] {
        let hot = || Case::new("OneHot").integers(&[2], &[0, 1]);
        refused(
            hot().integers(&[], &[depth]).floats(&[2]),
            hot().scalar(depth).floats(&[2]),
            &format!("the depth is {depth}"),
        );
    }
    for (scale, told) in [(0.0_f32, "0"), (-1.0, "-1"), (f32::INFINITY, "inf")] {
        let resize = || Case::new("Resize").floats(&[1, 1, 2, 2]).absent();
        let scales: Vec<u8> = [1.0, 1.0, scale, 1.0]
            .iter()
            .flat_map(|number: &f32| number.to_le_bytes())
            .collect();
        let given = tensor(Dtype::Fp32, &[4], scales);
        refused(
            resize().input(DataType::Float, given.clone()),
            resize().constant_tensor(DataType::Float, &given),
            &format!("a scale is {told}"),
        );
    }
}

#[test]
fn indexes_outside_of_what_there_is() {
    for wrong in [3, -4, i64::MAX, i64::MIN] {
        let reason = format!("index {wrong} is outside an axis of 3");
        let on =
            |operator: &'static str| move || Case::new(operator).floats(&[2, 3]).int("axis", 1);
        numbers(on("Gather"), &[0, wrong], &reason);
        let elements = || Case::new("GatherElements").floats(&[1, 3]).int("axis", 1);
        refused(
            elements().integers(&[1, 2], &[0, wrong]),
            elements().constant_of(&[1, 2], &[0, wrong]),
            &reason,
        );
        let scatter = || Case::new("ScatterElements").floats(&[1, 3]).int("axis", 1);
        refused(
            scatter().integers(&[1, 2], &[0, wrong]).floats(&[1, 2]),
            scatter().constant_of(&[1, 2], &[0, wrong]).floats(&[1, 2]),
            &reason,
        );
        let tuples = || Case::new("GatherND").floats(&[2, 3]);
        refused(
            tuples().integers(&[1, 2], &[1, wrong]),
            tuples().constant_of(&[1, 2], &[1, wrong]),
            &reason,
        );
        let scatter = || Case::new("ScatterND").floats(&[2, 3]);
        refused(
            scatter().integers(&[1, 2], &[1, wrong]).floats(&[1]),
            scatter().constant_of(&[1, 2], &[1, wrong]).floats(&[1]),
            &reason,
        );
    }
}

#[test]
fn integers_are_divided_by_no_zero() {
    for operator in ["Div", "Mod"] {
        let divide = || Case::new(operator).integers(&[2], &[7, -7]);
        numbers(divide, &[2, 0], "a divisor is 0");
        let whole = divide().integers(&[2], &[2, -2]).run();
        assert!(whole.is_ok(), "{whole:?}");
    }
    // Floats know what comes of it.
    let floats = Case::new("Div").floats(&[2]).floats(&[2]).run().unwrap();
    assert!(f32::from_le_bytes(floats[0].data()[..4].try_into().unwrap()).is_nan());
}

#[test]
fn what_may_be_odd_still_runs() {
    let runs = |case: Case, shape: &[usize]| assert_eq!(case.run().unwrap()[0].shape(), shape);
    runs(
        Case::new("Gather").floats(&[3]).integers(&[2], &[-1, -3]),
        &[2],
    );
    runs(Case::new("Tile").floats(&[2]).integers(&[1], &[0]), &[0]);
    runs(Case::new("Reshape").floats(&[0]).constant(&[0, 3]), &[0, 3]);
    runs(
        Case::new("Reshape").floats(&[6]).integers(&[2], &[-1, 2]),
        &[3, 2],
    );
    runs(Case::new("Pad").floats(&[3]).constant(&[0, 1]), &[4]);
}

/// A node of one input of this shape, which cannot be.
#[track_caller]
fn unfit(case: Case, shape: &[usize], reason: &str) {
    match case.floats(shape).outcome() {
        Err(Refused::Read(error @ GraphError::Operand { .. })) => {
            let text = error.to_string();
            assert!(text.contains(reason), "{text:?} does not say {reason:?}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn windows_larger_than_what_they_slide_over() {
    for operator in ["MaxPool", "AveragePool", "LpPool"] {
        let pool = |kernel| Case::new(operator).ints("kernel_shape", &[kernel, kernel]);
        let image = &[1, 1, 2, 2];
        unfit(pool(3), image, "a window that reaches 3 over 2 elements");
        let padded = pool(2).ints("pads", &[2, 0, 0, 0]);
        unfit(padded, image, "reaches 2 beside a padding of 2");
        unfit(
            pool(1),
            &[1, 1, 0, 2],
            "a window over axis 2 of no elements",
        );
        let runs = |case: Case| assert!(case.floats(image).run().is_ok(), "{operator}");
        runs(pool(2));
        runs(pool(3).string("auto_pad", "SAME_UPPER"));
        runs(pool(4).ints("pads", &[1, 1, 1, 1]));
    }
    let beyond = Case::new("MaxPool").ints("kernel_shape", &[3, 3]);
    let beyond = beyond.ints("strides", &[2, 2]).int("ceil_mode", 1);
    assert!(beyond.floats(&[1, 1, 2, 2]).run().is_ok());
    unfit(
        Case::new("GlobalMaxPool"),
        &[1, 1, 0, 2],
        "axis 2 of no elements",
    );
    let convolve = |kernel: usize| {
        let image = Case::new("Conv").floats(&[1, 1, 4, 4]);
        image.floats(&[1, 1, kernel, kernel])
    };
    assert!(convolve(4).run().is_ok());
    convolve(5).must_be_refused("a window that reaches 5 over 4 elements");
    let wide = convolve(3).ints("dilations", &[2, 2]);
    wide.must_be_refused("a window that reaches 5 over 4 elements");
    assert!(convolve(5).ints("pads", &[1, 1, 1, 1]).run().is_ok());
    let transposed = Case::new("ConvTranspose").ints("pads", &[3, 3, 3, 3]);
    let transposed = transposed.floats(&[1, 1, 2, 2]).floats(&[1, 1, 3, 3]);
    transposed.must_be_refused("axis 2 would have -2 elements");
}

#[test]
fn nothing_to_choose_from() {
    for operator in ["ArgMax", "ArgMin"] {
        let choose = || Case::new(operator).int("axis", 1);
        unfit(choose(), &[2, 0], "axis 1 has no elements to choose from");
        assert!(choose().floats(&[0, 2]).run().is_ok());
    }
    let around = |mode: &str| Case::new("Pad").string("mode", mode);
    let told = "a padding of 4 from an axis of 3";
    around("reflect")
        .floats(&[3])
        .constant(&[4, 0])
        .must_be_refused(told);
    assert!(
        around("reflect")
            .floats(&[3])
            .constant(&[2, 0])
            .run()
            .is_ok()
    );
    let told = "a padding of 4 from an axis of 0";
    around("edge")
        .floats(&[0])
        .constant(&[4, 0])
        .must_be_refused(told);
}

#[test]
fn a_scan_of_more_inputs_than_there_are() {
    let scan = |inputs| {
        let scan = Case::new("Scan")
            .floats(&[2])
            .int("num_scan_inputs", inputs);
        scan.graph("body", &GraphProto::default())
    };
    for inputs in [2, -1, 1 << 40, i64::MAX] {
        let told = format!("scans {inputs} of its 1 inputs");
        scan(inputs).must_be_refused(&told);
    }
}

#[test]
fn an_axis_that_the_input_does_not_have() {
    for axis in [-3, 2, 9, 65, i64::MIN] {
        let case = Case::new("LayerNormalization").floats(&[2, 3]).floats(&[3]);
        let refusal = case.int("axis", axis).outcome().expect_err("it runs");
        let text = refusal.to_string();
        assert!(text.contains(&format!("{axis}")), "{text}");
        assert!(matches!(refusal, Refused::Read(_)), "{refusal:?}");
    }
}
