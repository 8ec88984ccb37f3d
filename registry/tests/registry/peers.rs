//! Other clients of registries: they pull what we publish, and we pull what they publish.

use std::process::Command;

use oci_client::client::{Client as Peer, ClientConfig, ClientProtocol, Config, ImageLayer};
use oci_client::manifest::OciImageIndex;
use oci_client::secrets::RegistryAuth;
use serde_json::{Value, json};
use tidegate_tests::docker_registry::DockerRegistry;

use crate::{Client, sha256, wasm};

fn peer() -> Peer {
    // It takes the process's cryptography, which ours installs.
    let _ = Client::new();
    Peer::new(ClientConfig {
        protocol: ClientProtocol::Http,
        ..ClientConfig::default()
    })
}

fn curl(arguments: &[&str]) -> Vec<u8> {
    let output = Command::new("curl")
        .args(["--silent", "--show-error", "--fail", "--location"])
        .args(arguments)
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {error}");
    output.stdout
}

#[tokio::test]
async fn curl_and_the_layouts_specification_are_enough_to_pull() {
    let registry = DockerRegistry::start();
    let base = format!("http://{}/v2/face", registry.address());
    let module = wasm("face", 1000);
    let reference = format!("{}/face:1", registry.address());
    let version = Client::new().publish(&reference, &module).await.unwrap();
    let accept = "Accept: application/vnd.oci.image.manifest.v1+json";
    let manifest = curl(&["-H", accept, &format!("{base}/manifests/1")]);
    assert_eq!(Some(sha256(&manifest)), version.manifest);
    let manifest: Value = serde_json::from_slice(&manifest).unwrap();
    assert_eq!(
        manifest["config"]["mediaType"],
        "application/vnd.wasm.config.v0+json"
    );
    assert_eq!(manifest["layers"].as_array().unwrap().len(), 1);
    assert_eq!(manifest["layers"][0]["mediaType"], "application/wasm");
    assert_eq!(manifest["annotations"]["org.example.key"], "value");
    let blob = |descriptor: &Value| {
        let digest = descriptor["digest"].as_str().unwrap();
        let blob = curl(&[&format!("{base}/blobs/{digest}")]);
        assert_eq!(sha256(&blob).to_string(), digest);
        assert_eq!(json!(blob.len()), descriptor["size"]);
        blob
    };
    assert_eq!(blob(&manifest["layers"][0]), module);
    let config: Value = serde_json::from_slice(&blob(&manifest["config"])).unwrap();
    assert_eq!(config["architecture"], "wasm");
    assert_eq!(config["os"], "wasip1");
    assert_eq!(config["layerDigests"], json!([version.module.to_string()]));
    assert_eq!(config["created"], "1970-01-01T00:00:00Z");
}

#[tokio::test]
async fn the_client_of_other_runtimes_pulls_what_we_publish() {
    let registry = DockerRegistry::start();
    let module = wasm("face", 1000);
    let reference = format!("{}/face:1", registry.address());
    let version = Client::new().publish(&reference, &module).await.unwrap();
    let peer = peer();
    let reference = reference.parse().unwrap();
    let pulled = peer.pull(
        &reference,
        &RegistryAuth::Anonymous,
        vec!["application/wasm"],
    );
    let image = pulled.await.unwrap();
    assert_eq!(
        image.digest,
        version.manifest.map(|digest| digest.to_string())
    );
    assert_eq!(image.layers[0].data, module);
    assert_eq!(
        image.config.media_type,
        "application/vnd.wasm.config.v0+json"
    );
}

#[tokio::test]
async fn we_pull_what_others_publish() {
    let registry = DockerRegistry::start();
    let peer = peer();
    for (index, (layer_type, config, config_type)) in [
        ("application/wasm", "{}", "application/vnd.wasm.config.v0+json"),
        (
            "application/wasm",
            r#"{"created":"2024-01-01T00:00:00Z","author":"x","architecture":"wasm","os":"wasip2"}"#,
            "application/vnd.wasm.config.v0+json",
        ),
        (
            "application/vnd.wasm.content.layer.v1+wasm",
            "{}",
            "application/vnd.wasm.config.v1+json",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let module = wasm(layer_type, 100 + index);
        let reference = format!("{}/theirs:{index}", registry.address());
        let layers = [ImageLayer::new(module.clone(), layer_type.to_owned(), None)];
        let config = Config::new(config.as_bytes().to_vec(), config_type.to_owned(), None);
        let auth = RegistryAuth::Anonymous;
        let theirs = reference.parse().unwrap();
        let pushed = peer.push(&theirs, &layers, config, &auth, None);
        pushed.await.unwrap();
        let (_, kept) = Client::new().pull(&reference).await.unwrap();
        assert_eq!(kept.bytes(), &module);
    }
}

#[tokio::test]
async fn of_an_index_the_webassembly_is_pulled() {
    let registry = DockerRegistry::start();
    let name = format!("{}/many", registry.address());
    let module = wasm("one of many", 100);
    let author = Client::new();
    let version = author
        .publish(&format!("{name}:wasm"), &module)
        .await
        .unwrap();
    let other = author
        .publish(&format!("{name}:other"), &wasm("no", 1))
        .await
        .unwrap();
    let entry = |digest: Option<tidegate_inference::Digest>, architecture: &str, os: &str| {
        json!({
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": digest.unwrap().to_string(),
            "size": 500,
            "platform": {"architecture": architecture, "os": os},
        })
    };
    let index: OciImageIndex = serde_json::from_value(json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [
            entry(other.manifest, "amd64", "linux"),
            entry(version.manifest, "wasm", "wasip2"),
        ],
    }))
    .unwrap();
    let peer = peer();
    let reference = format!("{name}:all");
    let auth = RegistryAuth::Anonymous;
    peer.push_manifest_list(&reference.parse().unwrap(), &auth, index)
        .await
        .unwrap();
    let user = Client::new();
    let (pulled, kept) = user.pull(&reference).await.unwrap();
    assert_eq!(kept.bytes(), &module);
    let theirs = reference.parse().unwrap();
    let raw = peer.pull_manifest_raw(&theirs, &auth, &["application/vnd.oci.image.index.v1+json"]);
    // The pin is the index's digest, as other clients have it.
    assert_eq!(pulled.manifest.unwrap().to_string(), raw.await.unwrap().1);
    drop(registry);
    let pin = format!("{name}@{}", pulled.manifest.unwrap());
    assert_eq!(user.pull(&pin).await.unwrap().1.bytes(), &module);
}
