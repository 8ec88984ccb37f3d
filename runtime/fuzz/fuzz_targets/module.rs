//! Reads arbitrary bytes as a module file. Run with `cargo +nightly fuzz run module`.
//!
//! Nothing may panic or take more memory than the limits allow, and what a module says of itself is the
//! same when it is assembled anew.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use tidegate_runtime::ModuleFile;
use tidegate_runtime::samples;

const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";

fuzz_target!(|bytes: &[u8]| {
    // The samples alone, so that the fuzzer need not find a module around them first.
    if let Ok(read) = samples::decode(&Bytes::copy_from_slice(bytes)) {
        let again = samples::encode(&read).expect("it was within the limits");
        assert_eq!(samples::decode(&again.into()), Ok(read));
    }
    let file = [COMPONENT, bytes].concat();
    if let Ok(module) = ModuleFile::parse(file.into()) {
        let graphs: Vec<(&str, &[u8])> = module
            .graphs()
            .iter()
            .map(|graph| (&*graph.name, &graph.onnx[..]))
            .collect();
        let manifest = module.manifest().clone();
        let again =
            ModuleFile::assemble_with_samples(COMPONENT, manifest, &graphs, module.samples());
        let again = again.expect("the same parts make a module");
        assert_eq!(again.manifest(), module.manifest());
        assert_eq!(again.samples(), module.samples());
    }
});
