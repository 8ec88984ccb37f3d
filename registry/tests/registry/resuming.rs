//! Downloads that are cut, killed, or damaged in the middle.

use std::fs::OpenOptions;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::FileExt as _;
use std::process::Stdio;

use tidegate_registry::{ModuleStore, Reference, Registries, TransferError, Watch};
use tidegate_tests::docker_registry::DockerRegistry;
use tidegate_tests::inside;
use tidegate_tests::wait::eventually;

use crate::cutter::Cutter;
use crate::{Client, sha256, wasm};

const MIB: usize = 1 << 20;

#[tokio::test]
async fn a_download_that_is_cut_goes_on_where_it_was() {
    let registry = DockerRegistry::start();
    let module = wasm("cut", 50 * MIB);
    let published = format!("{}/cut:1", registry.address());
    Client::new().publish(&published, &module).await.unwrap();
    let cutter = Cutter::start(registry.address(), 6 << 20).await;
    let user = Client::new();
    let (_, kept) = user
        .pull(&format!("{}/cut:1", cutter.address))
        .await
        .unwrap();
    assert_eq!(kept.bytes(), &module);
    assert!(cutter.cuts() >= 8, "{}", cutter.cuts());
    let twice = module.len() as u64 * 3 / 2;
    assert!(cutter.bytes_down() < twice, "{} bytes", cutter.bytes_down());
    assert_eq!(user.files().len(), 1);
}

#[tokio::test]
async fn a_registry_that_always_cuts_at_once_is_given_up_and_the_bytes_are_kept() {
    let registry = DockerRegistry::start();
    let module = wasm("cut", 4 * MIB);
    let published = format!("{}/cut:1", registry.address());
    Client::new().publish(&published, &module).await.unwrap();
    let cutter = Cutter::start(registry.address(), 64 << 10).await;
    let user = Client::new();
    let reference = format!("{}/cut:1", cutter.address);
    let error = user.pull(&reference).await.unwrap_err();
    assert!(error.is_temporary(), "{error:?}");
    assert_eq!(user.files(), [format!("partial/{}", hex(&module))]);
    // A better day.
    let (_, kept) = user.pull(&published).await.unwrap();
    assert_eq!(kept.bytes(), &module);
    assert_eq!(user.files(), [format!("sha256/{}", hex(&module))]);
}

#[tokio::test]
async fn a_process_killed_in_the_middle_leaves_what_the_next_one_resumes() {
    let name = "resuming::a_process_killed_in_the_middle_leaves_what_the_next_one_resumes";
    if let Some(folder) = inside::folder() {
        let registries = Registries::new(tidegate_registry::Access::default()).unwrap();
        let store = ModuleStore::open(folder.join("modules"), 1 << 30).unwrap();
        let reference = std::fs::read_to_string(folder.join("reference")).unwrap();
        let reference: Reference = reference.parse().unwrap();
        let version = registries.resolve(&reference, &store).await.unwrap();
        let watch = Watch::new(|bytes, _| {
            if bytes > 3 << 20 {
                let mut out = std::io::stdout();
                let _ = writeln!(out, "\nin the middle");
            }
        });
        let fetched = registries.fetch(&reference, &version, &store, &watch);
        panic!("it ended before it was killed: {:?}", fetched.await.is_ok());
    }
    let registry = DockerRegistry::start();
    let module = wasm("killed", 40 * MIB);
    let published = format!("{}/killed:1", registry.address());
    Client::new().publish(&published, &module).await.unwrap();
    // The first connections end after 4 MiB each, so that the process is killed between two attempts.
    let cutter = Cutter::start(registry.address(), 4 << 20).await;
    let user = Client::new();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(
        folder.path().join("reference"),
        format!("{}/killed:1", cutter.address),
    )
    .unwrap();
    let mut command = inside::command(name, folder.path(), "");
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let seen = tokio::task::spawn_blocking(move || {
        lines
            .map_while(Result::ok)
            .any(|line| line.ends_with("in the middle"))
    });
    assert!(seen.await.unwrap());
    child.kill().unwrap();
    child.wait().unwrap();
    let modules = folder.path().join("modules");
    let partial = modules.join("partial").join(hex(&module));
    let arrived = partial.metadata().unwrap().len();
    assert!(arrived >= 2 << 20, "{arrived}");
    let store = ModuleStore::open(&modules, 1 << 30).unwrap();
    assert!(store.get(&sha256(&module)).unwrap().is_none());
    let resumed = Cutter::start(registry.address(), u64::MAX).await;
    let reference: Reference = format!("{}/killed:1", resumed.address).parse().unwrap();
    let version = user.registries.resolve(&reference, &store).await.unwrap();
    let watch = Watch::nobody();
    let kept = user.registries.fetch(&reference, &version, &store, &watch);
    assert_eq!(kept.await.unwrap().bytes(), &module);
    let rest = module.len() as u64 - arrived;
    let bytes = resumed.bytes_down();
    assert!(
        (rest..rest + (1 << 20)).contains(&bytes),
        "{bytes} of {rest}"
    );
    assert!(!partial.exists());
}

#[tokio::test]
async fn a_damaged_beginning_is_fetched_again() {
    let registry = DockerRegistry::start();
    let module = wasm("damaged", 2 * MIB);
    let published = format!("{}/damaged:1", registry.address());
    Client::new().publish(&published, &module).await.unwrap();
    let user = Client::new();
    let partial = user.folder.path().join("partial").join(hex(&module));
    for beginning in [
        &b"not its beginning"[..],
        &module[..MIB],
        &[0; 3 * MIB],
        &module,
    ] {
        std::fs::write(&partial, beginning).unwrap();
        let (version, kept) = user.pull(&published).await.unwrap();
        assert_eq!(kept.bytes(), &module);
        assert!(!partial.exists());
        drop(kept);
        user.store.remove(&version.module).unwrap();
    }
}

#[tokio::test]
async fn a_damaged_module_is_removed_and_fetched_again() {
    let registry = DockerRegistry::start();
    let module = wasm("damaged", 1000);
    let published = format!("{}/damaged:1", registry.address());
    Client::new().publish(&published, &module).await.unwrap();
    let user = Client::new();
    let (version, _) = user.pull(&published).await.unwrap();
    let path = user.folder.path().join("sha256").join(hex(&module));
    let file = || OpenOptions::new().write(true).open(&path).unwrap();
    let damages: [&dyn Fn(); 3] = [
        &|| file().write_all_at(b"X", 500).unwrap(),
        &|| file().set_len(500).unwrap(),
        &|| file().set_len(0).unwrap(),
    ];
    for damage in damages {
        damage();
        assert!(user.store.get(&version.module).unwrap().is_none());
        assert!(!path.exists());
        assert_eq!(user.pull(&published).await.unwrap().1.bytes(), &module);
    }
}

#[tokio::test]
async fn two_downloads_of_one_module_share_its_bytes() {
    let registry = DockerRegistry::start();
    let module = wasm("shared", 20 * MIB);
    let published = format!("{}/shared:1", registry.address());
    Client::new().publish(&published, &module).await.unwrap();
    let cutter = Cutter::start(registry.address(), u64::MAX).await;
    let reference = format!("{}/shared:1", cutter.address);
    let user = Client::new();
    let (one, other) = tokio::join!(user.pull(&reference), user.pull(&reference));
    assert_eq!(one.unwrap().1.bytes(), &module);
    assert_eq!(other.unwrap().1.bytes(), &module);
    let once = module.len() as u64 + (1 << 20);
    assert!(cutter.bytes_down() < once, "{} bytes", cutter.bytes_down());
    eventually("the partial file is gone", async || {
        (user.files().len() == 1).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_full_disk_is_a_clear_error_and_leaves_nothing() {
    let name = "resuming::a_full_disk_is_a_clear_error_and_leaves_nothing";
    let Some(disk) = inside::folder() else {
        let folder = tempfile::tempdir().unwrap();
        let prelude = "mount -t tmpfs -o size=2m none \"$TIDEGATE_TEST_FOLDER\"";
        return inside::run(name, folder.path(), prelude);
    };
    let registry = DockerRegistry::start();
    let published = format!("{}/large:1", registry.address());
    let user = Client::new();
    user.publish(&published, &wasm("large", 8 * MIB))
        .await
        .unwrap();
    let small = wasm("small", MIB);
    let other = format!("{}/small:1", registry.address());
    user.publish(&other, &small).await.unwrap();
    let store = ModuleStore::open(disk.join("modules"), 1 << 30).unwrap();
    let pull = async |reference: &str| {
        let reference: Reference = reference.parse().unwrap();
        let version = user.registries.resolve(&reference, &store).await?;
        let watch = Watch::nobody();
        user.registries
            .fetch(&reference, &version, &store, &watch)
            .await
    };
    assert_eq!(pull(&other).await.unwrap().bytes(), &small);
    let error = pull(&published).await.unwrap_err();
    assert!(matches!(error, TransferError::Write { .. }), "{error:?}");
    crate::says(&error, &["cannot write", "No space left on device"], &[]);
    let partial = disk.join("modules/partial");
    assert_eq!(std::fs::read_dir(partial).unwrap().count(), 0);
    assert_eq!(pull(&other).await.unwrap().bytes(), &small);
}

fn hex(module: &[u8]) -> String {
    sha256(module)
        .to_string()
        .trim_start_matches("sha256:")
        .to_owned()
}
