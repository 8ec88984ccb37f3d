//! Scaled dot-product attention with its masks, caches and grouped heads: `Attention`.
//!
//! Scores of one query row exist at a time, so memory grows with the sequence and not with its square,
//! unless the graph asks for the scores themselves.

mod mask;
mod sizes;

use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::internal::*;

use self::mask::{Bias, check_mask};
use self::sizes::Sizes;
use super::kernel::{Facts, Kernel, Unknown, Values, extents, volume};
use super::own::operator;
use super::real::{Real, Reals, add_scaled, check_real, dot, rounded, with_real};

const QUERY: usize = 0;
const KEY: usize = 1;
const VALUE: usize = 2;
const MASK: usize = 3;
const PAST_KEY: usize = 4;
const PAST_VALUE: usize = 5;
const KEYS_VALID: usize = 6;

#[derive(Debug)]
struct Attention {
    scale: Option<f32>,
    causality: Causality,
    heads: Option<(usize, usize)>,
    softcap: f32,
    /// Which scores the fourth output shows, if the node has one.
    scores: Option<Scores>,
    /// Keys that a query may look back and ahead; `None` for all.
    window: (Option<usize>, Option<usize>),
    /// Softmax is computed in 16 bits where a graph asks for it.
    softmax: Option<DatumType>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Causality {
    Causal,
    Full,
}

/// Which scores the fourth output shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scores {
    Raw,
    Capped,
    Masked,
    Softmaxed,
}

pub(super) fn attention(
    context: &ParsingContext<'_>,
    node: &NodeProto,
) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)> {
    let heads = |name: &str| -> TractResult<Option<usize>> {
        let count: Option<usize> = node.get_attr_opt(name)?;
        ensure!(count != Some(0), "{name} is zero");
        Ok(count)
    };
    let heads = match (heads("q_num_heads")?, heads("kv_num_heads")?) {
        (Some(query), Some(key)) => Some((query, key)),
        (None, None) => None,
        _ => bail!("q_num_heads and kv_num_heads are needed together"),
    };
    let reach = |name: &str| -> TractResult<Option<usize>> {
        match node.get_attr_opt::<i64>(name)?.unwrap_or(-1) {
            -1 => Ok(None),
            keys => Ok(Some(usize::try_from(keys).with_context(|| {
                format!("{name} is neither -1 nor a number of keys")
            })?)),
        }
    };
    let softmax = match node.get_attr_opt::<i64>("softmax_precision")? {
        None | Some(0) => None,
        Some(1) => Some(DatumType::F32),
        Some(10) => Some(DatumType::F16),
        Some(11) => Some(DatumType::F64),
        Some(other) => bail!("softmax_precision {other} is not supported"),
    };
    let scores = match node
        .get_attr_opt::<i64>("qk_matmul_output_mode")?
        .unwrap_or(0)
    {
        0 => Scores::Raw,
        1 => Scores::Capped,
        2 => Scores::Masked,
        3 => Scores::Softmaxed,
        other => bail!("qk_matmul_output_mode is {other}"),
    };
    let kernel = Attention {
        scale: node.get_attr_opt("scale")?,
        causality: match node.get_attr_opt::<bool>("is_causal")? {
            Some(true) => Causality::Causal,
            Some(false) | None => Causality::Full,
        },
        heads,
        softcap: node.get_attr_opt("softcap")?.unwrap_or(0.0),
        scores: node
            .output
            .get(3)
            .filter(|name| !name.is_empty())
            .map(|_| scores),
        window: (reach("left_window_size")?, reach("right_window_size")?),
        softmax,
    };
    operator(context, node, "Attention", kernel)
}

impl Kernel for Attention {
    fn facts(&self, inputs: &Facts<'_>, _unknown: &Unknown) -> TractResult<TVec<TypedFact>> {
        let query = inputs.need(QUERY)?;
        check_real(query.datum_type)?;
        for (place, name) in [(KEY, "keys"), (PAST_KEY, "past_key")] {
            if let Some(fact) = inputs.get(place) {
                ensure!(
                    fact.datum_type == query.datum_type,
                    "{name} have another type than the queries"
                );
            }
        }
        let value = inputs.need(VALUE)?;
        check_real(value.datum_type)?;
        let past = match (inputs.get(PAST_KEY), inputs.get(PAST_VALUE)) {
            (Some(key), Some(value)) => Some((extents(key)?, extents(value)?)),
            (None, None) => None,
            _ => bail!("past_key and past_value are needed together"),
        };
        let query_shape = extents(query)?;
        let sizes = self.sizes(
            &query_shape,
            &extents(inputs.need(KEY)?)?,
            &extents(value)?,
            past.as_ref().map(|(key, value)| (&**key, &**value)),
        )?;
        if let Some(mask) = inputs.get(MASK) {
            check_mask(&extents(mask)?, &sizes)?;
            ensure!(
                mask.datum_type == DatumType::Bool || mask.datum_type == query.datum_type,
                "attn_mask is neither boolean nor of the type of the queries"
            );
        }
        if let Some(valid) = inputs.get(KEYS_VALID) {
            ensure!(past.is_none(), "nonpad_kv_seqlen goes with no past_key");
            ensure!(
                *extents(valid)? == [sizes.batch],
                "nonpad_kv_seqlen must have one number for each of the batch"
            );
        }
        let output: TVec<usize> = if query_shape.len() == 3 {
            tvec![
                sizes.batch,
                sizes.queries,
                sizes.query_heads * sizes.value_head
            ]
        } else {
            tvec![
                sizes.batch,
                sizes.query_heads,
                sizes.queries,
                sizes.value_head
            ]
        };
        let cache = |width| [sizes.batch, sizes.key_heads, sizes.all_keys(), width];
        let scores = [
            sizes.batch,
            sizes.query_heads,
            sizes.queries,
            sizes.all_keys(),
        ];
        let mut facts = tvec![
            query.datum_type.fact(&*output),
            query.datum_type.fact(cache(sizes.head)),
            value.datum_type.fact(cache(sizes.value_head)),
        ];
        if self.scores.is_some() {
            facts.push(query.datum_type.fact(scores));
        }
        Ok(facts)
    }

    fn run(&self, inputs: &Values<'_>) -> TractResult<TVec<Tensor>> {
        let query = inputs.need(QUERY)?;
        let past = match (inputs.get(PAST_KEY), inputs.get(PAST_VALUE)) {
            (Some(key), Some(value)) => Some((key.shape(), value.shape())),
            _ => None,
        };
        let key = inputs.need(KEY)?;
        let value = inputs.need(VALUE)?;
        let sizes = self.sizes(query.shape(), key.shape(), value.shape(), past)?;
        with_real!(query.datum_type(), attend(self, inputs, &sizes))
    }
}

/// Rows of a tensor of three or four axes, by batch, head and position.
struct Rows<'a, R> {
    data: &'a [R],
    heads: usize,
    length: usize,
    width: usize,
    interleaved: bool,
}

impl<'a, R> Rows<'a, R> {
    fn row(&self, batch: usize, head: usize, position: usize) -> &'a [R] {
        let at = if self.interleaved {
            (batch * self.length + position) * self.heads + head
        } else {
            (batch * self.heads + head) * self.length + position
        };
        &self.data[at * self.width..(at + 1) * self.width]
    }
}

/// Keys or values of a cache followed by those of the call, by batch and head.
fn joined<R: Real>(
    input: &Tensor,
    past: Option<&Tensor>,
    sizes: &Sizes,
    width: usize,
) -> TractResult<Vec<R>> {
    let new = Reals::<R>::new(input)?;
    let rows = Rows {
        data: new.as_slice()?,
        heads: sizes.key_heads,
        length: sizes.keys,
        width,
        interleaved: input.rank() == 3,
    };
    let past = past.map(Reals::<R>::new).transpose()?;
    let past = past.as_ref().map(Reals::as_slice).transpose()?;
    let shape = [sizes.batch, sizes.key_heads, sizes.all_keys(), width];
    let mut all = Vec::with_capacity(volume(&shape)?);
    for batch in 0..sizes.batch {
        for head in 0..sizes.key_heads {
            if let Some(past) = past {
                let len = sizes.past * width;
                let at = (batch * sizes.key_heads + head) * len;
                all.extend_from_slice(&past[at..at + len]);
            }
            for position in 0..sizes.keys {
                all.extend_from_slice(rows.row(batch, head, position));
            }
        }
    }
    Ok(all)
}

fn attend<R: Real>(
    attention: &Attention,
    inputs: &Values<'_>,
    sizes: &Sizes,
) -> TractResult<TVec<Tensor>> {
    let query = inputs.need(QUERY)?;
    let datum_type = query.datum_type();
    let keys = joined::<R>(inputs.need(KEY)?, inputs.get(PAST_KEY), sizes, sizes.head)?;
    let value_width = sizes.value_head;
    let values = joined::<R>(
        inputs.need(VALUE)?,
        inputs.get(PAST_VALUE),
        sizes,
        value_width,
    )?;
    let interleaved = query.rank() == 3;
    let queries = Reals::<R>::new(query)?;
    let queries = Rows {
        data: queries.as_slice()?,
        heads: sizes.query_heads,
        length: sizes.queries,
        width: sizes.head,
        interleaved,
    };
    let bias = Bias::<R>::new(attention, inputs, sizes)?;
    let all_keys = sizes.all_keys();
    let scale = match attention.scale {
        Some(scale) => R::of(f64::from(scale)),
        None => {
            R::one()
                / R::from_usize(sizes.head.max(1))
                    .unwrap_or_else(R::one)
                    .sqrt()
        }
    };
    let cap = R::of(f64::from(attention.softcap));
    let group = sizes.query_heads / sizes.key_heads;
    let mut output =
        vec![R::zero(); volume(&[sizes.batch, sizes.query_heads, sizes.queries, value_width])?];
    let score_shape = [sizes.batch, sizes.query_heads, sizes.queries, all_keys];
    let mut shown = match attention.scores {
        Some(_) => Vec::with_capacity(volume(&score_shape)?),
        None => vec![],
    };
    let mut scores = vec![R::zero(); all_keys];
    let mut added = vec![R::zero(); all_keys];
    for batch in 0..sizes.batch {
        for head in 0..sizes.query_heads {
            let shared = (batch * sizes.key_heads + head / group) * all_keys;
            for position in 0..sizes.queries {
                let row = queries.row(batch, head, position);
                for (score, key) in scores.iter_mut().zip(shared..) {
                    let key = &keys[key * sizes.head..(key + 1) * sizes.head];
                    *score = scale * dot(row, key);
                }
                if attention.scores == Some(Scores::Raw) {
                    shown.extend_from_slice(&scores);
                }
                if cap > R::zero() {
                    for score in &mut scores {
                        *score = cap * (*score / cap).tanh();
                    }
                }
                if attention.scores == Some(Scores::Capped) {
                    shown.extend_from_slice(&scores);
                }
                bias.fill(&mut added, batch, head, position)?;
                for (score, bias) in scores.iter_mut().zip(&added) {
                    *score += *bias;
                }
                if attention.scores == Some(Scores::Masked) {
                    shown.extend_from_slice(&scores);
                }
                if added.iter().all(|bias| *bias == R::neg_infinity()) {
                    scores.fill(R::zero());
                } else {
                    softmax(&mut scores, attention.softmax);
                }
                if attention.scores == Some(Scores::Softmaxed) {
                    shown.extend_from_slice(&scores);
                }
                let at = if interleaved {
                    (batch * sizes.queries + position) * sizes.query_heads + head
                } else {
                    (batch * sizes.query_heads + head) * sizes.queries + position
                };
                let output = &mut output[at * value_width..(at + 1) * value_width];
                for (score, key) in scores.iter().zip(shared..) {
                    if *score != R::zero() {
                        add_scaled(
                            output,
                            *score,
                            &values[key * value_width..(key + 1) * value_width],
                        );
                    }
                }
            }
        }
    }
    let shape: TVec<usize> = if interleaved {
        tvec![sizes.batch, sizes.queries, sizes.query_heads * value_width]
    } else {
        tvec![sizes.batch, sizes.query_heads, sizes.queries, value_width]
    };
    let cache = |width| [sizes.batch, sizes.key_heads, all_keys, width];
    let value_type = inputs.need(VALUE)?.datum_type();
    let mut outputs = tvec![
        rounded(datum_type, &shape, output)?,
        rounded(datum_type, &cache(sizes.head), keys)?,
        rounded(value_type, &cache(value_width), values)?,
    ];
    if attention.scores.is_some() {
        outputs.push(rounded(datum_type, &score_shape, shown)?);
    }
    Ok(outputs)
}

/// Softmax of one row in place; a row of minus infinities becomes zeros.
pub(super) fn softmax<R: Real>(row: &mut [R], precision: Option<DatumType>) {
    let narrow = |value: R| match precision {
        Some(DatumType::F16) => R::of(f64::from(f16::from_f64(value.as_()))),
        _ => value,
    };
    let highest = row
        .iter()
        .copied()
        .fold(R::neg_infinity(), |highest, value| {
            if value.is_nan() {
                value
            } else {
                highest.max(value)
            }
        });
    if highest == R::neg_infinity() {
        row.fill(R::zero());
        return;
    }
    let mut sum = R::zero();
    for value in row.iter_mut() {
        *value = narrow((narrow(*value) - highest).exp());
        sum += *value;
    }
    for value in row.iter_mut() {
        *value = narrow(*value / sum);
    }
}
