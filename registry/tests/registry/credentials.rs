//! Who we are, and to whom we say it.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::json;
use tempfile::TempDir;
use tidegate_registry::{Access, HELPER_TIME_MAX, TransferError};
use tidegate_tests::docker_registry::{Auth, DockerRegistry, PASSWORD, Transport, USER};
use tidegate_tests::inside;

use crate::hostile::{decent, manifest};
use crate::server::{Asked, Server, answer};
use crate::{Client, says, sha256, wasm};

/// The name and password in base64.
const PAIR: &str = "YWRhOnNlY3JldCB3b3Jk";

fn config(contents: &serde_json::Value) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("config.json"), contents.to_string()).unwrap();
    folder
}

fn client(folder: &Path) -> Client {
    Client::with(Access {
        docker_config: Some(folder.to_owned()),
        ..Access::default()
    })
}

#[tokio::test]
async fn the_password_of_dockers_configuration_opens_a_registry() {
    let registry = DockerRegistry::start_with(Auth::Password, Transport::Plain);
    let host = registry.address().to_string();
    let reference = format!("{host}/face:1");
    let module = wasm("face", 1000);
    for auths in [
        json!({host.clone(): {"auth": PAIR}}),
        json!({format!("http://{host}/v1/"): {"auth": PAIR}}),
        json!({host.clone(): {"username": USER, "password": PASSWORD}}),
    ] {
        let folder = config(&json!({"auths": auths, "credsStore": ""}));
        let user = client(folder.path());
        user.publish(&reference, &module).await.unwrap();
        assert_eq!(user.pull(&reference).await.unwrap().1.bytes(), &module);
    }
    for (contents, named) in [
        (json!({}), "there are none"),
        (
            json!({"auths": {"ghcr.io": {"auth": PAIR}}}),
            "there are none",
        ),
        (
            json!({"auths": {host.clone(): {"username": USER, "password": "other"}}}),
            "are refused",
        ),
        (json!({"auths": {host.clone(): {"auth": "%%%"}}}), "base64"),
        (
            json!({"auths": {host.clone(): {"auth": PAIR, "username": "x", "password": PASSWORD}}}),
            "differs",
        ),
        (json!({"auths": 5}), "malformed"),
        (json!({"credHelpers": 5}), "helpers"),
        (
            json!({"credHelpers": {host.clone(): "../../bin/sh"}}),
            "cannot be the name",
        ),
        (
            json!({"credHelpers": {host.clone(): "tidegate-none-such"}}),
            "cannot run docker-credential-tidegate",
        ),
    ] {
        let folder = config(&contents);
        for error in [
            client(folder.path()).pull(&reference).await.unwrap_err(),
            client(folder.path())
                .publish(&reference, &module)
                .await
                .unwrap_err(),
        ] {
            assert!(!error.is_temporary());
            says(&error, &[named], &[&PASSWORD, &PAIR, &"%%%"]);
        }
    }
    let nowhere = client(Path::new("/nonexistent"));
    says(
        &nowhere.pull(&reference).await.unwrap_err(),
        &["there are none"],
        &[],
    );
    let broken = tempfile::tempdir().unwrap();
    std::fs::write(broken.path().join("config.json"), format!("{{{PASSWORD}")).unwrap();
    let error = client(broken.path()).pull(&reference).await.unwrap_err();
    says(&error, &["not JSON"], &[&PASSWORD]);
}

#[tokio::test]
async fn a_credential_helper_is_asked_with_a_time_limit() {
    let name = "credentials::a_credential_helper_is_asked_with_a_time_limit";
    let Some(folder) = inside::folder() else {
        let folder = tempfile::tempdir().unwrap();
        let answers = format!(
            r#"read host; echo "$host" >> "{}/asked"; echo '{{"Username":"{USER}","Secret":"{PASSWORD}"}}'"#,
            folder.path().display()
        );
        for (helper, script) in [
            ("good", answers.as_str()),
            (
                "none",
                "echo 'credentials not found in native keychain'; exit 1",
            ),
            ("fails", "echo secret word; echo secret word >&2; exit 1"),
            ("talks", "echo secret word"),
            ("hangs", "sleep 600"),
        ] {
            let path = folder.path().join(format!("docker-credential-{helper}"));
            std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        }
        let prelude = "PATH=\"$TIDEGATE_TEST_FOLDER:$PATH\"; export PATH";
        return inside::run(name, folder.path(), prelude);
    };
    let registry = DockerRegistry::start_with(Auth::Password, Transport::Plain);
    let host = registry.address().to_string();
    let reference = format!("{host}/face:1");
    let module = wasm("face", 1000);
    for contents in [
        json!({"credHelpers": {host.clone(): "good"}, "credsStore": "fails"}),
        json!({"credsStore": "good", "credHelpers": {"ghcr.io": "fails"}}),
        json!({"credsStore": "good", "auths": {"ghcr.io": {}}}),
    ] {
        let config = config(&contents);
        let user = client(config.path());
        user.publish(&reference, &module).await.unwrap();
        assert_eq!(user.pull(&reference).await.unwrap().1.bytes(), &module);
    }
    let asked = std::fs::read_to_string(folder.join("asked")).unwrap();
    assert!(asked.lines().all(|line| line == host), "{asked}");
    let began = std::time::Instant::now();
    for (helper, named) in [
        ("none", "there are none"),
        ("fails", "docker-credential-fails failed"),
        ("talks", "something else than a name and a secret"),
        ("hangs", "docker-credential-hangs has not answered within"),
    ] {
        let config = config(&json!({"credsStore": helper}));
        let error = client(config.path()).pull(&reference).await.unwrap_err();
        says(&error, &[named], &[&PASSWORD]);
    }
    assert!(
        began.elapsed() < HELPER_TIME_MAX * 2,
        "{:?}",
        began.elapsed()
    );
}

/// A registry that wants a token from a server at `realm`, and the credentials of `PAIR` there.
fn wants_token(asked: &Asked, realm: &str, module: &[u8]) -> crate::server::Does {
    if asked.header("authorization") == Some("Bearer good-token") {
        return decent(asked, &manifest(module, |_| {}), module).sends();
    }
    let challenge =
        format!(r#"Bearer realm="{realm}",service="of \"tests\"",scope="repository:m:pull""#);
    answer(401, "")
        .header("WWW-Authenticate", challenge)
        .sends()
}

#[tokio::test]
async fn a_token_is_fetched_once_and_used_again() {
    let module = wasm("m", 1000);
    let tokens = Server::start(|asked, _| {
        let is_known = asked.header("authorization") == Some(&format!("Basic {PAIR}"));
        let is_meant = asked.path.contains("scope=repository%3Am%3Apull")
            && asked.path.contains("service=of+%22tests%22");
        if is_known && is_meant {
            return answer(200, r#"{"token":"good-token","expires_in":300}"#).sends();
        }
        let is_exchange = asked.method == "POST"
            && String::from_utf8_lossy(&asked.body).contains("refresh_token=long-lived");
        if is_exchange {
            return answer(200, r#"{"access_token":"good-token"}"#).sends();
        }
        answer(401, "").sends()
    })
    .await;
    let (realm, own) = (format!("http://{}/token", tokens.address), module.clone());
    let server = Server::start(move |asked, _| wants_token(asked, &realm, &own)).await;
    let host = server.address.to_string();
    let reference = format!("{host}/m:1");
    for auth in [
        json!({"auth": PAIR}),
        json!({"identitytoken": "long-lived"}),
    ] {
        let folder = config(&json!({"auths": {host.clone(): auth}}));
        let user = client(folder.path());
        let before = tokens.asked().len();
        assert_eq!(user.pull(&reference).await.unwrap().1.bytes(), &module);
        user.pull(&reference).await.unwrap();
        assert_eq!(tokens.asked().len(), before + 1);
    }
    let stranger = Client::new().pull(&reference).await.unwrap_err();
    says(
        &stranger,
        &["wants other credentials", "there are none"],
        &[&"good-token"],
    );
}

#[tokio::test]
async fn refusals_without_end_end() {
    for challenge in [
        r#"Basic realm="x""#.to_owned(),
        "Negotiate".to_owned(),
        r#"Bearer realm="http://192.0.2.1/token""#.to_owned(),
        r#"Bearer realm="not an address""#.to_owned(),
        String::new(),
    ] {
        let server = Server::start(move |_, _| {
            answer(401, "")
                .header("WWW-Authenticate", &challenge)
                .sends()
        })
        .await;
        let host = server.address.to_string();
        let folder = config(&json!({"auths": {host.clone(): {"auth": PAIR}}}));
        let error = client(folder.path())
            .pull(&format!("{host}/m:1"))
            .await
            .unwrap_err();
        assert!(!error.is_temporary(), "{error:?}");
        says(&error, &[], &[&PASSWORD, &PAIR]);
        assert!(server.asked().len() <= 2, "{}", server.asked().len());
    }
    // A token server whose tokens are never good, or are none.
    for body in [r#"{"token":"bad"}"#, "{}", "<html>", r#"{"token":"a\nb"}"#] {
        let tokens = Server::start(move |_, _| answer(200, body).sends()).await;
        let realm = format!("http://{}/token", tokens.address);
        let server = Server::start(move |asked, _| wants_token(asked, &realm, b"")).await;
        let error = Client::new()
            .pull(&format!("{}/m:1", server.address))
            .await
            .unwrap_err();
        assert!(!error.is_temporary(), "{error:?}");
        assert!(tokens.asked().len() <= 1);
        assert!(server.asked().len() <= 2);
    }
}

#[tokio::test]
async fn credentials_never_go_to_another_host() {
    let module = wasm("m", 1000);
    let there = module.clone();
    let elsewhere = Server::start(move |_, _| answer(200, there.clone()).sends()).await;
    let (address, own) = (elsewhere.address, module.clone());
    // Basic, and each blob comes from another port of the same machine, which is another host.
    let server = Server::start(move |asked, _| {
        if asked.header("authorization") != Some(&format!("Basic {PAIR}")) {
            return answer(401, "")
                .header("WWW-Authenticate", "Basic realm=\"x\"")
                .sends();
        }
        if asked.path.contains("/blobs/") {
            return answer(302, "")
                .header("Location", format!("http://{address}/x"))
                .sends();
        }
        decent(asked, &manifest(&own, |_| {}), &own).sends()
    })
    .await;
    let host = server.address.to_string();
    let folder = config(&json!({"auths": {host.clone(): {"auth": PAIR}}}));
    let pulled = client(folder.path())
        .pull(&format!("{host}/m:1"))
        .await
        .unwrap();
    assert_eq!(pulled.1.bytes(), &module);
    assert!(!elsewhere.asked().is_empty());
    for asked in elsewhere.asked() {
        assert_eq!(asked.header("authorization"), None, "{asked:?}");
    }
    // A host that is redirected to and asks for credentials gets none.
    let thief = Server::start(|_, _| {
        answer(401, "")
            .header("WWW-Authenticate", "Basic realm=\"x\"")
            .sends()
    })
    .await;
    let address = thief.address;
    let server = Server::start(move |_, _| {
        answer(302, "")
            .header("Location", format!("http://{address}/x"))
            .sends()
    })
    .await;
    let host = server.address.to_string();
    let folder = config(
        &json!({"auths": {host.clone(): {"auth": PAIR}, address.to_string(): {"auth": PAIR}}}),
    );
    let error = client(folder.path())
        .pull(&format!("{host}/m@{}", sha256(b"x")))
        .await
        .unwrap_err();
    assert!(
        matches!(error, TransferError::Unauthorized { .. }),
        "{error:?}"
    );
    for asked in thief.asked() {
        assert_eq!(asked.header("authorization"), None, "{asked:?}");
    }
}
