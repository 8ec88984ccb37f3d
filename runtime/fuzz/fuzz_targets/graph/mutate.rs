//! Changes an ONNX file where it matters, so that most of what the fuzzer tries still decodes.
//!
//! That is in its operators, attributes, dimensions, types and edges.

use prost::Message;
use tract_onnx::pb::type_proto::Value;
use tract_onnx::pb::{
    AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto,
    tensor_shape_proto::dimension,
};

/// Numbers at which something tends to give way.
const NUMBERS: [i64; 16] = [
    0,
    1,
    -1,
    2,
    -2,
    3,
    7,
    255,
    -9,
    1 << 16,
    i32::MAX as i64,
    i32::MIN as i64,
    1 << 40,
    i64::MAX,
    i64::MIN,
    1_000_000,
];

/// Types of elements that ONNX numbers, and some beyond.
const TYPES_MAX: usize = 26;

struct Dice(u64);

impl Dice {
    /// A number below `end`, which is not 0, by SplitMix64.
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % end as u64) as usize
    }

    fn one_of<'a, T>(&mut self, items: &'a mut [T]) -> Option<&'a mut T> {
        let len = items.len();
        if len == 0 {
            return None;
        }
        items.get_mut(self.below(len))
    }

    fn number(&mut self) -> i64 {
        NUMBERS[self.below(NUMBERS.len())]
    }
}

/// Mutates the first `size` bytes of `data` in place, and says how many they are now.
pub fn mutate(data: &mut [u8], size: usize, max_size: usize, seed: u32) -> usize {
    let mut dice = Dice(seed.into());
    let changed = match ModelProto::decode(&data[..size]) {
        Ok(mut model) if dice.below(8) != 0 => {
            for _ in 0..=dice.below(3) {
                change(&mut model, &mut dice);
            }
            model.encode_to_vec()
        }
        _ => return libfuzzer_sys::fuzzer_mutate(data, size, max_size),
    };
    if changed.len() > max_size {
        return libfuzzer_sys::fuzzer_mutate(data, size, max_size);
    }
    data[..changed.len()].copy_from_slice(&changed);
    changed.len()
}

fn change(model: &mut ModelProto, dice: &mut Dice) {
    if dice.below(16) == 0 {
        if let Some(set) = dice.one_of(&mut model.opset_import) {
            set.version = 1 + dice.below(27) as i64;
        }
        return;
    }
    if let Some(graph) = &mut model.graph {
        change_graph(graph, dice);
    }
}

fn change_graph(graph: &mut GraphProto, dice: &mut Dice) {
    let mut names: Vec<String> = graph
        .node
        .iter()
        .flat_map(|node| node.output.clone())
        .collect();
    names.extend(graph.input.iter().map(|input| input.name.clone()));
    names.extend(graph.initializer.iter().map(|tensor| tensor.name.clone()));
    let operators: Vec<String> = graph.node.iter().map(|node| node.op_type.clone()).collect();
    match dice.below(10) {
        0..4 => {
            if let Some(node) = dice.one_of(&mut graph.node) {
                change_node(node, &names, &operators, dice);
            }
        }
        4..6 => {
            if let Some(tensor) = dice.one_of(&mut graph.initializer) {
                change_tensor(tensor, dice);
            }
        }
        6..8 => {
            if let Some(value) = dice.one_of(&mut graph.input) {
                change_value(value, dice);
            }
        }
        8 => {
            if let Some(value) = dice.one_of(&mut graph.output) {
                if dice.below(2) == 0 {
                    change_value(value, dice);
                } else if let Some(name) = dice.one_of(&mut names) {
                    value.name.clone_from(name);
                }
            }
        }
        _ => {
            // A node more, which consumes what another makes.
            if let Some(node) = dice.one_of(&mut graph.node) {
                let mut node = node.clone();
                for output in &mut node.output {
                    output.push('+');
                }
                change_node(&mut node, &names, &operators, dice);
                graph.node.push(node);
            }
        }
    }
}

fn change_node(node: &mut NodeProto, names: &[String], operators: &[String], dice: &mut Dice) {
    match dice.below(8) {
        0..4 => {
            if let Some(attribute) = dice.one_of(&mut node.attribute) {
                change_attribute(attribute, dice);
            }
        }
        4 => {
            if dice.below(2) == 0 && !node.attribute.is_empty() {
                let at = dice.below(node.attribute.len());
                node.attribute.remove(at);
            } else if let Some(input) = dice.one_of(&mut node.input) {
                input.clear();
            }
        }
        5 => {
            if let (Some(input), false) = (dice.one_of(&mut node.input), names.is_empty()) {
                input.clone_from(&names[dice.below(names.len())]);
            }
        }
        6 => {
            if !node.input.is_empty() && dice.below(2) == 0 {
                node.input.pop();
            } else if !names.is_empty() {
                node.input.push(names[dice.below(names.len())].clone());
            }
        }
        _ => node
            .op_type
            .clone_from(&operators[dice.below(operators.len())]),
    }
}

fn change_attribute(attribute: &mut AttributeProto, dice: &mut Dice) {
    if let Some(graph) = &mut attribute.g {
        return change_graph(graph, dice);
    }
    if let Some(tensor) = &mut attribute.t {
        return change_tensor(tensor, dice);
    }
    if dice.below(4) == 0 {
        attribute.ints.push(dice.number());
    } else if let Some(number) = dice.one_of(&mut attribute.ints) {
        *number = dice.number();
    } else if let Some(float) = dice.one_of(&mut attribute.floats) {
        *float = [0.0, -1.0, f32::NAN, f32::INFINITY, 1e30][dice.below(5)];
    } else {
        attribute.i = dice.number();
        attribute.f = [0.0, -1.0, f32::NAN, f32::INFINITY, 1e30][dice.below(5)];
    }
}

fn change_tensor(tensor: &mut TensorProto, dice: &mut Dice) {
    match dice.below(5) {
        0 => tensor.data_type = dice.below(TYPES_MAX) as i32,
        1 => {
            if let Some(extent) = dice.one_of(&mut tensor.dims) {
                *extent = dice.number();
            }
        }
        2 => {
            if let Some(number) = dice.one_of(&mut tensor.int64_data) {
                *number = dice.number();
            } else if tensor.raw_data.len() >= 8 {
                let at = dice.below(tensor.raw_data.len() / 8) * 8;
                tensor.raw_data[at..at + 8].copy_from_slice(&dice.number().to_le_bytes());
            }
        }
        3 => tensor.dims.push(dice.number()),
        _ => {
            tensor.dims.pop();
        }
    }
}

fn change_value(value: &mut ValueInfoProto, dice: &mut Dice) {
    let Some(Value::TensorType(tensor)) =
        value.r#type.as_mut().and_then(|kind| kind.value.as_mut())
    else {
        return;
    };
    match (dice.below(4), &mut tensor.shape) {
        (0, _) | (_, None) => tensor.elem_type = dice.below(TYPES_MAX) as i32,
        (1, Some(shape)) => {
            shape.dim.pop();
        }
        (_, Some(shape)) => {
            if let Some(dim) = dice.one_of(&mut shape.dim) {
                dim.value = Some(dimension::Value::DimValue(dice.number()));
            }
        }
    }
}
