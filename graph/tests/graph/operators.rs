//! Operators of our own, given attributes and inputs that nobody means well: each is refused by name,
//! and none takes the process down, loops for ever or fills memory.

use tract_onnx::pb::attribute_proto::AttributeType;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::type_proto::{Tensor as TensorType, Value as Kind};
use tract_onnx::pb::{AttributeProto, GraphProto, NodeProto, TypeProto, ValueInfoProto};

use crate::case::{Case, value};

#[test]
fn windows_have_extents_that_can_be_counted() {
    let pool = || Case::new("LpPool").floats(&[1, 1, 4, 4]);
    pool().must_be_refused("kernel_shape is missing");
    pool()
        .ints("kernel_shape", &[2, 0])
        .must_be_refused("kernel_shape holds 0");
    pool()
        .ints("kernel_shape", &[i64::MAX, 2])
        .must_be_refused("kernel_shape holds");
    pool()
        .ints("kernel_shape", &[1 << 20, 1 << 20])
        .must_be_refused("elements are allowed");
    pool()
        .ints("kernel_shape", &[2, 2, 2])
        .must_be_refused("3 axes for 2");
    pool()
        .ints("kernel_shape", &[5, 5])
        .must_be_refused("reaches 5");
    let pool = || pool().ints("kernel_shape", &[2, 2]);
    pool()
        .ints("strides", &[0, 1])
        .must_be_refused("strides holds 0");
    pool()
        .ints("pads", &[-1, 0, 0, 0])
        .must_be_refused("pads holds -1");
    pool()
        .ints("pads", &[1])
        .must_be_refused("numbers for 4 places");
    pool()
        .ints("pads", &[1 << 31, 1 << 31, 1 << 31, 1 << 31])
        .must_be_refused("beside a padding of 2147483648");
    pool().int("p", 0).must_be_refused("p is 0");
    assert!(pool().run().is_ok());
}

#[test]
fn places_that_an_input_names_are_inside() {
    let unpool = |place| {
        Case::new("MaxUnpool")
            .ints("kernel_shape", &[2, 2])
            .ints("strides", &[2, 2])
            .floats(&[1, 1, 1, 1])
            .integers(&[1, 1, 1, 1], &[place])
    };
    unpool(4).must_be_refused("index 4 lies outside");
    unpool(-1).must_be_refused("index -1 lies outside");
    assert!(unpool(3).run().is_ok());
    let align = |place| {
        Case::new("RoiAlign")
            .floats(&[1, 1, 4, 4])
            .floats(&[1, 4])
            .integers(&[1], &[place])
    };
    align(1).must_be_refused("outside the batch");
    assert!(align(0).run().is_ok());
    let scatter = |place| {
        Case::new("TensorScatter")
            .floats(&[1, 1, 4, 2])
            .floats(&[1, 1, 2, 2])
            .integers(&[1], &[place])
    };
    scatter(3).must_be_refused("pass the end");
    scatter(-1).must_be_refused("-1");
    assert!(scatter(2).run().is_ok());
    let reverse = |length| {
        Case::new("ReverseSequence")
            .int("batch_axis", 0)
            .int("time_axis", 1)
            .floats(&[1, 3])
            .integers(&[1], &[length])
    };
    reverse(4).must_be_refused("4 steps");
    assert!(reverse(3).run().is_ok());
}

#[test]
fn shapes_that_an_input_names_are_bounded() {
    let huge = i64::MAX;
    let crop = |shape: &[i64]| Case::new("CenterCropPad").floats(&[2, 2]).constant(shape);
    crop(&[huge, huge]).must_be_refused("");
    crop(&[1 << 20, 1 << 20]).must_be_refused("");
    crop(&[-1, 2]).must_be_refused("a size is -1");
    crop(&[2]).must_be_refused("1 sizes for 2 axes");
    let crop = Case::new("CenterCropPad").floats(&[2, 2]);
    crop.integers(&[2], &[1 << 20, 1 << 20]).must_be_refused("");
    let columns = |image: &[i64]| {
        Case::new("Col2Im")
            .floats(&[1, 4, 4])
            .constant(image)
            .constant(&[2, 2])
    };
    columns(&[3, 4]).must_be_refused("do not make an image");
    columns(&[huge, huge]).must_be_refused("an extent is");
    columns(&[0, 3]).must_be_refused("an extent is 0");
    assert!(columns(&[3, 3]).run().is_ok());
    let grid = |size: &[i64]| Case::new("AffineGrid").floats(&[1, 2, 3]).constant(size);
    grid(&[1, 1, 1 << 20, 1 << 20]).must_be_refused("");
    grid(&[1, 1, -1, 2]).must_be_refused("an extent is -1");
    assert!(grid(&[1, 1, 2, 2]).run().is_ok());
}

#[test]
fn text_grows_no_further_than_memory() {
    let split = Case::new("StringSplit").string("delimiter", ",");
    let long = ",".repeat(1 << 16);
    let mut texts = vec![""; 1 << 12];
    texts[0] = &long;
    split
        .texts(&[1 << 12], &texts)
        .must_be_refused("at most 16777216 are allowed");
    Case::new("RegexFullMatch")
        .string("pattern", "(a{1000}){1000}")
        .texts(&[1], &["a"])
        .must_be_refused("the pattern cannot be used");
    Case::new("RegexFullMatch")
        .string("pattern", "(")
        .texts(&[1], &["a"])
        .must_be_refused("the pattern cannot be used");
    // What takes others exponential time takes this one linear time.
    let attack = "a".repeat(1 << 16);
    let slow = Case::new("RegexFullMatch").string("pattern", "(a*)*b");
    assert!(slow.texts(&[1], &[&attack]).run().is_ok());
}

#[test]
fn pools_of_n_grams_are_consistent() {
    let vectorizer = |counts: &[i64], indexes: &[i64]| {
        Case::new("TfIdfVectorizer")
            .opset(9)
            .string("mode", "TF")
            .int("min_gram_length", 1)
            .int("max_gram_length", 2)
            .int("max_skip_count", i64::MAX)
            .ints("ngram_counts", counts)
            .ints("ngram_indexes", indexes)
            .strings("pool_strings", &["a", "b", "a", "b"])
            .texts(&[3], &["a", "b", "c"])
    };
    assert!(vectorizer(&[0, 2], &[0, 1, 2]).run().is_ok());
    vectorizer(&[0, 9], &[0, 1, 2]).must_be_refused("ngram_counts reach");
    vectorizer(&[3, 1], &[0, 1, 2]).must_be_refused("ngram_counts reach");
    vectorizer(&[0, 3], &[0, 1, 2]).must_be_refused("no whole number");
    vectorizer(&[0, 2], &[0, 1]).must_be_refused("too few");
    vectorizer(&[0, 2], &[0, 1, i64::MAX]).must_be_refused("");
    vectorizer(&[0, 2], &[0, -1, 1]).must_be_refused("ngram_indexes");
}

#[test]
fn attention_takes_heads_that_divide() {
    let attention = |query: &[usize], key: &[usize]| {
        Case::new("Attention").floats(query).floats(key).floats(key)
    };
    attention(&[1, 2, 8], &[1, 3, 8]).must_be_refused("q_num_heads");
    let heads = |query, key| {
        attention(&[1, 2, 8], &[1, 3, 8])
            .int("q_num_heads", query)
            .int("kv_num_heads", key)
    };
    heads(0, 1).must_be_refused("q_num_heads is zero");
    heads(-1, 1).must_be_refused("q_num_heads");
    heads(3, 1).must_be_refused("no multiples");
    heads(2, 4).must_be_refused("heads");
    assert!(heads(2, 2).run().is_ok());
    attention(&[1, 3, 2, 4], &[1, 2, 2, 4]).must_be_refused("no multiple of 2 key heads");
    attention(&[1, 0, 2, 4], &[1, 0, 2, 4]).must_be_refused("0 key heads");
    assert!(attention(&[1, 2, 2, 0], &[1, 2, 2, 0]).run().is_ok());
}

/// A body that hands its condition on, and its only value doubled in length.
fn doubling() -> GraphProto {
    GraphProto {
        node: vec![
            NodeProto {
                op_type: "Identity".to_owned(),
                input: vec!["condition".to_owned()],
                output: vec!["goes_on".to_owned()],
                ..NodeProto::default()
            },
            NodeProto {
                op_type: "Concat".to_owned(),
                input: vec!["value".to_owned(), "value".to_owned()],
                output: vec!["twice".to_owned()],
                attribute: vec![AttributeProto {
                    name: "axis".to_owned(),
                    r#type: AttributeType::Int.into(),
                    ..AttributeProto::default()
                }],
                ..NodeProto::default()
            },
        ],
        input: vec![
            value("round", DataType::Int64, &[]),
            value("condition", DataType::Bool, &[]),
            ValueInfoProto {
                name: "value".to_owned(),
                r#type: Some(TypeProto {
                    value: Some(Kind::TensorType(TensorType {
                        elem_type: DataType::Float.into(),
                        shape: None,
                    })),
                    ..TypeProto::default()
                }),
                ..ValueInfoProto::default()
            },
        ],
        output: ["goes_on", "twice"]
            .map(|name| ValueInfoProto {
                name: name.to_owned(),
                ..ValueInfoProto::default()
            })
            .to_vec(),
        ..GraphProto::default()
    }
}

#[test]
fn loops_end() {
    let repeat = |rounds: i64| {
        let mut case = Case::new("Loop").integers(&[], &[rounds]);
        case.node.input.push(String::new());
        case.floats(&[1]).graph("body", &doubling())
    };
    let outputs = repeat(3).run().unwrap();
    assert_eq!(outputs[0].shape(), [8]);
    let outputs = repeat(0).run().unwrap();
    assert_eq!(outputs[0].shape(), [1]);
    // It has doubled what there may be long before it has gone round for ever.
    repeat(i32::MAX.into()).must_be_refused("at most 16777216 are allowed");
    let mut forever = doubling();
    forever.node[1].op_type = "Identity".to_owned();
    forever.node[1].input.truncate(1);
    forever.node[1].attribute.clear();
    let mut case = Case::new("Loop").integers(&[], &[i32::MAX.into()]);
    case.node.input.push(String::new());
    let case = case.floats(&[1]).graph("body", &forever);
    case.must_be_refused("at most 16384 are allowed");
}
