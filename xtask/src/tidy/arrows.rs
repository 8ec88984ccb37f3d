//! Rules on dependencies: downwards only, and each crate in its own field.
//!
//! Dependencies of tests and benchmarks are free: they look at a crate from outside.

use anyhow::Result;
use cargo_metadata::{DependencyKind, Package};

use crate::workspace::Workspace;

const LIBRARIES: &[&str] = &[
    "control",
    "daemon",
    "graph",
    "identity",
    "inference",
    "open-inference",
    "registry",
    "runtime",
    "store",
    "wire",
];

/// The crates of this workspace that each may use. Names without the prefix `tidegate-`.
const ARROWS: &[(&str, &[&str])] = &[
    ("inference", &[]),
    ("control", &["inference"]),
    ("daemon", &["inference"]),
    ("identity", &[]),
    ("open-inference", &["inference"]),
    ("graph", &["inference"]),
    ("registry", &["inference", "store"]),
    ("runtime", &["graph", "inference", "store"]),
    ("store", &[]),
    ("wire", &["inference"]),
    ("edge-agent", LIBRARIES),
    ("cloud-relay", LIBRARIES),
    (
        "tidegate",
        &[
            "control",
            "daemon",
            "graph",
            "identity",
            "inference",
            "registry",
            "runtime",
            "store",
            "wire",
            "edge-agent",
            "cloud-relay",
        ],
    ),
    (
        "tests",
        &[
            "control",
            "identity",
            "inference",
            "runtime",
            "wire",
            "edge-agent",
            "cloud-relay",
            "tidegate",
        ],
    ),
    ("xtask", &[]),
];

/// Crates from outside, and the only ones of this workspace that may use them.
const OWNERS: &[(&str, &[&str])] = &[
    ("axum", &["open-inference", "edge-agent"]),
    ("docker_credential", &["registry"]),
    ("minicbor", &["wire"]),
    ("oci-client", &["registry"]),
    ("prometheus-client", &["edge-agent", "cloud-relay"]),
    ("quinn", &["edge-agent", "cloud-relay", "tests"]),
    ("rcgen", &["identity"]),
    ("reqwest", &["registry"]),
    ("rustls", &["identity", "registry", "tests"]),
    (
        "tokio",
        &[
            "registry",
            "runtime",
            "open-inference",
            "daemon",
            "edge-agent",
            "cloud-relay",
            "tidegate",
            "tests",
        ],
    ),
    ("tract-onnx", &["graph"]),
    ("wasmtime", &["runtime"]),
    ("wasmtime-wasi", &["runtime"]),
    ("wasmtime-wizer", &["runtime"]),
    ("x509-parser", &["identity"]),
];

/// All that the brain may know: no IO, no clock, no engine.
const OF_CONTROL: &[&str] = &["serde", "tidegate-inference"];

/// Crates of this workspace use each other only as listed.
pub(super) fn internal(workspace: &Workspace) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let members = workspace.metadata.workspace_packages();
    for package in &members {
        let name = short(&package.name);
        let Some((_, allowed)) = ARROWS.iter().find(|(listed, _)| *listed == name) else {
            found.push(format!("{name} has no line in the table of arrows"));
            continue;
        };
        let inside = uses(package)
            .filter(|used| members.iter().any(|member| member.name.as_str() == *used))
            .map(short);
        let upward = inside.filter(|used| !allowed.contains(used));
        found.extend(upward.map(|used| format!("{name} may not use {used}")));
    }
    Ok(found)
}

/// Crates from outside are used only where their field belongs.
pub(super) fn external(workspace: &Workspace) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for package in workspace.metadata.workspace_packages() {
        let name = short(&package.name);
        for used in uses(package) {
            let owners = OWNERS.iter().find(|(listed, _)| *listed == used);
            if owners.is_some_and(|(_, owners)| !owners.contains(&name)) {
                found.push(format!("{name} may not use {used}"));
            }
            if name == "control" && !OF_CONTROL.contains(&used) {
                found.push(format!(
                    "{name} may use nothing but {OF_CONTROL:?}, it uses {used}"
                ));
            }
        }
    }
    Ok(found)
}

fn uses(package: &Package) -> impl Iterator<Item = &str> {
    let of_tests = DependencyKind::Development;
    let used = package
        .dependencies
        .iter()
        .filter(move |used| used.kind != of_tests);
    used.map(|used| used.name.as_str())
}

fn short(name: &str) -> &str {
    name.strip_prefix("tidegate-").unwrap_or(name)
}
