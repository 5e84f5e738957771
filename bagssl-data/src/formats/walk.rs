//! Listing of folders.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::ignored::{FileKind, IgnoreReason, Ignored, file_kind, is_hidden, is_image};

/// The maximum nesting of folders below a class. A link to a parent folder would otherwise loop
/// forever.
pub(crate) const MAX_DEPTH: usize = 16;

/// Tells of all that has the name of an image in a folder and those below it, as far as they can be read.
pub(crate) fn visit_images(root: &Path, visit: &mut dyn FnMut(&str)) {
    fn search(folder: &Path, inside: &str, visited: &mut VisitedFolders, visit: &mut dyn FnMut(&str)) {
        let Ok(Listing { shown, .. }) = visited.enter(folder) else { return };
        for path in shown {
            let name = joined(inside, &text(&path));
            if is_image(&name) {
                visit(&name);
            } else if path.is_dir() {
                search(&path, &name, visited, visit);
            }
        }
    }
    search(root, "", &mut VisitedFolders::default(), visit);
}

/// Whether a folder or one below it has an image.
pub(crate) fn has_image(folder: &Path) -> bool {
    fn search(folder: &Path, visited: &mut VisitedFolders) -> bool {
        let Ok(Listing { shown, .. }) = visited.enter(folder) else { return false };
        let is_one = |path: &PathBuf| is_image(&text(path)) && path.is_file();
        shown.iter().any(is_one) || shown.iter().any(|path| path.is_dir() && search(path, visited))
    }
    search(folder, &mut VisitedFolders::default())
}

/// The folders that a search has entered. Each is entered once, so that links to folders above end.
#[derive(Default)]
struct VisitedFolders(BTreeSet<PathBuf>);

impl VisitedFolders {
    /// Lists a folder. One that was entered before is empty.
    fn enter(&mut self, folder: &Path) -> Result<Listing> {
        let real = folder.canonicalize().map_err(|error| Error::Read { path: folder.into(), error })?;
        match self.0.insert(real) {
            true => Listing::read(folder),
            false => Ok(Listing { shown: Vec::new(), hidden: Vec::new() }),
        }
    }
}

/// The images of a folder and its subfolders.
#[derive(Debug, Default)]
pub(crate) struct FolderContents {
    /// The names and lengths of all images, sorted by name within each folder.
    pub(crate) images: Vec<(String, u64)>,
    pub(crate) ignored: Ignored,
}

/// Lists the images of a folder and its subfolders.
pub(crate) fn images(root: &Path) -> Result<FolderContents> {
    let mut found = FolderContents::default();
    collect(root, "", MAX_DEPTH, &mut found)?;
    Ok(found)
}

/// Adds the names and lengths of the images of a folder and its subfolders.
pub(crate) fn collect(folder: &Path, inside: &str, depth: usize, found: &mut FolderContents) -> Result<()> {
    let refuse = |path: &Path, expected, got: &str| Error::Format { path: path.into(), expected, got: got.into() };
    if depth == 0 {
        return Err(refuse(folder, "at most 16 nested folders", "more"));
    }
    let Listing { shown, hidden } = Listing::read(folder)?;
    hidden.iter().for_each(|path| add_hidden(path, inside, &mut found.ignored));
    for path in shown {
        let name = joined(inside, &text(&path));
        match (fs::metadata(&path), file_kind(&name)) {
            (Ok(meta), _) if meta.is_dir() => collect(&path, &name, depth - 1, found)?,
            (meta, FileKind::Image) => found.images.push((name, length(meta))),
            (Err(_), _) if path.is_symlink() => found.ignored.add(IgnoreReason::DeadLink, name),
            (Err(error), _) => return Err(Error::Read { path, error }),
            (Ok(_), FileKind::Ignored(reason)) => found.ignored.add(reason, name),
            (Ok(_), FileKind::System) => {}
        }
    }
    Ok(())
}

/// The length of an image file. What has the name of one and is none (a broken link, a pipe) is listed with the length 0: whoever
/// decodes it says what it is, or leaves it out, as any image that cannot be read.
pub(crate) fn length(meta: std::io::Result<fs::Metadata>) -> u64 {
    meta.ok().filter(fs::Metadata::is_file).map_or(0, |meta| meta.len())
}

fn joined(inside: &str, name: &str) -> String {
    if inside.is_empty() { name.into() } else { format!("{inside}/{name}") }
}

/// Counts a hidden path if it is a folder or has an image's extension.
pub(crate) fn add_hidden(path: &Path, inside: &str, ignored: &mut Ignored) {
    let name = text(path);
    if path.is_dir() || file_kind(&name) == FileKind::Ignored(IgnoreReason::Hidden) {
        ignored.add(IgnoreReason::Hidden, joined(inside, &name));
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

/// The name of a file, without the folders above it. A name that is not UTF-8 is [replaced](utf8) by one that no file has.
pub(crate) fn text(path: &Path) -> String {
    utf8(path.file_name().unwrap_or_default())
}

/// What stands for bytes that are not UTF-8.
pub(crate) const NOT_UTF8: char = char::REPLACEMENT_CHARACTER;

/// A text with `\u{fffd}` and two hexadecimal digits instead of each byte that is not UTF-8: different ones for different names.
pub(crate) fn utf8(name: &OsStr) -> String {
    let mut text = String::new();
    for chunk in name.as_encoded_bytes().utf8_chunks() {
        text.push_str(chunk.valid());
        chunk.invalid().iter().for_each(|byte| text.push_str(&format!("{NOT_UTF8}{byte:02x}")));
    }
    text
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    /// Three links to the folder itself would make 3^16 folders.
    #[test]
    fn links_to_a_folder_above_end() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        for name in ["a", "b", "c"] {
            std::os::unix::fs::symlink(root, root.join(name)).unwrap();
        }
        assert!(!has_image(root));
        fs::write(root.join("x.png"), "").unwrap();
        let mut names = Vec::new();
        visit_images(root, &mut |name| names.push(name.to_string()));
        assert_eq!(names, ["x.png"]);
        assert!(has_image(root));
    }
}
