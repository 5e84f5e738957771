//! Atomic writes of files. `bagssl-train` has similar functions with its own errors: the only crate
//! below both, the core, does no IO.

use std::io::{self, Write};
use std::path::Path;

use tempfile::NamedTempFile;

use crate::error::{Error, Result};

/// Writes a file atomically: writes a temporary file with a unique name in the same folder, syncs
/// it, renames it over any existing file, and syncs the folder so that the rename is durable. On
/// failure, no file is left behind.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let write = || {
        let mut file = begin(path)?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        sync_folder(path)
    };
    write().map_err(|source| Error::Write { path: path.into(), source: plain(source) })
}

/// Removes the temporary files of killed processes from a folder that no other process writes to.
pub(crate) fn remove_partial(folder: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with('.') && name.ends_with(PARTIAL) && entry.file_type()?.is_file() {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// The suffix of temporary files.
const PARTIAL: &str = ".partial";

/// Removes the path that `tempfile` appends to error messages.
fn plain(error: io::Error) -> io::Error {
    match error.to_string().rsplit_once(" at path ") {
        Some((said, _)) => io::Error::new(error.kind(), said.to_string()),
        None => error,
    }
}

/// Creates a temporary file `.{name}.{letters}.partial`, with the permissions of any new file.
fn begin(path: &Path) -> io::Result<NamedTempFile> {
    // Truncate long names, so that the result stays within the maximum length of a file name.
    const LONGEST: usize = 40;
    let name: String = path.file_name().unwrap_or_default().to_string_lossy().chars().take(LONGEST).collect();
    let prefix = format!(".{name}.");
    let mut builder = tempfile::Builder::new();
    builder.prefix(&prefix).suffix(PARTIAL);
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    builder.tempfile_in(folder_of(path))
}

/// Refuses an existing path that is not a regular file: opening a pipe would block.
pub(crate) fn regular(path: &Path) -> io::Result<()> {
    match std::fs::metadata(path) {
        Ok(meta) if !meta.is_file() => {
            Err(io::Error::other("expected a regular file, got a folder, a pipe or a device"))
        }
        _ => Ok(()),
    }
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(unix)]
fn sync_folder(path: &Path) -> io::Result<()> {
    std::fs::File::open(folder_of(path)).and_then(|folder| folder.sync_all())
}

/// Other systems cannot open folders.
#[cfg(not(unix))]
fn sync_folder(_: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_file_is_replaced_and_nothing_is_left_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        for bytes in [b"one".as_slice(), b"three"] {
            write_whole(&path, bytes).unwrap();
            assert_eq!(fs::read(&path).unwrap(), bytes);
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        }
        let error = write_whole(&folder.path().join("no/state"), b"").unwrap_err().to_string();
        assert!(error.contains("no/state:") && error.matches("no/").count() == 1, "{error}");
        fs::write(folder.path().join(".state.abcdef.partial"), "half of it").unwrap();
        remove_partial(folder.path()).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
