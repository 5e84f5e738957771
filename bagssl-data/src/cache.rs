//! Cache files. They save work in later runs and can be deleted at any time.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use flate2::Crc;

/// Returns the path of a cache file for `of` in the user's cache folder, or `None` if no
/// environment variable names that folder.
pub(crate) fn place(of: &Path, ending: &str) -> Option<PathBuf> {
    let full = fs::canonicalize(of).unwrap_or_else(|_| of.into());
    let mut crc = Crc::new();
    crc.update(full.as_os_str().as_encoded_bytes());
    let name = format!("{}-{:08x}{ending}", full.file_name().unwrap_or_default().to_string_lossy(), crc.sum());
    let folder = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache =
        folder("XDG_CACHE_HOME").or_else(|| folder("LOCALAPPDATA")).or_else(|| Some(folder("HOME")?.join(".cache")))?;
    Some(cache.join("bagssl").join(name))
}

/// Writes a file atomically: to a partial file first, which is then renamed.
pub(crate) fn keep(place: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
    if let Some(folder) = place.parent() {
        fs::create_dir_all(folder)?;
    }
    let partial = place.with_extension(format!("{}.partial", std::process::id()));
    let written = File::create(&partial).and_then(|mut file| {
        write(&mut file)?;
        file.sync_all()
    });
    let done = written.and_then(|()| fs::rename(&partial, place));
    if done.is_err() {
        let _ = fs::remove_file(&partial);
    }
    done
}
