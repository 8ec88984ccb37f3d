//! Reads arbitrary bytes as a signed file, and as signatures beside one. Run with
//! `cargo +nightly fuzz run signature`.
//!
//! Nothing may panic. Nothing verifies under a key that never signed. Whatever can be signed verifies
//! afterwards, to its last byte, with the signatures that were there before.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate_registry::signature::{Layout, SecretKey, sign, sign_detached, verify};

fuzz_target!(|bytes: &[u8]| {
    // The header is written here, so that the fuzzer need not find it.
    let file = [b"\0asm\x0d\0\x01\0", bytes].concat();
    let stranger = SecretKey::from_seed([1; 32]).public();
    for detached in [None, Some(bytes)] {
        if let Ok(report) = verify(&file, detached, &[stranger]) {
            assert!(report.require(1).is_err());
        }
    }
    let key = SecretKey::from_seed([2; 32]);
    let before = verify(&file, None, &[]).map(|report| report.statements.len());
    if let Ok(signed) = sign(&file, &key) {
        let report =
            verify(&signed.file, None, &[key.public()]).expect("what is signed can be read");
        assert_eq!(report.require(1), Ok(vec![key.public()]));
        assert_eq!(report.statements.len(), before.expect("it was signed") + 1);
        let layout = Layout::of(&signed.file).expect("what is signed can be read");
        assert_eq!(
            layout.parts().last().map(|part| part.range.end),
            Some(signed.file.len())
        );
    }
    // The same bytes as signatures beside a small file.
    if let Ok(signatures) = sign_detached(&file[..8], Some(bytes), &key) {
        let report = verify(&file[..8], Some(&signatures), &[key.public()]);
        assert!(
            report
                .expect("what is signed can be read")
                .require(1)
                .is_ok()
        );
    }
});
