//! Operators of our own with every operand and attribute bent in turn: each runs or is refused, and none
//! panics, hangs, or gives more than it may.
//!
//! The table holds one good case of each operator; what is bent are ranks, extents, types, values, the
//! presence of operands, and the numbers and words of attributes.

use std::backtrace::Backtrace;
use std::sync::{Mutex, Once, PoisonError};
use std::time::{Duration, Instant};

use tidegate_graph::RunError;
use tidegate_inference::{Dtype, Tensor};
use tract_onnx::pb::attribute_proto::AttributeType;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::{AttributeProto, GraphProto, NodeProto, TensorProto, ValueInfoProto};

use crate::case::{Case, Refused, Stopped, TENSOR_BYTES_MAX, tensor, value};

/// Longer than any of these small cases takes on a busy machine.
const AMPLE: Duration = Duration::from_secs(20);

const NUMBERS: [i64; 10] = [0, 1, 2, -1, -2, 100, 1 << 31, 1 << 40, i64::MAX, i64::MIN];

/// What panicked with a kernel of ours on the stack.
static PANICS: Mutex<Vec<String>> = Mutex::new(Vec::new());

fn watch_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if Backtrace::force_capture()
                .to_string()
                .contains("ops::general::")
            {
                let mut panics = PANICS.lock().unwrap_or_else(PoisonError::into_inner);
                panics.push(panic.to_string());
            }
            before(panic);
        }));
    });
}

/// Bends a good case in every way, one at a time.
fn check(good: &Case) {
    // One at a time, so that a panic is told of the case that it came from.
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    watch_panics();
    let operator = &good.node.op_type;
    good.clone()
        .run()
        .unwrap_or_else(|error| panic!("{operator}: {error}"));
    let mut bent = bent_operands(good);
    bent.extend(bent_attributes(good));
    assert!(bent.len() > 20, "{operator}: {} cases", bent.len());
    for (how, case) in bent {
        let began = Instant::now();
        let outputs = case
            .read()
            .map_err(Refused::Read)
            .and_then(|(graph, inputs)| {
                let check = move || match began.elapsed() < AMPLE {
                    true => Ok(()),
                    false => Err(Stopped),
                };
                Ok(graph.run(&inputs, check)?)
            });
        let panics = std::mem::take(&mut *PANICS.lock().unwrap_or_else(PoisonError::into_inner));
        assert!(panics.is_empty(), "{operator} with {how}: {panics:?}");
        match outputs {
            Ok(outputs) => {
                for output in outputs {
                    let bytes = output.data().len();
                    assert!(bytes <= TENSOR_BYTES_MAX, "{operator} with {how}: {bytes}");
                }
            }
            Err(Refused::Run(RunError::Stopped(_))) => panic!("{operator} with {how} hangs"),
            Err(_) => {}
        }
    }
}

/// A tensor of this type and shape, with elements of the given one as often as needed.
fn reshaped(dtype: Dtype, shape: &[usize], from: &Tensor) -> Tensor {
    let count = shape.iter().product::<usize>();
    if dtype == Dtype::Bytes {
        let texts: Vec<String> = (0..count).map(|at| format!("t{at}")).collect();
        let flat = Tensor::from_byte_elements(&texts);
        return tensor(dtype, shape, flat.data().to_vec());
    }
    let size = dtype.size().unwrap();
    let data = if from.dtype() == dtype && !from.is_empty() {
        from.data().to_vec()
    } else {
        vec![0; size]
    };
    let bytes = data.into_iter().cycle().take(count * size).collect();
    tensor(dtype, shape, bytes)
}

/// Puts another tensor in the place of an input that is given.
fn with_input(good: &Case, at: usize, tensor: Tensor) -> Case {
    let mut case = good.clone();
    let data_type = match tensor.dtype() {
        Dtype::Fp32 => DataType::Float,
        Dtype::Fp64 => DataType::Double,
        Dtype::Int64 => DataType::Int64,
        Dtype::Bool => DataType::Bool,
        _ => DataType::String,
    };
    let name = case.graph.input[at].name.clone();
    case.graph.input[at] = value(&name, data_type, tensor.shape());
    case.inputs[at] = tensor;
    case
}

/// Shapes of other ranks and extents.
fn shapes(shape: &[usize]) -> Vec<Vec<usize>> {
    let mut shapes = vec![vec![], [shape, &[1]].concat(), [&[2], shape].concat()];
    if let [rest @ .., _] = shape {
        shapes.push(rest.to_vec());
    }
    for axis in 0..shape.len() {
        for extent in [0, 1, shape[axis] + 1, shape[axis] * 2] {
            let mut other = shape.to_vec();
            other[axis] = extent;
            shapes.push(other);
        }
    }
    shapes
}

fn bent_operands(good: &Case) -> Vec<(String, Case)> {
    let mut bent = Vec::new();
    for (at, input) in good.inputs.iter().enumerate() {
        for shape in shapes(input.shape()) {
            let case = with_input(good, at, reshaped(input.dtype(), &shape, input));
            bent.push((format!("input {at} of shape {shape:?}"), case));
        }
        for dtype in [
            Dtype::Fp32,
            Dtype::Fp64,
            Dtype::Int64,
            Dtype::Bool,
            Dtype::Bytes,
        ] {
            let case = with_input(good, at, reshaped(dtype, input.shape(), input));
            bent.push((format!("input {at} of {dtype}"), case));
        }
        for special in [f32::NAN, f32::INFINITY, -1e30] {
            if input.dtype() == Dtype::Fp32 {
                let bytes = special.to_le_bytes().repeat(input.len());
                let case = with_input(good, at, tensor(Dtype::Fp32, input.shape(), bytes));
                bent.push((format!("input {at} of {special}"), case));
            }
        }
        if input.dtype() == Dtype::Int64 {
            for number in NUMBERS {
                let bytes = number.to_le_bytes().repeat(input.len());
                let numbers = tensor(Dtype::Int64, input.shape(), bytes);
                let case = with_input(good, at, numbers);
                bent.push((format!("input {at} of {number}"), case));
            }
        }
    }
    for (at, constant) in good.graph.initializer.iter().enumerate() {
        for number in NUMBERS {
            let mut case = good.clone();
            let count = constant.raw_data.len() / 8;
            case.graph.initializer[at].raw_data = number.to_le_bytes().repeat(count);
            bent.push((format!("constant {at} of {number}"), case));
        }
        let mut case = good.clone();
        case.graph.initializer[at] = TensorProto {
            name: constant.name.clone(),
            dims: vec![0],
            data_type: constant.data_type,
            ..TensorProto::default()
        };
        bent.push((format!("constant {at} of nothing"), case));
    }
    for at in 0..good.node.input.len() {
        let mut case = good.clone();
        case.node.input[at].clear();
        bent.push((format!("operand {at} left out"), case));
        let mut case = good.clone();
        case.node.input.truncate(at);
        bent.push((format!("{at} operands"), case));
        let mut case = good.clone();
        case.node.input[at].clone_from(&good.node.input[0]);
        bent.push((format!("operand {at} like the first"), case));
    }
    let mut case = good.clone();
    case.node.input.extend(good.node.input.clone());
    bent.push(("operands twice".to_owned(), case));
    bent
}

fn bent_attributes(good: &Case) -> Vec<(String, Case)> {
    let mut bent = Vec::new();
    let mut bend = |at: usize, how: String, set: &dyn Fn(&mut AttributeProto)| {
        let mut case = good.clone();
        set(&mut case.node.attribute[at]);
        bent.push((format!("{} {how}", good.node.attribute[at].name), case));
    };
    for (at, attribute) in good.node.attribute.iter().enumerate() {
        bend(at, "by another name".to_owned(), &|attribute| {
            attribute.name = "none".to_owned();
        });
        bend(at, "of another type".to_owned(), &|attribute| {
            attribute.r#type = AttributeType::Tensors.into();
        });
        bend(at, "of no text".to_owned(), &|attribute| {
            attribute.s = "nonsense".into();
            attribute.strings = vec![vec![0xff]; attribute.strings.len()];
        });
        for number in NUMBERS {
            bend(at, format!("of {number}"), &|attribute| {
                attribute.i = number;
                attribute.ints.fill(number);
            });
            for place in 0..attribute.ints.len() {
                bend(at, format!("with {number} at {place}"), &|attribute| {
                    attribute.ints[place] = number;
                });
            }
        }
        for number in [0.0, -1.0, f32::NAN, f32::INFINITY, f32::MAX] {
            bend(at, format!("of {number}"), &|attribute| {
                attribute.f = number
            });
        }
        bend(at, "of nothing".to_owned(), &|attribute| {
            attribute.ints.clear();
            attribute.floats.clear();
            attribute.strings.clear();
        });
        bend(at, "one longer".to_owned(), &|attribute| {
            attribute.ints.push(1);
            attribute.floats.push(1.0);
            attribute.strings.push("more".into());
        });
        bend(at, "one shorter".to_owned(), &|attribute| {
            attribute.ints.pop();
            attribute.floats.pop();
            attribute.strings.pop();
        });
    }
    bent
}

#[test]
fn deform_conv() {
    check(
        &Case::new("DeformConv")
            .floats(&[1, 2, 3, 3])
            .floats(&[2, 1, 2, 2])
            .floats(&[1, 16, 4, 4])
            .floats(&[2])
            .floats(&[1, 8, 4, 4])
            .ints("kernel_shape", &[2, 2])
            .ints("pads", &[1, 1, 1, 1])
            .ints("strides", &[1, 1])
            .ints("dilations", &[1, 1])
            .int("group", 2)
            .int("offset_group", 2),
    );
}

#[test]
fn linear_attention() {
    check(
        &Case::new("LinearAttention")
            .string("update_rule", "gated_delta")
            .int("q_num_heads", 2)
            .int("kv_num_heads", 2)
            .float("scale", 0.5)
            .floats(&[1, 3, 4])
            .floats(&[1, 3, 4])
            .floats(&[1, 3, 4])
            .floats(&[1, 2, 2, 2])
            .floats(&[1, 3, 2])
            .floats(&[1, 3, 2]),
    );
}

#[test]
fn causal_conv() {
    check(
        &Case::new("CausalConvWithState")
            .string("activation", "silu")
            .floats(&[1, 2, 5])
            .floats(&[2, 1, 3])
            .floats(&[2])
            .floats(&[1, 2, 2]),
    );
}

#[test]
fn flex_attention() {
    let halves = GraphProto {
        node: vec![NodeProto {
            op_type: "Mul".to_owned(),
            input: vec!["score".to_owned(), "score".to_owned()],
            output: vec!["changed".to_owned()],
            ..NodeProto::default()
        }],
        input: vec![value("score", DataType::Float, &[1, 2, 3, 3])],
        output: vec![ValueInfoProto {
            name: "changed".to_owned(),
            ..ValueInfoProto::default()
        }],
        ..GraphProto::default()
    };
    let mut case = Case::new("FlexAttention")
        .float("scale", 0.5)
        .graph("score_mod", &halves)
        .floats(&[1, 2, 3, 4])
        .floats(&[1, 2, 3, 4])
        .floats(&[1, 2, 3, 4]);
    case.node.domain = "ai.onnx.preview".to_owned();
    check(&case);
}

#[test]
fn unique() {
    let case = Case::new("Unique").int("axis", 1).int("sorted", 0);
    check(&case.clone().floats(&[2, 3]));
    check(&case.integers(&[2, 2], &[1, 1, 2, 2]));
}

#[test]
fn columns() {
    let columns = || {
        Case::new("Col2Im")
            .ints("pads", &[1, 1, 1, 1])
            .ints("strides", &[1, 1])
            .ints("dilations", &[1, 1])
            .floats(&[1, 4, 16])
    };
    check(&columns().constant(&[3, 3]).constant(&[2, 2]));
    check(&columns().integers(&[2], &[3, 3]).integers(&[2], &[2, 2]));
}

#[test]
fn center_crop_pad() {
    let crop = || {
        let crop = Case::new("CenterCropPad").ints("axes", &[0, 1]);
        crop.floats(&[4, 5])
    };
    check(&crop().constant(&[3, 7]));
    check(&crop().integers(&[2], &[3, 7]));
}

#[test]
fn n_grams() {
    let vectorizer = || {
        Case::new("TfIdfVectorizer")
            .string("mode", "TFIDF")
            .int("min_gram_length", 1)
            .int("max_gram_length", 2)
            .int("max_skip_count", 1)
            .ints("ngram_counts", &[0, 2])
            .ints("ngram_indexes", &[0, 1, 2])
            .floats_of("weights", &[1.0, 2.0, 3.0])
    };
    let words = vectorizer().strings("pool_strings", &["a", "b", "a", "b"]);
    check(&words.texts(&[3], &["a", "b", "c"]));
    let numbers = vectorizer().ints("pool_int64s", &[1, 2, 1, 2]);
    check(&numbers.integers(&[2, 3], &[1, 2, 3, 1, 1, 2]));
}

#[test]
fn texts() {
    check(
        &Case::new("StringNormalizer")
            .string("case_change_action", "LOWER")
            .int("is_case_sensitive", 1)
            .string("locale", "en_US")
            .strings("stopwords", &["a", "b"])
            .texts(&[3], &["A", "b", "c"]),
    );
    check(
        &Case::new("StringSplit")
            .string("delimiter", "-")
            .int("maxsplit", 2)
            .texts(&[2], &["a-b", "c"]),
    );
}

#[test]
fn windows_and_regions() {
    check(
        &Case::new("LpPool")
            .ints("kernel_shape", &[2, 2])
            .ints("pads", &[1, 1, 1, 1])
            .ints("strides", &[1, 1])
            .ints("dilations", &[1, 1])
            .int("p", 2)
            .int("ceil_mode", 1)
            .floats(&[1, 1, 3, 3]),
    );
    check(
        &Case::new("MaxUnpool")
            .ints("kernel_shape", &[2, 2])
            .ints("strides", &[2, 2])
            .ints("pads", &[0, 0, 0, 0])
            .floats(&[1, 1, 1, 1])
            .integers(&[1, 1, 1, 1], &[3])
            .constant(&[1, 1, 2, 2]),
    );
    check(
        &Case::new("RoiAlign")
            .int("output_height", 2)
            .int("output_width", 2)
            .int("sampling_ratio", 2)
            .float("spatial_scale", 1.0)
            .string("mode", "avg")
            .floats(&[1, 1, 4, 4])
            .floats(&[1, 4])
            .integers(&[1], &[0]),
    );
    check(
        &Case::new("GridSample")
            .string("mode", "cubic")
            .string("padding_mode", "zeros")
            .int("align_corners", 1)
            .floats(&[1, 1, 3, 3])
            .floats(&[1, 2, 2, 2]),
    );
    check(
        &Case::new("AffineGrid")
            .int("align_corners", 1)
            .floats(&[1, 2, 3])
            .constant(&[1, 1, 2, 2]),
    );
}

#[test]
fn places_and_lengths() {
    check(
        &Case::new("ReverseSequence")
            .int("batch_axis", 0)
            .int("time_axis", 1)
            .floats(&[2, 3])
            .integers(&[2], &[2, 3]),
    );
    check(
        &Case::new("TensorScatter")
            .int("axis", -2)
            .string("mode", "circular")
            .floats(&[1, 1, 4, 2])
            .floats(&[1, 1, 2, 2])
            .integers(&[1], &[2]),
    );
    check(
        &Case::new("CumProd")
            .int("exclusive", 1)
            .int("reverse", 1)
            .floats(&[2, 3])
            .scalar(1),
    );
    let hot = || Case::new("OneHot").int("axis", 1).integers(&[2], &[-1, 7]);
    check(&hot().constant(&[3]).floats(&[2]));
    check(&hot().integers(&[], &[3]).floats(&[2]));
    check(&Case::new("Det").floats(&[2, 3, 3]));
    check(&Case::new("BitCast").int("to", 6).floats(&[2, 3]));
}

#[test]
fn attention() {
    check(
        &Case::new("Attention")
            .int("q_num_heads", 2)
            .int("kv_num_heads", 2)
            .int("is_causal", 1)
            .float("scale", 0.5)
            .float("softcap", 2.0)
            .floats(&[1, 2, 8])
            .floats(&[1, 3, 8])
            .floats(&[1, 3, 8])
            .floats(&[2, 3]),
    );
}
