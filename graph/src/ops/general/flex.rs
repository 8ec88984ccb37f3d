//! Attention whose scores a graph may change: `FlexAttention` of `ai.onnx.preview`.

use tract_onnx::model::ParsingContext;
use tract_onnx::pb::{GraphProto, NodeProto};
use tract_onnx::tract_hir::internal::*;

use super::attention::softmax;
use super::body::Body;
use super::kernel::{Facts, Kernel, Unknown, Values, check_bytes, extents, volume};
use super::own::operator;
use super::real::{Real, Reals, add_scaled, check_real, dot, rounded, with_real};

#[derive(Debug)]
struct FlexAttention {
    scale: Option<f32>,
    precision: Option<DatumType>,
    score_change: Option<Body>,
    probability_change: Option<Body>,
}

pub(super) fn flex_attention(
    context: &ParsingContext<'_>,
    node: &NodeProto,
) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)> {
    let change = |name: &str| -> TractResult<Option<Body>> {
        let Some(graph) = node.get_attr_opt::<&GraphProto>(name)? else {
            return Ok(None);
        };
        let (body, closures) = Body::parse(context, graph)?;
        ensure!(
            closures.is_empty() && body.inputs()? == 1 && body.outputs()? == 1,
            "{name} must take one value and give one"
        );
        Ok(Some(body))
    };
    let precision: Option<DatumType> = node.get_attr_opt("softmax_precision")?;
    if let Some(precision) = precision {
        check_real(precision)?;
    }
    let kernel = FlexAttention {
        scale: node.get_attr_opt("scale")?,
        precision,
        score_change: change("score_mod")?,
        probability_change: change("prob_mod")?,
    };
    operator(context, node, "FlexAttention", kernel)
}

#[derive(Clone, Copy)]
struct Sizes {
    batch: usize,
    query_heads: usize,
    key_heads: usize,
    queries: usize,
    keys: usize,
    head: usize,
    value_head: usize,
}

impl Sizes {
    fn new(query: &[usize], key: &[usize], value: &[usize]) -> TractResult<Self> {
        let (
            &[batch, query_heads, queries, head],
            &[key_batch, key_heads, keys, key_head],
            &[.., value_head],
        ) = (query, key, value)
        else {
            bail!("queries, keys and values must have four axes");
        };
        ensure!(
            key_batch == batch
                && key_head == head
                && *value == [batch, key_heads, keys, value_head],
            "queries, keys and values do not fit together"
        );
        ensure!(
            key_heads > 0 && query_heads.is_multiple_of(key_heads),
            "{query_heads} query heads are no multiple of {key_heads} key heads"
        );
        Ok(Self {
            batch,
            query_heads,
            key_heads,
            queries,
            keys,
            head,
            value_head,
        })
    }

    fn scores(&self) -> [usize; 4] {
        [self.batch, self.query_heads, self.queries, self.keys]
    }

    fn output(&self) -> [usize; 4] {
        [self.batch, self.query_heads, self.queries, self.value_head]
    }
}

impl Kernel for FlexAttention {
    fn is_bounded(&self) -> bool {
        true
    }

    fn facts(&self, inputs: &Facts<'_>, _unknown: &Unknown) -> TractResult<TVec<TypedFact>> {
        let (query, key, value) = (inputs.need(0)?, inputs.need(1)?, inputs.need(2)?);
        check_real(query.datum_type)?;
        ensure!(
            query.datum_type == key.datum_type && query.datum_type == value.datum_type,
            "queries, keys and values differ in type"
        );
        let sizes = Sizes::new(&extents(query)?, &extents(key)?, &extents(value)?)?;
        let scores = self.scores_type(query.datum_type).fact(sizes.scores());
        for body in [&self.score_change, &self.probability_change]
            .into_iter()
            .flatten()
        {
            let changed = body.facts(std::slice::from_ref(&scores))?;
            ensure!(
                changed[0].datum_type == scores.datum_type && changed[0].shape == scores.shape,
                "a graph that changes scores makes others of them: {:?}",
                changed[0]
            );
        }
        Ok(tvec![query.datum_type.fact(sizes.output())])
    }

    fn run(&self, inputs: &Values<'_>) -> TractResult<TVec<Tensor>> {
        let query = inputs.need(0)?.datum_type();
        with_real!(self.scores_type(query), attend(self, inputs))
    }
}

impl FlexAttention {
    /// Scores have 32 bits if the inputs have fewer and the node says nothing.
    fn scores_type(&self, inputs: DatumType) -> DatumType {
        self.precision.unwrap_or(match inputs {
            DatumType::F64 => DatumType::F64,
            _ => DatumType::F32,
        })
    }
}

fn attend<R: Real>(kernel: &FlexAttention, inputs: &Values<'_>) -> TractResult<TVec<Tensor>> {
    let (query, key, value) = (inputs.need(0)?, inputs.need(1)?, inputs.need(2)?);
    let sizes = Sizes::new(query.shape(), key.shape(), value.shape())?;
    let datum_type = query.datum_type();
    let scores_type = kernel.scores_type(datum_type);
    let reals = (
        Reals::<R>::new(query)?,
        Reals::<R>::new(key)?,
        Reals::<R>::new(value)?,
    );
    let (query, key, value) = (
        reals.0.as_slice()?,
        reals.1.as_slice()?,
        reals.2.as_slice()?,
    );
    let scale = match kernel.scale {
        Some(scale) => R::of(f64::from(scale)),
        None => {
            R::one()
                / R::from_usize(sizes.head.max(1))
                    .unwrap_or_else(R::one)
                    .sqrt()
        }
    };
    check_bytes(&sizes.scores(), size_of::<R>())?;
    let group = sizes.query_heads / sizes.key_heads;
    // Which head of the keys and values a row of queries uses.
    let shared = |row: usize| {
        let (batch, head) = (
            row / (sizes.query_heads * sizes.queries),
            row / sizes.queries % sizes.query_heads,
        );
        batch * sizes.key_heads + head / group
    };
    let rows = sizes.batch * sizes.query_heads * sizes.queries;
    let mut scores = Vec::with_capacity(volume(&sizes.scores())?);
    for row in 0..rows {
        let query = &query[row * sizes.head..(row + 1) * sizes.head];
        let first = shared(row) * sizes.keys;
        scores.extend(
            (first..first + sizes.keys)
                .map(|at| scale * dot(query, &key[at * sizes.head..(at + 1) * sizes.head])),
        );
    }
    let mut scores = change(kernel.score_change.as_ref(), scores, scores_type, &sizes)?;
    for row in scores.chunks_exact_mut(sizes.keys.max(1)) {
        softmax(row, Some(scores_type));
    }
    let weights = change(
        kernel.probability_change.as_ref(),
        scores,
        scores_type,
        &sizes,
    )?;
    let mut output = vec![R::zero(); volume(&sizes.output())?];
    for row in 0..rows {
        let output = &mut output[row * sizes.value_head..(row + 1) * sizes.value_head];
        let first = shared(row) * sizes.keys;
        for (at, weight) in (first..).zip(&weights[row * sizes.keys..(row + 1) * sizes.keys]) {
            let value = &value[at * sizes.value_head..(at + 1) * sizes.value_head];
            add_scaled(output, *weight, value);
        }
    }
    Ok(tvec![rounded(datum_type, &sizes.output(), output)?])
}

/// Scores as a graph of the node changes them, in the type that the graph takes.
fn change<R: Real>(
    body: Option<&Body>,
    scores: Vec<R>,
    datum_type: DatumType,
    sizes: &Sizes,
) -> TractResult<Vec<R>> {
    let Some(body) = body else {
        return Ok(scores);
    };
    let given = rounded(datum_type, &sizes.scores(), scores)?;
    let changed = body.run(tvec![given.into_tvalue()], 1)?;
    let [changed] = &*changed else {
        bail!("a graph that changes scores gives {} values", changed.len());
    };
    ensure!(
        *changed.shape() == sizes.scores(),
        "a graph that changes scores makes others of them"
    );
    Ok(Reals::<R>::new(changed)?.as_slice()?.to_vec())
}
