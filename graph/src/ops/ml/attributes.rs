//! The attributes of a node, by name, with defaults where the file has none.

use tract_onnx::model::ParsingContext;
use tract_onnx::pb::{NodeProto, TensorProto};
use tract_onnx::prelude::{DatumType, Tensor, TractResult};
use tract_onnx::tract_hir::internal::{bail, ensure};

use super::DOMAIN;

/// The attributes of one node. An attribute of another type than asked for is refused.
#[derive(Clone, Copy)]
pub(super) struct Attributes<'a> {
    context: &'a ParsingContext<'a>,
    node: &'a NodeProto,
}

impl<'a> Attributes<'a> {
    pub(super) fn new(context: &'a ParsingContext<'a>, node: &'a NodeProto) -> Self {
        Self { context, node }
    }

    /// The version of the domain that the file was written for; 1 if it does not say.
    pub(super) fn version(&self) -> i64 {
        let mut imports = self.context.model.opset_import.iter();
        imports
            .find(|import| import.domain == DOMAIN)
            .map_or(1, |import| import.version)
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.node.attribute.iter().any(|found| found.name == name)
    }

    pub(super) fn int(&self, name: &str, default: i64) -> TractResult<i64> {
        Ok(self.node.get_attr_opt::<i64>(name)?.unwrap_or(default))
    }

    pub(super) fn float(&self, name: &str, default: f32) -> TractResult<f32> {
        Ok(self.node.get_attr_opt::<f32>(name)?.unwrap_or(default))
    }

    pub(super) fn text(&self, name: &str, default: &'a str) -> TractResult<&'a str> {
        Ok(self.node.get_attr_opt::<&str>(name)?.unwrap_or(default))
    }

    /// Empty if the file has none.
    pub(super) fn ints(&self, name: &str) -> TractResult<&'a [i64]> {
        Ok(self.node.get_attr_opt_slice(name)?.unwrap_or_default())
    }

    /// Empty if the file has none.
    pub(super) fn floats(&self, name: &str) -> TractResult<&'a [f32]> {
        Ok(self.node.get_attr_opt_slice(name)?.unwrap_or_default())
    }

    /// Empty if the file has none. Must be UTF-8.
    pub(super) fn texts(&self, name: &str) -> TractResult<Vec<&'a str>> {
        Ok(self.node.get_attr_opt_vec(name)?.unwrap_or_default())
    }

    /// A tensor that lies in the attribute; one without a type counts as none.
    pub(super) fn tensor(&self, name: &str) -> TractResult<Option<Tensor>> {
        let Some(proto) = self.node.get_attr_opt::<&TensorProto>(name)? else {
            return Ok(None);
        };
        if proto.data_type == 0 {
            return Ok(None);
        }
        let tensor = self.context.load_tensor(proto)?;
        ensure!(
            tensor.is_plain_ram(),
            "attribute {name:?} is no plain array"
        );
        Ok(Some(tensor))
    }

    /// A list of reals, either of 32 bits under `name` or a tensor of any width under `tensor_name`.
    pub(super) fn reals(&self, name: &str, tensor_name: &str) -> TractResult<Reals> {
        let floats = self.floats(name)?;
        match self.tensor(tensor_name)? {
            None => Ok(Reals::Single(floats.to_vec())),
            Some(_) if !floats.is_empty() => {
                bail!("attributes {name:?} and {tensor_name:?} exclude each other")
            }
            Some(tensor) => Reals::from_tensor(&tensor, tensor_name),
        }
    }
}

/// A list of reals in the width in which a file has them.
#[derive(Debug)]
pub(super) enum Reals {
    Single(Vec<f32>),
    Double(Vec<f64>),
}

impl Reals {
    /// The elements of a tensor of floating-point numbers, which goes by `name`.
    pub(super) fn from_tensor(tensor: &Tensor, name: &str) -> TractResult<Self> {
        let datum_type = tensor.datum_type();
        match datum_type {
            DatumType::F16 | DatumType::F32 => {
                let singles = tensor.cast_to::<f32>()?;
                Ok(Self::Single(super::tensors::elements(&singles)?.to_vec()))
            }
            DatumType::F64 => Ok(Self::Double(super::tensors::elements(tensor)?.to_vec())),
            other => bail!("attribute {name:?} has elements of type {other:?}"),
        }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::Single(values) => values.len(),
            Self::Double(values) => values.len(),
        }
    }

    pub(super) fn is_double(&self) -> bool {
        match self {
            Self::Single(_) => false,
            Self::Double(_) => true,
        }
    }

    pub(super) fn doubles(&self) -> Vec<f64> {
        match self {
            Self::Single(values) => values.iter().map(|value| f64::from(*value)).collect(),
            Self::Double(values) => values.clone(),
        }
    }
}
