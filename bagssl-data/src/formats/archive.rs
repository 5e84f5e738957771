//! Members of an uncompressed tar, each checked before its bytes are read.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Component, Path};

use crate::error::{Error, Result, one_line};
use crate::file::read_at;
use crate::ignored::{IgnoreReason, Ignored};
use crate::image::sniff;

/// A member of a tar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    /// The position and number of its bytes. They are inside the reader.
    pub(crate) offset: u64,
    pub(crate) length: u64,
}

/// The kind of a member. Links are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    Folder,
    Special,
}

/// The members of a tar.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    pub(crate) members: Vec<Member>,
    pub(crate) ignored: Ignored,
}

/// Lists all members of a tar, which is the first `length` bytes of a reader. Concatenated tars are
/// read as one.
///
/// # Errors
/// [`Error::Format`] if the tar is compressed, invalid or truncated, or has a link, a name that is
/// not UTF-8, or a name that points outside.
pub(crate) fn contents(mut reader: impl Read + Seek, length: u64, origin: &Path) -> Result<Contents> {
    let refuse = |got: String| Error::Format { path: origin.into(), expected: "an uncompressed .tar of images", got };
    let no_tar = |error: io::Error| refuse(one_line(&error));
    let mut start = Vec::new();
    reader.by_ref().take(sniff::LENGTH).read_to_end(&mut start).map_err(no_tar)?;
    reader.rewind().map_err(no_tar)?;
    let (mut contents, mut end, mut failed) = (Contents::default(), 0, None);
    let mut archive = tar::Archive::new(&mut reader);
    // Continue after an end-of-archive marker: another tar may follow, as in `cat a.tar b.tar`.
    archive.set_ignore_zeros(true);
    for entry in LongNameEntries::new(archive.entries_with_seek().map_err(no_tar)?) {
        match entry {
            Ok((name, entry)) => {
                let member = member(&name, &entry, length, origin)?;
                end = (member.offset + member.length).next_multiple_of(BLOCK);
                contents.members.push(member);
            }
            Err(error) => {
                failed = Some(error);
                break;
            }
        }
    }
    check_twice(&contents.members, origin)?;
    match failed {
        _ if length == 0 => return Err(refuse("an empty file".into())),
        Some(error) if end == 0 => {
            let other = sniff::file_kind(&start).filter(|kind| *kind != sniff::TAR);
            return Err(other.map_or(no_tar(error), |kind| refuse(kind.into())));
        }
        None if end == 0 => {}
        _ if length.saturating_sub(end) < BLOCK => {
            return Err(refuse(format!("{length} bytes without an end-of-archive marker")));
        }
        None => {}
        Some(error) => match zeros(&mut reader, end, length).map_err(no_tar)? {
            // The bytes after the end are not a tar. No member is lost, so they are ignored.
            zeros if zeros >= BLOCK => {
                contents.ignored.add_many(IgnoreReason::AfterEnd, length - end - zeros, origin.display().to_string());
            }
            _ => return Err(no_tar(error)),
        },
    }
    Ok(contents)
}

/// Refuses different names of one path, such as `a/b` and `./a/b`: unpacking would overwrite one of
/// the files.
fn check_twice(members: &[Member], origin: &Path) -> Result<()> {
    let plain = |name: &str| name.split('/').filter(|part| !["", "."].contains(part)).collect::<Vec<_>>().join("/");
    let files = || members.iter().filter(|member| member.kind == Kind::File);
    // Plain names are compared later, when the data set checks its entries.
    if files().all(|member| !member.name.split('/').any(|part| ["", "."].contains(&part))) {
        return Ok(());
    }
    let mut visited = HashMap::new();
    for Member { name, .. } in files() {
        if let Some(other) = visited.insert(plain(name), name)
            && other != name
        {
            let got = format!("{other} and {name}");
            return Err(Error::Format { path: origin.into(), expected: "unique file names", got });
        }
    }
    Ok(())
}

/// Returns the number of consecutive zero bytes from position `at`.
fn zeros(reader: &mut (impl Read + Seek), at: u64, length: u64) -> io::Result<u64> {
    reader.seek(SeekFrom::Start(at))?;
    let (mut block, mut zeros) = ([0; 1 << 16], 0);
    while at + zeros < length {
        let count = reader.read(&mut block)?;
        let here = block[..count].iter().take_while(|byte| **byte == 0).count();
        zeros += here as u64;
        if here < count || count == 0 {
            break;
        }
    }
    Ok(zeros)
}

/// The maximum size of a header extension, such as a long name. Extensions are read into memory.
const MAX_HEADER_BYTES: u64 = 1 << 20;

/// Iterates over the members of a tar with their names. Reads header extensions of at most
/// [`MAX_HEADER_BYTES`] bytes.
pub(crate) struct LongNameEntries<'a, R: Read>(tar::Entries<'a, R>);

impl<'a, R: Read> LongNameEntries<'a, R> {
    pub(crate) fn new(entries: tar::Entries<'a, R>) -> Self {
        LongNameEntries(entries.raw(true))
    }

    fn try_next(&mut self) -> io::Result<Option<(Vec<u8>, tar::Entry<'a, R>)>> {
        let mut long_name: Option<Vec<u8>> = None;
        loop {
            let Some(mut entry) = self.0.next().transpose()? else { return Ok(None) };
            let kind = entry.header().entry_type();
            if kind.is_gnu_sparse() {
                return Err(io::Error::other("a sparse file, which is not supported"));
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

impl<'a, R: Read> Iterator for LongNameEntries<'a, R> {
    type Item = io::Result<(Vec<u8>, tar::Entry<'a, R>)>;

    fn next(&mut self) -> Option<Self::Item> {
        self.try_next().transpose()
    }
}

/// Reads a header extension.
fn before<R: Read>(entry: &mut tar::Entry<'_, R>) -> io::Result<Vec<u8>> {
    let length = entry.size();
    if length > MAX_HEADER_BYTES {
        return Err(io::Error::other(format!("a header extension of {length} bytes, more than 1 MiB")));
    }
    let mut bytes = Vec::with_capacity(length as usize);
    entry.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Checks a member.
fn member<R: Read>(name: &[u8], entry: &tar::Entry<'_, R>, length: u64, origin: &Path) -> Result<Member> {
    let (offset, size) = (entry.raw_file_position(), entry.size());
    let name = std::str::from_utf8(name).map_err(|_| {
        let path = origin.join(String::from_utf8_lossy(name).as_ref());
        Error::Format { path, expected: "a file inside the tar", got: "a name that is not UTF-8".into() }
    })?;
    let path = Path::new(name);
    let refuse = |got: String| Error::Format { path: origin.join(path), expected: "a file inside the tar", got };
    // Members are not unpacked, so a leading slash is harmless.
    let is_inside = |part| matches!(part, Component::Normal(_) | Component::CurDir | Component::RootDir);
    if !path.components().all(is_inside) {
        return Err(refuse("a name that points outside the tar".into()));
    }
    if offset.checked_add(size).is_none_or(|end| end > length) {
        return Err(refuse(format!("only {} of its {size} bytes", length.saturating_sub(offset))));
    }
    let kind = entry.header().entry_type();
    if kind.is_symlink() || kind.is_hard_link() {
        return Err(refuse("a link".into()));
    }
    let name = name.trim_start_matches('/');
    let kind = match kind {
        kind if kind.is_dir() => Kind::Folder,
        kind if kind.is_file() => Kind::File,
        _ => Kind::Special,
    };
    Ok(Member { name: name.into(), kind, offset, length: size })
}

/// The block size of a tar in bytes. An empty block marks its end.
const BLOCK: u64 = 512;

/// A byte range of a file, as a reader.
pub(crate) struct Section<'a> {
    file: &'a File,
    start: u64,
    length: u64,
    at: u64,
}

impl<'a> Section<'a> {
    /// Creates a reader of `length` bytes from `start`. The caller ensures that the file has these
    /// bytes.
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

/// Splits a name at its last slash into the folder (empty if there is none) and the file name.
pub(crate) fn split_name(name: &str) -> (&str, &str) {
    name.rsplit_once('/').unwrap_or(("", name))
}
