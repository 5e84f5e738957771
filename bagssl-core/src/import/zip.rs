//! Reads the entries of a zip archive without copying them.
//!
//! PyTorch stores entries uncompressed, so each entry is a slice of the file and nothing is
//! unpacked.

use std::prelude::v1::*;

use std::collections::BTreeMap;
use std::ops::Range;

use crate::error::{Error, Result};

/// The maximum number of entries; more than any network has tensors.
const MOST_ENTRIES: usize = 1 << 16;
const END_BYTES: usize = 22;
const WIDE_END_BYTES: usize = 56;
const LOCATOR_BYTES: usize = 20;
const CENTRAL_BYTES: usize = 46;
const LOCAL_BYTES: usize = 30;
/// The marker in a 32-bit field whose value is stored in a ZIP64 record.
const ELSEWHERE: u64 = 0xffff_ffff;

/// The entries of an archive by name.
#[derive(Debug)]
pub(super) struct Archive<'a> {
    entries: BTreeMap<&'a str, &'a [u8]>,
}

impl<'a> Archive<'a> {
    /// Reads the central directory.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if an entry is compressed, encrypted, lies outside the file, overlaps
    /// another entry, or has the same name as another entry.
    pub(super) fn from_bytes(bytes: &'a [u8]) -> Result<Self> {
        let (count, directory) = directory(bytes)?;
        let mut entries = BTreeMap::new();
        let mut places: Vec<Range<usize>> = Vec::new();
        let mut rest = &bytes[directory.clone()];
        for _ in 0..count {
            let (name, range, used) = entry(bytes, rest, directory.start)?;
            rest = &rest[used..];
            if entries.insert(name, &bytes[range.content.clone()]).is_some() {
                return Err(refuse(format!("two entries are named {name:?}")));
            }
            places.push(range.whole);
        }
        places.sort_unstable_by_key(|range| (range.start, range.end));
        if places.windows(2).any(|pair| pair[1].start < pair[0].end) {
            return Err(refuse("expected separate entries, got overlapping ones".into()));
        }
        Ok(Archive { entries })
    }

    /// Returns the bytes of an entry.
    pub(super) fn get(&self, name: &str) -> Option<&'a [u8]> {
        self.entries.get(name).copied()
    }

    /// Returns all names in alphabetical order.
    pub(super) fn names(&self) -> impl Iterator<Item = &'a str> + '_ {
        self.entries.keys().copied()
    }
}

/// The position of an entry, with and without its local header.
struct Place {
    whole: Range<usize>,
    content: Range<usize>,
}

fn refuse(why: String) -> Error {
    Error::Checkpoint(format!("zip: {why}"))
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> Result<u64> {
    let piece = at.checked_add(N).and_then(|end| bytes.get(at..end));
    let piece = piece.ok_or_else(|| {
        refuse(format!("expected {N} bytes at {at}, got the end of the file ({} bytes)", bytes.len()))
    })?;
    Ok(piece.iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte)))
}

fn range(bytes: &[u8], start: u64, length: u64, what: &str) -> Result<Range<usize>> {
    let end = start.checked_add(length).filter(|&end| end <= bytes.len() as u64);
    let end = end.ok_or_else(|| {
        refuse(format!("{what}: expected {length} bytes at {start}, got {} bytes in all", bytes.len()))
    })?;
    Ok(start as usize..end as usize)
}

/// Returns the number of entries and the position of the central directory.
fn directory(bytes: &[u8]) -> Result<(usize, Range<usize>)> {
    let last = bytes.len().checked_sub(END_BYTES);
    let last = last.ok_or_else(|| refuse(format!("expected at least {END_BYTES} bytes, got {}", bytes.len())))?;
    // A comment of up to 64 KiB may follow the record.
    let first = last.saturating_sub(0xffff);
    let end = (first..=last).rev().find(|&at| bytes[at..].starts_with(b"PK\x05\x06"));
    let end = end.ok_or_else(|| refuse("expected an end-of-central-directory record, got none".into()))?;
    let (mut count, mut length) = (number::<2>(bytes, end + 10)?, number::<4>(bytes, end + 12)?);
    let mut start = number::<4>(bytes, end + 16)?;
    let mut limit = end;
    if count == 0xffff || length == ELSEWHERE || start == ELSEWHERE {
        let locator = end.checked_sub(LOCATOR_BYTES).filter(|&at| bytes[at..].starts_with(b"PK\x06\x07"));
        let locator = locator.ok_or_else(|| refuse("expected a ZIP64 locator, got none".into()))?;
        let wide = range(bytes, number::<8>(bytes, locator + 8)?, WIDE_END_BYTES as u64, "ZIP64 record")?.start;
        if !bytes[wide..].starts_with(b"PK\x06\x06") {
            return Err(refuse(format!("expected a ZIP64 record at {wide}, got none")));
        }
        (count, length) = (number::<8>(bytes, wide + 32)?, number::<8>(bytes, wide + 40)?);
        start = number::<8>(bytes, wide + 48)?;
        limit = wide;
    }
    let place = range(&bytes[..limit], start, length, "central directory")?;
    if count > MOST_ENTRIES as u64 || count > (place.len() / CENTRAL_BYTES) as u64 {
        return Err(refuse(format!(
            "expected at most {MOST_ENTRIES} entries that fit in the central directory, got {count}"
        )));
    }
    Ok((count as usize, place))
}

/// Parses an entry of the central directory. Returns its name, its position before `limit`, and the
/// number of bytes of its record.
fn entry<'a>(bytes: &'a [u8], record: &'a [u8], limit: usize) -> Result<(&'a str, Place, usize)> {
    if !record.starts_with(b"PK\x01\x02") {
        return Err(refuse("expected a central directory entry, got other bytes".into()));
    }
    let (flags, method) = (number::<2>(record, 8)?, number::<2>(record, 10)?);
    let (packed, size) = (number::<4>(record, 20)?, number::<4>(record, 24)?);
    let lengths = [number::<2>(record, 28)?, number::<2>(record, 30)?, number::<2>(record, 32)?];
    let name_range = range(record, CENTRAL_BYTES as u64, lengths[0], "name")?;
    let extra = range(record, name_range.end as u64, lengths[1], "extra field")?;
    let used = range(record, extra.end as u64, lengths[2], "comment")?.end;
    let name = &record[name_range];
    let name = core::str::from_utf8(name)
        .map_err(|_| refuse(format!("expected names in UTF-8, got {:?}", String::from_utf8_lossy(name))))?;
    if flags & 1 != 0 || method != 0 {
        return Err(refuse(format!("{name:?}: expected an uncompressed entry, got method {method}, flags {flags:#x}")));
    }
    let mut wide = wide_fields(&record[extra])?;
    let mut resolve = |value: u64| if value == ELSEWHERE { wide.next() } else { Some(value) };
    let (size, packed) = (resolve(size), resolve(packed));
    let offset = resolve(number::<4>(record, 42)?);
    let (Some(size), Some(packed), Some(offset)) = (size, packed, offset) else {
        return Err(refuse(format!("{name:?}: expected a ZIP64 field, got none")));
    };
    if size != packed {
        return Err(refuse(format!(
            "{name:?}: expected equal sizes of an uncompressed entry, got {packed} packed and {size} unpacked"
        )));
    }
    let header = range(&bytes[..limit], offset, LOCAL_BYTES as u64, name)?;
    let local = &bytes[header.clone()];
    if !local.starts_with(b"PK\x03\x04") {
        return Err(refuse(format!("{name:?}: expected a local header at {offset}, got other bytes")));
    }
    let [name_length, extra_length] = [number::<2>(local, 26)?, number::<2>(local, 28)?];
    let content = range(&bytes[..limit], header.end as u64 + name_length + extra_length, size, name)?;
    let local_name = &bytes[header.end..][..name_length as usize];
    if local_name != name.as_bytes() {
        let got = String::from_utf8_lossy(local_name);
        return Err(refuse(format!("{name:?}: expected this name in the local header, got {got:?}")));
    }
    Ok((name, Place { whole: header.start..content.end, content }, used))
}

/// Returns the 64-bit values of a ZIP64 extra field in order.
fn wide_fields(mut extra: &[u8]) -> Result<impl Iterator<Item = u64>> {
    let mut values: &[[u8; 8]] = &[];
    while extra.len() >= 4 {
        let (id, length) = (number::<2>(extra, 0)?, number::<2>(extra, 2)?);
        let field = range(extra, 4, length, "extra field")?;
        if id == 1 {
            values = extra[field].as_chunks().0;
            break;
        }
        extra = &extra[field.end..];
    }
    Ok(values.iter().map(|&value| u64::from_le_bytes(value)))
}
