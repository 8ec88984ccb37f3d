//! Clients of others, as their users run them.

use std::process::Command;

use tidegate_tests::checkout::{client, face_image, face_module, python};
use tidegate_tests::models::Behaviour;
use tidegate_tests::site::Site;

#[test]
fn triton_s_python_client_finds_everything_as_it_expects() {
    let site = Site::new();
    site.pack_doubler();
    site.must_pack_guest("echo", Behaviour::EchoAfter(std::time::Duration::ZERO));
    let face = face_module();
    let modules = format!("['doubler.wasm', 'echo.wasm', '{}']", face.display());
    let agent = site.agent(&format!("modules = {modules}\nslo-ms = 30000\n"));
    let output = Command::new(python())
        .arg(client("triton.py"))
        .arg(agent.daemon.address().to_string())
        .arg(face_image("astronaut.png"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{error}");
    assert!(said.ends_with("all well\n"), "{said}");
}
