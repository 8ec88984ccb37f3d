//! `publish` and `pull` against a real registry.

use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};

use tempfile::TempDir;
use tidegate_tests::docker_registry::{Auth, DockerRegistry, PASSWORD, Transport, USER};

use crate::onnx::doubler;
use crate::{PROGRAM, Ran, tidegate};

/// Runs the program as the user whose home is `home`.
fn at_home(home: &Path, arguments: &[&str]) -> Ran {
    let mut command = Command::new(PROGRAM);
    command.args(arguments).current_dir(home);
    command.env("DOCKER_CONFIG", home.join("docker"));
    command.env("XDG_STATE_HOME", home.join("state"));
    command.env_remove("STATE_DIRECTORY");
    Ran::of(command)
}

/// A home with a module in it.
fn home() -> TempDir {
    let home = tempfile::tempdir().unwrap();
    let path = |name: &str| home.path().join(name).to_str().unwrap().to_owned();
    std::fs::write(path("m.onnx"), doubler()).unwrap();
    tidegate(&[
        "pack",
        &path("m.onnx"),
        "-o",
        &path("m.wasm"),
        "--name",
        "face",
        "--licence",
        "MIT",
    ])
    .ok();
    home
}

#[test]
fn a_packed_module_is_published_and_pulled_back_byte_for_byte() {
    let registry = DockerRegistry::start();
    let (author, user) = (home(), home());
    let reference = format!("{}/a/face:1", registry.address());
    let pin = at_home(author.path(), &["publish", "m.wasm", &reference]).ok();
    let pin = pin.trim_end();
    let name = reference.trim_end_matches(":1");
    assert!(pin.starts_with(&format!("{name}@sha256:")), "{pin}");
    let module = std::fs::read(author.path().join("m.wasm")).unwrap();
    for wanted in [&reference, pin, &format!("oci://{pin}")] {
        let printed = at_home(user.path(), &["pull", wanted, "-o", "pulled.wasm"]).ok();
        assert_eq!(printed.trim_end(), pin);
        assert_eq!(
            std::fs::read(user.path().join("pulled.wasm")).unwrap(),
            module
        );
        std::fs::remove_file(user.path().join("pulled.wasm")).unwrap();
    }
    let kept = user.path().join("state/tidegate/modules/sha256");
    let files: Vec<_> = std::fs::read_dir(&kept)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert!(
        files
            .iter()
            .any(|path| std::fs::read(path).unwrap() == module)
    );
    // Pinned and in the store: the registry is not needed.
    drop(registry);
    at_home(user.path(), &["pull", pin, "-o", "pulled.wasm"]).ok();
    at_home(user.path(), &["pull", &reference])
        .fails(1, &["cannot pull", "cannot reach 127.0.0.1"]);
}

#[test]
fn the_manifest_says_what_the_module_and_the_author_say() {
    let registry = DockerRegistry::start();
    let author = home();
    let reference = format!("{}/face:1", registry.address());
    let publish = [
        "publish",
        "m.wasm",
        &reference,
        "--annotation",
        "org.example.a=b=c",
    ];
    at_home(author.path(), &publish).ok();
    let url = format!("http://{}/v2/face/manifests/1", registry.address());
    let accept = "Accept: application/vnd.oci.image.manifest.v1+json";
    let curl = Command::new("curl")
        .args(["-s", "-H", accept, &url])
        .output()
        .unwrap();
    let manifest: serde_json::Value = serde_json::from_slice(&curl.stdout).unwrap();
    let expected = serde_json::json!({
        "org.example.a": "b=c",
        "org.opencontainers.image.licenses": "MIT",
        "org.opencontainers.image.title": "face",
        "org.opencontainers.image.version": "1.0.0",
    });
    assert_eq!(manifest["annotations"], expected);
}

#[test]
fn the_credentials_of_docker_are_used_and_never_shown() {
    let registry = DockerRegistry::start_with(Auth::Password, Transport::Plain);
    let author = home();
    let reference = format!("{}/face:1", registry.address());
    let publish = || at_home(author.path(), &["publish", "m.wasm", &reference]);
    publish().fails(1, &["wants other credentials", "there are none"]);
    let config = |password: &str| {
        std::fs::create_dir_all(author.path().join("docker")).unwrap();
        let auths = serde_json::json!({"auths": {
            registry.address().to_string(): {"username": USER, "password": password},
        }});
        std::fs::write(author.path().join("docker/config.json"), auths.to_string()).unwrap();
    };
    config("wrong word");
    let refused = publish();
    assert!(!refused.err.contains("wrong word"), "{}", refused.err);
    refused.fails(1, &["are refused"]);
    config(PASSWORD);
    let published = publish();
    assert!(!published.err.contains(PASSWORD), "{}", published.err);
    published.ok();
}

#[test]
fn what_cannot_be_is_a_clear_error() {
    let home = home();
    std::fs::write(home.path().join("text"), "no module").unwrap();
    let run = |arguments: &[&str]| at_home(home.path(), arguments);
    run(&["publish", "m.wasm", "face:1"]).fails(64, &["face:1", "no registry"]);
    run(&["publish", "m.wasm", "localhost:1/face"]).fails(64, &["neither a tag nor a digest"]);
    run(&[
        "publish",
        "m.wasm",
        "localhost:1/face:1",
        "--annotation",
        "x",
    ])
    .fails(64, &["KEY=VALUE"]);
    run(&["publish", "text", "localhost:1/face:1"]).fails(1, &["no WebAssembly file"]);
    run(&["publish", "none", "localhost:1/face:1"]).fails(1, &["cannot read none"]);
    let dead = run(&["publish", "m.wasm", "localhost:1/face:1"]);
    let waits = dead.err.matches("trying again in").count();
    assert_eq!(waits, 4, "each is said: {}", dead.err);
    dead.fails(1, &["cannot reach localhost:1", "in 500ms"]);
    run(&["pull", "https://localhost/face:1"]).fails(64, &["not of the form"]);
    run(&["pull", "localhost:1/face:1", "--ca", "text"]).fails(1, &["certificates"]);
}

/// Waits for a connection, and gives the first line that comes through it.
fn first_line(proxy: &TcpListener) -> String {
    let (connection, _) = proxy.accept().unwrap();
    let mut line = String::new();
    BufReader::new(connection).read_line(&mut line).unwrap();
    line
}

#[test]
fn a_proxy_is_for_registries_elsewhere_alone() {
    let registry = DockerRegistry::start();
    let home = home();
    let proxy = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", proxy.local_addr().unwrap());
    let through = |arguments: &[&str]| {
        let mut command = Command::new(PROGRAM);
        command.args(arguments).current_dir(home.path());
        command.env("XDG_STATE_HOME", home.path().join("state"));
        command.env_remove("STATE_DIRECTORY");
        for name in ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY"] {
            command.env(name, &address);
        }
        command.env("NO_PROXY", "direct.invalid");
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        command
    };
    for host in [
        registry.address().to_string(),
        format!("localhost:{}", registry.address().port()),
    ] {
        let reference = format!("{host}/face:1");
        Ran::of(through(&["publish", "m.wasm", &reference])).ok();
    }
    // Nobody is spoken to but the proxy, which alone looks up the name.
    let arguments = ["pull", "registry.invalid/face:1"];
    let mut elsewhere = through(&arguments).spawn().unwrap();
    assert_eq!(
        first_line(&proxy),
        "CONNECT registry.invalid:443 HTTP/1.1\r\n",
        "it is the first that asks the proxy"
    );
    elsewhere.kill().unwrap();
    elsewhere.wait().unwrap();
    // Where no proxy is wanted, none is asked.
    let ran = Ran::of(through(&["pull", "direct.invalid/face:1"]));
    ran.fails(1, &["cannot reach direct.invalid"]);
    proxy.set_nonblocking(true).unwrap();
    assert!(proxy.accept().is_err(), "the proxy was asked");
}

#[test]
fn a_registry_with_its_own_certificate_is_trusted_by_its_authority_alone() {
    let home = home();
    at_home(home.path(), &["dev-certs", "--out", "certs"]).ok();
    let at = |name: &str| home.path().join("certs").join(name);
    let (certificate, key) = (at("relay.pem"), at("relay.key"));
    let registry = DockerRegistry::start_with(Auth::Nobody, Transport::Tls(&certificate, &key));
    let reference = format!("localhost:{}/face:1", registry.address().port());
    let publish = ["publish", "m.wasm", &reference, "--ca", "certs/ca.pem"];
    at_home(home.path(), &publish).ok();
    let pull = ["pull", &reference, "--ca", "certs/ca.pem"];
    at_home(home.path(), &pull).ok();
    at_home(home.path(), &["dev-certs", "--out", "others"]).ok();
    let pull = ["pull", &reference, "--ca", "others/ca.pem"];
    at_home(home.path(), &pull).fails(1, &["cannot reach"]);
}

#[test]
fn a_key_takes_what_it_signed_and_nothing_else() {
    let registry = DockerRegistry::start();
    let (author, user) = (home(), home());
    for name in ["author", "stranger"] {
        at_home(author.path(), &["keygen", "--out", name]).ok();
        let public = format!("{name}.pub");
        std::fs::copy(author.path().join(&public), user.path().join(&public)).unwrap();
    }
    let reference = |tag: &str| format!("{}/face:{tag}", registry.address());
    at_home(
        author.path(),
        &["publish", "m.wasm", &reference("unsigned")],
    )
    .ok();
    at_home(author.path(), &["sign", "m.wasm", "--key", "author.key"]).ok();
    at_home(author.path(), &["publish", "m.wasm", &reference("signed")]).ok();
    let pull = |tag: &str, key: &str| {
        let reference = reference(tag);
        at_home(
            user.path(),
            &["pull", &reference, "-o", "out.wasm", "--key", key],
        )
    };
    pull("unsigned", "author.pub").fails(1, &["unsigned is not verified"]);
    pull("signed", "stranger.pub").fails(1, &["signed is not verified"]);
    pull("signed", "none.pub").fails(1, &["none.pub"]);
    assert!(!user.path().join("out.wasm").exists());
    pull("signed", "author.pub").ok();
    let module = std::fs::read(author.path().join("m.wasm")).unwrap();
    assert_eq!(std::fs::read(user.path().join("out.wasm")).unwrap(), module);
}
