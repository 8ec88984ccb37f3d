//! Several processes in one folder.

use std::fs::File;
use std::path::Path;

use fastrand::Rng;
use tidegate_store::{Folder, FolderError, WAIT_MAX};
use tidegate_tests::inside;

use crate::{everything, killed::is_whole};

const WRITERS: usize = 3;
const FILES_EACH: usize = 150;
const FILE_BYTES_MAX: u32 = 20_000;
const FOLDER_BYTES_MAX: u64 = 60_000;

fn write_many(path: &Path) {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut rng = Rng::with_seed(seed);
    let folder = Folder::open(path, FOLDER_BYTES_MAX).unwrap();
    for _ in 0..FILES_EACH {
        let count = rng.u32(4..FILE_BYTES_MAX);
        let mut bytes = count.to_le_bytes().to_vec();
        bytes.resize(count as usize, rng.u8(..));
        let name = rng.u8(0..8).to_string();
        folder.put(&name, &bytes).unwrap();
        if rng.u8(..) < 32 {
            folder.remove(&rng.u8(0..8).to_string()).unwrap();
        }
        // Opening looks for litter, which the others' unfinished files are not.
        if rng.u8(..) < 32 {
            Folder::open(path, FOLDER_BYTES_MAX).unwrap();
        }
    }
}

#[test]
fn writers_and_readers_share_a_folder_within_its_limits() {
    if let Some(path) = inside::folder() {
        return write_many(&path);
    }
    let temporary = tempfile::tempdir().unwrap();
    let path = temporary.path();
    let folder = Folder::open(path, FOLDER_BYTES_MAX).unwrap();
    let name = "sharing::writers_and_readers_share_a_folder_within_its_limits";
    let mut writers: Vec<_> = (0..WRITERS)
        .map(|_| inside::command(name, path, "").spawn().unwrap())
        .collect();
    let mut reads = 0;
    while writers
        .iter_mut()
        .any(|writer| writer.try_wait().unwrap().is_none())
    {
        let name = fastrand::u8(0..8).to_string();
        if let Some(bytes) = folder.get(&name).unwrap() {
            assert!(is_whole(&bytes), "{name}");
            reads += 1;
        }
    }
    for mut writer in writers {
        assert!(writer.wait().unwrap().success());
    }
    assert!(reads > 0);
    let sizes = folder.names().unwrap().into_iter();
    let total: usize = sizes
        .map(|name| folder.get(&name).unwrap().unwrap().len())
        .sum();
    assert!(total as u64 <= FOLDER_BYTES_MAX, "{total}");
    assert_eq!(everything(path), folder.names().unwrap());
}

#[test]
fn what_another_process_holds_is_not_evicted() {
    if let Some(path) = inside::folder() {
        let folder = Folder::open(path, 100).unwrap();
        let error = folder.put("b", &[2; 60]).unwrap_err();
        assert!(matches!(error, FolderError::Full { .. }), "{error:?}");
        return;
    }
    let temporary = tempfile::tempdir().unwrap();
    let folder = Folder::open(temporary.path(), 100).unwrap();
    folder.put("a", &[1; 60]).unwrap();
    let _held = folder.hold("a").unwrap().unwrap();
    let name = "sharing::what_another_process_holds_is_not_evicted";
    inside::run(name, temporary.path(), "");
    assert_eq!(folder.names().unwrap(), ["a"]);
}

#[test]
fn a_process_that_keeps_the_lock_is_waited_for_and_then_an_error() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = Folder::open(temporary.path(), 100).unwrap();
    folder.put("a", b"old").unwrap();
    let lock = File::open(temporary.path().join(".lock")).unwrap();
    lock.lock().unwrap();
    let error = folder.put("a", b"new").unwrap_err();
    assert!(
        matches!(
            error,
            FolderError::Busy {
                waited: WAIT_MAX,
                ..
            }
        ),
        "{error:?}"
    );
    // Reading needs no lock.
    assert_eq!(folder.get("a").unwrap().unwrap(), b"old");
    drop(lock);
    folder.put("a", b"new").unwrap();
}
