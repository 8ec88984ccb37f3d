//! The module store by itself.

use tidegate_registry::{MODULE_BYTES_MAX, ModuleStore};

use crate::{sha256, wasm};

#[test]
fn the_least_recently_used_module_goes_unless_somebody_has_it() {
    let folder = tempfile::tempdir().unwrap();
    let store = ModuleStore::open(folder.path(), 2500).unwrap();
    let modules: Vec<_> = ["a", "b", "c", "d"].map(|name| wasm(name, 900)).into();
    let digests: Vec<_> = modules
        .iter()
        .map(|module| store_one(&store, module))
        .collect();
    assert_eq!(digests[0], sha256(&modules[0]));
    let is_there = |index: usize| store.contains(&digests[index]).unwrap();
    assert_eq!([0, 1, 2, 3].map(is_there), [false, false, true, true]);
    let kept = store.get(&digests[2]).unwrap().unwrap();
    let also = store.get(&digests[3]).unwrap().unwrap();
    assert!(store.put(&modules[0]).is_err(), "both are in use");
    drop(also);
    store.put(&modules[0]).unwrap();
    assert_eq!([0, 1, 2, 3].map(is_there), [true, false, true, false]);
    drop(kept);
}

#[test]
fn a_store_opens_again_with_what_it_had() {
    let folder = tempfile::tempdir().unwrap();
    let module = wasm("a", 10);
    let open = || ModuleStore::open(folder.path().join("modules"), 1 << 20).unwrap();
    let digest = store_one(&open(), &module);
    assert_eq!(open().get(&digest).unwrap().unwrap().bytes(), &module);
    assert_eq!(open().module_bytes_max(), 1 << 20);
    assert!(open().remove(&digest).unwrap());
    assert!(open().get(&digest).unwrap().is_none());
    let large = ModuleStore::open(folder.path().join("large"), u64::MAX).unwrap();
    assert_eq!(large.module_bytes_max(), MODULE_BYTES_MAX);
}

#[test]
fn old_and_surplus_downloads_are_given_up() {
    let folder = tempfile::tempdir().unwrap();
    let partial = folder.path().join("partial");
    std::fs::create_dir_all(&partial).unwrap();
    let day = std::time::Duration::from_secs(24 * 3600);
    for age in 0..12_u32 {
        let file = std::fs::File::create(partial.join(format!("{age:064}"))).unwrap();
        let modified = std::time::SystemTime::now() - day * age;
        file.set_modified(modified).unwrap();
    }
    ModuleStore::open(folder.path(), 1000).unwrap();
    let mut names: Vec<_> = std::fs::read_dir(&partial)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort_unstable();
    let kept: Vec<_> = (0..7).map(|age| format!("{age:064}")).collect();
    assert_eq!(names, kept);
}

fn store_one(store: &ModuleStore, module: &[u8]) -> tidegate_inference::Digest {
    store.put(module).unwrap()
}
