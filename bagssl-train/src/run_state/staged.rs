//! Files that are written atomically.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::error::{Error, Result};

/// The suffix of partially written files.
const PARTIAL: &str = ".partial";

/// A file that has been written and synced under a temporary name in the same directory
/// (`.{name}.{letters}.partial`), and has yet to be renamed. Dropping it removes the file.
#[derive(Debug)]
pub struct Staged {
    file: NamedTempFile,
    path: PathBuf,
}

impl Staged {
    /// Writes and syncs the bytes.
    ///
    /// # Errors
    /// [`Error::File`] if this fails. No file is left behind.
    pub fn write(path: &Path, bytes: &[u8]) -> Result<Self> {
        let write = || {
            let mut file = begin(path)?;
            file.write_all(bytes)?;
            file.as_file().sync_all()?;
            Ok(file)
        };
        let file = write().map_err(|error| failed(path, plain(error)))?;
        Ok(Staged { file, path: path.into() })
    }

    /// Renames the file to its final name, failing if that exists, and syncs the directory so that
    /// the rename is durable.
    ///
    /// # Errors
    /// [`Error::File`] if a file of that name exists, or the rename fails.
    pub fn commit_new(self) -> Result<()> {
        let Staged { file, path } = self;
        match file.persist_noclobber(&path) {
            Ok(_) => sync_folder(&path).map_err(|error| failed(&path, error)),
            // Some file systems cannot rename without replacing. A race between check and rename
            // remains there.
            Err(error) if error.error.kind() != ErrorKind::AlreadyExists && path.symlink_metadata().is_err() => {
                Staged { file: error.file, path }.commit()
            }
            Err(error) => Err(failed(&path, error.error)),
        }
    }

    /// Renames the file to its final name, and syncs the directory so that the rename is durable.
    ///
    /// # Errors
    /// [`Error::File`] if this fails.
    pub fn commit(self) -> Result<()> {
        let Staged { file, path } = self;
        file.persist(&path).map_err(|error| failed(&path, error.error))?;
        sync_folder(&path).map_err(|error| failed(&path, error))
    }
}

/// Writes a file atomically.
///
/// # Errors
/// [`Error::File`] if this fails. An existing file is left untouched.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    Staged::write(path, bytes)?.commit()
}

/// Removes the partially written files of a killed process. No other process may write to the
/// folder.
pub(super) fn remove_partial(folder: &Path) -> io::Result<()> {
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

/// Rejects an existing path that is not a regular file: reading from a pipe would block.
pub(crate) fn regular(path: &Path) -> io::Result<()> {
    match fs::metadata(path) {
        Ok(meta) if !meta.is_file() => {
            Err(io::Error::other("expected a regular file, got a folder, a pipe or a device"))
        }
        _ => Ok(()),
    }
}

/// Returns the directory of a file.
pub(super) fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Syncs the directory of a file.
pub(super) fn sync_folder(path: &Path) -> io::Result<()> {
    // On other systems a directory cannot be opened.
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

pub(super) fn failed(path: &Path, error: io::Error) -> Error {
    Error::File { path: path.into(), error }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_as_a_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        write_whole(&path, b"one").unwrap();
        let staged = Staged::write(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"one");
        drop(staged);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "a dropped stage leaves nothing behind");
        write_whole(&path, b"three").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"three");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn two_writers_of_one_file_do_not_mix() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        let [one, two] = [b"one", b"two"].map(|bytes| Staged::write(&path, bytes).unwrap());
        two.commit().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        one.commit().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"one");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_name_that_is_taken_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        Staged::write(&path, b"one").unwrap().commit_new().unwrap();
        let error = Staged::write(&path, b"two").unwrap().commit_new().unwrap_err().to_string();
        assert!(error.contains("state"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"one");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_was_begun_is_removed_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.safetensors");
        std::mem::forget(Staged::write(&path, b"one").unwrap());
        for other in [".hidden", "x.partial", "state.safetensors"] {
            fs::write(folder.path().join(other), b"other").unwrap();
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 4);
        remove_partial(folder.path()).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3);
    }

    #[test]
    fn a_folder_that_is_not_there_is_named_once() {
        let folder = tempfile::tempdir().unwrap();
        let error = write_whole(&folder.path().join("no/state"), b"").unwrap_err().to_string();
        assert!(error.contains("no/state: ") && error.matches("no/").count() == 1, "{error}");
        let long = folder.path().join("n".repeat(250));
        write_whole(&long, b"").unwrap();
    }

    #[cfg(unix)]
    #[test]
    fn others_may_read_it_as_any_new_file() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let (path, other) = (folder.path().join("state"), folder.path().join("other"));
        write_whole(&path, b"one").unwrap();
        fs::write(&other, b"one").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode(&path), mode(&other));
    }
}
