//! Compiled code is kept, found again, and never used when it is not exactly what was kept.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use tempfile::TempDir;
use tidegate_runtime::module::pass_through;
use tidegate_runtime::{CacheConfig, Manifest, ModuleFile, Runtime, RuntimeConfig};
use tract_onnx::pb::tensor_proto::DataType;

use crate::fixture::{
    ECHO, budget, guest, identity, load, module, neighbour_answers, node, onnx, packed, run, value,
};

/// Holds the folder of a test that runs once more in other surroundings.
const FOLDER: &str = "TIDEGATE_RUNTIME_TEST_FOLDER";

/// More than any test keeps.
const AMPLE_BYTES: u64 = 1 << 30;

fn start(state: &Path) -> Arc<Runtime> {
    start_within(state, AMPLE_BYTES)
}

fn start_within(state: &Path, bytes_max: u64) -> Arc<Runtime> {
    let cache = CacheConfig {
        folder: state.to_owned(),
        bytes_max,
    };
    Runtime::start(RuntimeConfig {
        cache: Some(cache),
        ..RuntimeConfig::new(1)
    })
    .unwrap()
}

/// Starts a runtime on this state, loads the module and has it answer.
#[track_caller]
fn serves(state: &Path, module: &ModuleFile) {
    neighbour_answers(&load(&start(state), module));
}

/// The entries of compiled code that are kept, in order of name.
fn entries(state: &Path) -> Vec<PathBuf> {
    let Ok(listing) = fs::read_dir(state.join("code")) else {
        return Vec::new();
    };
    let mut paths: Vec<_> = listing
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            name.starts_with("code-")
        })
        .collect();
    paths.sort();
    paths
}

#[track_caller]
fn only_entry(state: &Path) -> PathBuf {
    let entries = entries(state);
    assert_eq!(entries.len(), 1, "{entries:?}");
    entries.into_iter().next().unwrap()
}

/// Which file it is: it changes when an entry is made anew. Numbers of files are given again.
fn file_id(path: &Path) -> (u64, i64, i64) {
    let metadata = path.symlink_metadata().unwrap();
    (metadata.ino(), metadata.mtime(), metadata.mtime_nsec())
}

/// A state folder where the code of the identity module is kept.
fn warm() -> (TempDir, ModuleFile) {
    let state = tempfile::tempdir().unwrap();
    let module = packed(&identity());
    serves(state.path(), &module);
    (state, module)
}

/// An entry that `spoil` was done to is not used: it is made anew, and the next start finds it.
#[track_caller]
fn is_rebuilt(what: &str, spoil: impl FnOnce(&Path, &Path)) {
    let (state, module) = warm();
    let entry = only_entry(state.path());
    spoil(state.path(), &entry);
    let spoilt = file_id(&entry);
    serves(state.path(), &module);
    assert_eq!(only_entry(state.path()), entry, "{what}");
    let rebuilt = file_id(&entry);
    assert_ne!(rebuilt, spoilt, "{what}: the entry was used");
    assert!(entry.symlink_metadata().unwrap().is_file(), "{what}");
    serves(state.path(), &module);
    assert_eq!(
        file_id(&entry),
        rebuilt,
        "{what}: the new entry is not used"
    );
}

#[test]
fn code_is_kept_for_the_owner_alone_and_found_again() {
    let (state, module) = warm();
    let entry = only_entry(state.path());
    let number = file_id(&entry);
    for _ in 0..2 {
        serves(state.path(), &module);
        assert_eq!(file_id(&entry), number);
    }
    let mode = |path: &Path| path.metadata().unwrap().mode() & 0o777;
    assert_eq!(mode(&state.path().join("code")), 0o700);
    assert_eq!(mode(&state.path().join("code.key")), 0o600);
    assert_eq!(mode(&entry) & 0o077, 0);
}

#[test]
fn a_version_with_new_weights_finds_the_code_of_the_old_one() {
    let (state, old) = warm();
    let float = |name: &str| value(name, DataType::Float, vec![2.into()]);
    let graph = onnx(
        vec![float("x")],
        vec![],
        vec![node("Identity", &["x"], "m"), node("Identity", &["m"], "y")],
        vec![float("y")],
    );
    let (inputs, outputs) = tidegate_graph::describe(&graph).unwrap();
    let manifest = Manifest::new("model", "2.0.0", inputs, outputs);
    let component = pass_through("g").unwrap();
    let new = ModuleFile::assemble(&component, manifest, &[("g", &graph)]).unwrap();
    assert_ne!(new.digest(), old.digest());
    let entry = only_entry(state.path());
    let number = file_id(&entry);
    serves(state.path(), &new);
    assert_eq!(file_id(&only_entry(state.path())), number);
}

#[test]
fn other_code_has_an_entry_of_its_own() {
    let (state, _) = warm();
    let echo = load(&start(state.path()), &module(&guest("", "", ECHO)));
    run(&echo, &budget()).unwrap();
    assert_eq!(entries(state.path()).len(), 2);
}

#[test]
fn a_truncated_entry_is_rebuilt() {
    let (state, _) = warm();
    let len = fs::read(only_entry(state.path())).unwrap().len();
    for kept in [0, 1, 7, 8, 39, 40, 41, len / 2, len - 1] {
        is_rebuilt(&format!("cut to {kept} bytes"), |_, entry| {
            let bytes = fs::read(entry).unwrap();
            fs::write(entry, &bytes[..kept]).unwrap();
        });
    }
    is_rebuilt("longer by a byte", |_, entry| {
        let bytes = fs::read(entry).unwrap();
        fs::write(entry, [&bytes[..], &[0]].concat()).unwrap();
    });
}

#[test]
fn a_flipped_bit_anywhere_is_found() {
    let (state, _) = warm();
    let len = fs::read(only_entry(state.path())).unwrap().len();
    for at in [0, 8, 24, 39, 40, 41, 200, len / 3, len / 2, len - 1] {
        is_rebuilt(&format!("bit flipped in byte {at}"), |_, entry| {
            let mut bytes = fs::read(entry).unwrap();
            bytes[at] ^= 0x10;
            fs::write(entry, &bytes).unwrap();
        });
    }
}

#[test]
fn code_of_another_device_is_not_accepted() {
    let (elsewhere, _) = warm();
    let foreign = fs::read(only_entry(elsewhere.path())).unwrap();
    is_rebuilt("made on another device", |_, entry| {
        assert_eq!(entry.file_name(), only_entry(elsewhere.path()).file_name());
        fs::write(entry, &foreign).unwrap();
    });
}

#[test]
fn an_entry_under_another_name_is_not_accepted() {
    is_rebuilt("another module's code", |state, entry| {
        let echo = module(&guest("", "", ECHO));
        load(&start(state), &echo);
        let other = entries(state).into_iter().find(|path| path != entry);
        fs::rename(other.unwrap(), entry).unwrap();
    });
}

#[test]
fn an_entry_of_an_older_form_is_rebuilt() {
    is_rebuilt("another mark", |_, entry| {
        let mut bytes = fs::read(entry).unwrap();
        bytes[..8].copy_from_slice(b"tidegat0");
        fs::write(entry, &bytes).unwrap();
    });
    is_rebuilt("bare compiled code", |_, entry| {
        let bytes = fs::read(entry).unwrap();
        fs::write(entry, &bytes[40..]).unwrap();
    });
}

#[test]
fn a_new_key_makes_all_entries_worthless() {
    is_rebuilt("the key was lost", |state, _| {
        fs::remove_file(state.join("code.key")).unwrap();
    });
    is_rebuilt("the key was readable by others", |state, _| {
        let key = state.join("code.key");
        fs::set_permissions(key, Permissions::from_mode(0o640)).unwrap();
    });
    is_rebuilt("the key was cut", |state, _| {
        fs::write(state.join("code.key"), b"short").unwrap();
    });
}

#[test]
fn a_link_to_an_entry_is_no_entry() {
    is_rebuilt("a symbolic link", |state, entry| {
        let moved = state.join("moved");
        fs::rename(entry, &moved).unwrap();
        symlink(&moved, entry).unwrap();
    });
}

#[test]
fn without_permission_a_module_is_compiled() {
    let (state, module) = warm();
    let entry = only_entry(state.path());
    fs::set_permissions(&entry, Permissions::from_mode(0o000)).unwrap();
    serves(state.path(), &module);
    // What cannot be read or replaced, whoever asks.
    fs::remove_file(&entry).unwrap();
    fs::create_dir_all(entry.join("full")).unwrap();
    serves(state.path(), &module);
    serves(state.path(), &module);
    let code = state.path().join("code");
    fs::remove_dir_all(&code).unwrap();
    fs::write(&code, "a file").unwrap();
    serves(state.path(), &module);
    serves(Path::new("/proc/nowhere"), &module);
    serves(Path::new("/dev/null/state"), &module);
}

#[test]
fn what_does_not_fit_is_not_kept() {
    let state = tempfile::tempdir().unwrap();
    let module = packed(&identity());
    for _ in 0..2 {
        let runtime = start_within(state.path(), 1000);
        neighbour_answers(&load(&runtime, &module));
        assert_eq!(entries(state.path()), Vec::<PathBuf>::new());
    }
}

#[test]
fn a_full_disk_costs_the_keeping_alone() {
    let name = "caching::a_full_disk_costs_the_keeping_alone";
    let Some(folder) = std::env::var_os(FOLDER) else {
        // Once more, where a small disk can be mounted that nobody else sees.
        let folder = tempfile::tempdir().unwrap();
        let mount = format!("mount -t tmpfs -o size=16k none \"${FOLDER}\"; exec \"$0\" \"$@\"");
        let output = Command::new("unshare")
            .args(["--map-root-user", "--mount", "sh", "-ec", &mount])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", name, "--nocapture"])
            .env(FOLDER, folder.path())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success() && text.contains("1 passed"),
            "{text}{errors}"
        );
        return;
    };
    let module = packed(&identity());
    for _ in 0..2 {
        serves(Path::new(&folder), &module);
        assert_eq!(entries(Path::new(&folder)), Vec::<PathBuf>::new());
    }
}
