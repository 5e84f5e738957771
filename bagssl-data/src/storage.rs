//! Where the bytes of images lie, and how one image's are read.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::dataset::Dataset;
use crate::decoder::Prepared;
use crate::entries::Entry;
use crate::error::{Error, Result};
use crate::folder::NOT_UTF8;
use crate::parquet::Table;

/// Where the bytes of images lie.
#[derive(Debug)]
pub(crate) enum Storage {
    /// Each in a file of its own, under this folder.
    Files(PathBuf),
    /// In these files, each at its place.
    Archives(Vec<Archive>),
    /// In the rows of these files.
    Tables(Vec<Table>),
    /// All in memory.
    Memory(Cow<'static, [u8]>),
    /// Raw pixels of 32x32, plane by plane, of some files in memory.
    PlanarRgb(Vec<Vec<u8>>),
}

/// An open file with many images in it.
#[derive(Debug)]
pub(crate) struct Archive {
    pub(crate) path: PathBuf,
    pub(crate) file: File,
    pub(crate) stamp: FileStamp,
}

/// What tells that a file has changed: its length, and when it was last written, in nanoseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileStamp {
    pub(crate) length: u64,
    pub(crate) modified: i64,
}

impl FileStamp {
    pub(crate) fn from_file(file: &File) -> io::Result<Self> {
        let meta = file.metadata()?;
        Ok(FileStamp { length: meta.len(), modified: meta.modified().map_or(0, nanoseconds) })
    }
}

/// Since 1970.
pub(crate) fn nanoseconds(time: SystemTime) -> i64 {
    match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => after.as_nanos() as i64,
        Err(before) => -(before.duration().as_nanos() as i64),
    }
}

/// Opens a file to be read. Only a regular one: a pipe would be waited for, and a device may never end.
pub(crate) fn open_file(path: &Path) -> Result<File> {
    let failed = |error| Error::Read { path: path.into(), error };
    match std::fs::metadata(path).map_err(failed)? {
        meta if meta.is_file() => File::open(path).map_err(failed),
        meta => {
            let got = if meta.is_dir() { "a folder" } else { "a special one (a pipe, a socket or a device)" };
            Err(Error::Format { path: path.into(), expected: "a regular file", got: got.into() })
        }
    }
}

/// All bytes of a file that is read at once.
///
/// # Errors
/// [`Error::Format`] if there are more than so many.
pub(crate) fn read_file(path: &Path, most: u64) -> Result<Vec<u8>> {
    let failed = |error| Error::Read { path: path.into(), error };
    let file = open_file(path)?;
    let length = file.metadata().map_err(failed)?.len();
    if length > most {
        let got = format!("{length} bytes, more than {} MiB", most >> 20);
        return Err(Error::Format { path: path.into(), expected: "a file that fits in memory", got });
    }
    let mut bytes = Vec::with_capacity(length as usize);
    file.take(most).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

impl Archive {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let failed = |error| Error::Read { path: path.into(), error };
        let file = open_file(path)?;
        let stamp = FileStamp::from_file(&file).map_err(failed)?;
        Ok(Archive { path: path.into(), file, stamp })
    }

    /// Bytes at a place, if the file is still the one that was opened.
    pub(crate) fn read(&self, offset: u64, length: u64) -> Result<Vec<u8>> {
        let failed = |error| Error::Read { path: self.path.clone(), error };
        if FileStamp::from_file(&self.file).map_err(failed)? != self.stamp {
            let (expected, got) = ("the file as it was opened", "one that has changed".into());
            return Err(Error::Format { path: self.path.clone(), expected, got });
        }
        let mut bytes = vec![0; length as usize];
        read_at(&self.file, &mut bytes, offset).map_err(failed)?;
        Ok(bytes)
    }
}

impl Dataset {
    /// Bytes of memory that reading an image takes at most, before it is decoded.
    pub(crate) fn reading(&self, image: usize) -> Result<u64> {
        let entry = self.entries.get(image);
        match &self.storage {
            Storage::Tables(tables) => {
                let needs = tables[entry.source as usize].needs(entry.offset);
                needs.map_err(|error| self.named(image, error))
            }
            _ => Ok(Prepared::reading(entry.length)),
        }
    }

    /// The bytes of an image: a picture that is to be decoded, or the raw pixels of CIFAR. Who calls has room for as many as the
    /// entry says. Where a digest of them is known they are compared with it.
    pub(crate) fn bytes(&self, image: usize) -> Result<Cow<'_, [u8]>> {
        let bytes = self.stored(image);
        self.check_unchanged(image, bytes.as_deref())?;
        bytes
    }

    fn stored(&self, image: usize) -> Result<Cow<'_, [u8]>> {
        let entry = self.entries.get(image);
        let (offset, length) = (entry.offset as usize, entry.length as usize);
        match &self.storage {
            Storage::Files(root) => self.file(image, &root.join(entry.name), entry).map(Cow::Owned),
            Storage::Archives(archives) => {
                let read = archives[entry.source as usize].read(entry.offset, entry.length);
                read.map(Cow::Owned).map_err(|error| self.named(image, error))
            }
            Storage::Tables(tables) => {
                let row = tables[entry.source as usize].image(entry.offset);
                row.map(Cow::Owned).map_err(|error| self.named(image, error))
            }
            Storage::Memory(bytes) => Ok(Cow::Borrowed(&bytes[offset..][..length])),
            Storage::PlanarRgb(files) => Ok(Cow::Borrowed(&files[entry.source as usize][offset..][..length])),
        }
    }

    /// A file of its own, which must have the length that it was listed with. No more than that is read.
    fn file(&self, image: usize, path: &Path, entry: Entry<'_>) -> Result<Vec<u8>> {
        let failed = |error| Error::Read { path: path.into(), error };
        let file = open_file(path).map_err(|error| self.not_there(image, path, error))?;
        let mut bytes = Vec::with_capacity(entry.length as usize);
        file.take(entry.length + 1).read_to_end(&mut bytes).map_err(failed)?;
        if bytes.len() as u64 != entry.length {
            let more = if bytes.len() as u64 > entry.length { "more".into() } else { bytes.len().to_string() };
            let expected = format!("{} bytes, as when it was listed", entry.length);
            return Err(Error::Image { name: self.full_name(image), expected, got: more });
        }
        Ok(bytes)
    }

    /// What is at the path of an image that cannot be opened, if it is no image file.
    fn not_there(&self, image: usize, path: &Path, error: Error) -> Error {
        let refuse = |expected: &str, got: &str| Error::Image {
            name: self.full_name(image),
            expected: expected.into(),
            got: got.into(),
        };
        match error {
            Error::Read { error, .. } if error.kind() == io::ErrorKind::NotFound && path.is_symlink() => {
                refuse("an image file", "a link that leads nowhere")
            }
            Error::Read { error, .. }
                if error.kind() == io::ErrorKind::NotFound && self.name(image).contains(NOT_UTF8) =>
            {
                refuse("a file whose name is UTF-8", "another")
            }
            Error::Format { .. } => self.named(image, error),
            error => error,
        }
    }

    /// An error of an archive, as one of an image in it.
    fn named(&self, image: usize, error: Error) -> Error {
        let name = self.full_name(image);
        match error {
            Error::Read { error, .. } => Error::Read { path: name.into(), error },
            Error::Format { expected, got, .. } => Error::Image { name, expected: expected.into(), got },
            other => other,
        }
    }

    /// The name of an image with that of its data set.
    pub(crate) fn full_name(&self, image: usize) -> String {
        match self.origin.as_os_str().is_empty() {
            true => self.name(image).into(),
            false => format!("{}: {}", self.origin.display(), self.name(image)),
        }
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
