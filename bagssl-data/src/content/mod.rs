//! The fingerprint of a data set, which changes if an image, a name or a class changes.
//!
//! Each image has a digest (XXH3-64) of its bytes as stored. The digests of files are cached in the
//! user's cache folder, so that later runs do not read the files again; see [`digest_cache`].

pub(crate) mod digest;
mod digest_cache;

use std::hash::Hasher as _;
use std::io;

use rayon::prelude::*;
use twox_hash::xxhash3_64::Hasher;

use crate::entries::Entry;
use crate::error::Error;
use crate::file::Archive;
use crate::formats::archive::Section;
use crate::formats::parquet::table::{PageDigests, Table};
use crate::image::Decode;
use crate::index::Index;
use crate::storage::Storage;
use digest::{digest_bytes, digest_file, digest_reader};
use digest_cache::{DigestCache, Key, Source};

/// The digest of an unreadable image: that of no bytes.
const UNREADABLE: u64 = 0x2d06_8005_38d3_94c2;

/// What a data set was when its images were read for it.
#[derive(Debug)]
pub(crate) struct Fingerprint {
    pub(crate) text: String,
    /// The digest of each image, where it has bytes of its own that may change.
    digests: Vec<u64>,
}

impl Fingerprint {
    /// Whether what was read of an image is not what the fingerprint counts. An image that changes while it is used, and maybe back
    /// again, would make a result that is not its data set's.
    pub(crate) fn is_changed(&self, image: usize, read: std::result::Result<&[u8], &Error>) -> bool {
        self.digests.get(image).is_some_and(|&digest| match read {
            Ok(bytes) => digest_bytes(bytes) != digest,
            // Of another length, or in an archive that was written to.
            Err(Error::Image { .. }) => digest != UNREADABLE,
            // What is out of reach has its own error.
            Err(_) => false,
        })
    }
}

impl Index {
    /// See [`Dataset::fingerprint`](crate::dataset::Dataset::fingerprint).
    pub(crate) fn fingerprint(&self, decode: Decode, progress: &(dyn Fn(u64) + Sync)) -> Fingerprint {
        let mut hash = Hasher::new();
        let digests = self.digests(progress);
        for (entry, &digest) in self.entries.iter().zip(&digests) {
            for text in [entry.name, &self.classes[entry.label as usize]] {
                hash.write(&(text.len() as u64).to_le_bytes());
                hash.write(text.as_bytes());
            }
            hash.write(&digest.to_le_bytes());
        }
        if decode.exif {
            hash.write(b"exif");
        }
        let text = format!("{}-{:016x}", self.len(), hash.finish());
        let can_change = matches!(self.storage, Storage::Files(_) | Storage::Archives(_));
        Fingerprint { text, digests: if can_change { digests } else { Vec::new() } }
    }

    /// Returns the digest of each image.
    fn digests(&self, progress: &(dyn Fn(u64) + Sync)) -> Vec<u64> {
        match &self.storage {
            Storage::Files(root) => {
                // Resolve the root once instead of once per file.
                let root = std::path::absolute(root).unwrap_or_else(|_| root.clone());
                self.keeping(progress, |kept, _, entry| {
                    let path = root.join(entry.name);
                    let key =
                        std::fs::metadata(&path).ok().and_then(|meta| Source::new(&path, &meta).key(0, entry.length));
                    kept.get(key).map_or_else(|| digest_file(&path, entry.length), Ok).map(|digest| (key, digest))
                })
            }
            Storage::Archives(archives) => {
                let sources: Vec<_> = archives.iter().map(source).collect();
                self.keeping(progress, |kept, source, entry| {
                    let key = sources[source].as_ref().and_then(|source| source.key(entry.offset, entry.length));
                    let section = Section::new(&archives[source].file, entry.offset, entry.length);
                    kept.get(key).map_or_else(|| digest_reader(section, entry.length), Ok).map(|digest| (key, digest))
                })
            }
            Storage::Tables(tables) => {
                let kept = DigestCache::open(&self.origin);
                let of_tables: Vec<Vec<(Option<Key>, u64)>> =
                    tables.par_iter().map(|table| of_table(table, &kept)).collect();
                kept.add(of_tables.iter().flatten().copied());
                progress(self.len() as u64);
                self.entries.iter().map(|entry| of_tables[entry.source as usize][0].1).collect()
            }
            Storage::Memory(_) | Storage::PlanarRgb(_) => {
                progress(self.len() as u64);
                let of_image = |image| self.bytes(image).map_or(UNREADABLE, |bytes| digest_bytes(&bytes));
                (0..self.len()).into_par_iter().map(of_image).collect()
            }
        }
    }

    /// Returns the digest of each image, using and updating the cache. `one` gets the cache, the
    /// index of the image's file, and the image's entry.
    fn keeping(
        &self,
        progress: &(dyn Fn(u64) + Sync),
        one: impl Fn(&DigestCache, usize, Entry<'_>) -> io::Result<(Option<Key>, u64)> + Sync,
    ) -> Vec<u64> {
        let kept = DigestCache::open(&self.origin);
        let of_image = |image| {
            let entry = self.entries.get(image);
            let digest = one(&kept, entry.source as usize, entry).unwrap_or((None, UNREADABLE));
            progress(1);
            digest
        };
        let digests: Vec<(Option<Key>, u64)> = (0..self.len()).into_par_iter().map(of_image).collect();
        kept.add(digests.iter().copied());
        digests.into_iter().map(|(_, digest)| digest).collect()
    }
}

/// Returns the digest of a parquet file, and those of its pages of images, with their keys. From now
/// on the pages are compared with their digests: rows have no bytes of their own in the file.
fn of_table(table: &Table, kept: &DigestCache) -> Vec<(Option<Key>, u64)> {
    let archive = match table.bytes() {
        Ok(bytes) => return vec![(None, digest_bytes(bytes))],
        Err(archive) => archive,
    };
    let (length, pages, source) = (archive.stamp.length, table.image_pages(), source(archive));
    let key = |(offset, length)| source.as_ref().and_then(|source| source.key(offset, length));
    let keys: Vec<Option<Key>> = [(0, length)].iter().chain(&pages).map(|&part| key(part)).collect();
    let known: Option<Vec<u64>> = keys.iter().map(|&key| kept.get(key)).collect();
    // Do not cache errors: they may be gone in the next run.
    let read = || digest::digest_parts(&archive.file, length, &pages);
    let Ok(digests) = known.map_or_else(read, Ok) else {
        table.expect(PageDigests::new());
        return vec![(None, UNREADABLE)];
    };
    table.expect(pages.iter().zip(&digests[1..]).map(|(&(offset, _), &digest)| (offset, digest)).collect());
    keys.into_iter().zip(digests).collect()
}

/// Returns whether `bytes` are a complete file of digests.
pub(crate) fn are_digests(bytes: &[u8]) -> bool {
    digest_cache::from_reader(bytes, bytes.len() as u64).is_some()
}

fn source(archive: &Archive) -> Option<Source> {
    archive.file.metadata().ok().map(|meta| Source::new(&archive.path, &meta))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reference_values() {
        // The expected values are from the Python package xxhash: `xxh3_64_intdigest(b"")` and
        // `xxh3_64_intdigest(bytes(range(100)))`.
        assert_eq!(digest_bytes(b""), UNREADABLE);
        let bytes: Vec<u8> = (0..100).collect();
        assert_eq!(digest_reader(&bytes[..], 100).unwrap(), digest_bytes(&bytes));
        for length in [0, 99, 101] {
            assert!(digest_reader(&bytes[..], length).is_err(), "{length}");
        }
    }

    proptest! {
        /// Parts may overlap, as a file of a stranger says them.
        #[test]
        fn a_file_and_its_parts(bytes in prop::collection::vec(any::<u8>(), 1..2000), ends in prop::collection::vec(any::<(u16, u16)>(), 0..9)) {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&bytes).unwrap();
            let count = bytes.len() as u64;
            let part = |(start, length): (u16, u16)| {
                let start = u64::from(start) % (count + 1);
                (start, u64::from(length) % (count - start + 1))
            };
            let mut parts: Vec<(u64, u64)> = ends.into_iter().map(part).collect();
            parts.sort_unstable();
            let expected: Vec<u64> = [(0, count)].iter().chain(&parts).map(|&(start, length)| digest_bytes(&bytes[start as usize..][..length as usize])).collect();
            prop_assert_eq!(digest::digest_parts(&file, count, &parts).unwrap(), expected);
            prop_assert!(digest::digest_parts(&file, count + 1, &parts).is_err());
        }

        /// The digest does not depend on how many bytes each read returns.
        #[test]
        fn a_reader_is_its_bytes(bytes in prop::collection::vec(any::<u8>(), 0..1000), step in 1usize..100) {
            struct Slow<'a>(&'a [u8], usize);
            impl Read for Slow<'_> {
                fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
                    let count = self.1.min(to.len());
                    self.0.read(&mut to[..count])
                }
            }
            prop_assert_eq!(digest_reader(Slow(&bytes, step), bytes.len() as u64).unwrap(), digest_bytes(&bytes));
        }
    }
}
