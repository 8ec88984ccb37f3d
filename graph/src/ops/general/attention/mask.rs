//! Which keys a query of `Attention` sees: masks, causality, windows and caches filled in part.

use tract_onnx::tract_hir::internal::*;

use super::sizes::Sizes;
use super::{Attention, Causality, KEYS_VALID, MASK};
use crate::ops::general::kernel::{Values, slice, tensor};
use crate::ops::general::real::Real;

/// A mask broadcasts to scores; its last axis may be shorter than the keys, and hides those beyond.
pub(super) fn check_mask(shape: &[usize], sizes: &Sizes) -> TractResult<()> {
    let want = [sizes.batch, sizes.query_heads, sizes.queries];
    let Some((last, front)) = shape.split_last() else {
        bail!("attn_mask is a single number");
    };
    let fits = front.len() <= want.len()
        && front
            .iter()
            .rev()
            .zip(want.iter().rev())
            .all(|(extent, want)| *extent == 1 || extent == want)
        && *last <= sizes.all_keys();
    ensure!(
        fits,
        "attn_mask of shape {shape:?} does not broadcast to the scores"
    );
    Ok(())
}

/// What is added to the scores of one query: zero, a number of the mask, or minus infinity.
pub(super) struct Bias<'a, R: Real> {
    mask: Option<(Cow<'a, Tensor>, TVec<usize>)>,
    valid: Option<TVec<i64>>,
    attention: &'a Attention,
    sizes: Sizes,
    marker: PhantomData<R>,
}

impl<'a, R: Real> Bias<'a, R> {
    pub(super) fn new(
        attention: &'a Attention,
        inputs: &'a Values<'_>,
        sizes: &Sizes,
    ) -> TractResult<Self> {
        let mask = match inputs.get(MASK) {
            None => None,
            Some(mask) => {
                check_mask(mask.shape(), sizes)?;
                let mut shape: TVec<usize> = mask.shape().into();
                while shape.len() < 4 {
                    shape.insert(0, 1);
                }
                let additive = if mask.datum_type() == DatumType::Bool {
                    let allowed = slice::<bool>(mask)?.iter().map(|allowed| {
                        if *allowed {
                            R::zero()
                        } else {
                            R::neg_infinity()
                        }
                    });
                    let all: Vec<R> = allowed.collect();
                    Cow::Owned(tensor(mask.shape(), all)?)
                } else {
                    mask.cast_to::<R>()?
                };
                Some((additive, shape))
            }
        };
        let valid = match inputs.get(KEYS_VALID) {
            Some(_) => Some(inputs.integers(KEYS_VALID)?),
            None => None,
        };
        Ok(Self {
            mask,
            valid,
            attention,
            sizes: *sizes,
            marker: PhantomData,
        })
    }

    /// The bias of one row of scores.
    pub(super) fn fill(
        &self,
        row: &mut [R],
        batch: usize,
        head: usize,
        query: usize,
    ) -> TractResult<()> {
        row.fill(R::zero());
        if let Some((mask, shape)) = &self.mask {
            let place = |axis: usize, at: usize| if shape[axis] == 1 { 0 } else { at };
            let at = (place(0, batch) * shape[1] + place(1, head)) * shape[2] + place(2, query);
            let (shown, hidden) = row.split_at_mut(shape[3]);
            shown.copy_from_slice(&slice::<R>(mask)?[at * shape[3]..(at + 1) * shape[3]]);
            hidden.fill(R::neg_infinity());
        }
        let queries = i64::try_from(self.sizes.queries)?;
        let offset = match &self.valid {
            Some(valid) => valid[batch].saturating_sub(queries),
            None => i64::try_from(self.sizes.past)?,
        };
        let position = offset.saturating_add(i64::try_from(query)?);
        let reach = |keys: Option<usize>| keys.map(|keys| i64::try_from(keys).unwrap_or(i64::MAX));
        let (left, right) = self.attention.window;
        let first = reach(left).map_or(i64::MIN, |left| position.saturating_sub(left));
        let mut last = reach(right).map_or(i64::MAX, |right| position.saturating_add(right));
        if self.attention.causality == Causality::Causal {
            last = last.min(position);
        }
        if let Some(valid) = &self.valid {
            last = last.min(valid[batch].saturating_sub(1));
        }
        for (key, bias) in (0_i64..).zip(row.iter_mut()) {
            if key < first || key > last {
                *bias = R::neg_infinity();
            }
        }
        Ok(())
    }
}
