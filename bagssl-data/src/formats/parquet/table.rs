//! A parquet file. Its footer and labels are read on opening, a page of images when one of its rows
//! is requested.

use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use super::columns::Columns;
use super::footer::{self, Chunk, Footer, Group};
use super::page::{Header, Kind};
use super::refusal::{Refusal, refusal};
use crate::content::digest::digest_bytes;
use crate::entries::MAX_CLASSES;
use crate::error::{Error, Result};
use crate::file::Archive;
use crate::image::{MAX_BYTES, sniff};
use crate::memory::MIB;

/// A parquet file.
#[derive(Debug)]
pub(crate) struct Table {
    pub(super) path: PathBuf,
    /// The file's key in the shared page cache.
    number: u64,
    bytes: Bytes,
    pub(super) footer: Footer,
    /// The first row of each row group, followed by the total number of rows.
    starts: Vec<u64>,
    /// The image pages of each row group, listed on first use.
    pages: Vec<OnceLock<Arc<Vec<PageLocation>>>>,
    page_cache: Arc<PageCache>,
    digests: Mutex<Option<Arc<PageDigests>>>,
}

/// The digests of the pages of images as stored, by their offset.
pub(crate) type PageDigests = HashMap<u64, u64>;

#[derive(Debug)]
pub(super) enum Bytes {
    File(Archive),
    Memory(Vec<u8>),
}

/// The position of a page.
#[derive(Debug, Clone, Copy)]
struct PageLocation {
    header: Header,
    /// The offset of the page's data, after its header.
    offset: u64,
    /// The page's first row in its row group.
    row: u64,
}

/// A cache of the most recently used decompressed pages of all files of a data set. It has at most
/// `PAGE_CACHE_BYTES` bytes, or one page.
#[derive(Debug, Default)]
pub(super) struct PageCache {
    pages: Mutex<VecDeque<(Key, Arc<Vec<u8>>)>>,
    tables: AtomicU64,
}

/// The number of a table, and the offset of its page.
type Key = (u64, u64);

const PAGE_CACHE_BYTES: usize = 64 << 20;
const MAX_FOOTER_BYTES: u64 = 64 << 20;
const MAX_HEADER_BYTES: u64 = 16 << 20;

impl Bytes {
    fn length(&self) -> u64 {
        match self {
            Bytes::File(archive) => archive.stamp.length,
            Bytes::Memory(bytes) => bytes.len() as u64,
        }
    }

    /// Reads bytes that the caller knows to be inside the file.
    fn read(&self, offset: u64, length: u64) -> Result<Vec<u8>> {
        match self {
            Bytes::File(archive) => archive.read(offset, length),
            Bytes::Memory(bytes) => Ok(bytes[offset as usize..][..length as usize].to_vec()),
        }
    }
}

impl Table {
    pub(super) fn new(path: &Path, bytes: Bytes, page_cache: Arc<PageCache>, columns: &Columns) -> Result<Self> {
        let refuse = |Refusal { expected, got }| Error::Format { path: path.into(), expected, got };
        let length = bytes.length();
        let wrong = |got: String| refuse(refusal("a complete parquet file", got));
        if length < 12 {
            return Err(wrong(format!("{length} bytes")));
        }
        let tail = bytes.read(length - 8, 8)?;
        if tail[4..] != *b"PAR1" || bytes.read(0, 4)? != *b"PAR1" {
            let start = bytes.read(0, length.min(sniff::LENGTH))?;
            let what = sniff::file_kind(&start).filter(|_| !start.starts_with(b"PAR1"));
            return Err(wrong(what.map_or_else(|| format!("{length} bytes without PAR1 at both ends"), Into::into)));
        }
        let footer_length = u64::from(u32::from_le_bytes([tail[0], tail[1], tail[2], tail[3]]));
        if footer_length > (length - 12).min(MAX_FOOTER_BYTES) {
            return Err(wrong(format!("a footer of {footer_length} bytes")));
        }
        let footer = bytes.read(length - 8 - footer_length, footer_length)?;
        let footer = footer::read(&footer, length, columns).map_err(refuse)?;
        let starts = footer.groups.iter().scan(0, |next, group| Some(std::mem::replace(next, *next + group.rows)));
        let starts = starts.chain([footer.groups.iter().map(|group| group.rows).sum()]).collect();
        let pages = footer.groups.iter().map(|_| OnceLock::new()).collect();
        let number = page_cache.tables.fetch_add(1, Ordering::Relaxed);
        Ok(Table { path: path.into(), number, bytes, footer, starts, pages, page_cache, digests: Mutex::default() })
    }

    /// Returns all bytes of the file, or the open file.
    pub(crate) fn bytes(&self) -> std::result::Result<&[u8], &Archive> {
        match &self.bytes {
            Bytes::Memory(bytes) => Ok(bytes),
            Bytes::File(archive) => Err(archive),
        }
    }

    /// Returns the offset and the length of each page of images as stored, in ascending order. A group
    /// whose pages cannot be listed has none.
    pub(crate) fn image_pages(&self) -> Vec<(u64, u64)> {
        let groups = 0..self.footer.groups.len();
        let pages = groups.filter_map(|group| self.pages_of(group).ok());
        let mut parts: Vec<_> =
            pages.flat_map(|pages| pages.iter().map(|at| (at.offset, at.header.packed)).collect::<Vec<_>>()).collect();
        parts.sort_unstable();
        parts.dedup();
        parts
    }

    /// Sets what the pages of images are compared with from now on, when they are read.
    pub(crate) fn expect(&self, digests: PageDigests) {
        self.page_cache.lock().clear();
        *self.digests.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(Arc::new(digests));
    }

    fn refuse(&self, Refusal { expected, got }: Refusal) -> Error {
        Error::Format { path: self.path.clone(), expected, got }
    }

    /// Returns the class of each row. It is `None` if the label is null or -1, which is how Hugging
    /// Face marks unlabeled images.
    pub(super) fn classes(&self) -> Result<Vec<Option<u32>>> {
        let limit = self.footer.names.as_ref().map_or(MAX_CLASSES as usize, Vec::len);
        let class = |(row, label): (usize, Option<i64>)| match label {
            None | Some(-1) => Ok(None),
            Some(label) => match u32::try_from(label).ok().filter(|label| (*label as usize) < limit) {
                Some(class) => Ok(Some(class)),
                None => Err(self.refuse(refusal("a class label", format!("label {label} in row {row}")))),
            },
        };
        self.labels()?.into_iter().enumerate().map(class).collect()
    }

    /// Returns the labels of all rows.
    fn labels(&self) -> Result<Vec<Option<i64>>> {
        let mut labels = Vec::new();
        for group in &self.footer.groups {
            let Some(chunk) = group.label else {
                labels.resize(labels.len() + group.rows as usize, None);
                continue;
            };
            let (pages, mut dictionary, before) = (self.listed(chunk, group.rows)?, None, labels.len());
            for location in pages {
                // A number has 8 bytes, and at most one more for its level.
                let limit = location.header.values.saturating_mul(16).saturating_add(MIB);
                if location.header.unpacked > limit {
                    let got = format!("{} bytes for {} values", location.header.unpacked, location.header.values);
                    return Err(self.refuse(refusal("a page of labels", got)));
                }
                let page = self.unpacked(&location, chunk)?;
                match location.header.kind {
                    Kind::Dictionary => dictionary = Some(page),
                    _ => {
                        let numbers = location.header.numbers(&page, dictionary.as_deref().map(Vec::as_slice), chunk);
                        labels.extend(numbers.ok_or_else(|| self.broken(&location))?);
                    }
                }
            }
            if (labels.len() - before) as u64 != group.rows {
                return Err(self.refuse(refusal("a label for each row", labels.len() - before)));
            }
        }
        Ok(labels)
    }

    /// Returns the most bytes of memory that reading the image of a row needs: its page, compressed
    /// and decompressed, and the dictionary.
    pub(crate) fn read_memory(&self, row: u64) -> Result<u64> {
        let (pages, location, ..) = self.location(row)?;
        let of = |location: &PageLocation| {
            // The levels of a version 2 page are joined with its values, which takes a copy.
            let copies = if matches!(location.header.kind, Kind::Data2 { .. }) { 2 } else { 1 };
            location.header.packed.saturating_add(location.header.unpacked.saturating_mul(copies))
        };
        let dictionary = pages.iter().find(|location| location.header.kind == Kind::Dictionary).map_or(0, of);
        Ok(of(&location).saturating_add(dictionary))
    }

    /// Returns the encoded image of a row.
    pub(crate) fn image(&self, row: u64) -> Result<Vec<u8>> {
        let (pages, location, group) = self.location(row)?;
        let row = row - self.starts[self.group(row)];
        let dictionary = pages.iter().find(|location| location.header.kind == Kind::Dictionary);
        let dictionary = dictionary.map(|location| self.unpacked(location, group.image)).transpose()?;
        let page = self.unpacked(&location, group.image)?;
        let dictionary = dictionary.as_deref().map(Vec::as_slice);
        let found = location
            .header
            .bytes(&page, dictionary, group.image, row - location.row)
            .ok_or_else(|| self.broken(&location))?;
        let bytes = found.ok_or_else(|| self.refuse(refusal("the bytes of an image", "none (null)")))?;
        Ok(bytes.into_owned())
    }

    /// Returns the row group of a row.
    fn group(&self, row: u64) -> usize {
        self.starts.partition_point(|start| *start <= row) - 1
    }

    /// Returns the pages of the row's row group, the page with the row, and the group.
    fn location(&self, row: u64) -> Result<(Arc<Vec<PageLocation>>, PageLocation, Group)> {
        let number = self.group(row);
        let group = self.footer.groups[number];
        let row = row - self.starts[number];
        let pages = self.pages_of(number)?;
        let wrong = || self.refuse(refusal("a page for each row", format!("none for row {row} of group {number}")));
        let is_data = |location: &&PageLocation| location.header.kind != Kind::Dictionary;
        let location = *pages.iter().filter(is_data).rfind(|location| location.row <= row).ok_or_else(wrong)?;
        Ok((pages, location, group))
    }

    /// Returns the pages of images of a row group.
    fn pages_of(&self, number: usize) -> Result<Arc<Vec<PageLocation>>> {
        if let Some(pages) = self.pages[number].get() {
            return Ok(pages.clone());
        }
        let group = self.footer.groups[number];
        let pages = Arc::new(self.listed(group.image, group.rows)?);
        Ok(self.pages[number].get_or_init(|| pages).clone())
    }

    fn broken(&self, location: &PageLocation) -> Error {
        let expected = "a page of complete values in plain, dictionary or delta encoding";
        self.refuse(refusal(
            expected,
            format!("another page at {} (encoding {})", location.offset, location.header.encoding),
        ))
    }

    /// Lists the pages of a column chunk, reading only their headers.
    fn listed(&self, chunk: Chunk, rows: u64) -> Result<Vec<PageLocation>> {
        let (mut location, end, mut row, mut pages) = (chunk.offset, chunk.offset + chunk.length, 0, Vec::new());
        while row < rows {
            let wrong = || self.refuse(refusal("pages for all rows of a group", format!("{row} of {rows}")));
            let (header, length) = self.header(location, end)?.ok_or_else(wrong)?;
            let offset = location + length;
            location = offset.checked_add(header.packed).filter(|next| *next <= end).ok_or_else(wrong)?;
            match header.kind {
                Kind::Dictionary => pages.push(PageLocation { header, offset, row }),
                Kind::Data | Kind::Data2 { .. } => {
                    pages.push(PageLocation { header, offset, row });
                    row = row.checked_add(header.values).filter(|next| *next <= rows).ok_or_else(wrong)?;
                }
                Kind::Other => {}
            }
        }
        Ok(pages)
    }

    /// Reads the page header at an offset. Its length is unknown, so the read grows until the
    /// header is complete.
    fn header(&self, location: u64, end: u64) -> Result<Option<(Header, u64)>> {
        let mut length = 256;
        loop {
            let limit = end.saturating_sub(location);
            let bytes = self.bytes.read(location, limit.min(length))?;
            let header = Header::read(&bytes);
            if header.is_some() || length >= limit.min(MAX_HEADER_BYTES) {
                return Ok(header);
            }
            length *= 8;
        }
    }

    /// Returns the decompressed bytes of a page, from the cache if possible.
    fn unpacked(&self, location: &PageLocation, chunk: Chunk) -> Result<Arc<Vec<u8>>> {
        let key = (self.number, location.offset);
        if let Some(page) = self.page_cache.get(key) {
            return Ok(page);
        }
        let limit = location.header.packed.max(location.header.unpacked);
        if limit > MAX_BYTES {
            return Err(self.refuse(refusal("a page of at most 512 MiB", limit)));
        }
        let packed = self.stored(location)?;
        let page = location.header.unpack(&packed, chunk.codec).map_err(|why| self.refuse(why))?.into_owned();
        let page = Arc::new(page);
        self.page_cache.put(key, page.clone());
        Ok(page)
    }

    /// Reads a page as stored, and compares it with its digest where that is known.
    ///
    /// # Errors
    /// [`Error::Changed`] without a name, if it is not the page of the digest, or the file was
    /// written to.
    fn stored(&self, location: &PageLocation) -> Result<Vec<u8>> {
        let read = self.bytes.read(location.offset, location.header.packed);
        let digests = self.digests.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone();
        let Some(digests) = digests else { return read };
        match read {
            Ok(bytes) if digests.get(&location.offset) == Some(&digest_bytes(&bytes)) => Ok(bytes),
            // What is out of reach has its own error.
            Err(error @ Error::Read { .. }) => Err(error),
            _ => Err(Error::Changed { name: String::new() }),
        }
    }
}

impl PageCache {
    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<(Key, Arc<Vec<u8>>)>> {
        self.pages.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn get(&self, key: Key) -> Option<Arc<Vec<u8>>> {
        let mut pages = self.lock();
        let location = pages.iter().position(|(other, _)| *other == key)?;
        let found = pages.remove(location)?;
        pages.push_back(found.clone());
        Some(found.1)
    }

    fn put(&self, key: Key, page: Arc<Vec<u8>>) {
        let mut pages = self.lock();
        pages.push_back((key, page));
        while pages.len() > 1 && pages.iter().map(|(_, page)| page.len()).sum::<usize>() > PAGE_CACHE_BYTES {
            pages.pop_front();
        }
    }
}
