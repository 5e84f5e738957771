//! The entries of a zip archive, without copying them.
//!
//! PyTorch stores entries uncompressed, so each entry is a slice of the file and nothing is
//! unpacked. The crate rawzip reads the records. What it leaves to its users is checked here: how
//! entries are stored, that their names differ, and that they lie side by side.

use std::prelude::v1::*;

use std::collections::BTreeMap;
use std::ops::Range;

use rawzip::{CompressionMethod, ZipArchive, ZipSliceArchive};

use crate::error::{Error, Result};

/// The maximum number of entries; more than any network has tensors.
const MAX_ENTRIES: u64 = 1 << 16;
/// The end record has 22 bytes, and a comment of up to 64 KiB may follow it.
const MAX_END_BYTES: u64 = 22 + 0xffff;

/// The entries of an archive by name.
#[derive(Debug)]
pub(super) struct Archive<'a> {
    entries: BTreeMap<String, &'a [u8]>,
}

impl<'a> Archive<'a> {
    /// Reads the central directory.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if an entry is compressed, encrypted, lies outside the file, overlaps
    /// another entry, or has the same name as another entry.
    pub(super) fn from_bytes(bytes: &'a [u8]) -> Result<Self> {
        let locator = ZipArchive::with_max_search_space(MAX_END_BYTES);
        let archive = locator.locate_in_slice(bytes).map_err(|(_, reason)| damaged(reason))?;
        let expected = archive.entries_hint();
        if expected > MAX_ENTRIES {
            return Err(refuse(format!("expected at most {MAX_ENTRIES} entries, got {expected}")));
        }
        let mut entries = BTreeMap::new();
        let mut ranges = Vec::new();
        let mut records = archive.entries();
        while let Some(record) = records.next_entry().map_err(damaged)? {
            let (name, place, content) = entry(bytes, &archive, &record)?;
            if entries.contains_key(name) {
                return Err(refuse(format!("two entries are named {name:?}")));
            }
            entries.insert(name.into(), content);
            ranges.push(place);
            if entries.len() as u64 > expected {
                return Err(refuse(format!("expected {expected} entries, got more")));
            }
        }
        if entries.len() as u64 != expected {
            return Err(refuse(format!("expected {expected} entries, got {}", entries.len())));
        }
        ranges.push(archive.directory_offset()..archive.end_offset());
        ranges.sort_unstable_by_key(|range| (range.start, range.end));
        if ranges.windows(2).any(|pair| pair[1].start < pair[0].end) {
            return Err(refuse("expected entries side by side, got some that overlap".into()));
        }
        Ok(Archive { entries })
    }

    /// Returns the bytes of an entry.
    pub(super) fn get(&self, name: &str) -> Option<&'a [u8]> {
        self.entries.get(name).copied()
    }

    /// Returns all names in alphabetical order.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> + '_ {
        self.entries.keys().map(String::as_str)
    }
}

fn refuse(reason: String) -> Error {
    Error::Checkpoint(format!("zip: {reason}"))
}

fn damaged(reason: rawzip::Error) -> Error {
    refuse(format!("{reason}"))
}

/// Returns the name of an entry, its place with its local header, and its bytes.
fn entry<'a, 'n>(
    bytes: &'a [u8],
    archive: &ZipSliceArchive<&[u8]>,
    record: &rawzip::ZipFileHeaderRecord<'n>,
) -> Result<(&'n str, Range<u64>, &'a [u8])> {
    let name = record.file_path().as_bytes();
    let name = core::str::from_utf8(name)
        .map_err(|_| refuse(format!("expected names in UTF-8, got {:?}", String::from_utf8_lossy(name))))?;
    let (method, flags) = (record.compression_method(), record.flags());
    if flags.is_encrypted() || method != CompressionMethod::STORE {
        let (method, flags) = (method.as_u16(), flags.bits());
        return Err(refuse(format!("{name:?}: expected an uncompressed entry, got method {method}, flags {flags:#x}")));
    }
    let (packed, size) = (record.compressed_size_hint(), record.uncompressed_size_hint());
    if size != packed {
        return Err(refuse(format!(
            "{name:?}: expected equal sizes of an uncompressed entry, got {packed} packed and {size} unpacked"
        )));
    }
    let start = record.local_header_offset();
    let local = archive.get_entry(record.wayfinder());
    let local =
        local.map_err(|reason| refuse(format!("{name:?}: {size} bytes with their header at {start}: {reason}")))?;
    let local_name = local.local_header().file_path();
    if local_name.as_bytes() != name.as_bytes() {
        let got = String::from_utf8_lossy(local_name.as_bytes());
        return Err(refuse(format!("{name:?}: expected this name in the local header, got {got:?}")));
    }
    let content = local.compressed_data_range();
    Ok((name, start..content.1, &bytes[content.0 as usize..content.1 as usize]))
}
