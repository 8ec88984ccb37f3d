//! Wrong arguments end with 64 and say what is wrong.

use crate::tidegate;

#[test]
fn help_and_version_succeed() {
    for arguments in [
        &["--help"][..],
        &["--version"],
        &["pack", "--help"],
        &["scale", "--help"],
    ] {
        assert!(!tidegate(arguments).ok().is_empty());
    }
}

#[test]
fn arguments_that_make_no_sense_are_usage_errors() {
    for (arguments, named) in [
        (&[][..], "Usage"),
        (&["paint"], "paint"),
        (&["pack", "a.onnx"], "--out"),
        (&["infer", "m", "--url", "ftp://a"], "http://HOST:PORT"),
        (&["infer", "m", "--input", "x"], "NAME=@FILE"),
        (&["infer", "m", "--input", "x=[1"], "JSON"),
        (&["scale", "--relays-file", "f"], "--agents"),
        (
            &["scale", "--agents", "localhost", "--relays-file", "f"],
            "http://HOST:PORT",
        ),
        (&["agent"], "--config"),
        (&["relay", "--config", "a", "b"], "'b'"),
    ] {
        tidegate(arguments).fails(64, &[named]);
    }
}

#[test]
fn a_configuration_that_is_not_there_is_a_usage_error() {
    for daemon in ["agent", "relay"] {
        tidegate(&[daemon, "--config", "/nowhere/tidegate.toml"])
            .fails(64, &["/nowhere/tidegate.toml"]);
    }
}
