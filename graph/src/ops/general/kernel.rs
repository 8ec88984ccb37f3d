//! What an operator of ours has to say: the types and shapes of its outputs, and how to compute them.
//!
//! Inputs come by their place in the operator, with those that a node leaves out as `None`. The helpers
//! here check what a file or a request gives before it is used as an index, an extent or a size.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use tract_onnx::tract_hir::internal::*;

use crate::error::TooLarge;
use crate::scope;

/// One operator with its attributes, as a node of a graph has them.
pub(super) trait Kernel: fmt::Debug + Send + Sync + 'static {
    /// The type and shape of every output. An extent that only running can tell is one of `unknown`.
    ///
    /// Inputs that are constants carry their value. Shapes may be symbolic. Everything about attributes
    /// and inputs that can be refused without their values is refused here.
    fn facts(&self, inputs: &Facts<'_>, unknown: &Unknown) -> TractResult<TVec<TypedFact>>;

    /// Computes every output. Types and shapes of inputs have passed [`Self::facts`].
    fn run(&self, inputs: &Values<'_>) -> TractResult<TVec<Tensor>>;

    /// Whether running it checks the size of what it makes, where facts cost more than running.
    fn is_bounded(&self) -> bool {
        false
    }

    /// Whether it gives the same outputs each time, so that constants may be folded.
    fn is_pure(&self) -> bool {
        true
    }
}

/// What is known of a node's inputs; one that is left out is `None`.
pub(super) struct Facts<'a>(TVec<Option<&'a TypedFact>>);

impl<'a> Facts<'a> {
    pub(super) fn new(facts: TVec<Option<&'a TypedFact>>) -> Self {
        Self(facts)
    }

    pub(super) fn get(&self, index: usize) -> Option<&'a TypedFact> {
        self.0.get(index).copied().flatten()
    }

    pub(super) fn need(&self, index: usize) -> TractResult<&'a TypedFact> {
        self.get(index)
            .with_context(|| format!("input {index} is missing"))
    }

    /// The 64-bit integers of a constant input, if it is one; `None` if only running can tell.
    pub(super) fn integers(&self, index: usize) -> TractResult<Option<TVec<i64>>> {
        match self.get(index).and_then(|fact| fact.konst.as_ref()) {
            Some(tensor) => integers_of(tensor).map(Some),
            None => Ok(None),
        }
    }
}

/// The values of a node's inputs; one that is left out is `None`.
pub(super) struct Values<'a>(TVec<Option<&'a Tensor>>);

impl<'a> Values<'a> {
    pub(super) fn new(values: TVec<Option<&'a Tensor>>) -> Self {
        Self(values)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn get(&self, index: usize) -> Option<&'a Tensor> {
        self.0.get(index).copied().flatten()
    }

    pub(super) fn need(&self, index: usize) -> TractResult<&'a Tensor> {
        self.get(index)
            .with_context(|| format!("input {index} is missing"))
    }

    pub(super) fn integers(&self, index: usize) -> TractResult<TVec<i64>> {
        integers_of(self.need(index)?)
    }

    /// The first element of an input, as a 64-bit integer.
    pub(super) fn integer(&self, index: usize) -> TractResult<i64> {
        let all = self.integers(index)?;
        ensure!(all.len() == 1, "input {index} is not a single number");
        Ok(all[0])
    }
}

/// Elements of an integer tensor.
pub(super) fn integers_of(tensor: &Tensor) -> TractResult<TVec<i64>> {
    ensure!(
        tensor.datum_type().is_integer() || tensor.datum_type().is_tdim(),
        "{:?} where integers are expected",
        tensor.datum_type()
    );
    let cast = tensor.cast_to::<i64>()?;
    Ok(slice::<i64>(&cast)?.into())
}

/// The elements of a tensor in row-major order.
pub(super) fn slice<T: Datum>(tensor: &Tensor) -> TractResult<&[T]> {
    tensor.try_as_plain_ram()?.as_slice::<T>()
}

/// A tensor of elements in row-major order.
pub(super) fn tensor<T: Datum>(shape: &[usize], elements: Vec<T>) -> TractResult<Tensor> {
    let array = tract_ndarray::ArrayD::from_shape_vec(shape, elements)?;
    Ok(array.into())
}

/// The position of an axis that may count from the end.
pub(super) fn axis_in(axis: i64, rank: usize) -> TractResult<usize> {
    let signed = i64::try_from(rank)?;
    let from_start = if axis < 0 {
        axis.saturating_add(signed)
    } else {
        axis
    };
    ensure!(
        (0..signed).contains(&from_start),
        "axis {axis} is not one of {rank} axes"
    );
    Ok(usize::try_from(from_start)?)
}

/// Extents of a shape that is known.
pub(super) fn extents(fact: &TypedFact) -> TractResult<TVec<usize>> {
    fact.shape
        .iter()
        .map(|extent| {
            extent
                .to_usize()
                .with_context(|| format!("the extent {extent} is not known beforehand"))
        })
        .collect()
}

/// The product of extents, refused where it cannot be counted.
pub(super) fn volume(shape: &[usize]) -> TractResult<usize> {
    shape
        .iter()
        .try_fold(1_usize, |all, extent| all.checked_mul(*extent))
        .context("a shape has too many elements to count")
}

/// Refuses a tensor that would be too large, before it is made.
pub(super) fn check_bytes(shape: &[usize], element: usize) -> TractResult<()> {
    let all = shape.iter().copied().chain([element]);
    let bytes = all.fold(1, usize::saturating_mul);
    let limit = scope::tensor_bytes_max();
    if bytes > limit {
        return Err(TooLarge { bytes, limit }.into());
    }
    Ok(())
}

/// Extents that only running can tell, one symbol each, the same whenever it is asked for.
#[derive(Clone)]
pub(super) struct Unknown {
    scope: SymbolScope,
    made: Arc<Mutex<Vec<Symbol>>>,
}

impl fmt::Debug for Unknown {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Unknown")
    }
}

impl Unknown {
    pub(super) fn new(scope: &SymbolScope) -> Self {
        Self {
            scope: scope.clone(),
            made: Arc::default(),
        }
    }

    /// The unknown extent of this number.
    pub(super) fn extent(&self, index: usize) -> TDim {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        while made.len() <= index {
            let symbol = self.scope.new_with_prefix("x");
            made.push(symbol);
        }
        made[index].to_dim()
    }

    /// Whether an extent depends on one of these.
    pub(super) fn owns(&self, extent: &TDim) -> bool {
        let made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        extent.symbols().iter().any(|symbol| made.contains(symbol))
    }
}
