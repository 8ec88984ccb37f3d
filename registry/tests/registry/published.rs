//! What is published to a real registry is what is pulled from it.

use tidegate_registry::{Access, Source, TransferError};
use tidegate_tests::docker_registry::{Auth, DockerRegistry, Transport};

use crate::cutter::Cutter;
use crate::{Client, says, sha256, wasm};

#[tokio::test]
async fn a_published_module_is_pulled_by_tag_and_by_either_digest() {
    let registry = DockerRegistry::start();
    let name = format!("{}/some/face", registry.address());
    let module = wasm("face", 1000);
    let author = Client::new();
    let version = author.publish(&format!("{name}:1"), &module).await.unwrap();
    assert_eq!(version.module, sha256(&module));
    assert_eq!(version.bytes, module.len() as u64);
    let manifest = version.manifest.unwrap();
    assert_ne!(manifest, version.module);
    for reference in [
        format!("{name}:1"),
        format!("oci://{name}:1"),
        format!("{name}@{manifest}"),
        format!("{name}:other@{manifest}"),
    ] {
        let user = Client::new();
        let (pulled, kept) = user.pull(&reference).await.unwrap();
        assert_eq!(pulled, version, "{reference}");
        assert_eq!(kept.bytes(), &module);
        assert_eq!(kept.digest(), version.module);
        assert_eq!(user.files().len(), 1);
    }
    let user = Client::new();
    let pin = format!("{name}@{}", version.module);
    let (pulled, kept) = user.pull(&pin).await.unwrap();
    assert_eq!((pulled.manifest, pulled.module), (None, version.module));
    assert_eq!(kept.bytes(), &module);
}

#[tokio::test]
async fn publishing_again_gives_the_same_digests_and_sends_no_bytes() {
    let registry = DockerRegistry::start();
    let reference = format!("{}/face:1", registry.address());
    let module = wasm("face", 4 << 20);
    let author = Client::new();
    let first = author.publish(&reference, &module).await.unwrap();
    // A cut after the first answers would break an upload of this size.
    let second = author.publish(&reference, &module).await.unwrap();
    assert_eq!(first, second);
    let digest = Client::new().pull(&reference).await.unwrap().0;
    assert_eq!(digest, first);
}

#[tokio::test]
async fn fifty_mebibytes_go_up_and_come_down() {
    let registry = DockerRegistry::start();
    let reference = format!("{}/large:1", registry.address());
    let module = wasm("large", 50 << 20);
    let version = Client::new().publish(&reference, &module).await.unwrap();
    let user = Client::new();
    let (pulled, kept) = user.pull(&reference).await.unwrap();
    assert_eq!(pulled, version);
    assert_eq!(kept.bytes(), &module);
    assert_eq!(user.files().len(), 1);
}

#[tokio::test]
async fn a_tag_that_moves_changes_nothing_for_what_was_resolved() {
    let registry = DockerRegistry::start();
    let reference = format!("oci://{}/face:latest", registry.address());
    let (old, new) = (wasm("old", 10), wasm("new", 10));
    let author = Client::new();
    author.publish(&reference, &old).await.unwrap();
    let user = Client::new();
    let source = Source::new(
        reference.parse().unwrap(),
        user.registries.clone(),
        user.store.clone(),
    );
    let before = source.resolve().await.unwrap();
    author.publish(&reference, &new).await.unwrap();
    // In the middle of a pull: the version is settled, and its bytes are those of that version.
    assert_eq!(source.fetch(&before).await.unwrap().bytes(), &old);
    assert_eq!(source.last_resolved().await.unwrap(), Some(before));
    let after = source.resolve().await.unwrap();
    assert_ne!(after, before);
    assert_eq!(source.fetch(&after).await.unwrap().bytes(), &new);
    assert_eq!(source.fetch(&before).await.unwrap().bytes(), &old);
    assert_eq!(source.last_resolved().await.unwrap(), Some(after));
}

#[tokio::test]
async fn what_was_pulled_runs_while_the_registry_is_down() {
    let registry = DockerRegistry::start();
    let name = format!("{}/face", registry.address());
    let module = wasm("face", 1000);
    let user = Client::new();
    let published = user.publish(&format!("{name}:1"), &module).await.unwrap();
    let pin = format!("oci://{name}@{}", published.manifest.unwrap());
    let by_tag = format!("oci://{name}:1");
    let source = |text: &str| {
        Source::new(
            text.parse().unwrap(),
            user.registries.clone(),
            user.store.clone(),
        )
    };
    assert_eq!(source(&by_tag).last_resolved().await.unwrap(), None);
    let version = source(&by_tag).resolve().await.unwrap();
    source(&by_tag).fetch(&version).await.unwrap();
    drop(registry);
    let error = source(&by_tag).resolve().await.unwrap_err();
    assert!(error.is_temporary(), "{error:?}");
    says(&error, &["cannot reach 127.0.0.1"], &[]);
    for reference in [by_tag, pin.clone()] {
        let source = source(&reference);
        let last = source.last_resolved().await.unwrap().unwrap();
        assert_eq!(last, version);
        assert_eq!(source.fetch(&last).await.unwrap().bytes(), &module);
    }
    // A pinned version needs no registry at all.
    assert_eq!(source(&pin).resolve().await.unwrap(), version);
    let by_module = format!("oci://{name}@{}", version.module);
    assert_eq!(
        source(&by_module).resolve().await.unwrap().module,
        version.module
    );
}

#[tokio::test]
async fn what_is_not_there_is_named() {
    let registry = DockerRegistry::start();
    let name = format!("{}/face", registry.address());
    let user = Client::new();
    let digest = sha256(b"nothing");
    for reference in [format!("{name}:1"), format!("{name}@{digest}")] {
        let error = user.pull(&reference).await.unwrap_err();
        assert!(matches!(error, TransferError::NotFound { .. }), "{error:?}");
        assert!(!error.is_temporary());
        says(&error, &["has no", "of face"], &[]);
    }
    for reference in [format!("{name}@{digest}"), format!("{name}:1@{digest}")] {
        let error = user.publish(&reference, &wasm("a", 1)).await.unwrap_err();
        assert!(matches!(error, TransferError::NoTag(_)), "{error:?}");
    }
    let error = user.publish(&format!("{name}:1"), &"<html>".into()).await;
    assert!(matches!(error, Err(TransferError::NotWasm(_))), "{error:?}");
}

#[tokio::test]
async fn tls_is_spoken_with_the_given_authority_and_never_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned(), "localhost".to_owned()]);
    let made = made.unwrap();
    std::fs::write(path("cert.pem"), made.cert.pem()).unwrap();
    std::fs::write(path("key.pem"), made.signing_key.serialize_pem()).unwrap();
    let (certificate, key) = (path("cert.pem"), path("key.pem"));
    let registry = DockerRegistry::start_with(Auth::Nobody, Transport::Tls(&certificate, &key));
    let reference = format!("localhost:{}/face:1", registry.address().port());
    let trusting = || {
        Client::with(Access {
            authorities: Some(path("cert.pem")),
            ..Access::default()
        })
    };
    let module = wasm("face", 1000);
    trusting().publish(&reference, &module).await.unwrap();
    assert_eq!(
        trusting().pull(&reference).await.unwrap().1.bytes(),
        &module
    );
    // Another authority: no connection, and no attempt without TLS either.
    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(path("other.pem"), other.cert.pem()).unwrap();
    let cutter = Cutter::start(registry.address(), u64::MAX).await;
    let stranger = Client::with(Access {
        authorities: Some(path("other.pem")),
        ..Access::default()
    });
    let through = format!("localhost:{}/face:1", cutter.address.port());
    let error = stranger.pull(&through).await.unwrap_err();
    assert!(matches!(error, TransferError::Connect { .. }), "{error:?}");
}

#[test]
fn certificates_that_are_none_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ca.pem");
    for contents in [None, Some("no certificates"), Some("")] {
        if let Some(contents) = contents {
            std::fs::write(&path, contents).unwrap();
        }
        let access = Access {
            authorities: Some(path.clone()),
            ..Access::default()
        };
        let error = tidegate_registry::Registries::new(access).unwrap_err();
        assert!(
            matches!(error, TransferError::Authorities { .. }),
            "{error:?}"
        );
    }
}
