//! Opening and reading files, and detecting that a file has changed.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::error::{Error, Result};

/// An open file that contains many images.
#[derive(Debug)]
pub(crate) struct Archive {
    pub(crate) path: PathBuf,
    pub(crate) file: File,
    pub(crate) stamp: FileStamp,
}

/// The length and the modification time of a file, in nanoseconds since 1970. They differ if the
/// file has changed.
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

/// Converts a time to nanoseconds since 1970.
pub(crate) fn nanoseconds(time: SystemTime) -> i64 {
    match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => after.as_nanos() as i64,
        Err(before) => -(before.duration().as_nanos() as i64),
    }
}

/// Opens a regular file for reading. Refuses others: a pipe could block, and a device may never
/// end.
pub(crate) fn open_file(path: &Path) -> Result<File> {
    let failed = |error| Error::Read { path: path.into(), error };
    match std::fs::metadata(path).map_err(failed)? {
        meta if meta.is_file() => File::open(path).map_err(failed),
        meta => {
            let got = if meta.is_dir() { "a folder" } else { "a special file (a pipe, a socket or a device)" };
            Err(Error::Format { path: path.into(), expected: "a regular file", got: got.into() })
        }
    }
}

/// Reads a complete file.
///
/// # Errors
/// [`Error::Format`] if the file has more than `max_bytes` bytes.
pub(crate) fn read_file(path: &Path, max_bytes: u64) -> Result<Vec<u8>> {
    let failed = |error| Error::Read { path: path.into(), error };
    let file = open_file(path)?;
    let length = file.metadata().map_err(failed)?.len();
    if length > max_bytes {
        let got = format!("{length} bytes, more than {} MiB", max_bytes >> 20);
        return Err(Error::Format { path: path.into(), expected: "a file that fits in memory", got });
    }
    let mut bytes = Vec::with_capacity(length as usize);
    file.take(max_bytes).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

impl Archive {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let failed = |error| Error::Read { path: path.into(), error };
        let file = open_file(path)?;
        let stamp = FileStamp::from_file(&file).map_err(failed)?;
        Ok(Archive { path: path.into(), file, stamp })
    }

    /// Reads bytes at an offset, if the file has not changed since it was opened.
    pub(crate) fn read(&self, offset: u64, length: u64) -> Result<Vec<u8>> {
        let failed = |error| Error::Read { path: self.path.clone(), error };
        if FileStamp::from_file(&self.file).map_err(failed)? != self.stamp {
            let (expected, got) = ("an unchanged file", "one modified since it was opened".into());
            return Err(Error::Format { path: self.path.clone(), expected, got });
        }
        let mut bytes = vec![0; length as usize];
        read_at(&self.file, &mut bytes, offset).map_err(failed)?;
        Ok(bytes)
    }
}

/// Reads at an offset without moving the file's shared position.
#[cfg(unix)]
pub(crate) fn read_at(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, bytes, offset)
}

/// Reads at an offset. Each call passes its own offset, so concurrent reads do not interfere.
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
