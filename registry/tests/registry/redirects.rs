//! Redirects: how many, where to, and what goes along.

use tidegate_registry::TransferError;

use crate::hostile::{decent, manifest};
use crate::server::{Server, answer};
use crate::{Client, says, sha256, wasm};

#[tokio::test]
async fn blobs_may_come_from_elsewhere() {
    let module = wasm("m", 1000);
    let there = module.clone();
    let elsewhere = Server::start(move |_, _| answer(200, there.clone()).sends()).await;
    let (address, own) = (elsewhere.address, module.clone());
    let server = Server::start(move |asked, _| {
        if asked.path.contains("/blobs/") {
            return answer(307, "")
                .header("Location", format!("http://{address}/x?signature=1"))
                .sends();
        }
        decent(asked, &manifest(&own, |_| {}), &own).sends()
    })
    .await;
    let pulled = Client::new()
        .pull(&format!("{}/m:1", server.address))
        .await
        .unwrap();
    assert_eq!(pulled.1.bytes(), &module);
    assert_eq!(elsewhere.asked().len(), 1);
}

#[tokio::test]
async fn a_loop_ends() {
    let server =
        Server::start(|asked, _| answer(302, "").header("Location", &asked.path).sends()).await;
    let error = Client::new()
        .pull(&format!("{}/m:1", server.address))
        .await
        .unwrap_err();
    assert!(matches!(error, TransferError::Redirect { .. }), "{error:?}");
    says(&error, &["more often than is followed"], &[]);
    assert_eq!(server.asked().len(), 6);
}

#[tokio::test]
async fn nothing_without_tls_leaves_this_machine() {
    for location in [
        "http://192.0.2.1/x",
        "ftp://127.0.0.1/x",
        "file:///etc/passwd",
        "http://localhost.example.com/",
    ] {
        let server =
            Server::start(move |_, _| answer(302, "").header("Location", location).sends()).await;
        let error = Client::new()
            .pull(&format!("{}/m:1", server.address))
            .await
            .unwrap_err();
        says(&error, &["without TLS"], &[]);
    }
    let server = Server::start(|_, _| answer(302, "").sends()).await;
    let error = Client::new()
        .pull(&format!("{}/m:1", server.address))
        .await
        .unwrap_err();
    says(&error, &["to no address"], &[]);
    // A name that is not this machine's is spoken to with TLS alone, so this never reaches the listener.
    let server = Server::start(|_, _| answer(200, "").sends()).await;
    let port = server.address.port();
    let digest = sha256(b"x");
    let error = Client::new()
        .pull(&format!("0.0.0.0:{port}/m@{digest}"))
        .await
        .unwrap_err();
    assert!(error.is_temporary(), "{error:?}");
    assert!(server.asked().is_empty());
}
