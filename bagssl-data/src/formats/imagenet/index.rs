//! The cached index of an archive: the position of each image, built once and stored in a file.
//!
//! The file has a header of eight 64-bit numbers (magic number, checksum of everything after it,
//! length and modification time of the archive, number of images, bytes of the class names, bytes
//! of the image names, 0). The class names follow, one per line, and then the columns of
//! [`Entries`]: names, ends, offsets, lengths, labels. All numbers are little-endian.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use flate2::Crc;

use crate::cache;
use crate::entries::Entries;
use crate::error::Result;
use crate::file::{Archive, FileStamp, open_file};
use crate::ignored::Ignored;

/// The images of an archive, sorted by name, and their classes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ArchiveIndex {
    pub(crate) entries: Entries,
    pub(crate) classes: Vec<String>,
    /// The ignored members. They are not stored in the file.
    pub(crate) ignored: Ignored,
}

const MAGIC: u64 = u64::from_le_bytes(*b"bagsidx\x01");
const HEADER_BYTES: usize = 64;

/// Loads the index of an archive if a cached one matches, otherwise builds and caches it. The index
/// is cached beside the archive, or in the user's cache folder if that place is not writable. If
/// neither works, it is built in every run.
pub(crate) fn open_or_build(archive: &Archive, build: impl FnOnce() -> Result<ArchiveIndex>) -> Result<ArchiveIndex> {
    let places = places(&archive.path);
    let kept = places.iter().find_map(|path| read(open_file(path).ok()?, archive.stamp));
    if let Some(index) = kept {
        return Ok(index);
    }
    let index = build()?;
    // Do not cache an index with ignored members: the file does not store them.
    let _ = index.ignored.is_empty()
        && places.iter().any(|path| cache::write(path, |file| write(&index, archive.stamp, file)).is_ok());
    Ok(index)
}

/// Returns the possible paths of the index file, in order of preference.
fn places(archive: &Path) -> Vec<PathBuf> {
    let mut beside = archive.as_os_str().to_owned();
    beside.push(".bagssl-index");
    [Some(beside.into()), cache::path(archive, ".bagssl-index")].into_iter().flatten().collect()
}

fn write(index: &ArchiveIndex, stamp: FileStamp, file: &mut impl Write) -> io::Result<()> {
    let ArchiveIndex { entries, classes, .. } = index;
    let classes = classes.join("\n");
    let longs = |column: &[u64]| column.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<u8>>();
    let labels: Vec<u8> = entries.labels.iter().flat_map(|label| label.to_le_bytes()).collect();
    let (ends, offsets, lengths) = (longs(&entries.ends), longs(&entries.offsets), longs(&entries.lengths));
    let sizes = [entries.len() as u64, classes.len() as u64, entries.names.len() as u64, 0];
    let head = longs(&[&[stamp.length, stamp.modified as u64][..], &sizes].concat());
    let sections = [&head[..], classes.as_bytes(), entries.names.as_bytes(), &ends, &offsets, &lengths, &labels];
    let mut crc = Crc::new();
    sections.iter().for_each(|section| crc.update(section));
    file.write_all(&longs(&[MAGIC, u64::from(crc.sum())]))?;
    sections.iter().try_for_each(|section| file.write_all(section))
}

/// Reads an index from a file. Returns `None` if it is damaged or belongs to another archive or
/// version of it.
fn read(file: File, stamp: FileStamp) -> Option<ArchiveIndex> {
    let length = file.metadata().ok()?.len();
    from_reader(file, length, stamp)
}

/// Reads an index from `length` bytes. Checks every number, and allocates no more memory than there
/// are bytes.
pub(crate) fn from_reader(mut reader: impl Read, length: u64, stamp: FileStamp) -> Option<ArchiveIndex> {
    let mut head = [0; HEADER_BYTES];
    reader.read_exact(&mut head).ok()?;
    let word = |at: usize| u64::from_le_bytes(head[8 * at..][..8].try_into().expect("eight bytes"));
    let (images, class_bytes, name_bytes) = (word(4), word(5), word(6));
    let is_its = word(0) == MAGIC && FileStamp { length: word(2), modified: word(3) as i64 } == stamp;
    let whole =
        images.checked_mul(28)?.checked_add(class_bytes)?.checked_add(name_bytes)?.checked_add(HEADER_BYTES as u64)?;
    if !is_its || whole != length || u32::try_from(images).is_err() {
        return None;
    }
    let mut crc = Crc::new();
    crc.update(&head[16..]);
    let mut section = |bytes: u64| {
        let mut section = vec![0; bytes as usize];
        reader.read_exact(&mut section).ok()?;
        crc.update(&section);
        Some(section)
    };
    let classes = String::from_utf8(section(class_bytes)?).ok()?.split('\n').map(Into::into).collect();
    let names = String::from_utf8(section(name_bytes)?).ok()?;
    let (ends, offsets, lengths) =
        (longs(&section(8 * images)?), longs(&section(8 * images)?), longs(&section(8 * images)?));
    let labels = section(4 * images)?.as_chunks().0.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect();
    let sources = vec![0; images as usize];
    let entries = Entries { names, ends, offsets, lengths, labels, sources };
    let index = ArchiveIndex { entries, classes, ignored: Ignored::default() };
    (word(1) == u64::from(crc.sum()) && is_sound(&index, stamp)).then_some(index)
}

fn longs(bytes: &[u8]) -> Vec<u64> {
    bytes.as_chunks().0.iter().map(|bytes| u64::from_le_bytes(*bytes)).collect()
}

/// Returns whether names end at character boundaries and are sorted, images lie inside the archive,
/// and their classes exist.
fn is_sound(index: &ArchiveIndex, stamp: FileStamp) -> bool {
    let ArchiveIndex { entries, classes, .. } = index;
    let mut start = 0;
    let ends = entries.ends.iter().all(|&end| {
        let is_end = end > start && end <= entries.names.len() as u64 && entries.names.is_char_boundary(end as usize);
        start = end;
        is_end
    });
    ends && start == entries.names.len() as u64
        && (1..entries.len()).all(|image| entries.get(image - 1).name < entries.get(image).name)
        && entries.iter().all(|entry| {
            let is_inside = entry.offset.checked_add(entry.length).is_some_and(|end| end <= stamp.length);
            is_inside && (entry.label as usize) < classes.len()
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entries::Entry;
    use proptest::prelude::*;

    const STAMP: FileStamp = FileStamp { length: 5000, modified: -7 };

    fn small() -> ArchiveIndex {
        let entry = |name, label, offset| Entry { name, label, source: 0, offset, length: 1000 };
        let entries = [entry("a/ä.jpg", 0, 0), entry("b/1.jpg", 1, 4000), entry("b/2.jpg", 1, 512)];
        let classes = vec!["a".into(), "b".into()];
        ArchiveIndex { entries: entries.into_iter().collect(), classes, ignored: Ignored::default() }
    }

    fn bytes(index: &ArchiveIndex, stamp: FileStamp) -> Vec<u8> {
        let mut bytes = Vec::new();
        write(index, stamp, &mut bytes).unwrap();
        bytes
    }

    fn back(bytes: &[u8], stamp: FileStamp) -> Option<ArchiveIndex> {
        from_reader(bytes, bytes.len() as u64, stamp)
    }

    #[test]
    fn cache_file_round_trip() {
        let whole = bytes(&small(), STAMP);
        assert_eq!(back(&whole, STAMP).unwrap(), small());
        for other in [FileStamp { length: 5001, ..STAMP }, FileStamp { modified: -6, ..STAMP }] {
            assert_eq!(back(&whole, other), None);
        }
        for at in 0..whole.len() {
            assert_eq!(back(&whole[..at], STAMP), None, "{at} bytes");
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            assert_eq!(back(&damaged, STAMP), None, "byte {at}");
        }
    }

    /// The checksum is not the only check: a file that is crafted with a valid checksum is refused
    /// too.
    #[test]
    fn entries_outside_the_archive_are_refused() {
        let refused = |change: fn(&mut ArchiveIndex)| {
            let mut index = small();
            change(&mut index);
            assert_eq!(back(&bytes(&index, STAMP), STAMP), None);
        };
        refused(|index| index.entries.offsets[1] = 4001);
        refused(|index| index.entries.lengths[0] = u64::MAX);
        refused(|index| index.entries.labels[2] = 2);
        refused(|index| index.entries.ends[0] = 3);
        refused(|index| index.entries.ends[1] = u64::MAX);
        refused(|index| index.entries.ends[2] -= 1);
        refused(|index| index.entries.names.replace_range(0..1, "c"));
    }

    proptest! {
        #[test]
        fn any_numbers_have_an_answer(images: u64, class_bytes: u64, name_bytes: u64, rest in prop::collection::vec(any::<u8>(), 0..100)) {
            let head = [MAGIC, 0, 5000, (-7_i64) as u64, images, class_bytes, name_bytes, 0];
            let file: Vec<u8> = head.iter().flat_map(|number| number.to_le_bytes()).chain(rest).collect();
            prop_assert_eq!(back(&file, STAMP), None);
        }
    }
}
