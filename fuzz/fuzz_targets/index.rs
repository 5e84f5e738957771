#![no_main]
//! The index of an archive is whole or refused. Its checksum is set right first, since nothing else would come past it.

use bagssl_data::Dataset;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = Dataset::is_index(bytes, 5000);
    if bytes.len() >= 64 {
        let mut bytes = bytes.to_vec();
        let checksum = crc(&bytes[16..]);
        bytes[8..16].copy_from_slice(&u64::from(checksum).to_le_bytes());
        let _ = Dataset::is_index(&bytes, 5000);
    }
});

fn crc(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 })
    })
}
