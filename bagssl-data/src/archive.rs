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
    let mut archive = tar::Archive::new(reader);
    for entry in Named::new(archive.entries_with_seek().map_err(no_tar)?) {
        let (name, entry) = entry.map_err(no_tar)?;
        let member = member(&name, &entry, length, origin)?;
        end = member.offset + member.length;
        members.push(member);
    }
    if end > 0 && length.saturating_sub(end.next_multiple_of(BLOCK)) < BLOCK {
        return Err(refuse(format!("{length} bytes without a tar's end mark")));
    }
    Ok(members)
}

/// Bytes that may stand before a member: its name, and what else some programs keep there. They are read into memory.
const LONGEST_HEADER: u64 = 1 << 20;

/// The members of a tar with their names: what stands before a member is read up to [`LONGEST_HEADER`].
pub(crate) struct Named<'a, R: Read>(tar::Entries<'a, R>);

impl<'a, R: Read> Named<'a, R> {
    pub(crate) fn new(entries: tar::Entries<'a, R>) -> Self {
        Named(entries.raw(true))
    }

    fn try_next(&mut self) -> io::Result<Option<(Vec<u8>, tar::Entry<'a, R>)>> {
        let mut long_name: Option<Vec<u8>> = None;
        loop {
            let Some(mut entry) = self.0.next().transpose()? else { return Ok(None) };
            let kind = entry.header().entry_type();
            if kind.is_gnu_sparse() {
                return Err(io::Error::other("a sparse file, of which parts are left out"));
            }
            if kind.is_gnu_longname() {
                let mut name = before(&mut entry)?;
                name.truncate(memchr::memchr(0, &name).unwrap_or(name.len()));
                long_name = Some(name);
            } else if kind.is_pax_local_extensions() {
                for extension in tar::PaxExtensions::new(&before(&mut entry)?) {
                    let extension = extension?;
                    match extension.key_bytes() {
                        b"path" => long_name = Some(extension.value_bytes().to_vec()),
                        b"size" => return Err(io::Error::other("a member of more than 8 GiB")),
                        _ => {}
                    }
                }
            } else if !kind.is_gnu_longlink() && !kind.is_pax_global_extensions() {
                let name = long_name.unwrap_or_else(|| entry.path_bytes().into_owned());
                return Ok(Some((name, entry)));
            }
        }
    }
}

impl<'a, R: Read> Iterator for Named<'a, R> {
    type Item = io::Result<(Vec<u8>, tar::Entry<'a, R>)>;

    fn next(&mut self) -> Option<Self::Item> {
        self.try_next().transpose()
    }
}

/// What stands before a member.
fn before<R: Read>(entry: &mut tar::Entry<'_, R>) -> io::Result<Vec<u8>> {
    let length = entry.size();
    if length > LONGEST_HEADER {
        return Err(io::Error::other(format!("{length} bytes before a member, more than 1 MiB")));
    }
    let mut bytes = Vec::with_capacity(length as usize);
    entry.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// One member, checked.
fn member<R: Read>(name: &[u8], entry: &tar::Entry<'_, R>, length: u64, origin: &Path) -> Result<Member> {
    let (offset, size) = (entry.raw_file_position(), entry.size());
    let name = std::str::from_utf8(name).map_err(|_| {
        let path = origin.join(String::from_utf8_lossy(name).as_ref());
        Error::Format { path, expected: "a file inside the tar", got: "a name that is not UTF-8".into() }
    })?;
    let path = Path::new(name);
    let refuse = |got: String| Error::Format { path: origin.join(path), expected: "a file inside the tar", got };
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
    let kind = match kind {
        kind if kind.is_dir() => Kind::Folder,
        kind if kind.is_file() => Kind::File,
        _ => Kind::Special,
    };
    Ok(Member { name: name.into(), kind, offset, length: size })
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
