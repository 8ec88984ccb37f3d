//! Attention as a recurrence over a state of fixed size: `LinearAttention`, `CausalConvWithState`.
//!
//! Both carry a state from call to call, so a model of text keeps no growing cache.

use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::internal::*;

use super::kernel::{Facts, Kernel, Unknown, Values, extents, volume};
use super::own::operator;
use super::real::{Real, Reals, add_scaled, check_real, dot, rounded, with_real};

const QUERY: usize = 0;
const KEY: usize = 1;
const VALUE: usize = 2;
const PAST_STATE: usize = 3;
const DECAY: usize = 4;
const BETA: usize = 5;

#[derive(Debug)]
struct LinearAttention {
    query_heads: usize,
    key_heads: usize,
    scale: f32,
    decays: bool,
    corrects: bool,
}

pub(super) fn linear_attention(
    context: &ParsingContext<'_>,
    node: &NodeProto,
) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)> {
    let rule: &str = node.get_attr_opt("update_rule")?.unwrap_or("gated_delta");
    let (decays, corrects) = match rule {
        "linear" => (false, false),
        "gated" => (true, false),
        "delta" => (false, true),
        "gated_delta" => (true, true),
        other => bail!("update_rule is {other:?}"),
    };
    let kernel = LinearAttention {
        query_heads: node.get_attr("q_num_heads")?,
        key_heads: node.get_attr("kv_num_heads")?,
        scale: node.get_attr_opt("scale")?.unwrap_or(0.0),
        decays,
        corrects,
    };
    ensure!(
        kernel.key_heads > 0
            && kernel.query_heads > 0
            && kernel.query_heads.is_multiple_of(kernel.key_heads),
        "{} query heads are no multiple of {} key heads",
        kernel.query_heads,
        kernel.key_heads
    );
    operator(context, node, "LinearAttention", kernel)
}

#[derive(Clone, Copy, Debug)]
struct Sizes {
    batch: usize,
    steps: usize,
    key: usize,
    value: usize,
    /// Decays of one head and step: one, or one for each element of the key.
    decays: usize,
    /// Heads that have a beta of their own.
    betas: usize,
}

impl LinearAttention {
    fn sizes(&self, shapes: &[Option<TVec<usize>>]) -> TractResult<Sizes> {
        let axes = |place: usize| -> TractResult<Option<[usize; 3]>> {
            match shapes.get(place).and_then(Option::as_deref) {
                None => Ok(None),
                Some(&[batch, steps, width]) => Ok(Some([batch, steps, width])),
                Some(_) => bail!("input {place} must have three axes"),
            }
        };
        let need = |place| axes(place)?.with_context(|| format!("input {place} is missing"));
        let (query, key, value) = (need(QUERY)?, need(KEY)?, need(VALUE)?);
        ensure!(
            query[..2] == key[..2] && query[..2] == value[..2],
            "queries, keys and values do not fit together"
        );
        ensure!(
            query[2] % self.query_heads == 0
                && key[2] % self.key_heads == 0
                && value[2] % self.key_heads == 0
                && query[2] / self.query_heads == key[2] / self.key_heads,
            "the widths do not fit the numbers of heads"
        );
        let key_width = key[2] / self.key_heads;
        let value_width = value[2] / self.key_heads;
        let decays = match (axes(DECAY)?, self.decays) {
            (Some([batch, steps, width]), true) => {
                ensure!(
                    [batch, steps] == query[..2],
                    "decay does not fit the queries"
                );
                match width {
                    width if width == self.key_heads => 1,
                    width if width == self.key_heads * key_width => key_width,
                    other => bail!("decay has width {other}"),
                }
            }
            (None, false) => 1,
            _ => bail!("decay goes with the gated update rules, and only with them"),
        };
        let betas = match (axes(BETA)?, self.corrects) {
            (Some([batch, steps, width]), true) => {
                ensure!(
                    [batch, steps] == query[..2],
                    "beta does not fit the queries"
                );
                ensure!(
                    width == 1 || width == self.key_heads,
                    "beta has width {width}"
                );
                width
            }
            (None, false) => 1,
            _ => bail!("beta goes with the delta update rules, and only with them"),
        };
        if let Some(state) = shapes.get(PAST_STATE).and_then(Option::as_deref) {
            ensure!(
                *state == [query[0], self.key_heads, key_width, value_width],
                "past_state of shape {state:?} does not fit"
            );
        }
        Ok(Sizes {
            batch: query[0],
            steps: query[1],
            key: key_width,
            value: value_width,
            decays,
            betas,
        })
    }
}

impl Kernel for LinearAttention {
    fn facts(&self, inputs: &Facts<'_>, _unknown: &Unknown) -> TractResult<TVec<TypedFact>> {
        let shapes = (0..=BETA)
            .map(|place| inputs.get(place).map(extents).transpose())
            .collect::<TractResult<Vec<_>>>()?;
        let sizes = self.sizes(&shapes)?;
        for place in 0..=BETA {
            if let Some(fact) = inputs.get(place) {
                check_real(fact.datum_type)?;
            }
        }
        let query = inputs.need(QUERY)?.datum_type;
        let state = inputs.get(PAST_STATE).map_or(query, |fact| fact.datum_type);
        Ok(tvec![
            query.fact([sizes.batch, sizes.steps, self.query_heads * sizes.value]),
            state.fact([sizes.batch, self.key_heads, sizes.key, sizes.value]),
        ])
    }

    fn run(&self, inputs: &Values<'_>) -> TractResult<TVec<Tensor>> {
        let shapes: Vec<Option<TVec<usize>>> = (0..=BETA)
            .map(|place| inputs.get(place).map(|input| input.shape().into()))
            .collect();
        let sizes = self.sizes(&shapes)?;
        // The recurrence is defined in 32 bits whatever the inputs are.
        let real = |place: usize| inputs.need(place).and_then(Reals::<f32>::new);
        let (query, key, value) = (real(QUERY)?, real(KEY)?, real(VALUE)?);
        let (query, key, value) = (query.as_slice()?, key.as_slice()?, value.as_slice()?);
        let decay = inputs.get(DECAY).map(Reals::<f32>::new).transpose()?;
        let decay = decay.as_ref().map(Reals::as_slice).transpose()?;
        let beta = inputs.get(BETA).map(Reals::<f32>::new).transpose()?;
        let beta = beta.as_ref().map(Reals::as_slice).transpose()?;
        let state_shape = [sizes.batch, self.key_heads, sizes.key, sizes.value];
        let mut state = match inputs.get(PAST_STATE) {
            Some(past) => Reals::<f32>::new(past)?.as_slice()?.to_vec(),
            None => vec![0.0; volume(&state_shape)?],
        };
        let output_shape = [sizes.batch, sizes.steps, self.query_heads * sizes.value];
        let mut output = vec![0.0; volume(&output_shape)?];
        let scale = match self.scale {
            0.0 => f32::of(1.0 / f64::from(u32::try_from(sizes.key)?).sqrt()),
            scale => scale,
        };
        let group = self.query_heads / self.key_heads;
        let mut written = vec![0.0; sizes.value];
        for batch in 0..sizes.batch {
            for step in 0..sizes.steps {
                let at = batch * sizes.steps + step;
                for head in 0..self.key_heads {
                    let row = at * self.key_heads + head;
                    let key = &key[row * sizes.key..(row + 1) * sizes.key];
                    written.copy_from_slice(&value[row * sizes.value..(row + 1) * sizes.value]);
                    let memory = (batch * self.key_heads + head) * sizes.key * sizes.value;
                    let memory = &mut state[memory..memory + sizes.key * sizes.value];
                    if let Some(decay) = decay {
                        let decay = &decay[row * sizes.decays..(row + 1) * sizes.decays];
                        for (element, line) in lines(memory, sizes.value).enumerate() {
                            let factor = decay[element.min(sizes.decays - 1)].exp();
                            line.iter_mut().for_each(|cell| *cell *= factor);
                        }
                    }
                    if let Some(beta) = beta {
                        let beta = beta[at * sizes.betas + head.min(sizes.betas - 1)];
                        for (line, key) in lines(memory, sizes.value).zip(key) {
                            add_scaled(&mut written, -*key, line);
                        }
                        written.iter_mut().for_each(|cell| *cell *= beta);
                    }
                    for (line, key) in lines(memory, sizes.value).zip(key) {
                        add_scaled(line, *key, &written);
                    }
                    for reader in head * group..(head + 1) * group {
                        let row = at * self.query_heads + reader;
                        let query = &query[row * sizes.key..(row + 1) * sizes.key];
                        let output = &mut output[row * sizes.value..(row + 1) * sizes.value];
                        for (line, query) in lines(memory, sizes.value).zip(query) {
                            add_scaled(output, scale * *query, line);
                        }
                    }
                }
            }
        }
        let query_type = inputs.need(QUERY)?.datum_type();
        let state_type = inputs
            .get(PAST_STATE)
            .map_or(query_type, Tensor::datum_type);
        Ok(tvec![
            rounded(query_type, &output_shape, output)?,
            rounded(state_type, &state_shape, state)?,
        ])
    }
}

/// The lines of a matrix of this width, none if it has no width.
fn lines(matrix: &mut [f32], width: usize) -> impl Iterator<Item = &mut [f32]> {
    matrix.chunks_exact_mut(width.max(1))
}

const WEIGHT: usize = 1;
const BIAS: usize = 2;

#[derive(Debug)]
struct CausalConv {
    activation: Activation,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Activation {
    Identity,
    Silu,
}

pub(super) fn causal_conv(
    context: &ParsingContext<'_>,
    node: &NodeProto,
) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)> {
    let activation: &str = node.get_attr_opt("activation")?.unwrap_or("none");
    let activation = match activation {
        "none" => Activation::Identity,
        "silu" | "swish" => Activation::Silu,
        other => bail!("activation is {other:?}"),
    };
    operator(
        context,
        node,
        "CausalConvWithState",
        CausalConv { activation },
    )
}

impl Kernel for CausalConv {
    fn facts(&self, inputs: &Facts<'_>, _unknown: &Unknown) -> TractResult<TVec<TypedFact>> {
        let input = inputs.need(0)?;
        check_real(input.datum_type)?;
        let shape = extents(input)?;
        let weight = extents(inputs.need(WEIGHT)?)?;
        let (&[batch, channels, _], &[filters, 1, width]) = (&*shape, &*weight) else {
            bail!("the input must have three axes, and so must the weight, the second of one");
        };
        ensure!(
            filters == channels,
            "{filters} filters for {channels} channels"
        );
        ensure!(width > 0, "the filters are empty");
        let state = [batch, channels, width - 1];
        for (place, want) in [(BIAS, &[channels][..]), (PAST_STATE, &state[..])] {
            if let Some(fact) = inputs.get(place) {
                ensure!(
                    *extents(fact)? == *want,
                    "input {place} has another shape than {want:?}"
                );
            }
        }
        for place in [WEIGHT, BIAS, PAST_STATE] {
            if let Some(fact) = inputs.get(place) {
                ensure!(
                    fact.datum_type == input.datum_type,
                    "input {place} has another type than the input"
                );
            }
        }
        Ok(tvec![
            input.datum_type.fact(&*shape),
            input.datum_type.fact(state),
        ])
    }

    fn run(&self, inputs: &Values<'_>) -> TractResult<TVec<Tensor>> {
        with_real!(
            inputs.need(0)?.datum_type(),
            convolve(inputs, self.activation)
        )
    }
}

fn convolve<R: Real>(inputs: &Values<'_>, activation: Activation) -> TractResult<TVec<Tensor>> {
    let input = inputs.need(0)?;
    let weight = inputs.need(WEIGHT)?;
    let (&[batch, channels, length], width) = (input.shape(), weight.shape()[2]) else {
        bail!("the input must have three axes");
    };
    let tail = width - 1;
    let data = Reals::<R>::new(input)?;
    let data = data.as_slice()?;
    let weight = Reals::<R>::new(weight)?;
    let weight = weight.as_slice()?;
    let bias = inputs.get(BIAS).map(Reals::<R>::new).transpose()?;
    let bias = bias.as_ref().map(Reals::as_slice).transpose()?;
    let past = inputs.get(PAST_STATE).map(Reals::<R>::new).transpose()?;
    let past = past.as_ref().map(Reals::as_slice).transpose()?;
    let mut output = Vec::with_capacity(data.len());
    let mut state = Vec::with_capacity(volume(&[batch, channels, tail])?);
    let mut line = vec![R::zero(); tail + length];
    for row in 0..batch * channels {
        let channel = row % channels;
        match past {
            Some(past) => line[..tail].copy_from_slice(&past[row * tail..(row + 1) * tail]),
            None => line[..tail].fill(R::zero()),
        }
        line[tail..].copy_from_slice(&data[row * length..(row + 1) * length]);
        let filter = &weight[channel * width..(channel + 1) * width];
        let bias = bias.map_or_else(R::zero, |bias| bias[channel]);
        output.extend(line.windows(width).map(|window| {
            let sum = dot(window, filter) + bias;
            match activation {
                Activation::Identity => sum,
                Activation::Silu => sum / (R::one() + (-sum).exp()),
            }
        }));
        state.extend_from_slice(&line[length..]);
    }
    let datum_type = input.datum_type();
    Ok(tvec![
        rounded(datum_type, input.shape(), output)?,
        rounded(datum_type, &[batch, channels, tail], state)?,
    ])
}
