//! Listing of folders.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::passed::{Named, PassedOver, Reason, is_hidden, is_image, named};

/// The maximum nesting of folders below a class. A link to a parent folder would otherwise loop
/// forever.
pub(crate) const DEEPEST: usize = 16;

/// Returns whether a folder or one of its subfolders contains an image.
pub(crate) fn has_image(folder: &Path) -> bool {
    fn search(folder: &Path, depth: usize) -> bool {
        let Ok(Listing { shown, .. }) = Listing::read(folder) else { return false };
        let name = |path: &PathBuf| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let is_one = |path: &PathBuf| is_image(&name(path)) && path.is_file();
        shown.iter().any(is_one) || depth > 0 && shown.iter().any(|path| path.is_dir() && search(path, depth - 1))
    }
    search(folder, DEEPEST)
}

/// The images of a folder and its subfolders.
#[derive(Debug, Default)]
pub(crate) struct FolderContents {
    /// The names and lengths of all images, sorted by name within each folder.
    pub(crate) images: Vec<(String, u64)>,
    pub(crate) passed: PassedOver,
}

/// Lists the images of a folder and its subfolders.
pub(crate) fn images(root: &Path) -> Result<FolderContents> {
    let mut found = FolderContents::default();
    collect(root, "", DEEPEST, &mut found)?;
    Ok(found)
}

/// Adds the names and lengths of the images of a folder and its subfolders.
pub(crate) fn collect(folder: &Path, inside: &str, depth: usize, found: &mut FolderContents) -> Result<()> {
    let refuse = |path: &Path, expected, got: &str| Error::Format { path: path.into(), expected, got: got.into() };
    if depth == 0 {
        return Err(refuse(folder, "at most 16 folders in each other", "one more"));
    }
    let Listing { shown, hidden } = Listing::read(folder)?;
    hidden.iter().for_each(|path| add_hidden(path, inside, &mut found.passed));
    for path in shown {
        let name = joined(inside, &text(&path)?);
        let meta = match fs::metadata(&path) {
            Err(_) if !is_image(&name) && path.is_symlink() => {
                found.passed.add(Reason::DeadLink, name);
                continue;
            }
            meta => meta.map_err(|error| Error::Read { path: path.clone(), error })?,
        };
        if meta.is_dir() {
            collect(&path, &name, depth - 1, found)?;
            continue;
        }
        match named(&name) {
            Named::Image if meta.is_file() => found.images.push((name, meta.len())),
            Named::Image => return Err(refuse(&path, "an image file", "a special file")),
            Named::Passed(reason) => found.passed.add(reason, name),
            Named::Nothing => {}
        }
    }
    Ok(())
}

fn joined(inside: &str, name: &str) -> String {
    if inside.is_empty() { name.into() } else { format!("{inside}/{name}") }
}

/// Counts a hidden path if it is a folder or has an image's extension.
pub(crate) fn add_hidden(path: &Path, inside: &str, passed: &mut PassedOver) {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    if path.is_dir() || named(&name) == Named::Passed(Reason::Hidden) {
        passed.add(Reason::Hidden, joined(inside, &name));
    }
}

/// The paths in a folder, sorted by name.
pub(crate) struct Listing {
    pub(crate) shown: Vec<PathBuf>,
    pub(crate) hidden: Vec<PathBuf>,
}

impl Listing {
    pub(crate) fn read(folder: &Path) -> Result<Self> {
        let failed = |error| Error::Read { path: folder.into(), error };
        let entries = fs::read_dir(folder).map_err(failed)?;
        let mut paths: Vec<PathBuf> =
            entries.map(|entry| entry.map(|entry| entry.path())).collect::<std::io::Result<_>>().map_err(failed)?;
        paths.sort();
        let is_hidden = |path: &PathBuf| path.file_name().is_some_and(|name| is_hidden(&name.to_string_lossy()));
        let (hidden, shown) = paths.into_iter().partition(is_hidden);
        Ok(Listing { shown, hidden })
    }
}

/// Returns the paths in a folder that are not hidden, sorted by name.
pub(crate) fn list(folder: &Path) -> Result<Vec<PathBuf>> {
    Listing::read(folder).map(|listing| listing.shown)
}

pub(crate) fn text(path: &Path) -> Result<String> {
    let name = path.file_name().unwrap_or_default();
    name.to_str().map(Into::into).ok_or_else(|| Error::Format {
        path: path.into(),
        expected: "a name in UTF-8",
        got: format!("{name:?}"),
    })
}
