//! Registries that lie, send too much, too little, too slowly, or for ever.

use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::{Value, json};
use tidegate_registry::TransferError;

use crate::server::{Answer, Asked, Does, Server, answer};
use crate::{Client, says, sha256, wasm};

/// A manifest in the usual layout that names `module`, but for what `change` makes of it.
pub(crate) fn manifest(module: &[u8], change: impl Fn(&mut Value)) -> Vec<u8> {
    let mut manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {
            "mediaType": "application/vnd.wasm.config.v0+json",
            "digest": sha256(b"{}").to_string(),
            "size": 2,
        },
        "layers": [{
            "mediaType": "application/wasm",
            "digest": sha256(module).to_string(),
            "size": module.len(),
        }],
    });
    change(&mut manifest);
    serde_json::to_vec(&manifest).unwrap()
}

/// What a decent registry with this one module does, as `m:1`.
pub(crate) fn decent(asked: &Asked, manifest: &[u8], module: &[u8]) -> Answer {
    let digest = sha256(manifest);
    let path = asked.path.trim_start_matches("/v2/m/");
    if path == "manifests/1" || path == format!("manifests/{digest}") {
        return answer(200, manifest).header("Docker-Content-Digest", digest);
    }
    if path == format!("blobs/{}", sha256(module)) {
        return answer(200, module);
    }
    answer(404, "")
}

/// A registry that does something else with some requests.
async fn registry(
    manifest: Vec<u8>,
    module: &Bytes,
    other: impl Fn(&Asked, usize) -> Option<Does> + Send + Sync + 'static,
) -> Server {
    let module = module.clone();
    Server::start(move |asked, before| {
        other(asked, before).unwrap_or_else(|| decent(asked, &manifest, &module).sends())
    })
    .await
}

/// Pulls from a registry that cheats with blobs, which must fail with this and leave nothing.
async fn check_blob(
    named: &[&str],
    cheats: impl Fn(&Asked) -> Does + Send + Sync + 'static,
) -> Server {
    let module = wasm("m", 200_000);
    let server = registry(manifest(&module, |_| {}), &module, move |asked, _| {
        asked.path.contains("/blobs/").then(|| cheats(asked))
    })
    .await;
    let user = Client::new();
    let error = user
        .pull(&format!("{}/m:1", server.address))
        .await
        .unwrap_err();
    says(&error, named, &[]);
    let kept = user
        .files()
        .into_iter()
        .filter(|name| name.starts_with("sha256/"));
    assert_eq!(kept.count(), 0, "{error:?}");
    server
}

/// Pulls from a registry with this manifest, which must fail with this before any blob is asked for.
async fn check_manifest(named: &[&str], manifest: Vec<u8>) {
    let server = registry(manifest, &wasm("m", 100), |_, _| None).await;
    let user = Client::new();
    let error = user
        .pull(&format!("{}/m:1", server.address))
        .await
        .unwrap_err();
    says(&error, named, &[]);
    let asked = server.asked();
    assert!(
        !asked.iter().any(|asked| asked.path.contains("/blobs/")),
        "{asked:?}"
    );
}

#[tokio::test]
async fn a_decent_registry_is_the_control() {
    let module = wasm("m", 200_000);
    let server = registry(manifest(&module, |_| {}), &module, |_, _| None).await;
    let user = Client::new();
    let reference = format!("{}/m:1", server.address);
    assert_eq!(user.pull(&reference).await.unwrap().1.bytes(), &module);
    let first = server.asked().len();
    // The tag has not moved: one small question is all that a poll costs.
    user.pull(&reference).await.unwrap();
    let polls = &server.asked()[first..];
    assert_eq!(polls.len(), 1);
    assert_eq!(polls[0].method, "HEAD");
}

#[tokio::test]
async fn another_module_under_the_same_digest_is_refused() {
    let server = check_blob(&["gave sha256:"], |_| {
        answer(200, wasm("x", 200_000)).sends()
    })
    .await;
    assert_eq!(server.asked().last().unwrap().method, "GET");
}

#[tokio::test]
async fn a_body_of_another_size_is_refused_before_it_is_read() {
    check_blob(&["10 bytes where 2000"], |_| {
        answer(200, vec![0; 10]).sends()
    })
    .await;
    check_blob(&["9000000 bytes where 2000"], |_| {
        Does::Endless(
            b"HTTP/1.1 200 x\r\nContent-Length: 9000000\r\n\r\n".to_vec(),
            vec![0; 1000],
        )
    })
    .await;
}

#[tokio::test]
async fn a_body_that_ends_too_soon_is_not_kept() {
    check_blob(&["cannot reach"], |asked| match asked.header("range") {
        Some(_) => Does::Writes(Vec::new()),
        None => Does::Writes(b"HTTP/1.1 200 x\r\nContent-Length: 200024\r\n\r\nxxx".to_vec()),
    })
    .await;
    check_blob(&["fewer than the 2000"], |_| {
        Does::Writes(b"HTTP/1.1 200 x\r\nConnection: close\r\n\r\nxxx".to_vec())
    })
    .await;
}

#[tokio::test]
async fn a_body_without_end_is_left_at_the_announced_size() {
    check_blob(&["more than the 2000"], |_| {
        Does::Endless(
            b"HTTP/1.1 200 x\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec(),
            [b"3e8\r\n".to_vec(), vec![0; 1000], b"\r\n".to_vec()].concat(),
        )
    })
    .await;
}

#[tokio::test]
async fn a_compressed_body_is_refused() {
    check_blob(&["compressed"], |_| {
        answer(200, vec![0; 100])
            .header("Content-Encoding", "gzip")
            .sends()
    })
    .await;
    let module = wasm("m", 100);
    let server = registry(manifest(&module, |_| {}), &module, |asked, _| {
        (asked.method == "GET").then(|| {
            answer(200, vec![0; 100])
                .header("Content-Encoding", "gzip")
                .sends()
        })
    })
    .await;
    let error = Client::new().pull(&format!("{}/m:1", server.address)).await;
    says(&error.unwrap_err(), &["compressed"], &[]);
}

#[tokio::test]
async fn a_trickle_and_a_silence_end() {
    let began = Instant::now();
    check_blob(&["sends nothing, or next to nothing"], |_| {
        let mut bytes = b"HTTP/1.1 200 x\r\nConnection: close\r\n\r\n".to_vec();
        bytes.resize(100_000, 0);
        Does::Trickles(bytes, Duration::from_millis(5))
    })
    .await;
    check_blob(&["sends nothing"], |_| {
        Does::Trickles(vec![b'H'; 100_000], Duration::from_millis(5))
    })
    .await;
    let module = wasm("m", 100);
    let server = registry(manifest(&module, |_| {}), &module, |_, _| {
        Some(Does::Silence)
    })
    .await;
    let error = Client::new()
        .pull(&format!("{}/m:1", server.address))
        .await
        .unwrap_err();
    assert!(matches!(error, TransferError::Stalled { .. }), "{error:?}");
    assert!(
        began.elapsed() < Duration::from_secs(120),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test]
async fn parts_that_were_not_asked_for_are_not_taken() {
    for range in ["bytes 5-200023/200024", "bytes 0-9/10", "nonsense"] {
        let range = range.to_owned();
        check_blob(&["127.0.0.1"], move |_| {
            answer(206, vec![0; 10])
                .header("Content-Range", &range)
                .sends()
        })
        .await;
    }
}

#[tokio::test]
async fn a_registry_without_ranges_is_asked_from_the_beginning() {
    let module = wasm("m", 2_000_000);
    for refusal in [200, 416] {
        let whole = module.clone();
        let server = registry(manifest(&module, |_| {}), &module, move |asked, before| {
            asked.header("range").map(|_| match refusal {
                416 if before < 4 => answer(416, "").sends(),
                _ => answer(200, whole.clone()).sends(),
            })
        })
        .await;
        let user = Client::new();
        let name = sha256(&module).to_string().replace("sha256:", "partial/");
        std::fs::write(user.folder.path().join(name), &module[..1_500_000]).unwrap();
        let (_, kept) = user.pull(&format!("{}/m:1", server.address)).await.unwrap();
        assert_eq!(kept.bytes(), &module, "{refusal}");
    }
}

#[tokio::test]
async fn a_manifest_that_lies_is_refused() {
    let module = wasm("m", 100);
    let layer = |manifest: &mut Value, key: &str, value: Value| manifest["layers"][0][key] = value;
    for (named, text) in [
        (
            &["2000000000 bytes or more, above the 1073741824"][..],
            manifest(&module, |m| layer(m, "size", json!(2_000_000_000_u64))),
        ),
        (
            &["-5 bytes"],
            manifest(&module, |m| layer(m, "size", json!(-5))),
        ),
        (
            &["no SHA-256"],
            manifest(&module, |m| layer(m, "digest", json!("../../etc/passwd"))),
        ),
        (
            &["text/html"],
            manifest(&module, |m| layer(m, "mediaType", json!("text/html"))),
        ),
        (
            &["0 layers"],
            manifest(&module, |m| m["layers"] = json!([])),
        ),
        (
            &["at once"],
            manifest(&module, |m| m["manifests"] = json!([])),
        ),
        (&["not JSON"], b"<html>".to_vec()),
        (&["no layers"], b"[[[[[[]]]]]]".to_vec()),
        (&["not JSON"], vec![b'['; 1 << 20]),
        (&["bytes or more, above the 4194304"], vec![b' '; 5 << 20]),
    ] {
        check_manifest(named, text).await;
    }
    // A size that differs from the blob's: neither too much nor too little is taken.
    for size in [99, 101, 200_000] {
        let server = registry(
            manifest(&module, |m| layer(m, "size", json!(size))),
            &module,
            |_, _| None,
        )
        .await;
        let error = Client::new()
            .pull(&format!("{}/m:1", server.address))
            .await
            .unwrap_err();
        says(&error, &["announced"], &[]);
    }
}

#[tokio::test]
async fn a_manifest_under_a_false_digest_is_refused() {
    let module = wasm("m", 100);
    let other = manifest(&module, |m| m["annotations"] = json!({"evil": "yes"}));
    let server = registry(manifest(&module, |_| {}), &module, move |asked, _| {
        (asked.method == "GET" && asked.path.contains("manifests/"))
            .then(|| answer(200, other.clone()).sends())
    })
    .await;
    let error = Client::new()
        .pull(&format!("{}/m:1", server.address))
        .await
        .unwrap_err();
    assert!(matches!(error, TransferError::Digest { .. }), "{error:?}");
}

#[tokio::test]
async fn a_manifest_without_end_is_left_at_the_limit() {
    let server = Server::start(|asked, _| match asked.method.as_str() {
        "HEAD" => answer(405, "").sends(),
        _ => Does::Endless(
            b"HTTP/1.1 200 x\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec(),
            [b"10000\r\n".to_vec(), vec![b' '; 0x10000], b"\r\n".to_vec()].concat(),
        ),
    })
    .await;
    let error = Client::new()
        .pull(&format!("{}/m:1", server.address))
        .await
        .unwrap_err();
    assert!(matches!(error, TransferError::TooLarge { .. }), "{error:?}");
}

#[tokio::test]
async fn a_registry_without_head_or_digests_works() {
    let module = wasm("m", 100);
    let text = manifest(&module, |_| {});
    for status in [405, 200] {
        let bare = text.clone();
        let server = registry(text.clone(), &module, move |asked, _| {
            let by_tag = asked.path.ends_with("manifests/1");
            by_tag.then(|| match asked.method.as_str() {
                "HEAD" => answer(status, "").sends(),
                _ => answer(200, bare.clone()).sends(),
            })
        })
        .await;
        let (version, kept) = Client::new()
            .pull(&format!("{}/m:1", server.address))
            .await
            .unwrap();
        assert_eq!(version.manifest, Some(sha256(&text)));
        assert_eq!(kept.bytes(), &module);
    }
}

#[tokio::test]
async fn trouble_that_passes_is_waited_for() {
    let module = wasm("m", 100);
    let server = registry(
        manifest(&module, |_| {}),
        &module,
        |_, before| match before {
            0 => Some(answer(429, "").header("Retry-After", 1).sends()),
            1 => Some(answer(503, "").sends()),
            3 => Some(Does::Writes(Vec::new())),
            4 => Some(answer(500, "x").sends()),
            _ => None,
        },
    )
    .await;
    let began = Instant::now();
    let pulled = Client::new().pull(&format!("{}/m:1", server.address)).await;
    assert_eq!(pulled.unwrap().1.bytes(), &module);
    assert!(began.elapsed() >= Duration::from_secs(1));
    // More patience than anybody has is an error at once, and trouble that stays is one in the end.
    let server = Server::start(|_, _| answer(429, "").header("Retry-After", 3600).sends()).await;
    let error = Client::new()
        .pull(&format!("{}/m:1", server.address))
        .await
        .unwrap_err();
    assert!(
        matches!(error, TransferError::Overloaded { .. }),
        "{error:?}"
    );
    assert!(error.is_temporary());
    assert_eq!(server.asked().len(), 1);
    let body = r#"{"errors":[{"code":"TROUBLE","message":"\u001b[31mred\u0007"}]}"#;
    let server = Server::start(move |_, _| answer(503, body).sends()).await;
    let error = Client::new()
        .pull(&format!("{}/m@{}", server.address, sha256(b"x")))
        .await
        .unwrap_err();
    assert!(error.is_temporary(), "{error:?}");
    says(
        &error,
        &["answered 503", ": TROUBLE [31mred"],
        &[&'\u{1b}', &'\u{7}'],
    );
    assert_eq!(server.asked().len(), 7);
}

#[tokio::test]
async fn a_registry_that_stores_something_else_is_found_out() {
    let server = Server::start(|asked, _| match asked.method.as_str() {
        "HEAD" => answer(404, "").sends(),
        "POST" => answer(202, "")
            .header("Location", "/v2/m/blobs/uploads/1?state=x")
            .sends(),
        _ => answer(201, "")
            .header("Docker-Content-Digest", sha256(b"else"))
            .sends(),
    })
    .await;
    let reference = format!("{}/m:1", server.address);
    let error = Client::new()
        .publish(&reference, &wasm("m", 100))
        .await
        .unwrap_err();
    says(&error, &["another digest than sha256:"], &[]);
    let put = server
        .asked()
        .into_iter()
        .find(|asked| asked.method == "PUT")
        .unwrap();
    assert!(
        put.path.contains("state=x&digest=sha256%3A"),
        "{}",
        put.path
    );
    assert!(put.body.starts_with(b"{"));
}

#[tokio::test]
async fn uploads_go_only_where_they_may() {
    for location in ["http://example.com/upload", "", "http://[bad"] {
        let server = Server::start(move |asked, _| match asked.method.as_str() {
            "HEAD" => answer(404, "").sends(),
            "POST" if location.is_empty() => answer(202, "").sends(),
            _ => answer(202, "").header("Location", location).sends(),
        })
        .await;
        let reference = format!("{}/m:1", server.address);
        let error = Client::new()
            .publish(&reference, &wasm("m", 100))
            .await
            .unwrap_err();
        assert!(!error.is_temporary(), "{error:?}");
        assert!(server.asked().iter().all(|asked| asked.method != "PUT"));
    }
    let server = Server::start(|asked, _| match asked.method.as_str() {
        "HEAD" => answer(404, "").sends(),
        "POST" => answer(202, "").header("Location", "/up").sends(),
        _ => Does::Silence,
    })
    .await;
    let reference = format!("{}/m:1", server.address);
    let error = Client::new()
        .publish(&reference, &wasm("m", 100))
        .await
        .unwrap_err();
    assert!(matches!(error, TransferError::Stalled { .. }), "{error:?}");
}
