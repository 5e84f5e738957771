#![no_main]
//! A file of kept digests is whole or refused. Its digest is set right first, since nothing else would come past it.

use bagssl_data::Dataset;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = Dataset::are_digests(bytes);
    if bytes.len() >= 16 {
        let mut bytes = bytes.to_vec();
        let digest = twox_hash::XxHash3_64::oneshot(&bytes[16..]);
        bytes[8..16].copy_from_slice(&digest.to_le_bytes());
        let _ = Dataset::are_digests(&bytes);
    }
});
