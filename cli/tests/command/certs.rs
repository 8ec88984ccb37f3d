//! `tidegate dev-certs`.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use crate::tidegate;

#[test]
fn certificates_are_made_once_and_keys_are_private() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("certs");
    let out = out.to_str().unwrap();
    assert!(tidegate(&["dev-certs", "--out", out]).ok().contains(out));
    let read = |name: &str| fs::read(format!("{out}/{name}")).unwrap();
    let files = [
        "ca.pem",
        "ca.key",
        "agent.pem",
        "agent.key",
        "relay.pem",
        "relay.key",
    ];
    let before = files.map(read);
    for file in files.iter().filter(|file| file.ends_with(".key")) {
        let mode = fs::metadata(format!("{out}/{file}"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o077, 0, "{file}");
    }
    tidegate(&["dev-certs", "--out", out]).fails(1, &[out]);
    assert_eq!(files.map(read), before);
}

#[test]
fn a_folder_that_cannot_be_is_named() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let inside = file.path().join("certs");
    let inside = inside.to_str().unwrap();
    tidegate(&["dev-certs", "--out", inside]).fails(1, &[inside]);
}
