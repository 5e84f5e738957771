//! Files that are written completely or not at all: beside their place, synced, and renamed.
//!
//! [`write_atomic`] does all of it at once. [`StagedFile`] separates writing from renaming, so that
//! several files appear together.

#![cfg_attr(docsrs, feature(doc_cfg))]

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

/// The suffix of partially written files.
const PARTIAL: &str = ".partial";

/// A file that has been written and synced under a temporary name in the same folder
/// (`.{name}.{letters}.partial`), and has yet to be renamed. Dropping it removes the file.
#[derive(Debug)]
pub struct StagedFile {
    file: NamedTempFile,
    path: PathBuf,
}

impl StagedFile {
    /// Writes and syncs the bytes.
    ///
    /// # Errors
    /// If this fails. No file is left behind.
    pub fn write(path: &Path, bytes: &[u8]) -> io::Result<Self> {
        let write = || {
            let mut file = begin(path)?;
            file.write_all(bytes)?;
            file.as_file().sync_all()?;
            Ok(file)
        };
        Ok(StagedFile { file: write().map_err(plain)?, path: path.into() })
    }

    /// Renames the file to its final name, failing if that exists, and syncs the folder so that
    /// the rename is durable.
    ///
    /// # Errors
    /// If a file of that name exists, or the rename fails.
    pub fn commit_new(self) -> io::Result<()> {
        let StagedFile { file, path } = self;
        match file.persist_noclobber(&path) {
            Ok(_) => sync_folder_of(&path),
            // Some file systems cannot rename without replacing. A race between check and rename
            // remains there.
            Err(error) if error.error.kind() != ErrorKind::AlreadyExists && path.symlink_metadata().is_err() => {
                StagedFile { file: error.file, path }.commit()
            }
            Err(error) => Err(error.error),
        }
    }

    /// Renames the file to its final name, and syncs the folder so that the rename is durable.
    ///
    /// # Errors
    /// If this fails.
    pub fn commit(self) -> io::Result<()> {
        let StagedFile { file, path } = self;
        file.persist(&path).map_err(|error| error.error)?;
        sync_folder_of(&path)
    }
}

/// Writes a file, replacing an existing one.
///
/// # Errors
/// If this fails. An existing file is left untouched.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> io::Result<()> {
    StagedFile::write(path, bytes)?.commit()
}

/// Removes the partially written files of killed processes from a folder. No other process may write
/// to it.
///
/// # Errors
/// If the folder cannot be read, or a file cannot be removed.
pub fn remove_partial(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with('.') && name.ends_with(PARTIAL) && entry.file_type()?.is_file() {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Rejects an existing path that is not a regular file: opening a pipe would block.
///
/// # Errors
/// If the path is a folder, a pipe or a device.
pub fn check_regular(path: &Path) -> io::Result<()> {
    match fs::metadata(path) {
        Ok(meta) if !meta.is_file() => {
            Err(io::Error::other("expected a regular file, got a folder, a pipe or a device"))
        }
        _ => Ok(()),
    }
}

/// Rejects a path where no folder is or can be created, because it or one of its parents is a file.
///
/// # Errors
/// If that is so.
pub fn check_folder(path: &Path) -> io::Result<()> {
    let Some(there) = path.ancestors().find(|above| above.symlink_metadata().is_ok()) else { return Ok(()) };
    let got = match fs::metadata(there) {
        Ok(meta) if meta.is_dir() => return Ok(()),
        Ok(meta) if meta.is_file() => "a file",
        Ok(_) => "a special file",
        Err(_) => "a dead link",
    };
    let which = if there == path { String::new() } else { format!(" ({})", there.display()) };
    Err(io::Error::other(format!("expected a folder, got {got}{which}")))
}

/// Creates a folder and its parents, as far as they do not exist.
///
/// # Errors
/// If this fails, and those of [`check_folder`].
pub fn create_folder(path: &Path) -> io::Result<()> {
    check_folder(path)?;
    fs::create_dir_all(path)
}

/// Returns the folder of a file.
fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Syncs the folder of a file, so that a rename or removal in it is durable.
///
/// # Errors
/// If the folder cannot be opened or synced.
pub fn sync_folder_of(path: &Path) -> io::Result<()> {
    // On other systems, a folder cannot be opened.
    if cfg!(unix) { File::open(folder_of(path))?.sync_all() } else { Ok(()) }
}

/// Creates a file with a unique name and the default permissions of a new file.
fn begin(path: &Path) -> io::Result<NamedTempFile> {
    // Long names are truncated, so that the temporary name does not exceed the length limit.
    const LONGEST: usize = 40;
    let name: String = path.file_name().unwrap_or_default().to_string_lossy().chars().take(LONGEST).collect();
    let prefix = format!(".{name}.");
    let mut builder = tempfile::Builder::new();
    builder.prefix(&prefix).suffix(PARTIAL);
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    builder.tempfile_in(folder_of(path))
}

/// Returns the system's error without the path that `tempfile` appends.
fn plain(error: io::Error) -> io::Error {
    match error.to_string().rsplit_once(" at path ") {
        Some((said, _)) => io::Error::new(error.kind(), said.to_string()),
        None => error,
    }
}

/// The readme's example is a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn write_atomic_replaces_all_or_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        write_atomic(&path, b"one").unwrap();
        let staged = StagedFile::write(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"one");
        drop(staged);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "a dropped stage leaves nothing behind");
        write_atomic(&path, b"three").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"three");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn two_writers_of_one_file_do_not_mix() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        let [one, two] = [b"one", b"two"].map(|bytes| StagedFile::write(&path, bytes).unwrap());
        two.commit().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        one.commit().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"one");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn commit_new_does_not_replace() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        StagedFile::write(&path, b"one").unwrap().commit_new().unwrap();
        let error = StagedFile::write(&path, b"two").unwrap().commit_new().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"one");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn only_partial_files_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.safetensors");
        std::mem::forget(StagedFile::write(&path, b"one").unwrap());
        for other in [".hidden", "x.partial", "state.safetensors"] {
            fs::write(folder.path().join(other), b"other").unwrap();
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 4);
        remove_partial(folder.path()).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3);
    }

    #[test]
    fn a_file_is_no_folder() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("file"), "x").unwrap();
        create_folder(&at("a/b")).unwrap();
        create_folder(&at("a/b")).unwrap();
        assert!(at("a/b").is_dir() && check_folder(Path::new("new/folder")).is_ok());
        let error = |name: &str| create_folder(&at(name)).unwrap_err().to_string();
        assert_eq!(error("file"), "expected a folder, got a file");
        assert_eq!(error("file/b/c"), format!("expected a folder, got a file ({})", at("file").display()));
    }

    #[test]
    fn errors_have_no_path() {
        let folder = tempfile::tempdir().unwrap();
        let error = write_atomic(&folder.path().join("no/state"), b"").unwrap_err().to_string();
        assert!(!error.contains("no/"), "the caller adds the path: {error}");
        let long = folder.path().join("n".repeat(250));
        write_atomic(&long, b"").unwrap();
    }

    #[cfg(unix)]
    #[test]
    fn permissions_are_those_of_a_new_file() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let (path, other) = (folder.path().join("state"), folder.path().join("other"));
        write_atomic(&path, b"one").unwrap();
        fs::write(&other, b"one").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode(&path), mode(&other));
    }
}
