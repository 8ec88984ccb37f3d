//! An answer on a terminal.

use std::io::{self, Write};

use serde_json::Value;
use tidegate_inference::Tensor;

use super::protocol::Answer;
use super::value;

/// Most rows shown of a tensor.
const ROWS_MAX: usize = 20;

/// Most elements shown of a row.
const COLUMNS_MAX: usize = 12;

/// Longest element shown, in characters.
const ELEMENT_CHARS_MAX: usize = 60;

/// What the protocol's own JSON says, on one line.
pub(super) fn json(answer: &Answer, out: &mut impl Write) -> io::Result<()> {
    serde_json::to_writer(&mut *out, answer)?;
    writeln!(out)
}

/// Each output's name, type, shape and first rows, then where the request ran.
pub(super) fn text(answer: &Answer, out: &mut impl Write) -> io::Result<()> {
    for output in &answer.outputs {
        let tensor = &output.tensor;
        writeln!(
            out,
            "{} ({} of shape {:?})",
            output.name,
            tensor.dtype(),
            tensor.shape()
        )?;
        rows(tensor, out)?;
    }
    let version = answer.version.as_deref().unwrap_or("of no version");
    write!(out, "{} {version}", answer.model)?;
    for (name, value) in &answer.parameters {
        let name = name.strip_prefix("tidegate_").unwrap_or(name);
        write!(out, ", {name} {}", shown(value))?;
    }
    writeln!(out)
}

/// A row for each index of all axes but the last.
fn rows(tensor: &Tensor, out: &mut impl Write) -> io::Result<()> {
    let columns = tensor.shape().last().copied().unwrap_or(1);
    if tensor.is_empty() {
        return writeln!(out, "  empty");
    }
    let wanted = columns.saturating_mul(ROWS_MAX);
    for row in value::decode(tensor, wanted).chunks(columns) {
        let shown: Vec<String> = row.iter().take(COLUMNS_MAX).map(shown).collect();
        let more = if columns > COLUMNS_MAX { " ..." } else { "" };
        writeln!(out, "  {}{more}", shown.join(" "))?;
    }
    match tensor.len() / columns {
        0..=ROWS_MAX => Ok(()),
        total => writeln!(out, "  ... {} more rows", total - ROWS_MAX),
    }
}

/// An element without what could steer a terminal.
fn shown(value: &Value) -> String {
    match value.as_str() {
        Some(text) => {
            let text: String = text.chars().take(ELEMENT_CHARS_MAX).collect();
            format!("{text:?}")
        }
        None => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use tidegate_inference::{Dtype, NamedTensor, Shape};

    use super::*;

    #[track_caller]
    fn check(shape: &[usize], wanted: &str) {
        let data = (0..=255).cycle().take(shape.iter().product());
        let tensor = Tensor::new(Dtype::Uint8, Shape::from_slice(shape), data.collect()).unwrap();
        let mut out = Vec::new();
        rows(&tensor, &mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), wanted);
    }

    #[test]
    fn rows_follow_the_last_axis_and_long_ones_are_cut() {
        check(&[], "  0\n");
        check(&[3], "  0 1 2\n");
        check(&[2, 2], "  0 1\n  2 3\n");
        check(&[0, 4], "  empty\n");
        check(&[14], "  0 1 2 3 4 5 6 7 8 9 10 11 ...\n");
        let twenty: String = (0..20).map(|row| format!("  {row}\n")).collect();
        check(&[22, 1], &format!("{twenty}  ... 2 more rows\n"));
    }

    #[test]
    fn strings_cannot_steer_the_terminal() {
        let tensor = Tensor::from_byte_elements(&["\x1b[2Jx"]);
        let answer = Answer {
            model: "m".to_owned(),
            version: Some("1.0.0".to_owned()),
            parameters: [("tidegate_placement".to_owned(), "local".into())]
                .into_iter()
                .collect(),
            outputs: vec![NamedTensor {
                name: "text".to_owned(),
                tensor,
            }],
        };
        let mut out = Vec::new();
        text(&answer, &mut out).unwrap();
        let out = String::from_utf8(out).unwrap();
        assert!(!out.contains('\x1b'), "{out:?}");
        assert!(out.ends_with("m 1.0.0, placement \"local\"\n"), "{out}");
    }
}
