#![no_main]
//! A checkpoint that is accepted holds all tensors of its plan. The digest is left out: hardly any change would pass it.

use bagssl_core::checkpoint::Checkpoint;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(checkpoint) = Checkpoint::from_bytes(bytes) {
        for parameter in checkpoint.spec().model.parameters() {
            assert_eq!(checkpoint.values(&parameter.name).unwrap().len(), parameter.len());
        }
        let _ = checkpoint.verify();
    }
});
