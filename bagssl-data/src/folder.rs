//! Images in folders: `{train,val}/{class}/../{image}`, and folders without halves.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use crate::collector::Collector;
use crate::dataset::{Dataset, Split};
use crate::detect::Format;
use crate::error::{Error, Result};
use crate::lists;
use crate::passed::{Named, PassedOver, Reason, is_hidden, is_image, named};
use crate::splits;
use crate::storage::Storage;

/// Folders below a class that are looked into: a link to a folder above would never end.
const DEEPEST: usize = 16;
/// Files and folders outside of the halves that are counted.
const MOST_COUNTED: usize = 10_000;

/// The folder of each half, training first, and whether it has an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HalfFolders(pub(crate) [Option<(&'static str, bool)>; 2]);

impl HalfFolders {
    /// Of the names that a half may have, the first whose folder has an image; if none has, the first that is there.
    pub(crate) fn find(root: &Path) -> Self {
        HalfFolders(Split::ALL.map(|half| {
            let there = || half.folders().iter().copied().filter(|name| root.join(name).is_dir());
            let filled = there().find(|name| has_image(&root.join(name)));
            filled.map(|name| (name, true)).or_else(|| there().next().map(|name| (name, false)))
        }))
    }

    pub(crate) fn of(self, half: Split) -> Option<&'static str> {
        self.0[half as usize].map(|(name, _)| name)
    }

    /// Whether one of them has an image.
    pub(crate) fn have_images(self) -> bool {
        self.0.iter().flatten().any(|(_, has_image)| *has_image)
    }

    /// Whether both have one.
    pub(crate) fn have_both(self) -> bool {
        self.0.iter().all(|half| half.is_some_and(|(_, has_image)| has_image))
    }

    fn names(self) -> impl Iterator<Item = &'static str> {
        self.0.into_iter().flatten().map(|(name, _)| name)
    }
}

/// Opens one half of a folder. Of the other half only the classes are read.
pub(crate) fn open(root: &Path, split: Split) -> Result<Dataset> {
    let mut collector = Collector::new(root);
    let folders = HalfFolders::find(root);
    for half in Split::ALL {
        if let Some(folder) = folders.of(half) {
            collect_half(root, folder, half == split, &mut collector)?;
        }
    }
    collector.add_beside(&beside(root, folders, "")?);
    collector.finish(split, Format::ImageFolder, Storage::Files(root.into()))
}

/// Adds the classes of a half's folder, and its images if they are wanted.
pub(crate) fn collect_half(root: &Path, folder: &'static str, images: bool, collector: &mut Collector) -> Result<()> {
    let inside = root.join(folder);
    if !inside.is_dir() {
        return Ok(());
    }
    let Listing { shown, hidden } = Listing::read(&inside)?;
    for path in &shown {
        let name = text(path);
        let full = format!("{folder}/{name}");
        if path.is_dir() {
            collector.add_class(folder, &name);
            if images {
                let mut found = FolderContents::default();
                collect(path, &full, DEEPEST, &mut found)?;
                collector.passed(folder).join(&found.passed);
                found.images.into_iter().for_each(|(image, length)| collector.add(folder, &name, image, 0, length));
            }
        } else if images {
            match (fs::metadata(path), named(&name)) {
                (meta, Named::Image) => collector.add_loose(folder, full, 0, length(meta)),
                (Err(_), _) => collector.passed(folder).add(Reason::DeadLink, full),
                (_, Named::Passed(reason)) => collector.passed(folder).add(reason, full),
                (_, Named::Nothing) => {}
            }
        }
    }
    if images {
        hidden.iter().for_each(|path| add_hidden(path, folder, collector.passed(folder)));
    }
    Ok(())
}

/// What lies beside the halves, but for files of one's own ending.
pub(crate) fn beside(root: &Path, folders: HalfFolders, own: &str) -> Result<PassedOver> {
    let mut passed = PassedOver::default();
    let Listing { shown, hidden } = Listing::read(root)?;
    let mut left = MOST_COUNTED;
    for path in shown {
        let name = text(&path);
        if folders.names().any(|half| half == name) {
            continue;
        }
        let is_half = Split::ALL.into_iter().flat_map(Split::folders).any(|half| *half == name);
        let reason = if is_half { Reason::OtherHalf } else { Reason::Outside };
        if path.is_dir() {
            count(&path, &name, reason, DEEPEST, &mut left, &mut passed);
        } else if is_image(&name) {
            passed.add(Reason::Outside, name);
        } else if path.extension().is_some_and(|ending| ending == own) {
            continue;
        } else if ["tar", "tar.gz", "tgz", "zip", "parquet", "arrow"]
            .iter()
            .any(|ending| name.ends_with(&format!(".{ending}")))
        {
            passed.add(Reason::OtherLayout, name);
        } else if named(&name) == Named::Passed(Reason::UnreadFormat) {
            passed.add(Reason::UnreadFormat, name);
        }
    }
    lists::names(root).into_iter().for_each(|list| passed.add(Reason::OtherLayout, list));
    hidden.iter().filter(|path| path.is_file()).for_each(|path| add_hidden(path, "", &mut passed));
    Ok(passed)
}

/// Counts the images of a folder and those below it, as far as they can be read.
fn count(folder: &Path, inside: &str, reason: Reason, depth: usize, left: &mut usize, passed: &mut PassedOver) {
    let Ok(Listing { shown, .. }) = Listing::read(folder) else { return };
    for path in shown {
        let name = format!("{inside}/{}", text(&path));
        *left = left.saturating_sub(1);
        if *left == 0 {
            return passed.set_open(reason);
        }
        if is_image(&name) && path.is_file() {
            passed.add(reason, name);
        } else if depth > 0 && path.is_dir() {
            count(&path, &name, reason, depth - 1, left, passed);
        }
    }
}

/// Tells of all that has the name of an image in a folder and those below it, as far as they can be read.
pub(crate) fn each_image(root: &Path, hear: &mut dyn FnMut(&str)) {
    fn search(folder: &Path, inside: &str, depth: usize, hear: &mut dyn FnMut(&str)) {
        let Ok(Listing { shown, .. }) = Listing::read(folder) else { return };
        for path in shown {
            let name = joined(inside, &text(&path));
            if is_image(&name) {
                hear(&name);
            } else if depth > 0 && path.is_dir() {
                search(&path, &name, depth - 1, hear);
            }
        }
    }
    search(root, "", DEEPEST, hear);
}

/// Whether a folder or one below it has an image.
pub(crate) fn has_image(folder: &Path) -> bool {
    fn search(folder: &Path, depth: usize) -> bool {
        let Ok(Listing { shown, .. }) = Listing::read(folder) else { return false };
        let is_one = |path: &PathBuf| is_image(&text(path)) && path.is_file();
        shown.iter().any(is_one) || depth > 0 && shown.iter().any(|path| path.is_dir() && search(path, depth - 1))
    }
    search(folder, DEEPEST)
}

/// Opens a folder without halves: all of it is for training. The class of an image is the first folder on its way.
pub(crate) fn open_whole(root: &Path) -> Result<Dataset> {
    let mut collector = Collector::new(root);
    let found = images(root)?;
    if let Some([train, validation]) = splits::inside(found.images.iter().map(|(name, _)| name.as_str())) {
        let got = format!(
            "{train}/ and {validation}/, which may be halves: give the folder that they lie in, and call them train/ and val/"
        );
        return Err(Error::Format {
            path: root.into(),
            expected: "a folder of images without halves, or with train/ and val/",
            got,
        });
    }
    for (name, length) in found.images {
        let class = name.split_once('/').map_or("", |(class, _)| class).to_string();
        collector.add("", &class, name, 0, length);
    }
    collector.passed("").join(&found.passed);
    collector.finish_whole(Format::WholeFolder, Storage::Files(root.into()))
}

/// The images of a folder and of those below it.
#[derive(Debug, Default)]
pub(crate) struct FolderContents {
    /// The names and lengths of all images, by name.
    pub(crate) images: Vec<(String, u64)>,
    pub(crate) passed: PassedOver,
}

/// What lies in a folder and those below it.
pub(crate) fn images(root: &Path) -> Result<FolderContents> {
    let mut found = FolderContents::default();
    collect(root, "", DEEPEST, &mut found)?;
    Ok(found)
}

/// Adds the names and lengths of the images of a folder and of those below it.
fn collect(folder: &Path, inside: &str, depth: usize, found: &mut FolderContents) -> Result<()> {
    let refuse = |path: &Path, expected, got: &str| Error::Format { path: path.into(), expected, got: got.into() };
    if depth == 0 {
        return Err(refuse(folder, "at most 16 folders in each other", "one more"));
    }
    let Listing { shown, hidden } = Listing::read(folder)?;
    hidden.iter().for_each(|path| add_hidden(path, inside, &mut found.passed));
    for path in shown {
        let name = joined(inside, &text(&path));
        match (fs::metadata(&path), named(&name)) {
            (Ok(meta), _) if meta.is_dir() => collect(&path, &name, depth - 1, found)?,
            (meta, Named::Image) => found.images.push((name, length(meta))),
            (Err(_), _) if path.is_symlink() => found.passed.add(Reason::DeadLink, name),
            (Err(error), _) => return Err(Error::Read { path, error }),
            (Ok(_), Named::Passed(reason)) => found.passed.add(reason, name),
            (Ok(_), Named::Nothing) => {}
        }
    }
    Ok(())
}

/// The length of an image file. What has the name of one and is none (a link that leads nowhere, a pipe) is listed with the length 0: whoever
/// decodes it says what it is, or leaves it out, as any image that cannot be read.
pub(crate) fn length(meta: std::io::Result<fs::Metadata>) -> u64 {
    meta.ok().filter(fs::Metadata::is_file).map_or(0, |meta| meta.len())
}

fn joined(inside: &str, name: &str) -> String {
    if inside.is_empty() { name.into() } else { format!("{inside}/{name}") }
}

/// Counts what is hidden, if it is an image by its name or a folder.
fn add_hidden(path: &Path, inside: &str, passed: &mut PassedOver) {
    let name = text(path);
    if path.is_dir() || named(&name) == Named::Passed(Reason::Hidden) {
        passed.add(Reason::Hidden, joined(inside, &name));
    }
}

/// What lies in a folder, by name.
struct Listing {
    shown: Vec<PathBuf>,
    hidden: Vec<PathBuf>,
}

impl Listing {
    fn read(folder: &Path) -> Result<Self> {
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

/// What lies in a folder, by name, but for what is hidden.
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
