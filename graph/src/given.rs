//! What a graph gives, held against what its file says that it gives.
//!
//! Exporters write shapes of outputs that are those of one run, or of another version of the model. A
//! reply is checked against what a module says, so a module must not say them.

use tidegate_inference::{Dtype, TensorSpec};
use tract_onnx::prelude::{InferenceFact, InferenceModel, InferenceModelExt, TractResult};
use tract_onnx::tract_hir::infer::Factoid;
use tract_onnx::tract_hir::internal::{DimFact, ShapeFactoid, TDim, ToDim};

use super::convert::{dtype_of, native_type};
use super::{Graph, GraphError, on_deep_stack, scope, shorten_name};

impl Graph {
    /// Brings `declared` outputs in line with what the graph gives, as far as that can be told without
    /// running it: shapes become those that come out. Says what it changed. Fails for a dtype that does
    /// not come out.
    pub fn reconcile(&self, declared: &mut [TensorSpec]) -> Result<Vec<String>, GraphError> {
        // Axes that are free stand for themselves, where the graph may take any for any; if it may not, nothing
        // is known of them.
        let infer = || {
            let by_name =
                self.infer_outputs(|model| model.symbols.new_with_prefix("n").to_dim().into());
            Ok(by_name.or_else(|_| self.infer_outputs(|_| DimFact::Any)))
        };
        let facts = on_deep_stack(|| scope::within(self.source.limits, &scope::always(), infer))?;
        // What cannot be inferred before a request brings its shapes contradicts nothing.
        let facts = facts.unwrap_or_default();
        let outputs = self.outputs.iter().zip(&self.source.rounded).zip(&facts);
        let mut changes = Vec::new();
        for ((name, rounded), fact) in outputs {
            let Some(spec) = declared.iter_mut().find(|spec| spec.name == *name) else {
                continue;
            };
            let given = fact.datum_type.concretize().and_then(dtype_of);
            let given = given.map(|given| if *rounded { Dtype::Bf16 } else { given });
            if let Some(given) = given
                && given != spec.dtype
            {
                return Err(GraphError::Value {
                    place: "output",
                    name: shorten_name(name),
                    reason: format!("is declared as {}, and the graph gives {given}", spec.dtype),
                });
            }
            if let Some(shape) = widened(&spec.shape, &fact.shape) {
                changes.push(format!(
                    "output {:?} is declared with the shape {:?}, and the graph gives {shape:?}",
                    shorten_name(name),
                    spec.shape
                ));
                spec.shape = shape;
            }
        }
        Ok(changes)
    }

    fn infer_outputs(
        &self,
        free: impl Fn(&InferenceModel) -> DimFact,
    ) -> TractResult<Vec<InferenceFact>> {
        let mut model = self.source.model.clone();
        for (index, input) in self.source.inputs.iter().enumerate() {
            let extent = |extent: &i64| match extent {
                0.. => DimFact::Only(TDim::from(*extent)),
                _ => free(&model),
            };
            let shape = ShapeFactoid::closed(input.shape.iter().map(extent).collect());
            let fact = InferenceFact::dt_shape(native_type(input.dtype), shape);
            model.set_input_fact(index, fact)?;
        }
        model.analyse(false)?;
        let outlets = model.output_outlets()?;
        outlets
            .iter()
            .map(|outlet| model.outlet_fact(*outlet).cloned())
            .collect()
    }
}

/// What is known of an extent that comes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Extent {
    Always(i64),
    /// It changes with the inputs.
    Changes,
    Unknown,
}

impl Extent {
    fn of(fact: &DimFact) -> Self {
        match fact.concretize().map(|extent| extent.to_i64()) {
            Some(Ok(extent)) => Self::Always(extent),
            Some(Err(_)) => Self::Changes,
            None => Self::Unknown,
        }
    }

    fn may_be(self, declared: i64) -> bool {
        match self {
            Self::Always(extent) => declared < 0 || declared == extent,
            Self::Changes => declared < 0,
            Self::Unknown => true,
        }
    }
}

/// The shape that comes out where another is declared; `None` where the declared one may be.
fn widened(declared: &[i64], given: &ShapeFactoid) -> Option<Vec<i64>> {
    if given.is_open() {
        return None;
    }
    let given: Vec<Extent> = given.dims().map(Extent::of).collect();
    let is_of_rank = declared.len() == given.len();
    let mut pairs = declared.iter().zip(&given);
    if is_of_rank && pairs.all(|(declared, given)| given.may_be(*declared)) {
        return None;
    }
    let extents = given.iter().enumerate().map(|(axis, given)| match given {
        _ if is_of_rank && given.may_be(declared[axis]) => declared[axis],
        Extent::Always(given) => *given,
        Extent::Changes | Extent::Unknown => -1,
    });
    Some(extents.collect())
}

#[cfg(test)]
mod tests {
    use tract_onnx::tract_hir::internal::SymbolScope;

    use super::*;

    #[test]
    fn a_shape_is_changed_only_where_it_cannot_be() {
        let symbols = SymbolScope::default();
        let given = |extents: &[Extent]| {
            let extent = |extent: &Extent| match extent {
                Extent::Always(extent) => DimFact::Only(TDim::from(*extent)),
                Extent::Changes => symbols.new_with_prefix("n").to_dim().into(),
                Extent::Unknown => DimFact::Any,
            };
            ShapeFactoid::closed(extents.iter().map(extent).collect())
        };
        let check = |declared: &[i64], shape: &[Extent], wanted: Option<&[i64]>| {
            assert_eq!(widened(declared, &given(shape)).as_deref(), wanted);
        };
        let (is, changes, unknown) = (Extent::Always, Extent::Changes, Extent::Unknown);
        check(&[1, 10], &[is(1), is(10)], None);
        check(&[-1, 10], &[is(1), is(10)], None);
        check(&[-1, 10], &[changes, unknown], None);
        check(&[1, 10], &[unknown, unknown], None);
        check(&[1, 10], &[is(1), is(12)], Some(&[1, 12]));
        check(&[1, 10], &[changes, is(10)], Some(&[-1, 10]));
        check(&[-1, 2], &[unknown, is(1)], Some(&[-1, 1]));
        check(&[-1, 10], &[is(4), is(12)], Some(&[-1, 12]));
        check(&[1, 10], &[is(10)], Some(&[10]));
        check(&[10], &[unknown, is(1)], Some(&[-1, 1]));
        assert_eq!(widened(&[1], &ShapeFactoid::default()), None);
    }
}
