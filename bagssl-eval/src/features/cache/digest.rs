//! Digests that detect changes of an array since it was written: the XXH3-64 of each block of its
//! bytes after the header, as 16 hexadecimal digits. They detect accidental damage on disks and
//! networks; they are not cryptographic.

use std::fmt;
use std::fs::File;
use std::hash::Hasher as _;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use rayon::prelude::*;
use twox_hash::xxhash3_64::Hasher;

/// The size of a block in bytes.
pub(super) const BLOCK: u64 = 16 << 20;

/// The digests of a growing array.
pub(super) struct Blocks {
    size: u64,
    whole: Vec<String>,
    last: Hasher,
    in_last: u64,
}

impl Blocks {
    /// Creates the digests of an empty array, in blocks of `size` bytes.
    pub(super) fn new(size: u64) -> Self {
        Blocks { size, whole: Vec::new(), last: Hasher::new(), in_last: 0 }
    }

    /// Resumes after the first `length` bytes after `start` of a file. `digests` are the digests of
    /// its blocks.
    pub(super) fn from_file(path: &Path, start: u64, length: u64, size: u64, digests: &[String]) -> io::Result<Self> {
        let whole = (length / size) as usize;
        let mut blocks = Blocks { whole: digests[..whole].to_vec(), ..Blocks::new(size) };
        blocks.in_last = length % size;
        hash(path, start + whole as u64 * size, blocks.in_last, &mut blocks.last)?;
        Ok(blocks)
    }

    /// Adds bytes.
    pub(super) fn add(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = (self.size - self.in_last).min(bytes.len() as u64);
            let (part, rest) = bytes.split_at(room as usize);
            self.last.write(part);
            (self.in_last, bytes) = (self.in_last + room, rest);
            if self.in_last == self.size {
                self.whole.push(digits(&self.last));
                (self.last, self.in_last) = (Hasher::new(), 0);
            }
        }
    }

    /// Returns the digest of each block. The last block may be shorter.
    pub(super) fn digests(&self) -> Vec<String> {
        let last = (self.in_last > 0).then(|| digits(&self.last));
        self.whole.iter().cloned().chain(last).collect()
    }
}

impl fmt::Debug for Blocks {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Blocks").field("whole", &self.whole.len()).field("in_last", &self.in_last).finish()
    }
}

/// Returns the digests of the first `length` bytes after `start` of a file, computed on several
/// threads.
pub(super) fn digest_file(path: &Path, start: u64, length: u64, size: u64) -> io::Result<Vec<String>> {
    let block = |number: u64| {
        let first = number * size;
        let mut hasher = Hasher::new();
        hash(path, start + first, size.min(length - first), &mut hasher)?;
        Ok(digits(&hasher))
    };
    (0..length.div_ceil(size)).into_par_iter().map(block).collect()
}

/// Returns the digest of a text.
pub(super) fn digest_text(text: &str) -> String {
    let mut hasher = Hasher::new();
    hasher.write(text.as_bytes());
    digits(&hasher)
}

fn digits(hasher: &Hasher) -> String {
    format!("{:016x}", hasher.finish())
}

/// Hashes `length` bytes of a file, starting at `from`.
fn hash(path: &Path, from: u64, length: u64, hasher: &mut Hasher) -> io::Result<()> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(from))?;
    let mut buffer = vec![0; length.min(1 << 20) as usize];
    let mut left = length;
    while left > 0 {
        let part = left.min(buffer.len() as u64) as usize;
        file.read_exact(&mut buffer[..part])?;
        hasher.write(&buffer[..part]);
        left -= part as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_has_the_digest_of_its_bytes() {
        // The digest of no bytes, from the specification.
        assert_eq!(digest_text(""), "2d06800538d394c2");
        let bytes: Vec<u8> = (0..25).collect();
        let mut blocks = Blocks::new(10);
        [0..3, 3..14, 14..14, 14..25].into_iter().for_each(|part| blocks.add(&bytes[part]));
        let text = |bytes: &[u8]| digest_text(std::str::from_utf8(bytes).unwrap());
        let expected = [text(&bytes[..10]), text(&bytes[10..20]), text(&bytes[20..])];
        assert_eq!(blocks.digests(), expected);

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("array");
        std::fs::write(&path, [b"head", &bytes[..], b"more"].concat()).unwrap();
        assert_eq!(digest_file(&path, 4, 25, 10).unwrap(), expected);
        assert_eq!(digest_file(&path, 4, 20, 10).unwrap(), expected[..2]);
        assert_eq!(digest_file(&path, 4, 0, 10).unwrap(), [""; 0]);
        assert!(digest_file(&path, 4, 30, 10).is_err());
        // Resume at a block boundary or within a block, and continue from there.
        for length in [0, 7, 10, 13, 20, 25] {
            let mut blocks = Blocks::from_file(&path, 4, length, 10, &expected).unwrap();
            blocks.add(&bytes[length as usize..]);
            assert_eq!(blocks.digests(), expected, "from {length}");
        }
    }
}
