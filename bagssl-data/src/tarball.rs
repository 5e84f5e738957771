//! ImageFolder in an uncompressed tar: indexed once, images read in place.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::{Component, Path};

use crate::dataset::{Collector, Dataset, Split, Storage, is_image};
use crate::error::{Error, Result, one_line};

/// Opens one half of a tar file.
pub(crate) fn open(path: &Path, split: Split) -> Result<Dataset> {
    let failed = |error| Error::Read { path: path.into(), error };
    let file = File::open(path).map_err(failed)?;
    let length = file.metadata().map_err(failed)?.len();
    index(&file, length, path)?.finish(split, Storage::File(file))
}

/// One half of a tar in memory.
pub(crate) fn from_bytes(bytes: Cow<'static, [u8]>, origin: &Path, split: Split) -> Result<Dataset> {
    index(io::Cursor::new(&bytes), bytes.len() as u64, origin)?.finish(split, Storage::Memory(bytes))
}

/// All images of a tar.
fn index(mut reader: impl Read + Seek, length: u64, origin: &Path) -> Result<Collector> {
    let expected = "a folder, or an uncompressed .tar with train/ and val/";
    let refuse = |got: String| Error::Format { path: origin.into(), expected, got };
    let no_tar = |error: io::Error| refuse(one_line(&error));
    if let Some(compression) = compression(&mut reader).map_err(no_tar)? {
        return Err(refuse(format!("a file compressed with {compression}")));
    }
    let mut collector = Collector::new(origin);
    let mut top = None;
    let mut end = 0;
    for entry in tar::Archive::new(reader).entries_with_seek().map_err(no_tar)? {
        let entry = entry.map_err(no_tar)?;
        let (offset, size) = (entry.raw_file_position(), entry.size());
        let path = entry.path().map_err(no_tar)?;
        let refuse = |got: String| Error::Format { path: origin.join(&path), expected: "a file inside the tar", got };
        if path.components().any(|part| !matches!(part, Component::Normal(_) | Component::CurDir)) {
            return Err(refuse("a name that points outside".into()));
        }
        end = match offset.checked_add(size) {
            Some(end) if end <= length => end,
            _ => return Err(refuse(format!("{} of its {size} bytes", length.saturating_sub(offset)))),
        };
        let kind = entry.header().entry_type();
        if kind.is_symlink() || kind.is_hard_link() {
            return Err(refuse("a link".into()));
        }
        let name = path.to_str().ok_or_else(|| refuse("a name that is not UTF-8".into()))?;
        let Some(place) = Place::of(name) else { continue };
        if let Some(other) = top.replace(place.top.to_string()).filter(|other| other != place.top) {
            return Err(refuse(format!("two top folders, {other:?} and {:?}", place.top)));
        }
        if kind.is_dir() {
            collector.add_class(place.folder, place.class);
        } else if is_image(name) && place.is_inside {
            if !kind.is_file() {
                return Err(refuse("a special file".into()));
            }
            collector.add(place.folder, place.class, name.into(), offset, size);
        }
    }
    if end > 0 && length.saturating_sub(end.next_multiple_of(BLOCK)) < BLOCK {
        return Err(refuse(format!("{length} bytes without a tar's end mark")));
    }
    Ok(collector)
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

/// What the name `{top?}/{train,val}/{class}/../{image}` says. Hidden files have no place.
struct Place<'a> {
    top: &'a str,
    folder: &'static str,
    class: &'a str,
    /// Whether it names something inside the class's folder, not the folder.
    is_inside: bool,
}

impl<'a> Place<'a> {
    fn of(name: &'a str) -> Option<Self> {
        let parts: Vec<&str> = name.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
        if parts.iter().any(|part| part.starts_with('.')) {
            return None;
        }
        (0..2).find_map(|at| {
            let folder =
                Split::ALL.into_iter().flat_map(Split::folders).find(|folder| parts.get(at) == Some(folder))?;
            let top = if at == 0 { "" } else { parts[0] };
            Some(Place { top, folder, class: parts.get(at + 1)?, is_inside: parts.len() > at + 2 })
        })
    }
}

/// Reads at a place of a file without moving any shared position.
#[cfg(unix)]
pub(crate) fn read_at(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, bytes, offset)
}

/// Reads at a place of a file. Each call says its own place, so threads do not disturb each other.
#[cfg(windows)]
pub(crate) fn read_at(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<()> {
    let mut done = 0;
    while done < bytes.len() {
        match std::os::windows::fs::FileExt::seek_read(file, &mut bytes[done..], offset + done as u64)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => done += read,
        }
    }
    Ok(())
}
