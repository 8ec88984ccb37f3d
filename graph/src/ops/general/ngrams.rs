//! Counts of n-grams, weighted: `TfIdfVectorizer`.
//!
//! The pool of n-grams is a tree: each token leads one level down, and a node where an n-gram ends
//! knows which one it is.

use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::internal::*;

use super::kernel::{Facts, Kernel, Unknown, Values, check_bytes, slice, tensor};
use super::own::operator;

/// Longest n-gram that is looked for.
const GRAM_MAX: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Weighting {
    Frequency,
    Presence,
    Both,
}

#[derive(Debug)]
enum Tokens {
    Strings(HashMap<String, u32>),
    Integers(HashMap<i64, u32>),
}

#[derive(Debug)]
struct TfIdfVectorizer {
    weighting: Weighting,
    lengths: std::ops::RangeInclusive<usize>,
    skips: usize,
    tokens: Tokens,
    /// From a node of the tree, 0 at the root, by a token to the node below.
    children: HashMap<(u32, u32), u32>,
    /// For each node of the tree the output that counts the n-gram ending there.
    ends: Vec<Option<usize>>,
    /// The weight of each output.
    weights: Vec<f32>,
    width: usize,
}

pub(super) fn tf_idf_vectorizer(
    context: &ParsingContext<'_>,
    node: &NodeProto,
) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)> {
    operator(context, node, "TfIdfVectorizer", parse(node)?)
}

fn parse(node: &NodeProto) -> TractResult<TfIdfVectorizer> {
    let weighting = match node.get_attr::<&str>("mode")? {
        "TF" => Weighting::Frequency,
        "IDF" => Weighting::Presence,
        "TFIDF" => Weighting::Both,
        other => bail!("mode is {other:?}"),
    };
    let shortest: usize = node.get_attr("min_gram_length")?;
    let longest: usize = node.get_attr("max_gram_length")?;
    ensure!(
        (1..=longest).contains(&shortest) && longest <= GRAM_MAX,
        "n-grams of {shortest} to {longest} tokens, where 1 to {GRAM_MAX} are supported"
    );
    let strings = node.get_attr_opt_vec::<String>("pool_strings")?;
    let integers = node.get_attr_opt_vec::<i64>("pool_int64s")?;
    let (tokens, pool) = match (strings, integers) {
        (Some(pool), None) => {
            let (tokens, pool) = numbered(pool);
            (Tokens::Strings(tokens), pool)
        }
        (None, Some(pool)) => {
            let (tokens, pool) = numbered(pool);
            (Tokens::Integers(tokens), pool)
        }
        _ => bail!("either pool_strings or pool_int64s is needed"),
    };
    let outputs: Vec<usize> = node.get_attr_vec("ngram_indexes")?;
    let starts: Vec<usize> = node.get_attr_vec("ngram_counts")?;
    let weights: Vec<f32> = node.get_attr_opt_vec("weights")?.unwrap_or_default();
    let width = match outputs.iter().max() {
        Some(last) => last.checked_add(1).context("ngram_indexes overflow")?,
        None => bail!("ngram_indexes is empty"),
    };
    check_bytes(&[width], size_of::<f32>())?;
    ensure!(
        weights.is_empty() || weights.len() == outputs.len(),
        "{} weights for {} n-grams",
        weights.len(),
        outputs.len()
    );
    let weights = by_output(&weights, &outputs, width)?;
    let mut kernel = TfIdfVectorizer {
        weighting,
        lengths: shortest..=longest,
        skips: node.get_attr("max_skip_count")?,
        tokens,
        children: HashMap::new(),
        ends: vec![None],
        weights,
        width,
    };
    let mut outputs = outputs.iter();
    for (index, start) in starts.iter().enumerate() {
        let end = starts.get(index + 1).copied().unwrap_or(pool.len());
        let grams = pool
            .get(*start..end)
            .with_context(|| format!("ngram_counts reach from {start} to {end}"))?;
        let length = index + 1;
        ensure!(
            grams.len().is_multiple_of(length),
            "{} tokens are no whole number of {length}-grams",
            grams.len()
        );
        for gram in grams.chunks_exact(length) {
            let output = outputs.next().context("ngram_indexes are too few")?;
            if kernel.lengths.contains(&length) {
                kernel.insert(gram, *output)?;
            }
        }
    }
    Ok(kernel)
}

/// The weight of each output, from those of the n-grams that it counts.
fn by_output(weights: &[f32], outputs: &[usize], width: usize) -> TractResult<Vec<f32>> {
    let mut of_outputs = vec![None; width];
    for (weight, output) in weights.iter().zip(outputs) {
        let known = of_outputs[*output].get_or_insert(*weight);
        ensure!(
            known == weight,
            "output {output} counts n-grams of different weights"
        );
    }
    let weight = |weight: Option<f32>| weight.unwrap_or(1.0);
    Ok(of_outputs.into_iter().map(weight).collect())
}

/// Distinct tokens by number, and the pool in numbers.
fn numbered<T: Clone + Eq + Hash>(pool: Vec<T>) -> (HashMap<T, u32>, Vec<u32>) {
    let mut tokens = HashMap::new();
    let mut next = 0;
    let pool = pool
        .into_iter()
        .map(|token| {
            *tokens.entry(token).or_insert_with(|| {
                next += 1;
                next
            })
        })
        .collect();
    (tokens, pool)
}

impl TfIdfVectorizer {
    fn insert(&mut self, gram: &[u32], output: usize) -> TractResult<()> {
        let mut at = 0;
        for token in gram {
            let next = u32::try_from(self.ends.len())?;
            at = *self.children.entry((at, *token)).or_insert(next);
            if at == next {
                self.ends.push(None);
            }
        }
        self.ends[usize::try_from(at)?] = Some(output);
        Ok(())
    }

    fn count(&self, row: &[Option<u32>], counts: &mut [f32]) {
        let mut shortest = *self.lengths.start();
        let longest = *self.lengths.end();
        // Tokens further apart than the row is long meet in no n-gram.
        for distance in 1..=self.skips.saturating_add(1).min(row.len().max(1)) {
            for start in 0..row.len() {
                if start + distance * (shortest - 1) >= row.len() {
                    break;
                }
                let mut at = 0;
                for (length, token) in (1..=longest).zip(row[start..].iter().step_by(distance)) {
                    let Some(next) = token.and_then(|token| self.children.get(&(at, token))) else {
                        break;
                    };
                    at = *next;
                    let end = usize::try_from(at).ok().and_then(|at| self.ends[at]);
                    if let Some(output) = end.filter(|_| length >= shortest) {
                        counts[output] += 1.0;
                    }
                }
            }
            // Single tokens have no distance between them and count once.
            if shortest == 1 {
                shortest = 2;
                if shortest > longest {
                    break;
                }
            }
        }
    }

    fn weigh(&self, counts: &mut [f32]) {
        for (count, weight) in counts.iter_mut().zip(&self.weights) {
            *count = match self.weighting {
                Weighting::Frequency => *count,
                Weighting::Presence if *count > 0.0 => *weight,
                Weighting::Presence => 0.0,
                Weighting::Both => *count * *weight,
            };
        }
    }
}

impl Kernel for TfIdfVectorizer {
    fn facts(&self, inputs: &Facts<'_>, _unknown: &Unknown) -> TractResult<TVec<TypedFact>> {
        let input = inputs.need(0)?;
        let fits = match self.tokens {
            Tokens::Strings(_) => input.datum_type == DatumType::String,
            Tokens::Integers(_) => matches!(input.datum_type, DatumType::I32 | DatumType::I64),
        };
        ensure!(fits, "the pool has no tokens of {:?}", input.datum_type);
        let width = self.width.to_dim();
        let shape = match input.shape.dims() {
            [] | [_] => tvec![width],
            [rows, _] => tvec![rows.clone(), width],
            other => bail!(
                "an input of {} axes, at most two are supported",
                other.len()
            ),
        };
        Ok(tvec![f32::datum_type().fact(&*shape)])
    }

    fn run(&self, inputs: &Values<'_>) -> TractResult<TVec<Tensor>> {
        let input = inputs.need(0)?;
        let numbers: Vec<Option<u32>> = match &self.tokens {
            Tokens::Strings(tokens) => slice::<String>(input)?
                .iter()
                .map(|token| tokens.get(token).copied())
                .collect(),
            Tokens::Integers(tokens) => slice::<i64>(&*input.cast_to::<i64>()?)?
                .iter()
                .map(|token| tokens.get(token).copied())
                .collect(),
        };
        let (rows, length, shape): (_, _, TVec<usize>) = match *input.shape() {
            [] => (1, 1, tvec![self.width]),
            [length] => (1, length, tvec![self.width]),
            [rows, length] => (rows, length, tvec![rows, self.width]),
            _ => bail!("more than two axes"),
        };
        check_bytes(&shape, size_of::<f32>())?;
        let mut output = vec![0.0; rows * self.width];
        for (row, counts) in output.chunks_exact_mut(self.width).enumerate() {
            self.count(&numbers[row * length..(row + 1) * length], counts);
            self.weigh(counts);
        }
        Ok(tvec![tensor(&shape, output)?])
    }
}
