//! XXH3-64 digests of bytes, readers and files.

use std::fs::File;
use std::hash::Hasher as _;
use std::io::{self, Read};
use std::ops::Range;
use std::path::Path;

use twox_hash::XxHash3_64;
use twox_hash::xxhash3_64::Hasher;

use crate::file::{open_file, read_at};
use crate::formats::archive::Section;

/// The size of the read buffer in bytes.
const PART: u64 = 1 << 18;

/// Returns the digest of a file, which must have `length` bytes.
pub(super) fn digest_file(path: &Path, length: u64) -> io::Result<u64> {
    let file: File = open_file(path).map_err(io::Error::other)?;
    digest_reader(file, length)
}

/// Returns the digest of all bytes of a reader, which must be `length` bytes.
pub(super) fn digest_reader(reader: impl Read, length: u64) -> io::Result<u64> {
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

/// Returns the digest of a file of `length` bytes, followed by those of some of its parts, each an
/// offset and a length. Reads the file once if the parts are in ascending order and do not overlap.
pub(super) fn digest_parts(file: &File, length: u64, parts: &[(u64, u64)]) -> io::Result<Vec<u64>> {
    let (mut whole, mut at, mut digests) = (Hasher::new(), 0, vec![0]);
    for &(offset, count) in parts {
        if offset < at {
            digests.push(digest_reader(Section::new(file, offset, count), count)?);
            continue;
        }
        each_read(file, at..offset, |bytes| whole.write(bytes))?;
        let mut part = Hasher::new();
        at = offset + count;
        each_read(file, offset..at, |bytes| {
            whole.write(bytes);
            part.write(bytes);
        })?;
        digests.push(part.finish());
    }
    each_read(file, at..length, |bytes| whole.write(bytes))?;
    digests[0] = whole.finish();
    Ok(digests)
}

/// Reads a range of a file, part by part.
fn each_read(file: &File, range: Range<u64>, mut hear: impl FnMut(&[u8])) -> io::Result<()> {
    let mut bytes = vec![0; (range.end - range.start).min(PART) as usize];
    let mut at = range.start;
    while at < range.end {
        let count = (range.end - at).min(PART) as usize;
        read_at(file, &mut bytes[..count], at)?;
        hear(&bytes[..count]);
        at += count as u64;
    }
    Ok(())
}

pub(crate) fn digest_bytes(bytes: &[u8]) -> u64 {
    XxHash3_64::oneshot(bytes)
}
