//! What is done to signed files, and the words with which each is refused.

use proptest::prelude::*;
use tidegate_registry::signature::{
    Layout, SIGNATURE_SECTION, VerifyError, sign, sign_detached, verify,
};

use crate::fixture::{
    COMPONENT, CORE, code, custom, delimiter, file, key, module, parts, samples, signature_of,
    signed, weights,
};

fn required(wasm: &[u8], seeds: &[u8], threshold: usize) -> Result<usize, VerifyError> {
    let keys: Vec<_> = seeds.iter().map(|seed| key(*seed).public()).collect();
    let signers = verify(wasm, None, &keys)?.require(threshold)?;
    Ok(signers.len())
}

/// Asserts that a file is refused to those who trust key 1, in these words.
#[track_caller]
fn refused(wasm: &[u8], words: &[&str]) {
    let error = required(wasm, &[1], 1).unwrap_err();
    let source = std::error::Error::source(&error).map_or_else(String::new, ToString::to_string);
    let text = format!("{error}: {source}");
    for word in words {
        assert!(text.contains(word), "{word:?} is not in: {text}");
    }
}

/// Asserts that `sections` behind key 1's signature of the good module are refused, in these words.
#[track_caller]
fn signature_refused_over(sections: &[&[u8]], words: &[&str]) {
    let signature = signature_of(&signed(&[1]));
    refused(&file(&[&[&signature[..]], sections].concat()), words);
}

fn id(seed: u8) -> String {
    key(seed).public().id().to_string()
}

#[test]
fn the_good_module_is_accepted() {
    assert_eq!(required(&signed(&[1]), &[1], 1), Ok(1));
    assert_eq!(required(&signed(&[1, 2]), &[3, 2, 1], 2), Ok(2));
    assert_eq!(required(&module(), &[], 0), Ok(0));
}

#[test]
fn a_file_without_a_signature() {
    refused(&module(), &["not signed"]);
    let empty = custom(SIGNATURE_SECTION, &[1, 1, 1, 0]);
    refused(&file(&[&empty, &parts().concat()]), &["not signed"]);
}

#[test]
fn a_signature_by_an_unknown_key() {
    refused(&signed(&[2]), &["0 of 1", &id(2), "is not known"]);
    refused(&signed(&[2, 3]), &[&id(2), &id(3)]);
}

#[test]
fn a_signature_that_only_names_a_known_key() {
    let mut forged = signature_of(&signed(&[2]));
    let (real, known) = (key(2).public().id().0, key(1).public().id().0);
    let at = forged
        .windows(12)
        .position(|window| window == real)
        .unwrap();
    forged[at..at + 12].copy_from_slice(&known);
    refused(&file(&[&forged, &parts().concat()]), &[&id(1), "not by it"]);
}

#[test]
fn a_file_cut_anywhere() {
    let whole = signed(&[1]);
    for len in 0..whole.len() {
        assert!(required(&whole[..len], &[1], 1).is_err(), "{len}");
    }
    refused(&whole[..whole.len() - 1], &["cut off", "offset"]);
    let [code, first, weights, second, ..] = parts();
    signature_refused_over(
        &[&code, &first, &weights, &second],
        &["signed 3 parts", "missing", "ends after 2"],
    );
    signature_refused_over(&[], &["part 1"]);
}

#[test]
fn trailing_bytes() {
    refused(&[&signed(&[1])[..], b"\xff"].concat(), &["trailing bytes"]);
    refused(&[&signed(&[1])[..], &module()].concat(), &["part"]);
}

#[test]
fn parts_in_another_order() {
    let [code, first, weights, second, samples, third] = parts();
    signature_refused_over(
        &[&weights, &second, &code, &first, &samples, &third],
        &["part 1 of 3"],
    );
    signature_refused_over(
        &[&code, &first, &samples, &third, &weights, &second],
        &["part 2 of 3"],
    );
}

#[test]
fn a_part_of_another_module() {
    let [code, first, _, second, samples, third] = parts();
    let other = custom("tidegate:graph:model", &[8; 300]);
    signature_refused_over(
        &[&code, &first, &other, &second, &samples, &third],
        &["part 2 of 3 is not what", &id(1)],
    );
    let other = custom("tidegate:samples", b"other");
    signature_refused_over(
        &[&code, &first, &weights(), &second, &other, &third],
        &["part 3 of 3"],
    );
}

#[test]
fn a_delimiter_that_moved_or_is_gone() {
    let [code, first, weights, second, samples, third] = parts();
    signature_refused_over(
        &[&first, &code, &weights, &second, &samples, &third],
        &["part 1"],
    );
    signature_refused_over(
        &[&code, &weights, &first, &second, &samples, &third],
        &["part 1"],
    );
    signature_refused_over(
        &[&code, &first, &weights, &samples, &second, &third],
        &["part 2"],
    );
    signature_refused_over(&[&code, &first, &weights, &samples, &third], &["part 2"]);
    signature_refused_over(&[&code, &weights, &samples], &["part 1 of 1"]);
}

#[test]
fn a_section_put_in_after_signing() {
    let [code, first, weights, second, samples, third] = parts();
    let extra = custom("extra", b"!");
    let all = |at: usize| {
        let mut sections = vec![&code, &first, &weights, &second, &samples, &third];
        sections.insert(at, &extra);
        sections.into_iter().map(Vec::as_slice).collect::<Vec<_>>()
    };
    for (at, part) in [(0, 1), (1, 1), (2, 2), (3, 2), (4, 3), (5, 3)] {
        signature_refused_over(&all(at), &[&format!("part {part}")]);
    }
}

#[test]
fn an_unsigned_part_behind_a_signed_one() {
    let all = parts().concat();
    let words = ["signed the first 3 of 4 parts", "not what follows"];
    signature_refused_over(&[&all, &custom("extra", b"!")], &words);
    signature_refused_over(&[&all, &custom("extra", b"!"), &delimiter(4)], &words);
    signature_refused_over(&[&all, &delimiter(4)], &words);
}

#[test]
fn a_signature_over_a_beginning_only() {
    let beginning = file(&[&code(), &delimiter(1)]);
    let detached = sign_detached(&beginning, None, &key(1)).unwrap();
    let signature = custom(SIGNATURE_SECTION, &detached);
    refused(
        &file(&[&signature, &parts().concat()]),
        &["first 1 of 3 parts"],
    );
}

#[test]
fn a_beginning_that_somebody_else_went_on_from_needs_both() {
    let signed_first = sign(&file(&[&code(), &delimiter(1)]), &key(1))
        .unwrap()
        .file;
    let extended = [&signed_first[..], &weights(), &delimiter(2)].concat();
    let both = sign(&extended, &key(2)).unwrap().file;
    assert_eq!(required(&both, &[2], 1), Ok(1));
    refused(&both, &["key", "first 1 of 2 parts"]);
    assert_eq!(
        required(&sign(&both, &key(1)).unwrap().file, &[1, 2], 2),
        Ok(2)
    );
}

#[test]
fn two_signature_sections_or_one_in_another_place() {
    let signature = signature_of(&signed(&[1]));
    let all = parts().concat();
    refused(
        &file(&[&signature, &signature, &all]),
        &["section 1 is a signature"],
    );
    refused(&file(&[&all, &signature]), &["section 7 is a signature"]);
}

#[test]
fn one_key_that_signs_twice_counts_once() {
    let once = signed(&[1]);
    let twice = sign(&once, &key(1)).unwrap();
    assert!(!twice.is_new);
    assert_eq!(twice.file, once);
    let error = required(&once, &[1, 2], 2).unwrap_err();
    assert!(error.to_string().contains("1 of 2"), "{error}");
}

#[test]
fn a_module_under_the_other_header() {
    let mut relabelled = signed(&[1]);
    relabelled[..CORE.len()].copy_from_slice(CORE);
    // The convention does not sign the header; it is the reader of a component that refuses this.
    assert_eq!(required(&relabelled, &[1], 1), Ok(1));
    relabelled[4] = 2;
    refused(&relabelled, &["not a WebAssembly"]);
}

#[test]
fn more_sections_and_parts_than_a_file_may_have() {
    let many = [COMPONENT, &delimiter(1).repeat(65)].concat();
    refused(&many, &["more than 64 parts"]);
    let many = [COMPONENT, &custom("", b"").repeat((1 << 16) + 1)].concat();
    refused(&many, &["more than 65536 sections"]);
    let large = [
        &[0, 0x80 | 10, 0x80, 0x80, 1][..],
        b"\x09signature",
        &vec![0; 1 << 21],
    ]
    .concat();
    refused(
        &[COMPONENT, &large].concat(),
        &["signature section", "bytes"],
    );
}

#[test]
fn every_flipped_bit_behind_the_header_is_noticed() {
    let good = signed(&[1]);
    for at in COMPONENT.len()..good.len() {
        for bit in 0..8 {
            let mut bad = good.clone();
            bad[at] ^= 1 << bit;
            // A key's name is a hint: signatures without the right one are tried with every key.
            let is_only_the_hint = required(&bad, &[1], 1).is_ok()
                && verify(&bad, None, &[]).unwrap().statements
                    != verify(&good, None, &[]).unwrap().statements;
            assert!(
                required(&bad, &[1], 1).is_err() || is_only_the_hint,
                "{at} {bit}"
            );
        }
    }
}

proptest! {
    #[test]
    fn any_bytes_are_verified_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200), signature in prop::collection::vec(any::<u8>(), 0..200)) {
        let bytes = [COMPONENT, &bytes].concat();
        let keys = [key(1).public()];
        if let Ok(report) = verify(&bytes, None, &keys) {
            prop_assert!(report.require(1).is_err());
        }
        let with = file(&[&custom(SIGNATURE_SECTION, &signature), &samples()]);
        if let Ok(report) = verify(&with, Some(&signature), &keys) {
            prop_assert!(report.require(1).is_err());
        }
    }

    #[test]
    fn whatever_can_be_signed_verifies_and_covers_all(
        sections in prop::collection::vec((0_u8..13, prop::collection::vec(any::<u8>(), 0..20)), 0..8),
        ends in prop::collection::vec(any::<bool>(), 8),
    ) {
        let mut wasm = CORE.to_vec();
        for ((id, contents), end) in sections.iter().zip(&ends) {
            wasm.extend(if *id == 0 { custom("c", contents) } else { crate::fixture::section(*id, contents) });
            if *end {
                wasm.extend(delimiter(*id));
            }
        }
        let file = sign(&wasm, &key(1)).unwrap().file;
        prop_assert_eq!(required(&file, &[1], 1), Ok(1));
        let layout = Layout::of(&file).unwrap();
        prop_assert_eq!(layout.parts().last().map(|part| part.range.end), Some(file.len()));
        let detached = sign_detached(&wasm, None, &key(1)).unwrap();
        let report = verify(&wasm, Some(&detached), &[key(1).public()]).unwrap();
        prop_assert_eq!(report.signers().len(), 1);
    }
}
