//! Reads arbitrary bytes as keys and name patterns. Run with `cargo +nightly fuzz run key`.
//!
//! Nothing may panic, and what is read is the same when it is written and read again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate_registry::signature::{PublicKey, SecretKey};
use tidegate_registry::trust::NamePattern;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(key) = PublicKey::read(bytes) {
        assert_eq!(key.to_string().parse(), Ok(key));
    }
    if let Ok(key) = SecretKey::read(bytes) {
        let again = SecretKey::read(key.to_pem().as_bytes()).expect("it was written");
        assert_eq!(again.public(), key.public());
    }
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Some((pattern, name)) = text.split_once(' ')
        && let Ok(pattern) = pattern.parse::<NamePattern>()
    {
        let _ = pattern.matches(name);
    }
});
