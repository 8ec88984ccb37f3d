//! Disks that are full, folders that are read-only, files that are damaged.

use std::fs;
use std::os::unix::fs::symlink;

use tidegate_store::{Folder, FolderError, write_whole};
use tidegate_tests::inside;

use crate::everything;

const KIB: usize = 1 << 10;

/// Mounts a disk of 256 KiB on the folder of the inner run.
const SMALL_DISK: &str = "mount -t tmpfs -o size=256k none \"$TIDEGATE_TEST_FOLDER\"";

#[test]
fn a_full_disk_is_a_clear_error_and_changes_nothing() {
    let Some(disk) = inside::folder() else {
        let folder = tempfile::tempdir().unwrap();
        let name = "faults::a_full_disk_is_a_clear_error_and_changes_nothing";
        return inside::run(name, folder.path(), SMALL_DISK);
    };
    let path = disk.join("folder");
    let folder = Folder::open(&path, 1 << 30).unwrap();
    folder.put("old", &[1; 100 * KIB]).unwrap();
    for name in ["new", "old"] {
        let error = folder.put(name, &[2; 200 * KIB]).unwrap_err();
        assert!(error.is_full_disk(), "{error:?}");
        let place = path.join(name);
        assert_eq!(
            error.to_string(),
            format!("cannot write {}", place.display())
        );
        assert_eq!(everything(&path), ["old"]);
        assert_eq!(folder.get("old").unwrap().unwrap(), [1; 100 * KIB]);
    }
    let file = disk.join("whole");
    write_whole(&file, &[3; 50 * KIB]).unwrap();
    write_whole(&file, &[4; 200 * KIB]).unwrap_err();
    assert_eq!(fs::read(&file).unwrap(), [3; 50 * KIB]);
    assert_eq!(everything(&disk), ["folder", "whole"]);
    // Once there is room, the same call succeeds.
    folder.remove("old").unwrap();
    folder.put("new", &[2; 150 * KIB]).unwrap();
    assert_eq!(folder.get("new").unwrap().unwrap(), [2; 150 * KIB]);
}

#[test]
fn a_limit_on_the_length_of_files_is_an_error_and_changes_nothing() {
    let Some(path) = inside::folder() else {
        let folder = tempfile::tempdir().unwrap();
        let name = "faults::a_limit_on_the_length_of_files_is_an_error_and_changes_nothing";
        return inside::run(name, folder.path(), "trap '' XFSZ; ulimit -f 128");
    };
    let folder = Folder::open(&path, 1 << 30).unwrap();
    folder.put("old", &[1; 20 * KIB]).unwrap();
    let error = folder.put("old", &[2; 200 * KIB]).unwrap_err();
    assert!(error.is_full_disk(), "{error:?}");
    assert_eq!(everything(&path), ["old"]);
    assert_eq!(folder.get("old").unwrap().unwrap(), [1; 20 * KIB]);
}

#[test]
fn a_read_only_folder_can_be_read_and_not_written() {
    let Some(disk) = inside::folder() else {
        let folder = tempfile::tempdir().unwrap();
        Folder::open(folder.path(), 100)
            .unwrap()
            .put("a", b"old")
            .unwrap();
        let name = "faults::a_read_only_folder_can_be_read_and_not_written";
        let prelude = "d=\"$TIDEGATE_TEST_FOLDER\"; mount --bind \"$d\" \"$d\"; mount -o remount,bind,ro \"$d\"";
        return inside::run(name, folder.path(), prelude);
    };
    let folder = Folder::open(&disk, 100).unwrap();
    assert_eq!(folder.get("a").unwrap().unwrap(), b"old");
    assert!(folder.hold("a").unwrap().is_some());
    for error in [
        folder.put("a", b"new").unwrap_err(),
        folder.remove("a").unwrap_err(),
    ] {
        assert!(matches!(error, FolderError::Write { .. }), "{error:?}");
        assert!(!error.is_full_disk(), "{error:?}");
    }
    assert!(Folder::open(disk.join("inner"), 100).is_err());
    assert_eq!(folder.get("a").unwrap().unwrap(), b"old");
    assert_eq!(everything(&disk), ["a"]);
}

#[test]
fn damage_is_given_as_it_is_and_can_be_mended() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = Folder::open(temporary.path(), 100).unwrap();
    let path = folder.path("a").unwrap();
    for damaged in [&b"whole fil"[..], b"whoLe file", b"", &[0; 100]] {
        folder.put("a", b"whole file").unwrap();
        fs::write(&path, damaged).unwrap();
        assert_eq!(folder.get("a").unwrap().unwrap(), damaged);
        assert!(folder.remove("a").unwrap());
        assert_eq!(folder.get("a").unwrap(), None);
    }
    // More than the folder may hold is not read into memory at all.
    fs::write(&path, [0; 101]).unwrap();
    let error = folder.get("a").unwrap_err();
    assert!(
        matches!(error, FolderError::TooLarge { bytes: 101, .. }),
        "{error:?}"
    );
    folder.put("a", b"whole file").unwrap();
    assert_eq!(folder.get("a").unwrap().unwrap(), b"whole file");
}

#[test]
fn what_is_no_file_is_no_file_of_the_folder() {
    let temporary = tempfile::tempdir().unwrap();
    let secret = temporary.path().join("secret");
    fs::write(&secret, b"secret").unwrap();
    let path = temporary.path().join("folder");
    let folder = Folder::open(&path, 100).unwrap();
    symlink(&secret, path.join("link")).unwrap();
    fs::create_dir(path.join("inner")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(path.join("socket")).unwrap();
    for name in ["link", "inner", "socket"] {
        assert_eq!(folder.get(name).unwrap(), None, "{name}");
        assert!(!folder.contains(name).unwrap(), "{name}");
    }
    assert_eq!(folder.names().unwrap(), Vec::<String>::new());
    // A link that has the name gives it up, and what it led to stays as it is.
    folder.put("link", b"new").unwrap();
    assert_eq!(folder.get("link").unwrap().unwrap(), b"new");
    assert_eq!(fs::read(&secret).unwrap(), b"secret");
}

#[test]
fn a_file_where_the_folder_should_be_is_an_error() {
    let temporary = tempfile::tempdir().unwrap();
    let path = temporary.path().join("file");
    fs::write(&path, b"").unwrap();
    let error = Folder::open(&path, 100).unwrap_err();
    assert!(matches!(error, FolderError::Open { .. }), "{error:?}");
}
