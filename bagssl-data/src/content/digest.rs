//! XXH3-64 digests of bytes, readers and files.

use std::fs::File;
use std::hash::Hasher as _;
use std::io::{self, Read};
use std::path::Path;

use twox_hash::XxHash3_64;
use twox_hash::xxhash3_64::Hasher;

use crate::file::open_file;

/// Returns the digest of a file, which must have `length` bytes.
pub(super) fn digest_file(path: &Path, length: u64) -> io::Result<u64> {
    let file: File = open_file(path).map_err(io::Error::other)?;
    digest_reader(file, length)
}

/// Returns the digest of all bytes of a reader, which must be `length` bytes.
pub(super) fn digest_reader(reader: impl Read, length: u64) -> io::Result<u64> {
    /// The size of the read buffer in bytes.
    const PART: u64 = 1 << 18;
    let (mut hash, mut part, mut done) = (Hasher::new(), vec![0; length.clamp(1, PART) as usize], 0);
    let mut reader = reader.take(length + 1);
    loop {
        match reader.read(&mut part) {
            Ok(0) if done == length => return Ok(hash.finish()),
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => {
                hash.write(&part[..count]);
                done += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

pub(super) fn digest_bytes(bytes: &[u8]) -> u64 {
    XxHash3_64::oneshot(bytes)
}
