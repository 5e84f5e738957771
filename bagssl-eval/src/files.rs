//! Files that appear whole or not at all. `bagssl-train` has the like for its own errors: the only crate under both, the core,
//! does no IO.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use crate::error::{Error, Result};

/// Writes a file beside its place, waits until it is on the disk, renames it over what is there, and syncs the folder so that
/// the name lasts.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let beside = path.with_added_extension("partial");
    // What a program that was killed has left goes; a link is not followed.
    let _ = fs::remove_file(&beside);
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).open(&beside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&beside, path)?;
        sync_folder(path)
    };
    write().map_err(|source| {
        // What is left of a file that could not be written is of no use; that it stays is no worse.
        let _ = fs::remove_file(&beside);
        Error::Write { path: path.into(), source }
    })
}

#[cfg(unix)]
fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    fs::File::open(folder.unwrap_or(Path::new("."))).and_then(|folder| folder.sync_all())
}

/// Elsewhere a folder cannot be opened.
#[cfg(not(unix))]
fn sync_folder(_: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_and_nothing_is_left_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        for bytes in [b"one".as_slice(), b"three"] {
            // What a program that was killed has left.
            fs::write(folder.path().join("state.partial"), "half of it, and longer").unwrap();
            write_whole(&path, bytes).unwrap();
            assert_eq!(fs::read(&path).unwrap(), bytes);
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        }
        let error = write_whole(&folder.path().join("no/state"), b"").unwrap_err().to_string();
        assert!(error.contains("no/state:"), "{error}");
    }

    #[cfg(unix)]
    #[test]
    fn a_link_in_the_way_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let (path, other) = (folder.path().join("state"), folder.path().join("other"));
        fs::write(&other, b"other").unwrap();
        std::os::unix::fs::symlink(&other, folder.path().join("state.partial")).unwrap();
        write_whole(&path, b"one").unwrap();
        assert_eq!((fs::read(&path).unwrap(), fs::read(&other).unwrap()), (b"one".to_vec(), b"other".to_vec()));
        assert!(fs::symlink_metadata(&path).unwrap().is_file());
    }
}
