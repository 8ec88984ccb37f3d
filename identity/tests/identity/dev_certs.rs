//! What `make_dev_certs` leaves in a folder, and what it leaves alone.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tidegate_identity::{IdentityError, make_dev_certs};

const FILES: [&str; 6] = [
    "agent.key",
    "agent.pem",
    "ca.key",
    "ca.pem",
    "relay.key",
    "relay.pem",
];

fn listing(dir: &Path) -> BTreeSet<String> {
    fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

#[test]
fn writes_six_files_and_keeps_the_keys_private() {
    let dir = tempfile::tempdir().unwrap();
    let inner = dir.path().join("new/certs");
    make_dev_certs(&inner).unwrap();
    assert_eq!(listing(&inner), FILES.map(str::to_owned).into());
    for file in FILES {
        let mode = fs::metadata(inner.join(file)).unwrap().permissions().mode();
        let others = if file.ends_with(".key") { 0 } else { 0o044 };
        assert_eq!(mode & 0o077 & !0o044, 0, "{file} {mode:o}");
        assert_eq!(mode & 0o044 & !others, 0, "{file} {mode:o}");
    }
}

#[test]
fn overwrites_nothing_and_then_writes_nothing() {
    for taken in FILES {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(taken);
        fs::write(&path, "mine").unwrap();
        let error = make_dev_certs(dir.path()).unwrap_err();
        assert!(matches!(&error, IdentityError::Exists { path: named } if *named == path));
        assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
        assert_eq!(listing(dir.path()), [taken.to_owned()].into());
    }
}

#[test]
fn a_dangling_link_is_taken_too() {
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("elsewhere");
    std::os::unix::fs::symlink(&target, dir.path().join("relay.key")).unwrap();
    let error = make_dev_certs(dir.path()).unwrap_err();
    assert!(matches!(error, IdentityError::Exists { .. }));
    assert!(!target.exists());
    assert_eq!(listing(dir.path()), ["relay.key".to_owned()].into());
}

#[test]
fn a_second_call_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    make_dev_certs(dir.path()).unwrap();
    let read = || FILES.map(|file| fs::read(dir.path().join(file)).unwrap());
    let before = read();
    assert!(make_dev_certs(dir.path()).is_err());
    assert_eq!(read(), before);
}

#[test]
fn a_folder_that_cannot_be_made_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let error = make_dev_certs(&file.join("certs")).unwrap_err();
    assert!(matches!(error, IdentityError::Write { .. }), "{error}");
    assert_eq!(listing(dir.path()), ["file".to_owned()].into());
}

#[test]
fn of_several_calls_at_once_exactly_one_writes() {
    let dir = tempfile::tempdir().unwrap();
    let made: Vec<_> = std::thread::scope(|scope| {
        let calls: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| make_dev_certs(dir.path()).is_ok()))
            .collect();
        calls.into_iter().map(|call| call.join().unwrap()).collect()
    });
    assert_eq!(made.iter().filter(|made| **made).count(), 1);
    assert_eq!(listing(dir.path()), FILES.map(str::to_owned).into());
}
