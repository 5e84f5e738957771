//! The fingerprint of a data set: what tells it from one with other images, names or classes.
//!
//! Each image has a digest (XXH3-64) of its bytes as they are stored. Those of files are kept in the user's cache folder, so that
//! a second start does not read the files again; see [`kept`].

mod digest_cache;

use std::fs::File;
use std::hash::Hasher as _;
use std::io::{self, Read};
use std::path::Path;

use rayon::prelude::*;
use twox_hash::XxHash3_64;
use twox_hash::xxhash3_64::Hasher;

use crate::archive::Section;
use crate::dataset::Dataset;
use crate::entries::Entry;
use crate::error::{Error, Result};
use crate::storage::{Archive, Storage, open_file};
use digest_cache::{DigestCache, Key, Source};

/// The digest of what cannot be read, as if it were empty.
const UNREADABLE: u64 = 0x2d06_8005_38d3_94c2;

/// What a data set was when its images were read for it.
#[derive(Debug)]
pub(crate) struct Fingerprint {
    text: String,
    /// Of each image, where it has bytes of its own that may change.
    digests: Vec<u64>,
}

impl Dataset {
    /// A short text that is another one if an image is added, removed, renamed, moved to another class or changed in a byte: the
    /// number of images, and a digest (XXH3-64) of all names, classes and bytes. A folder and its tar have the same; of parquet
    /// each file counts as a whole. It tells data sets apart by accident, not against somebody's intent.
    ///
    /// The first call reads all images. What it has found of files is kept in the user's cache folder: a file that has the length
    /// and times it had then is not read again, by whatever program. Of an image that cannot be read only the name and the class count.
    pub fn fingerprint(&self) -> String {
        self.fingerprint_with(&|_| {})
    }

    /// The same. `progress` hears how many more images are done, from several threads.
    pub fn fingerprint_with(&self, progress: &(dyn Fn(u64) + Sync)) -> String {
        self.fingerprint.get_or_init(|| self.compute(progress)).text.clone()
    }

    /// Refuses what was read of an image if it is not what the fingerprint counts: an image that changes while it is used, and maybe
    /// back again, would make a result that is not its data set's.
    pub(crate) fn check_unchanged(&self, image: usize, read: std::result::Result<&[u8], &Error>) -> Result<()> {
        let Some(&digest) = self.fingerprint.get().and_then(|known| known.digests.get(image)) else { return Ok(()) };
        let is_changed = match read {
            Ok(bytes) => of_bytes(bytes) != digest,
            // Of another length, or in an archive that was written to.
            Err(Error::Image { .. }) => digest != UNREADABLE,
            // What is out of reach has its own error.
            Err(_) => false,
        };
        if is_changed { Err(Error::Changed { name: self.full_name(image) }) } else { Ok(()) }
    }

    fn compute(&self, progress: &(dyn Fn(u64) + Sync)) -> Fingerprint {
        let mut hash = Hasher::new();
        let digests = self.digests(progress);
        for (entry, &digest) in self.entries.iter().zip(&digests) {
            for text in [entry.name, &self.classes[entry.label as usize]] {
                hash.write(&(text.len() as u64).to_le_bytes());
                hash.write(text.as_bytes());
            }
            hash.write(&digest.to_le_bytes());
        }
        if self.decode.exif {
            hash.write(b"exif");
        }
        let text = format!("{}-{:016x}", self.len(), hash.finish());
        let can_change = matches!(self.storage, Storage::Files(_) | Storage::Archives(_));
        Fingerprint { text, digests: if can_change { digests } else { Vec::new() } }
    }

    /// The digest of each image.
    fn digests(&self, progress: &(dyn Fn(u64) + Sync)) -> Vec<u64> {
        match &self.storage {
            Storage::Files(root) => {
                // Once, not for each file.
                let root = std::path::absolute(root).unwrap_or_else(|_| root.clone());
                self.keeping(progress, |kept, _, entry| {
                    let path = root.join(entry.name);
                    let key =
                        std::fs::metadata(&path).ok().and_then(|meta| Source::new(&path, &meta).key(0, entry.length));
                    kept.get(key).map_or_else(|| of_file(&path, entry.length), Ok).map(|digest| (key, digest))
                })
            }
            Storage::Archives(archives) => {
                let sources: Vec<_> = archives.iter().map(source).collect();
                self.keeping(progress, |kept, source, entry| {
                    let key = sources[source].as_ref().and_then(|source| source.key(entry.offset, entry.length));
                    let section = Section::new(&archives[source].file, entry.offset, entry.length);
                    kept.get(key).map_or_else(|| of_reader(section, entry.length), Ok).map(|digest| (key, digest))
                })
            }
            Storage::Tables(tables) => {
                let kept = DigestCache::open(&self.origin);
                let one = |table: &crate::parquet::Table| match table.bytes() {
                    Ok(bytes) => (None, of_bytes(bytes)),
                    Err(archive) => {
                        let length = archive.stamp.length;
                        let key = source(archive).and_then(|source| source.key(0, length));
                        let read = || of_reader(Section::new(&archive.file, 0, length), length);
                        // An error may be gone the next time.
                        kept.get(key).map_or_else(read, Ok).map_or((None, UNREADABLE), |digest| (key, digest))
                    }
                };
                let of_tables: Vec<(Option<Key>, u64)> = tables.par_iter().map(one).collect();
                kept.add(of_tables.iter().copied());
                progress(self.len() as u64);
                self.entries.iter().map(|entry| of_tables[entry.source as usize].1).collect()
            }
            Storage::Memory(_) | Storage::PlanarRgb(_) => {
                progress(self.len() as u64);
                let of_image = |image| self.bytes(image).map_or(UNREADABLE, |bytes| of_bytes(&bytes));
                (0..self.len()).into_par_iter().map(of_image).collect()
            }
        }
    }

    /// The digest of each image by `one`, which is told what is kept, the image's file and its entry.
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

/// Whether some bytes are a whole file of digests.
pub(crate) fn are_digests(bytes: &[u8]) -> bool {
    digest_cache::from_reader(bytes, bytes.len() as u64).is_some()
}

fn source(archive: &Archive) -> Option<Source> {
    archive.file.metadata().ok().map(|meta| Source::new(&archive.path, &meta))
}

fn of_file(path: &Path, length: u64) -> io::Result<u64> {
    let file: File = open_file(path).map_err(io::Error::other)?;
    of_reader(file, length)
}

/// The digest of all that a reader gives, which has to be so many bytes.
fn of_reader(reader: impl Read, length: u64) -> io::Result<u64> {
    /// What is read at a time.
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

fn of_bytes(bytes: &[u8]) -> u64 {
    XxHash3_64::oneshot(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reference_values() {
        // By the package xxhash: xxh3_64_intdigest(b""), (bytes(range(100))).
        assert_eq!(of_bytes(b""), UNREADABLE);
        let bytes: Vec<u8> = (0..100).collect();
        assert_eq!(of_reader(&bytes[..], 100).unwrap(), of_bytes(&bytes));
        for length in [0, 99, 101] {
            assert!(of_reader(&bytes[..], length).is_err(), "{length}");
        }
    }

    proptest! {
        /// However a reader gives its bytes.
        #[test]
        fn a_reader_is_its_bytes(bytes in prop::collection::vec(any::<u8>(), 0..1000), step in 1usize..100) {
            struct Slow<'a>(&'a [u8], usize);
            impl Read for Slow<'_> {
                fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
                    let count = self.1.min(to.len());
                    self.0.read(&mut to[..count])
                }
            }
            prop_assert_eq!(of_reader(Slow(&bytes, step), bytes.len() as u64).unwrap(), of_bytes(&bytes));
        }
    }
}
