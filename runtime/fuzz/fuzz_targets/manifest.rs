//! Reads arbitrary bytes as a manifest. Run with `cargo +nightly fuzz run manifest`.
//!
//! Nothing may panic, and what is read is the same when it is written as JSON and read again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate_runtime::Manifest;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(manifest) = Manifest::parse(bytes) {
        let json = serde_json::to_vec(&manifest).expect("a manifest becomes JSON");
        assert_eq!(
            Manifest::parse(&json).expect("it was read before"),
            manifest
        );
    }
});
