//! What an uncompressed tar holds, each member checked before anything is read of it.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Component, Path};

use crate::error::{Error, Result, one_line};
use crate::storage::read_at;

/// A member of a tar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    /// Where its bytes begin in the reader, and how many there are: all of them lie in it.
    pub(crate) offset: u64,
    pub(crate) length: u64,
}

/// What a member is; links are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    Folder,
    Special,
}

/// All members of a tar that is a reader's first `length` bytes.
///
/// # Errors
/// [`Error::Format`] if it is compressed, no tar, cut short, or has a link, a name that is not UTF-8 or points outside.
pub(crate) fn members(mut reader: impl Read + Seek, length: u64, origin: &Path) -> Result<Vec<Member>> {
    let expected = "a folder, or an uncompressed .tar with train/ and val/";
    let refuse = |got: String| Error::Format { path: origin.into(), expected, got };
    let no_tar = |error: io::Error| refuse(one_line(&error));
    if let Some(compression) = compression(&mut reader).map_err(no_tar)? {
        return Err(refuse(format!("a file compressed with {compression}")));
    }
    let (mut members, mut end) = (Vec::new(), 0);
    for entry in tar::Archive::new(reader).entries_with_seek().map_err(no_tar)? {
        let entry = entry.map_err(no_tar)?;
        let member = member(&entry, length, origin)?;
        end = member.offset + member.length;
        members.push(member);
    }
    if end > 0 && length.saturating_sub(end.next_multiple_of(BLOCK)) < BLOCK {
        return Err(refuse(format!("{length} bytes without a tar's end mark")));
    }
    Ok(members)
}

/// One member, checked.
fn member<R: Read>(entry: &tar::Entry<'_, R>, length: u64, origin: &Path) -> Result<Member> {
    let no_tar = |error: io::Error| Error::Format { path: origin.into(), expected: "a tar", got: one_line(&error) };
    let (offset, size) = (entry.raw_file_position(), entry.size());
    let path = entry.path().map_err(no_tar)?;
    let refuse = |got: String| Error::Format { path: origin.join(&path), expected: "a file inside the tar", got };
    if path.components().any(|part| !matches!(part, Component::Normal(_) | Component::CurDir)) {
        return Err(refuse("a name that points outside".into()));
    }
    if offset.checked_add(size).is_none_or(|end| end > length) {
        return Err(refuse(format!("{} of its {size} bytes", length.saturating_sub(offset))));
    }
    let kind = entry.header().entry_type();
    if kind.is_symlink() || kind.is_hard_link() {
        return Err(refuse("a link".into()));
    }
    let name = path.to_str().ok_or_else(|| refuse("a name that is not UTF-8".into()))?.to_string();
    let kind = match kind {
        kind if kind.is_dir() => Kind::Folder,
        kind if kind.is_file() => Kind::File,
        _ => Kind::Special,
    };
    Ok(Member { name, kind, offset, length: size })
}

/// A tar is made of blocks of so many bytes; an empty one marks its end.
const BLOCK: u64 = 512;

/// What a file is compressed with, by its first bytes.
fn compression(reader: &mut (impl Read + Seek)) -> io::Result<Option<&'static str>> {
    let mut start = Vec::new();
    reader.take(4).read_to_end(&mut start)?;
    reader.rewind()?;
    let known: [(&[u8], _); 4] =
        [(b"\x1f\x8b", "gzip"), (b"BZh", "bzip2"), (b"\xfd7zX", "xz"), (b"\x28\xb5\x2f\xfd", "zstd")];
    Ok(known.into_iter().find(|(magic, _)| start.starts_with(magic)).map(|(_, name)| name))
}

/// A part of a file, read as if it were all of it.
pub(crate) struct Section<'a> {
    file: &'a File,
    start: u64,
    length: u64,
    at: u64,
}

impl<'a> Section<'a> {
    /// `length` bytes from `start` on: the caller knows that they are there.
    pub(crate) fn new(file: &'a File, start: u64, length: u64) -> Self {
        Section { file, start, length, at: 0 }
    }
}

impl Read for Section<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let count = self.length.saturating_sub(self.at).min(bytes.len() as u64) as usize;
        read_at(self.file, &mut bytes[..count], self.start + self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

impl Seek for Section<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(step) => self.at.checked_add_signed(step),
            SeekFrom::End(step) => self.length.checked_add_signed(step),
        };
        self.at = at.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}

/// The last part of a name, and what comes before its last slash.
pub(crate) fn split_name(name: &str) -> (&str, &str) {
    name.rsplit_once('/').unwrap_or(("", name))
}
