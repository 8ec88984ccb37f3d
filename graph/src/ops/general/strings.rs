//! Operators on text: `StringConcat`, `StringSplit`, `StringNormalizer`, `RegexFullMatch`.

use regex::Regex;
use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::internal::*;
use tract_onnx::tract_hir::tract_core::broadcast::multi_broadcast;

use super::kernel::{Facts, Kernel, Unknown, Values, check_bytes, slice, tensor, volume};
use super::own::operator;

/// Largest compiled pattern. Matching takes time linear in the text, whatever the pattern.
const PATTERN_BYTES_MAX: usize = 8 << 20;

fn need_strings<'a>(inputs: &Facts<'a>, place: usize) -> TractResult<&'a TypedFact> {
    let fact = inputs.need(place)?;
    ensure!(
        fact.datum_type == DatumType::String,
        "{:?} where strings are expected",
        fact.datum_type
    );
    Ok(fact)
}

#[derive(Debug)]
struct StringConcat;

pub(super) fn string_concat(
    context: &ParsingContext<'_>,
    node: &NodeProto,
) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)> {
    operator(context, node, "StringConcat", StringConcat)
}

impl Kernel for StringConcat {
    fn facts(&self, inputs: &Facts<'_>, _unknown: &Unknown) -> TractResult<TVec<TypedFact>> {
        let (left, right) = (need_strings(inputs, 0)?, need_strings(inputs, 1)?);
        let shape = multi_broadcast(&[left.shape.to_tvec(), right.shape.to_tvec()])?;
        Ok(tvec![DatumType::String.fact(&*shape)])
    }

    fn run(&self, inputs: &Values<'_>) -> TractResult<TVec<Tensor>> {
        let (left, right) = (inputs.need(0)?, inputs.need(1)?);
        let shape = multi_broadcast(&[left.shape(), right.shape()])?;
        let left = left.to_plain_array_view::<String>()?;
        let right = right.to_plain_array_view::<String>()?;
        let misfit = "the inputs do not broadcast";
        let left = left.broadcast(&*shape).context(misfit)?;
        let right = right.broadcast(&*shape).context(misfit)?;
        let bytes = left.iter().chain(right.iter()).map(String::len).sum();
        check_bytes(&[bytes], 1)?;
        let joined = left.iter().zip(right.iter());
        let joined = joined.map(|(left, right)| format!("{left}{right}"));
        Ok(tvec![tensor(&shape, joined.collect())?])
    }
}

#[derive(Debug)]
struct StringSplit {
    /// Empty for runs of white space.
    delimiter: String,
    splits_max: Option<usize>,
}

pub(super) fn string_split(
    context: &ParsingContext<'_>,
    node: &NodeProto,
) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)> {
    let splits: Option<i64> = node.get_attr_opt("maxsplit")?;
    let kernel = StringSplit {
        delimiter: node.get_attr_opt("delimiter")?.unwrap_or_default(),
        splits_max: splits.and_then(|splits| usize::try_from(splits).ok()),
    };
    operator(context, node, "StringSplit", kernel)
}

impl StringSplit {
    fn split<'a>(&self, text: &'a str) -> Vec<&'a str> {
        if !self.delimiter.is_empty() {
            return match self.splits_max {
                Some(splits) => text
                    .splitn(splits.saturating_add(1), &*self.delimiter)
                    .collect(),
                None => text.split(&*self.delimiter).collect(),
            };
        }
        let mut parts = vec![];
        let mut rest = text.trim_start();
        while !rest.is_empty() {
            if self.splits_max.is_some_and(|splits| parts.len() >= splits) {
                parts.push(rest);
                break;
            }
            let (part, after) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
            parts.push(part);
            rest = after.trim_start();
        }
        parts
    }
}

impl Kernel for StringSplit {
    fn facts(&self, inputs: &Facts<'_>, unknown: &Unknown) -> TractResult<TVec<TypedFact>> {
        let input = need_strings(inputs, 0)?;
        let mut shape = input.shape.to_tvec();
        let counts = i64::datum_type().fact(&*shape);
        shape.push(unknown.extent(0));
        Ok(tvec![DatumType::String.fact(&*shape), counts])
    }

    fn run(&self, inputs: &Values<'_>) -> TractResult<TVec<Tensor>> {
        let input = inputs.need(0)?;
        let texts = slice::<String>(input)?;
        let split: Vec<Vec<&str>> = texts.iter().map(|text| self.split(text)).collect();
        let widest = split.iter().map(Vec::len).max().unwrap_or(0);
        let mut shape: TVec<usize> = input.shape().into();
        shape.push(widest);
        check_bytes(&shape, size_of::<String>())?;
        let mut parts = Vec::with_capacity(volume(&shape)?);
        for text in &split {
            parts.extend(text.iter().map(|part| (*part).to_owned()));
            parts.resize(parts.len() + widest - text.len(), String::new());
        }
        let counts = split.iter().map(|parts| i64::try_from(parts.len()));
        let counts = counts.collect::<Result<Vec<_>, _>>()?;
        Ok(tvec![
            tensor(&shape, parts)?,
            tensor(input.shape(), counts)?
        ])
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Case {
    Lower,
    Upper,
    Keep,
}

impl Case {
    /// Character by character, as ONNX Runtime does: one that has no single counterpart stays.
    fn apply(self, text: &str) -> String {
        fn only(mut mapped: impl Iterator<Item = char>, original: char) -> char {
            match (mapped.next(), mapped.next()) {
                (Some(single), None) => single,
                _ => original,
            }
        }
        match self {
            Self::Lower => text.chars().map(|c| only(c.to_lowercase(), c)).collect(),
            Self::Upper => text.chars().map(|c| only(c.to_uppercase(), c)).collect(),
            Self::Keep => text.to_owned(),
        }
    }
}

#[derive(Debug)]
struct StringNormalizer {
    case: Case,
    /// How texts and stop words are compared.
    compared: Case,
    stopwords: std::collections::HashSet<String>,
}

pub(super) fn string_normalizer(
    context: &ParsingContext<'_>,
    node: &NodeProto,
) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)> {
    let case: &str = node.get_attr_opt("case_change_action")?.unwrap_or("NONE");
    let case = match case {
        "LOWER" => Case::Lower,
        "UPPER" => Case::Upper,
        "NONE" => Case::Keep,
        other => bail!("case_change_action is {other:?}"),
    };
    let locale: &str = node.get_attr_opt("locale")?.unwrap_or("en_US");
    let language = locale.split(['_', '-', '.']).next().unwrap_or(locale);
    ensure!(
        case == Case::Keep || !matches!(language, "tr" | "az" | "lt"),
        "the letter case of locale {locale:?} is not supported"
    );
    let compared = match node.get_attr_opt("is_case_sensitive")?.unwrap_or(false) {
        true => Case::Keep,
        false => Case::Lower,
    };
    let stopwords = node
        .get_attr_opt_vec::<String>("stopwords")?
        .unwrap_or_default();
    let kernel = StringNormalizer {
        case,
        compared,
        stopwords: stopwords.iter().map(|word| compared.apply(word)).collect(),
    };
    operator(context, node, "StringNormalizer", kernel)
}

impl Kernel for StringNormalizer {
    fn facts(&self, inputs: &Facts<'_>, unknown: &Unknown) -> TractResult<TVec<TypedFact>> {
        let input = need_strings(inputs, 0)?;
        let shape = match input.shape.dims() {
            [_] => tvec![unknown.extent(0)],
            [first, _] if *first == 1.to_dim() => tvec![1.to_dim(), unknown.extent(0)],
            other => bail!("a shape of {other:?}, where [C] or [1, C] is expected"),
        };
        Ok(tvec![DatumType::String.fact(&*shape)])
    }

    fn run(&self, inputs: &Values<'_>) -> TractResult<TVec<Tensor>> {
        let input = inputs.need(0)?;
        let mut kept: Vec<String> = slice::<String>(input)?
            .iter()
            .filter(|text| {
                self.stopwords.is_empty() || !self.stopwords.contains(&self.compared.apply(text))
            })
            .map(|text| self.case.apply(text))
            .collect();
        if kept.is_empty() {
            kept.push(String::new());
        }
        let count = kept.len();
        let shape: TVec<usize> = match input.rank() {
            1 => tvec![count],
            _ => tvec![1, count],
        };
        Ok(tvec![tensor(&shape, kept)?])
    }
}

#[derive(Debug)]
struct RegexFullMatch(Regex);

pub(super) fn regex_full_match(
    context: &ParsingContext<'_>,
    node: &NodeProto,
) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)> {
    let pattern: &str = node.get_attr("pattern")?;
    let regex = regex::RegexBuilder::new(&format!(r"\A(?:{pattern})\z"))
        .size_limit(PATTERN_BYTES_MAX)
        .build()
        .context("the pattern cannot be used")?;
    operator(context, node, "RegexFullMatch", RegexFullMatch(regex))
}

impl Kernel for RegexFullMatch {
    fn facts(&self, inputs: &Facts<'_>, _unknown: &Unknown) -> TractResult<TVec<TypedFact>> {
        let input = need_strings(inputs, 0)?;
        Ok(tvec![DatumType::Bool.fact(input.shape.clone())])
    }

    fn run(&self, inputs: &Values<'_>) -> TractResult<TVec<Tensor>> {
        let input = inputs.need(0)?;
        let matches = slice::<String>(input)?
            .iter()
            .map(|text| self.0.is_match(text));
        Ok(tvec![tensor(input.shape(), matches.collect())?])
    }
}
