#![no_main]
//! The tensors of a file that is read can be had, and are no larger than the file by much.

use bagssl_core::import::Foreign;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(foreign) = Foreign::from_bytes(bytes) {
        let tensors = foreign.names().map(|name| foreign.get(name).unwrap());
        let values: usize = tensors.map(|tensor| tensor.values().map_or(0, |values| values.len())).sum();
        assert!(values <= 2 * bytes.len());
    }
});
