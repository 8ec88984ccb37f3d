//! Puts the bodies of a model's own functions where they are called.
//!
//! PyTorch's newer exporter and others write functions into the file. The engine knows none, so each call
//! becomes the nodes of the body, with the names inside made unique to the call. A file of few bytes can
//! call functions that call functions: what comes out is counted while it is made, and a function that
//! calls itself is refused.

use std::collections::{HashMap, HashSet};

use prost::Message;
use tract_onnx::pb::{AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto};

use super::{GraphError, NODES_MAX, shorten_name};

/// Deepest chain of functions that call each other; exporters nest by module, some ten deep.
const CALLS_DEEP_MAX: usize = 64;

/// Most bytes of the bodies that calls become, all together: what functions are for is to be short.
const BODIES_BYTES_MAX: usize = 256 << 20;

type Functions<'a> = HashMap<(&'a str, &'a str), &'a FunctionProto>;

/// Replaces every call of a function of `proto` by its body, and drops the functions.
pub(super) fn inline(proto: &mut ModelProto) -> Result<(), GraphError> {
    let functions = std::mem::take(&mut proto.functions);
    if functions.is_empty() {
        return Ok(());
    }
    let mut by_name = Functions::new();
    for function in &functions {
        let name = (function.domain(), function.name());
        if by_name.insert(name, function).is_some() {
            return Err(refuse(function, "is defined twice"));
        }
        same_opset(proto, function)?;
    }
    let mut inliner = Inliner {
        functions: by_name,
        calls: 0,
        bytes: 0,
        nodes: 0,
    };
    match &mut proto.graph {
        Some(graph) => inliner.graph(graph, 0),
        None => Ok(()),
    }
}

/// A body keeps its operators' meaning only if the model imports the same version of them.
fn same_opset(proto: &ModelProto, function: &FunctionProto) -> Result<(), GraphError> {
    let is_default = |domain: &str| domain.is_empty() || domain == "ai.onnx";
    let version = |imports: &[tract_onnx::pb::OperatorSetIdProto]| {
        let import = imports.iter().find(|import| is_default(&import.domain));
        import.map(|import| import.version)
    };
    match (
        version(&proto.opset_import),
        version(&function.opset_import),
    ) {
        (Some(outer), Some(inner)) if outer != inner => {
            let what = format!("wants opset {inner}, the model has {outer}");
            Err(refuse(function, &what))
        }
        _ => Ok(()),
    }
}

struct Inliner<'a> {
    functions: Functions<'a>,
    /// Calls so far: each gives its names a number of their own.
    calls: usize,
    /// Bytes of their bodies.
    bytes: usize,
    /// Nodes made so far.
    nodes: usize,
}

impl Inliner<'_> {
    fn graph(&mut self, graph: &mut GraphProto, depth: usize) -> Result<(), GraphError> {
        let nodes = std::mem::take(&mut graph.node);
        self.nodes(nodes, &mut graph.node, depth)
    }

    fn nodes(
        &mut self,
        nodes: Vec<NodeProto>,
        into: &mut Vec<NodeProto>,
        depth: usize,
    ) -> Result<(), GraphError> {
        for mut node in nodes {
            let key = (node.domain.as_str(), node.op_type.as_str());
            if let Some(function) = self.functions.get(&key).copied() {
                if depth >= CALLS_DEEP_MAX {
                    let what = format!("is called from {CALLS_DEEP_MAX} others, or from itself");
                    return Err(refuse(function, &what));
                }
                self.calls += 1;
                if self.calls > NODES_MAX {
                    let what = format!("and others are called more than {NODES_MAX} times");
                    return Err(refuse(function, &what));
                }
                self.bytes = self.bytes.saturating_add(function.encoded_len());
                if self.bytes > BODIES_BYTES_MAX {
                    let what = format!(
                        "and others have more than {BODIES_BYTES_MAX} bytes when they are put where they are called"
                    );
                    return Err(refuse(function, &what));
                }
                let body = call(function, &node, self.calls)?;
                self.nodes(body, into, depth + 1)?;
                continue;
            }
            self.nodes += 1;
            if self.nodes > NODES_MAX {
                return Err(GraphError::Nodes { got: self.nodes });
            }
            for attribute in &mut node.attribute {
                for inner in attribute.g.iter_mut().chain(&mut attribute.graphs) {
                    self.graph(inner, depth)?;
                }
            }
            into.push(node);
        }
        Ok(())
    }
}

/// The nodes of one call.
fn call(
    function: &FunctionProto,
    node: &NodeProto,
    number: usize,
) -> Result<Vec<NodeProto>, GraphError> {
    if node.input.len() > function.input.len() || node.output.len() > function.output.len() {
        return Err(refuse(
            function,
            "is called with more than it takes or gives",
        ));
    }
    let mut names: HashMap<&str, String> = HashMap::new();
    for (inner, at) in function.input.iter().zip(0..) {
        let outer = node.input.get(at).cloned().unwrap_or_default();
        names.insert(inner, outer);
    }
    for (inner, at) in function.output.iter().zip(0..) {
        // An output that is also an input, or that nobody wants, still has to be made under some name.
        if let Some(outer) = node.output.get(at).filter(|name| !name.is_empty()) {
            names.insert(inner, outer.clone());
        }
    }
    let scope = Scope {
        prefix: format!("{}.{number}", function.name()),
        names,
        attributes: &node.attribute,
    };
    let mut body = function.node.clone();
    for inner in &mut body {
        scope.rename(inner);
    }
    let made: HashSet<&String> = body.iter().flat_map(|node| &node.output).collect();
    for (inner, outer) in function.output.iter().zip(&node.output) {
        if !outer.is_empty() && !made.contains(outer) {
            return Err(refuse(
                function,
                &format!("does not make its output {inner:?}"),
            ));
        }
    }
    Ok(body)
}

/// What names and attributes mean inside one call.
struct Scope<'a> {
    prefix: String,
    names: HashMap<&'a str, String>,
    attributes: &'a [AttributeProto],
}

impl Scope<'_> {
    fn rename(&self, node: &mut NodeProto) {
        node.name = format!("{}.{}", self.prefix, node.name);
        for name in node.input.iter_mut().chain(&mut node.output) {
            self.rename_value(name);
        }
        node.attribute
            .retain_mut(|attribute| self.resolve(attribute));
        for attribute in &mut node.attribute {
            for inner in attribute.g.iter_mut().chain(&mut attribute.graphs) {
                self.rename_graph(inner);
            }
        }
    }

    fn rename_value(&self, name: &mut String) {
        if name.is_empty() {
            return;
        }
        *name = match self.names.get(name.as_str()) {
            Some(outer) => outer.clone(),
            None => format!("{}.{name}", self.prefix),
        };
    }

    fn rename_graph(&self, graph: &mut GraphProto) {
        for value in graph.input.iter_mut().chain(&mut graph.output) {
            self.rename_value(&mut value.name);
        }
        for tensor in &mut graph.initializer {
            self.rename_value(&mut tensor.name);
        }
        graph.value_info.clear();
        for node in &mut graph.node {
            self.rename(node);
        }
    }

    /// Gives a reference to an attribute of the call its value. False if the call does not have it.
    fn resolve(&self, attribute: &mut AttributeProto) -> bool {
        if attribute.ref_attr_name.is_empty() {
            return true;
        }
        let wanted = |given: &&AttributeProto| given.name == attribute.ref_attr_name;
        match self.attributes.iter().find(wanted) {
            Some(given) => {
                let name = std::mem::take(&mut attribute.name);
                *attribute = given.clone();
                attribute.name = name;
                true
            }
            None => false,
        }
    }
}

fn refuse(function: &FunctionProto, what: &str) -> GraphError {
    let name = shorten_name(function.name());
    GraphError::Malformed {
        reason: format!("function {name:?} {what}"),
    }
}
