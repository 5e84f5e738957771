#![no_main]
//! Any pickle in a good archive is read or refused.

use bagssl_core::import::Foreign;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|pickle: &[u8]| {
    let mut archive = Vec::new();
    let mut directory = Vec::new();
    let storage = [0; 96];
    for (name, content) in [("a/data.pkl", pickle), ("a/data/0", &storage[..])] {
        let (offset, size) = (archive.len() as u32, (content.len() as u32).to_le_bytes());
        let length = (name.len() as u16).to_le_bytes();
        archive.extend(b"PK\x03\x04\x14\0\0\0\0\0\0\0\0\0\0\0\0\0");
        archive.extend([&size[..], &size, &length, &[0, 0], name.as_bytes(), content].concat());
        directory.extend(b"PK\x01\x02\x14\0\x14\0\0\0\0\0\0\0\0\0\0\0\0\0");
        directory.extend([&size[..], &size, &length, &[0; 12], &offset.to_le_bytes(), name.as_bytes()].concat());
    }
    let (length, start) = ((directory.len() as u32).to_le_bytes(), (archive.len() as u32).to_le_bytes());
    archive.extend(directory);
    archive.extend([b"PK\x05\x06\0\0\0\0".as_slice(), &[2, 0, 2, 0], &length, &start, &[0, 0]].concat());
    if let Ok(foreign) = Foreign::from_bytes(&archive) {
        for name in foreign.names() {
            foreign.get(name).unwrap().values();
        }
    }
});
