//! `tidegate keygen`, `sign` and `verify`.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use crate::pack::Folder;
use crate::{Ran, tidegate};

/// A folder with a module and the keys `one` and `two`.
fn folder() -> Folder {
    let folder = Folder::new();
    folder.pack(&[]).ok();
    for name in ["one", "two"] {
        tidegate(&["keygen", "--out", &folder.path(name)]).ok();
    }
    folder
}

fn sign(folder: &Folder, key: &str, more: &[&str]) -> Ran {
    let (module, key) = (folder.path("doubler.wasm"), folder.path(key));
    tidegate(&[&["sign", &module, "--key", &key], more].concat())
}

fn verify(folder: &Folder, more: &[&str]) -> Ran {
    let (module, key) = (folder.path("doubler.wasm"), folder.path("one.pub"));
    tidegate(&[&["verify", &module, "--key", &key], more].concat())
}

#[test]
fn a_new_key_is_a_secret_file_and_a_line_to_paste() {
    let folder = folder();
    let mode = |name: &str| {
        fs::metadata(folder.path(name))
            .unwrap()
            .permissions()
            .mode()
    };
    assert_eq!(mode("one.key") & 0o777, 0o600);
    let public = fs::read_to_string(folder.path("one.pub")).unwrap();
    assert!(
        public.starts_with("ssh-ed25519 ") && public.ends_with(" one\n"),
        "{public}"
    );
    assert_eq!(public.lines().count(), 1);
    let other = fs::read_to_string(folder.path("two.pub")).unwrap();
    assert_ne!(public.split(' ').nth(1), other.split(' ').nth(1));
}

#[test]
fn a_key_that_is_there_is_not_replaced() {
    let folder = folder();
    let before = fs::read(folder.path("one.key")).unwrap();
    tidegate(&["keygen", "--out", &folder.path("one")]).fails(1, &["one.key", "exists"]);
    assert_eq!(fs::read(folder.path("one.key")).unwrap(), before);
    folder.put("three.pub", b"taken");
    tidegate(&["keygen", "--out", &folder.path("three")]).fails(1, &["three.pub"]);
    assert!(!fs::exists(folder.path("three.key")).unwrap());
}

#[test]
fn what_is_signed_is_verified_and_still_a_module() {
    let folder = folder();
    verify(&folder, &[]).fails(1, &["not verified", "not signed"]);
    sign(&folder, "two.key", &[]).ok();
    verify(&folder, &[]).fails(1, &["0 of 1", "is not known"]);
    sign(&folder, "one.key", &[]).ok();
    let printed = verify(&folder, &[]).ok();
    for part in [
        "verified, 1 of 1",
        "tidegate:manifest",
        "tidegate:graph:model",
        "signed all 2 parts",
    ] {
        assert!(printed.contains(part), "{part} is not in {printed}");
    }
    let two = fs::read_to_string(folder.path("two.pub")).unwrap();
    verify(&folder, &["--key", &two, "--threshold", "2"]).ok();
    let seen = tidegate(&["inspect", "--json", &folder.path("doubler.wasm")]).ok();
    let seen: serde_json::Value = serde_json::from_str(&seen).unwrap();
    assert_eq!(seen["signatures"].as_array().unwrap().len(), 2);
    assert_eq!(seen["signatures"][0]["covers"], "all 2 parts");
    assert_eq!(seen["parts"].as_array().unwrap().len(), 2);
    assert_eq!(seen["manifest"]["name"], "doubler");
    let text = tidegate(&["inspect", &folder.path("doubler.wasm")]).ok();
    assert!(text.contains("not verified, claims all 2 parts"), "{text}");
}

#[test]
fn a_signature_beside_a_module_leaves_it_as_it_is() {
    let folder = folder();
    let before = fs::read(folder.path("doubler.wasm")).unwrap();
    let detached = folder.path("doubler.sig");
    sign(&folder, "one.key", &["--detached", &detached]).ok();
    sign(&folder, "two.key", &["--detached", &detached]).ok();
    assert_eq!(fs::read(folder.path("doubler.wasm")).unwrap(), before);
    verify(&folder, &["--detached", &detached]).ok();
    let two = folder.path("two.pub");
    verify(
        &folder,
        &["--detached", &detached, "--key", &two, "--threshold", "2"],
    )
    .ok();
    verify(&folder, &[]).fails(1, &["not signed"]);
    folder.put("doubler.sig", &[1, 1, 1, 0xff, 0xff, 0xff, 0xff, 0x0f]);
    verify(&folder, &["--detached", &detached]).fails(1, &["more than 64 lists"]);
    sign(&folder, "one.key", &["--detached", &detached]).fails(1, &["signatures that are there"]);
}

#[test]
fn any_webassembly_file_can_be_signed_into_another_file() {
    let folder = folder();
    let core = wat::parse_str("(module (func (export \"f\")))").unwrap();
    let (core, out) = (folder.put("core.wasm", &core), folder.path("signed.wasm"));
    let (secret, public) = (folder.path("one.key"), folder.path("one.pub"));
    tidegate(&["sign", &core, "--key", &secret, "--out", &out]).ok();
    let printed = tidegate(&["verify", &out, "--key", &public]).ok();
    assert!(printed.contains("signed the whole file"), "{printed}");
    tidegate(&["verify", &core, "--key", &public]).fails(1, &["not signed"]);
}

#[test]
fn a_changed_module_is_refused_in_exact_words() {
    let folder = folder();
    sign(&folder, "one.key", &[]).ok();
    let good = fs::read(folder.path("doubler.wasm")).unwrap();
    let check = |bytes: &[u8], words: &[&str]| {
        folder.put("doubler.wasm", bytes);
        verify(&folder, &[]).fails(1, words);
    };
    let mut swapped = good.clone();
    let at = swapped
        .windows(3)
        .rposition(|window| window == b"Add")
        .unwrap();
    swapped[at..at + 3].copy_from_slice(b"Sub");
    check(&swapped, &["part 2 of 2 is not what key"]);
    check(&good[..good.len() - 1], &["cut off or has trailing bytes"]);
    check(
        &[&good[..], b"\0\x02\x01x"].concat(),
        &["first 2 of 3 parts, not what follows"],
    );
    check(b"#!/bin/sh", &["not a WebAssembly"]);
}

#[test]
fn keys_that_cannot_be_used_are_named() {
    let folder = folder();
    sign(&folder, "one.pub", &[]).fails(1, &["one.pub", "a public key"]);
    sign(&folder, "none.key", &[]).fails(1, &["none.key"]);
    sign(&folder, "doubler.wasm", &[]).fails(1, &["doubler.wasm"]);
    let secret = folder.path("one.key");
    verify(&folder, &["--key", &secret]).fails(1, &["one.key", "a secret key"]);
    verify(&folder, &["--threshold", "2"]).fails(64, &["--threshold is 2", "1 to 1"]);
    verify(&folder, &["--threshold", "0"]).fails(64, &["--threshold is 0"]);
    tidegate(&["verify", &folder.path("doubler.wasm")]).fails(64, &["--key"]);
    let both = ["--out", "a", "--detached", "b"];
    sign(&folder, "one.key", &both).fails(64, &["--detached"]);
}
