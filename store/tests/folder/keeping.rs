//! What a folder keeps and what it lets go, within its limits.

use std::collections::VecDeque;
use std::io::Read as _;

use proptest::prelude::*;
use tidegate_store::{Folder, FolderError, Limits, NAME_BYTES_MAX};

use crate::everything;

#[test]
fn a_file_reads_back_until_it_is_removed() {
    let temporary = tempfile::tempdir().unwrap();
    let path = temporary.path().join("made/with its parents");
    let folder = Folder::open(&path, 100).unwrap();
    assert_eq!(folder.get("a").unwrap(), None);
    for bytes in [&b"some bytes"[..], b"others", b""] {
        folder.put("a", bytes).unwrap();
        assert_eq!(folder.get("a").unwrap().unwrap(), bytes);
    }
    assert!(folder.contains("a").unwrap());
    assert_eq!(folder.names().unwrap(), ["a"]);
    assert_eq!(everything(&path), ["a"]);
    assert!(folder.remove("a").unwrap());
    assert!(!folder.remove("a").unwrap());
    assert!(!folder.contains("a").unwrap());
}

#[test]
fn only_plain_names_are_taken() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = Folder::open(temporary.path().join("folder"), 100).unwrap();
    let longest = "n".repeat(NAME_BYTES_MAX);
    for name in ["a", "A-b_c.9", "-", &longest] {
        folder.put(name, b"x").unwrap();
        assert_eq!(folder.get(name).unwrap().unwrap(), b"x");
    }
    let too_long = "n".repeat(NAME_BYTES_MAX + 1);
    for name in [
        "", ".", "..", "../a", "a/b", "/a", ".lock", ".new-a", "a b", "a\0", "ä", &too_long,
    ] {
        let errors = [
            folder.put(name, b"x").unwrap_err(),
            folder.get(name).unwrap_err(),
            folder.remove(name).unwrap_err(),
        ];
        for error in errors {
            assert!(matches!(error, FolderError::Name(_)), "{name:?}: {error:?}");
        }
    }
    assert_eq!(everything(temporary.path()), ["folder"]);
}

#[test]
fn what_is_larger_than_the_folder_is_refused_and_evicts_nothing() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = Folder::open(temporary.path(), 100).unwrap();
    folder.put("a", &[1; 60]).unwrap();
    let error = folder.put("b", &[2; 101]).unwrap_err();
    assert!(
        matches!(
            error,
            FolderError::TooLarge {
                bytes: 101,
                bytes_max: 100,
                ..
            }
        ),
        "{error:?}"
    );
    assert_eq!(everything(temporary.path()), ["a"]);
    folder.put("b", &[2; 100]).unwrap();
    assert_eq!(everything(temporary.path()), ["b"]);
}

#[test]
fn what_is_held_is_never_evicted() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = Folder::open(temporary.path(), 100).unwrap();
    folder.put("held", &[1; 50]).unwrap();
    let held = folder.hold("held").unwrap().unwrap();
    folder.put("free", &[2; 50]).unwrap();
    // It is the one whose use is longest ago.
    folder.put("next", &[3; 50]).unwrap();
    assert_eq!(folder.names().unwrap(), ["held", "next"]);
    let error = folder.put("large", &[4; 51]).unwrap_err();
    assert!(
        matches!(error, FolderError::Full { held_bytes: 50, .. }),
        "{error:?}"
    );
    assert_eq!(folder.names().unwrap(), ["held", "next"]);
    // Damage goes even while it is held, and the holder can go on.
    assert!(folder.remove("held").unwrap());
    let mut bytes = Vec::new();
    held.file().read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes, [1; 50]);
    folder.put("held", &[1; 50]).unwrap();
    drop(held);
    folder.put("large", &[4; 100]).unwrap();
    assert_eq!(folder.names().unwrap(), ["large"]);
}

#[test]
fn a_file_is_adopted_without_a_copy() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = Folder::open(temporary.path().join("folder"), 100).unwrap();
    let elsewhere = temporary.path().join("download");
    folder.put("old", &[1; 60]).unwrap();
    std::fs::write(&elsewhere, [2; 60]).unwrap();
    folder.adopt("new", &elsewhere).unwrap();
    assert_eq!(folder.get("new").unwrap().unwrap(), [2; 60]);
    assert_eq!(folder.names().unwrap(), ["new"]);
    assert!(!elsewhere.exists());
    std::fs::write(&elsewhere, [3; 101]).unwrap();
    let error = folder.adopt("new", &elsewhere).unwrap_err();
    assert!(matches!(error, FolderError::TooLarge { .. }), "{error:?}");
    assert!(elsewhere.exists());
    assert!(folder.adopt("new", &temporary.path().join("none")).is_err());
    assert_eq!(folder.get("new").unwrap().unwrap(), [2; 60]);
}

#[derive(Debug, Clone)]
enum Step {
    Put(u8, usize),
    Get(u8),
    Remove(u8),
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let name = 0..8_u8;
    prop_oneof![
        (name.clone(), 0..60_usize).prop_map(|(name, bytes)| Step::Put(name, bytes)),
        name.clone().prop_map(Step::Get),
        name.prop_map(Step::Remove),
        Just(Step::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_files_used_last_are_kept(steps in prop::collection::vec(step(), 1..40)) {
        let temporary = tempfile::tempdir().unwrap();
        let limits = Limits { bytes_max: 100, files_max: 4 };
        let mut folder = Folder::open_within(temporary.path(), limits).unwrap();
        // Names and sizes, the least recently used first.
        let mut model: VecDeque<(u8, usize)> = VecDeque::new();
        for step in steps {
            match step {
                Step::Put(name, bytes) => {
                    folder.put(&name.to_string(), &vec![name; bytes]).unwrap();
                    model.retain(|file| file.0 != name);
                    let total = |model: &VecDeque<(u8, usize)>| model.iter().map(|file| file.1).sum::<usize>();
                    while model.len() >= 4 || total(&model) + bytes > 100 {
                        model.pop_front();
                    }
                    model.push_back((name, bytes));
                }
                Step::Get(name) => {
                    let kept = model.iter().position(|file| file.0 == name).and_then(|at| model.remove(at));
                    let bytes = folder.get(&name.to_string()).unwrap();
                    prop_assert_eq!(bytes, kept.map(|file| vec![file.0; file.1]));
                    model.extend(kept);
                }
                Step::Remove(name) => {
                    let was_there = folder.remove(&name.to_string()).unwrap();
                    prop_assert_eq!(was_there, model.iter().any(|file| file.0 == name));
                    model.retain(|file| file.0 != name);
                }
                Step::Reopen => folder = Folder::open_within(temporary.path(), limits).unwrap(),
            }
            let mut names: Vec<_> = model.iter().map(|file| file.0.to_string()).collect();
            names.sort_unstable();
            prop_assert_eq!(everything(temporary.path()), names);
        }
    }
}
