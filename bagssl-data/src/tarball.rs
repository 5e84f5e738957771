//! ImageFolder in an uncompressed tar: indexed once, images read in place.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::{Component, Path};

use crate::dataset::{Collector, Dataset, Split, Storage, is_image};
use crate::error::{Error, Result};

/// Opens one half of a tar file.
pub(crate) fn open(path: &Path, split: Split) -> Result<Dataset> {
    let failed = |error| Error::Read { path: path.into(), error };
    let file = File::open(path).map_err(failed)?;
    let length = file.metadata().map_err(failed)?.len();
    let (collector, classes) = index(&file, length, path, split)?;
    collector.finish(classes, split, Storage::File(file))
}

/// One half of a tar in memory.
pub(crate) fn from_bytes(bytes: Cow<'static, [u8]>, origin: &Path, split: Split) -> Result<Dataset> {
    let (collector, classes) = index(io::Cursor::new(&bytes), bytes.len() as u64, origin, split)?;
    collector.finish(classes, split, Storage::Memory(bytes))
}

/// The images of one half, and the classes of both.
fn index(reader: impl Read + Seek, length: u64, origin: &Path, split: Split) -> Result<(Collector, Vec<String>)> {
    let no_tar = |error: io::Error| Error::Format {
        path: origin.into(),
        expected: "a folder, or a .tar with train/ and val/",
        got: error.to_string().replace('\n', " "),
    };
    let mut collector = Collector::new(origin);
    let mut classes = Vec::new();
    let mut archive = tar::Archive::new(reader);
    for entry in archive.entries_with_seek().map_err(no_tar)? {
        let entry = entry.map_err(no_tar)?;
        let path = entry.path().map_err(no_tar)?;
        let refuse = |got: String| Error::Format { path: origin.join(&path), expected: "an entry inside the tar", got };
        if path.components().any(|part| !matches!(part, Component::Normal(_) | Component::CurDir)) {
            return Err(refuse("one that points outside".into()));
        }
        let kind = entry.header().entry_type();
        if kind.is_symlink() || kind.is_hard_link() {
            return Err(refuse("a link".into()));
        }
        let name = path.to_str().ok_or_else(|| refuse("a name that is not UTF-8".into()))?;
        if !kind.is_file() || !is_image(name) {
            continue;
        }
        let (offset, size) = (entry.raw_file_position(), entry.size());
        if offset.checked_add(size).is_none_or(|end| end > length) {
            return Err(refuse(format!("{size} bytes of which the file has {}", length.saturating_sub(offset))));
        }
        let Some((half, class)) = place(name) else { continue };
        classes.push(class.to_string());
        if half == split {
            collector.add(class.into(), name.into(), offset, size);
        }
    }
    Ok((collector, classes))
}

/// The half and the class of `{top?}/{train,val}/{class}/../{image}`.
fn place(name: &str) -> Option<(Split, &str)> {
    let parts: Vec<&str> = name.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    (0..2).find_map(|at| {
        let half = [Split::Train, Split::Validation]
            .into_iter()
            .find(|half| parts.get(at).is_some_and(|part| half.folders().contains(part)))?;
        (parts.len() > at + 2).then(|| (half, parts[at + 1]))
    })
}

/// Reads at a place of a file without moving any shared position.
#[cfg(unix)]
pub(crate) fn read_at(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, bytes, offset)
}

/// Reads at a place of a file. Each call reads a part of its own, so threads do not disturb each other.
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
