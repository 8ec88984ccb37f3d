//! Tables as people write them, and the modules that they let through.

use super::*;
use crate::signature::{SecretKey, sign};

fn key(seed: u8) -> SecretKey {
    SecretKey::from_seed([seed; 32])
}

fn line(seed: u8) -> String {
    key(seed).public().to_string()
}

/// An empty component, signed by the keys of these seeds.
fn signed(seeds: &[u8]) -> Vec<u8> {
    let mut file = b"\0asm\x0d\0\x01\0\0\x03\x02hi".to_vec();
    for seed in seeds {
        file = sign(&file, &key(*seed)).unwrap().file;
    }
    file
}

fn raw(text: &str) -> RawTrust {
    toml::from_str(text).unwrap()
}

fn policy(text: &str) -> TrustPolicy {
    TrustPolicy::from_raw(&raw(text), "/nowhere".as_ref()).unwrap()
}

#[track_caller]
fn refuses(policy: &TrustPolicy, name: &str, wasm: &[u8], words: &[&str]) {
    let error = policy.check(name, "1.0.0", wasm).unwrap_err();
    let source = std::error::Error::source(&error).map_or_else(String::new, ToString::to_string);
    let text = format!("{error}: {source}");
    for word in words.iter().chain([&name]) {
        assert!(text.contains(word), "{word:?} is not in: {text}");
    }
}

#[test]
fn without_a_table_nothing_runs() {
    let policy = policy("");
    assert_eq!(policy, TrustPolicy::default());
    refuses(
        &policy,
        "face",
        &signed(&[1]),
        &["no rule", "allow-unsigned is false"],
    );
}

#[test]
fn allow_unsigned_lets_run_what_no_rule_speaks_of_and_nothing_else() {
    let table = format!(
        "allow-unsigned = true\n[[rules]]\nnames = [\"vision-*\"]\nkeys = [{:?}]",
        line(1)
    );
    let policy = policy(&table);
    let trusted = policy.check("face", "1.0.0", &signed(&[])).unwrap();
    assert_eq!((trusted.signers.len(), trusted.rule), (0, None));
    refuses(
        &policy,
        "vision-face",
        &signed(&[]),
        &["rule 1", "not signed"],
    );
    refuses(
        &policy,
        "vision-face",
        &signed(&[2]),
        &["rule 1", "not known"],
    );
    let trusted = policy
        .check("vision-face", "1.0.0", &signed(&[2, 1]))
        .unwrap();
    assert_eq!(trusted.signers, [key(1).public()]);
    assert_eq!(trusted.rule, Some(1));
    assert!(
        TrustPolicy::allow_all()
            .check("any", "1", &signed(&[]))
            .is_ok()
    );
}

#[test]
fn the_first_rule_that_matches_decides_alone() {
    let table = format!(
        "[[rules]]\nnames = [\"vision-*\"]\nkeys = [{:?}]\nisolation = \"strict\"\n\
         [[rules]]\nnames = [\"*\"]\nkeys = [{:?}]",
        line(1),
        line(2)
    );
    let policy = policy(&table);
    let trusted = policy.check("vision-a", "1.0.0", &signed(&[1])).unwrap();
    assert_eq!(trusted.isolation, Isolation::Strict);
    refuses(&policy, "vision-a", &signed(&[2]), &["rule 1"]);
    let trusted = policy.check("audio", "1.0.0", &signed(&[2])).unwrap();
    assert_eq!(
        (trusted.isolation, trusted.rule),
        (Isolation::Host, Some(2))
    );
    refuses(&policy, "audio", &signed(&[1]), &["rule 2"]);
}

#[test]
fn a_threshold_counts_distinct_keys() {
    let table = format!(
        "[[rules]]\nnames = [\"*\"]\nkeys = [{:?}, {:?}, {:?}]\nthreshold = 2",
        line(1),
        line(2),
        line(3)
    );
    let policy = policy(&table);
    refuses(&policy, "a", &signed(&[1]), &["1 of 2 wanted"]);
    refuses(&policy, "a", &signed(&[1, 1, 9]), &["1 of 2 wanted"]);
    let trusted = policy.check("a", "1.0.0", &signed(&[9, 3, 1])).unwrap();
    assert_eq!(trusted.signers, [key(3).public(), key(1).public()]);
}

#[test]
fn a_rule_can_let_names_run_unsigned_in_strict_isolation() {
    let table = "allow-unsigned = true\n\
                 [[rules]]\nnames = [\"lab-*\"]\nthreshold = 0\nisolation = \"strict\"";
    let trusted = policy(table).check("lab-x", "1.0.0", &signed(&[])).unwrap();
    assert_eq!(
        (trusted.isolation, trusted.rule),
        (Isolation::Strict, Some(1))
    );
}

#[test]
fn keys_come_from_files_beside_the_configuration() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("author.pub"), line(1)).unwrap();
    std::fs::write(folder.path().join("author.key"), key(1).to_pem()).unwrap();
    let table = |key: &str| raw(&format!("[[rules]]\nnames = [\"*\"]\nkeys = [{key:?}]"));
    let read = |key: &str| TrustPolicy::from_raw(&table(key), folder.path());
    let policy = read("author.pub").unwrap();
    assert!(policy.check("a", "1.0.0", &signed(&[1])).is_ok());
    let error = read("none.pub").unwrap_err();
    assert!(
        matches!(error, TrustPolicyError::ReadKey { rule: 1, .. }),
        "{error}"
    );
    let error = read("author.key").unwrap_err();
    assert!(matches!(error, TrustPolicyError::Key { .. }), "{error}");
    assert!(read(".").is_err());
}

#[test]
fn a_table_that_cannot_be_meant_is_refused_with_the_rule() {
    let check = |text: &str, words: &[&str]| {
        let error = TrustPolicy::from_raw(&raw(text), "/nowhere".as_ref()).unwrap_err();
        let text = error.to_string();
        for word in words {
            assert!(text.contains(word), "{word:?} is not in: {text}");
        }
    };
    let one = format!("keys = [{:?}]", line(1));
    check(
        &format!("[[rules]]\nnames = []\n{one}"),
        &["rule 1", "0 names"],
    );
    check("[[rules]]\nnames = [\"*\"]", &["rule 1", "0 keys"]);
    check(
        &format!("[[rules]]\nnames = [\"a b\"]\n{one}"),
        &["rule 1", "bad name"],
    );
    check(
        &format!("[[rules]]\nnames = [\"*\"]\n{one}\nthreshold = 2"),
        &["threshold 2", "1 to 1"],
    );
    check(
        &format!("[[rules]]\nnames = [\"*\"]\n{one}\nthreshold = 0"),
        &["threshold 0"],
    );
    check(
        "[[rules]]\nnames = [\"*\"]\nthreshold = 0",
        &["allow-unsigned"],
    );
    check(
        "[[rules]]\nnames = [\"*\"]\nkeys = [\"ssh-ed25519 AAAA\"]",
        &["rule 1", "AAAA"],
    );
    let twice = format!("keys = [{:?}, {:?}]", line(1), format!("{} again", line(1)));
    check(
        &format!("[[rules]]\nnames = [\"*\"]\n{twice}"),
        &["twice", "again"],
    );
    let hidden = format!(
        "[[rules]]\nnames = [\"a\", \"vision-*\"]\n{one}\n[[rules]]\nnames = [\"vision-*-v2\", \"a\"]\n{one}"
    );
    check(&hidden, &["rule 2", "rule 1"]);
}

#[test]
fn an_unknown_key_of_the_table_is_an_error() {
    for text in [
        "allow_unsigned = true",
        "rulez = []",
        "[[rules]]\nnames = []\nkey = []",
        "[[rules]]",
    ] {
        assert!(toml::from_str::<RawTrust>(text).is_err(), "{text}");
    }
}
