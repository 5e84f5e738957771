//! Where a run's state is kept: a file that is there as a whole or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// Takes a run's state.
pub trait Store {
    /// Keeps these bytes in place of those of the last call.
    ///
    /// # Errors
    /// What could not be done; the bytes of the last call are still there.
    fn save(&mut self, bytes: &[u8]) -> Result<()>;
}

/// A store for runs whose state nobody wants.
#[derive(Debug, Clone, Copy, Default)]
pub struct Nowhere;

impl Store for Nowhere {
    fn save(&mut self, _: &[u8]) -> Result<()> {
        Ok(())
    }
}

/// A file that is replaced as a whole: written under another name, synced, renamed.
#[derive(Debug, Clone)]
pub struct FileStore {
    path: PathBuf,
}

impl FileStore {
    /// A store in this file, whose folder must be there.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        FileStore { path: path.into() }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Store for FileStore {
    fn save(&mut self, bytes: &[u8]) -> Result<()> {
        Staged::write(&self.path, bytes)?.commit()
    }
}

/// A file that has been written and synced under another name beside its own (`.{name}.partial`), and waits to be
/// renamed. It is removed if it is dropped before that.
#[derive(Debug)]
pub struct Staged {
    partial: PathBuf,
    path: PathBuf,
    committed: bool,
}

impl Staged {
    /// Writes and syncs the bytes.
    ///
    /// # Errors
    /// [`Error::File`] if that cannot be done; nothing is left behind.
    pub fn write(path: &Path, bytes: &[u8]) -> Result<Self> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let partial = path.with_file_name(format!(".{name}.partial"));
        let staged = Staged { partial, path: path.into(), committed: false };
        // What a run that was killed has left goes; a link is not followed.
        let _ = fs::remove_file(&staged.partial);
        let written = OpenOptions::new().write(true).create_new(true).open(&staged.partial).and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_all()
        });
        written.map_err(|error| Error::File { path: staged.partial.clone(), error })?;
        Ok(staged)
    }

    /// Gives the file its name if no other has it, and syncs the folder so that the name lasts.
    ///
    /// # Errors
    /// [`Error::File`] if a file of that name is there, or it cannot be done.
    pub fn commit_new(self) -> Result<()> {
        // A link is made only if the name is free; some file systems have none, and then the moment in between is left.
        match fs::hard_link(&self.partial, &self.path) {
            Ok(()) => self.sync(),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                Err(Error::File { path: self.path.clone(), error })
            }
            Err(_) if !self.path.exists() => self.commit(),
            Err(error) => Err(Error::File { path: self.path.clone(), error }),
        }
    }

    /// Gives the file its name, and syncs the folder so that the name lasts.
    ///
    /// # Errors
    /// [`Error::File`] if that cannot be done.
    pub fn commit(mut self) -> Result<()> {
        let failed = |error| Error::File { path: self.path.clone(), error };
        fs::rename(&self.partial, &self.path).map_err(failed)?;
        self.committed = true;
        self.sync()
    }

    fn sync(&self) -> Result<()> {
        #[cfg(unix)]
        {
            let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
            let synced = File::open(folder.unwrap_or(Path::new("."))).and_then(|folder| folder.sync_all());
            synced.map_err(|error| Error::File { path: self.path.clone(), error })?;
        }
        Ok(())
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if !self.committed {
            // It may not be there, and there is nobody to tell.
            let _ = fs::remove_file(&self.partial);
        }
    }
}

/// Writes a file as a whole or not at all.
///
/// # Errors
/// [`Error::File`] if that cannot be done; a file that was there before is untouched.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    Staged::write(path, bytes)?.commit()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_as_a_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        let mut store = FileStore::new(&path);
        store.save(b"one").unwrap();
        let staged = Staged::write(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"one");
        drop(staged);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "a dropped stage leaves nothing behind");
        store.save(b"three").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"three");
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

    #[cfg(unix)]
    #[test]
    fn a_link_in_the_way_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let (path, other) = (folder.path().join("state"), folder.path().join("other"));
        fs::write(&other, b"other").unwrap();
        std::os::unix::fs::symlink(&other, folder.path().join(".state.partial")).unwrap();
        FileStore::new(&path).save(b"one").unwrap();
        assert_eq!((fs::read(&path).unwrap(), fs::read(&other).unwrap()), (b"one".to_vec(), b"other".to_vec()));
        assert!(fs::symlink_metadata(&path).unwrap().is_file());
    }

    #[test]
    fn a_folder_that_is_not_there_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let error = FileStore::new(folder.path().join("no/state")).save(b"").unwrap_err().to_string();
        assert!(error.contains("no/.state.partial"), "{error}");
    }
}
