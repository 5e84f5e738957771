//! Cache files. They save work in later runs and can be deleted at any time.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use flate2::Crc;

/// Returns the path of a cache file for `origin` in the user's cache folder, or `None` if no
/// environment variable names that folder.
pub(crate) fn path(origin: &Path, ending: &str) -> Option<PathBuf> {
    let full = fs::canonicalize(origin).unwrap_or_else(|_| origin.into());
    let mut crc = Crc::new();
    crc.update(full.as_os_str().as_encoded_bytes());
    let name = format!("{}-{:08x}{ending}", full.file_name().unwrap_or_default().to_string_lossy(), crc.sum());
    Some(user_folder(|name| std::env::var_os(name))?.join("bagssl").join(name))
}

/// The user's cache folder, by the environment. A relative path is ignored, as the XDG Base Directory Specification says: it would be another
/// folder in each folder that a command is called in.
fn user_folder(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let folder = |name: &str| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
    folder("XDG_CACHE_HOME").or_else(|| folder("LOCALAPPDATA")).or_else(|| Some(folder("HOME")?.join(".cache")))
}

/// Writes a file atomically: to a partial file first, which is then renamed.
pub(crate) fn write(path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let partial = path.with_extension(format!("{}.partial", std::process::id()));
    let written = File::create(&partial).and_then(|mut file| {
        write(&mut file)?;
        file.sync_all()
    });
    let done = written.and_then(|()| fs::rename(&partial, path));
    if done.is_err() {
        let _ = fs::remove_file(&partial);
    }
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relative_cache_folders_are_ignored() {
        let root = if cfg!(windows) { "C:\\" } else { "/" };
        let folder = |xdg: &str, home: &str| {
            let pairs = [("XDG_CACHE_HOME", xdg.to_string()), ("HOME", home.to_string())];
            user_folder(|name| pairs.iter().find(|(other, _)| *other == name).map(|(_, value)| value.into()))
        };
        let [cache, home] = ["cache", "home"].map(|name| format!("{root}{name}"));
        assert_eq!(folder(&cache, &home), Some(PathBuf::from(&cache)));
        for relative in ["", "cache", "./cache"] {
            assert_eq!(folder(relative, &home), Some(PathBuf::from(&home).join(".cache")), "{relative:?}");
        }
        assert_eq!(folder("cache", "home"), None);
    }
}
