//! A cache of digests in the user's cache folder.
//!
//! The file has a magic number, a digest of the rest, and pairs of 64-bit numbers in ascending
//! order of their first number: a key, and the digest of an image. A key is a hash of everything
//! that shows whether an image has changed without reading it: the path of its file, the file's
//! length, its modification and status change times, and the image's offset and length in it. The
//! cache may be deleted at any time; then images are read again.

use std::fs::{File, Metadata};
use std::hash::Hasher as _;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use twox_hash::xxhash3_64::Hasher;

use super::digest::digest_bytes;
use crate::cache;
use crate::file::{nanoseconds, open_file};

/// The cache key of an image.
pub(super) type Key = u64;

const MAGIC: u64 = u64::from_le_bytes(*b"bagsdgt\x01");
const HEADER_BYTES: u64 = 16;

/// A file that changed less than this ago may change again without a visible change of its times.
const SETTLED: Duration = Duration::from_secs(2);
/// Entries of deleted files are dropped once there are more than `MAX_STALE_RATIO` times as many entries as
/// images, plus `MAX_STALE_ENTRIES`.
const MAX_STALE_RATIO: usize = 4;
const MAX_STALE_ENTRIES: usize = 1 << 16;

/// The hash of a file's path, length and times.
pub(super) struct Source {
    hash: Hasher,
    is_settled: bool,
}

impl Source {
    pub(super) fn new(path: &Path, meta: &Metadata) -> Self {
        let times = times(meta);
        let mut hash = Hasher::new();
        // Use the absolute path, so that the key does not depend on the current folder.
        let path = std::path::absolute(path).unwrap_or_else(|_| path.into());
        hash.write(path.as_os_str().as_encoded_bytes());
        hash.write(&[0]);
        hash.write(&meta.len().to_le_bytes());
        times.iter().for_each(|time| hash.write(&time.to_le_bytes()));
        let now = nanoseconds(SystemTime::now());
        let is_settled = times.iter().all(|time| time + SETTLED.as_nanos() as i64 <= now);
        Source { hash, is_settled }
    }

    /// Returns the key of a range of the file, or `None` if the file changed too recently to be
    /// cached.
    pub(super) fn key(&self, offset: u64, length: u64) -> Option<Key> {
        let mut hash = self.hash.clone();
        hash.write(&offset.to_le_bytes());
        hash.write(&length.to_le_bytes());
        self.is_settled.then(|| hash.finish())
    }
}

/// Returns the modification time, and on Unix the status change time, which programs cannot set.
fn times(meta: &Metadata) -> [i64; 2] {
    let modified = meta.modified().map_or(0, nanoseconds);
    #[cfg(unix)]
    let changed = {
        use std::os::unix::fs::MetadataExt as _;
        meta.ctime().saturating_mul(1_000_000_000).saturating_add(meta.ctime_nsec())
    };
    #[cfg(not(unix))]
    let changed = modified;
    [modified, changed]
}

/// The known digests of a data set.
#[derive(Debug)]
pub(super) struct DigestCache {
    path: Option<PathBuf>,
    known: Vec<(Key, u64)>,
}

impl DigestCache {
    /// Loads the cached digests of the data set at a path.
    pub(super) fn open(origin: &Path) -> Self {
        let path = if origin.as_os_str().is_empty() { None } else { cache::path(origin, ".bagssl-digests") };
        Self::at_path(path)
    }

    fn at_path(path: Option<PathBuf>) -> Self {
        let known = path.as_deref().and_then(|path| read(open_file(path).ok()?)).unwrap_or_default();
        DigestCache { path, known }
    }

    /// Returns the digest of a key.
    pub(super) fn get(&self, key: Option<Key>) -> Option<u64> {
        let at = self.known.binary_search_by_key(&key?, |(key, _)| *key).ok()?;
        Some(self.known[at].1)
    }

    /// Adds the digests that have a key, and writes the file if any of them is new.
    pub(super) fn add(&self, digests: impl Iterator<Item = (Option<Key>, u64)>) {
        let Some(path) = &self.path else { return };
        let digests: Vec<(Key, u64)> = digests.filter_map(|(key, digest)| Some((key?, digest))).collect();
        if digests.iter().all(|(key, _)| self.get(Some(*key)).is_some()) {
            return;
        }
        let is_much = self.known.len() > MAX_STALE_RATIO * digests.len() + MAX_STALE_ENTRIES;
        let known = if is_much { Vec::new() } else { self.known.clone() };
        let mut all = [digests, known].concat();
        all.sort_unstable();
        all.dedup_by_key(|(key, _)| *key);
        // If writing fails, the next run reads the images again.
        let _ = cache::write(path, |file| write(&all, file));
    }
}

fn write(pairs: &[(Key, u64)], file: &mut impl Write) -> io::Result<()> {
    let body: Vec<u8> =
        pairs.iter().flat_map(|(key, digest)| [*key, *digest]).flat_map(|number| number.to_le_bytes()).collect();
    file.write_all(&MAGIC.to_le_bytes())?;
    file.write_all(&digest_bytes(&body).to_le_bytes())?;
    file.write_all(&body)
}

fn read(file: File) -> Option<Vec<(Key, u64)>> {
    let length = file.metadata().ok()?.len();
    from_reader(file, length)
}

/// Reads the pairs of a file of `length` bytes, or returns `None` if the file is damaged.
pub(super) fn from_reader(mut reader: impl Read, length: u64) -> Option<Vec<(Key, u64)>> {
    let mut head = [0; HEADER_BYTES as usize];
    reader.read_exact(&mut head).ok()?;
    let [mark, digest] = [0, 8].map(|at| u64::from_le_bytes(head[at..][..8].try_into().expect("eight bytes")));
    let body = length.checked_sub(HEADER_BYTES).filter(|body| body.is_multiple_of(16) && mark == MAGIC)?;
    let mut bytes = Vec::new();
    reader.take(body).read_to_end(&mut bytes).ok()?;
    if bytes.len() as u64 != body || digest_bytes(&bytes) != digest {
        return None;
    }
    let number = |half: &[u8]| u64::from_le_bytes(half.try_into().expect("eight bytes"));
    let pairs: Vec<_> = bytes.as_chunks::<16>().0.iter().map(|pair| (number(&pair[..8]), number(&pair[8..]))).collect();
    pairs.is_sorted_by(|a, b| a.0 < b.0).then_some(pairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cache_file_round_trip() {
        let pairs = [(3, 9), (4, 1), (u64::MAX, 0)];
        let mut bytes = Vec::new();
        write(&pairs, &mut bytes).unwrap();
        let back = |bytes: &[u8]| from_reader(bytes, bytes.len() as u64);
        assert_eq!(back(&bytes).unwrap(), pairs);
        for at in 0..bytes.len() {
            assert_eq!(back(&bytes[..at]), None, "{at} bytes");
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert_eq!(back(&damaged), None, "byte {at}");
        }
        let mut falling = Vec::new();
        write(&[(4, 1), (3, 9)], &mut falling).unwrap();
        assert_eq!(back(&falling), None, "it could not be searched");
        assert_eq!(back(&[&bytes[..], &[0; 16]].concat()), None, "more than was written");
    }

    #[test]
    fn cached_digests_are_found() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("below/kept");
        let open = || DigestCache::at_path(Some(path.clone()));
        open().add([(Some(7), 70), (None, 1), (Some(2), 20)].into_iter());
        open().add([(Some(5), 50), (Some(2), 20)].into_iter());
        assert_eq!([2, 5, 7, 1].map(|key| open().get(Some(key))), [Some(20), Some(50), Some(70), None]);
        // Without new digests, the file is not written.
        std::fs::write(path.with_extension("other"), "").unwrap();
        let before = std::fs::metadata(&path).unwrap().modified().unwrap();
        open().add([(Some(5), 50)].into_iter());
        assert_eq!(std::fs::metadata(&path).unwrap().modified().unwrap(), before);
        // A damaged file counts as an empty cache.
        std::fs::write(&path, "damaged").unwrap();
        assert_eq!(open().get(Some(7)), None);
        open().add([(Some(5), 50)].into_iter());
        assert_eq!(open().get(Some(5)), Some(50));
    }

    #[test]
    fn key_depends_on_path_times_and_range() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let long_ago = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
        let write = |bytes: &str, time| {
            std::fs::write(&path, bytes).unwrap();
            File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
        };
        // Ignore whether the file is settled.
        let source = |path: &Path| Source { is_settled: true, ..Source::new(path, &std::fs::metadata(path).unwrap()) };
        write("one", long_ago);
        let before = source(&path).key(0, 3);
        assert_eq!(source(&path).key(0, 3), before);
        assert_ne!(source(&path).key(1, 3), before);
        assert_ne!(source(&path).key(0, 2), before);
        std::fs::hard_link(&path, folder.path().join("b")).unwrap();
        assert_ne!(source(&folder.path().join("b")).key(0, 3), source(&path).key(0, 3));
        // The same length and modification time: on Unix the status change time differs.
        std::thread::sleep(Duration::from_millis(20));
        write("two", long_ago);
        if cfg!(unix) {
            assert_ne!(source(&path).key(0, 3), before);
        }
        // A file that was just written may be written again within the same tick of the clock.
        assert_eq!(Source::new(&path, &std::fs::metadata(&path).unwrap()).key(0, 3), None);
    }
}
