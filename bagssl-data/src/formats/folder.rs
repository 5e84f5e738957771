//! Images in folders: `{train,val}/{class}/../{image}`, and folders without splits.

use std::fs;
use std::path::Path;

use crate::error::{Error, Result};
use crate::format::Format;
use crate::formats::collector::Collector;
use crate::formats::split_folders::SplitFolders;
use crate::formats::walk::{FolderContents, Listing, MAX_DEPTH, add_hidden, collect, images, length, text};
use crate::formats::{lists, splits};
use crate::ignored::{FileKind, IgnoreReason, Ignored, file_kind, is_image};
use crate::index::Index;
use crate::split::Split;
use crate::storage::Storage;

/// The maximum number of files and folders visited outside of the splits.
const MAX_COUNTED: usize = 10_000;

/// Opens one split of a folder. For the other split, only the names of the classes are read.
pub(crate) fn open(root: &Path, split: Split) -> Result<Index> {
    let mut collector = Collector::new(root);
    let folders = SplitFolders::find(root);
    for file_split in Split::ALL {
        if let Some(folder) = folders.of(file_split) {
            collect_split(root, folder, file_split == split, &mut collector)?;
        }
    }
    collector.add_ignored_outside(&ignored_beside(root, folders, "")?);
    collector.finish(split, Format::ImageFolder, Storage::Files(root.into()))
}

/// Adds the classes of a split's folder, and its images if `images` is true.
pub(crate) fn collect_split(root: &Path, folder: &'static str, images: bool, collector: &mut Collector) -> Result<()> {
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
                collect(path, &full, MAX_DEPTH, &mut found)?;
                collector.ignored(folder).join(&found.ignored);
                found.images.into_iter().for_each(|(image, length)| collector.add(folder, &name, image, 0, length));
            }
        } else if images {
            match (fs::metadata(path), file_kind(&name)) {
                (meta, FileKind::Image) => collector.add_loose(folder, full, 0, length(meta)),
                (Err(_), _) => collector.ignored(folder).add(IgnoreReason::DeadLink, full),
                (_, FileKind::Ignored(reason)) => collector.ignored(folder).add(reason, full),
                (_, FileKind::System) => {}
            }
        }
    }
    if images {
        hidden.iter().for_each(|path| add_hidden(path, folder, collector.ignored(folder)));
    }
    Ok(())
}

/// Returns the ignored files beside the splits. Files with the extension `own` are not counted.
pub(crate) fn ignored_beside(root: &Path, folders: SplitFolders, own: &str) -> Result<Ignored> {
    let mut ignored = Ignored::default();
    let Listing { shown, hidden } = Listing::read(root)?;
    let mut left = MAX_COUNTED;
    for path in shown {
        let name = text(&path);
        if folders.names().any(|folder| folder == name) {
            continue;
        }
        let is_split_folder = Split::ALL.into_iter().flat_map(Split::folders).any(|folder| *folder == name);
        let reason = if is_split_folder { IgnoreReason::UnusedSplit } else { IgnoreReason::Outside };
        if path.is_dir() {
            count(&path, &name, reason, MAX_DEPTH, &mut left, &mut ignored);
        } else if is_image(&name) {
            ignored.add(IgnoreReason::Outside, name);
        } else if path.extension().is_some_and(|ending| ending == own) {
            continue;
        } else if ["tar", "tar.gz", "tgz", "zip", "parquet", "arrow"]
            .iter()
            .any(|ending| name.ends_with(&format!(".{ending}")))
        {
            ignored.add(IgnoreReason::OtherLayout, name);
        } else if file_kind(&name) == FileKind::Ignored(IgnoreReason::UnsupportedFormat) {
            ignored.add(IgnoreReason::UnsupportedFormat, name);
        }
    }
    lists::names(root).into_iter().for_each(|list| ignored.add(IgnoreReason::OtherLayout, list));
    hidden.iter().filter(|path| path.is_file()).for_each(|path| add_hidden(path, "", &mut ignored));
    Ok(ignored)
}

/// Counts the images of a folder and its subfolders. Skips unreadable folders.
fn count(folder: &Path, inside: &str, reason: IgnoreReason, depth: usize, left: &mut usize, ignored: &mut Ignored) {
    let Ok(Listing { shown, .. }) = Listing::read(folder) else { return };
    for path in shown {
        let name = format!("{inside}/{}", text(&path));
        *left = left.saturating_sub(1);
        if *left == 0 {
            return ignored.mark_lower_bound(reason);
        }
        if is_image(&name) && path.is_file() {
            ignored.add(reason, name);
        } else if depth > 0 && path.is_dir() {
            count(&path, &name, reason, depth - 1, left, ignored);
        }
    }
}

/// Opens a folder without splits; all images are training images. The class of an image is the
/// first folder of its path.
pub(crate) fn open_unsplit(root: &Path) -> Result<Index> {
    let mut collector = Collector::new(root);
    let found = images(root)?;
    if let Some([train, validation]) = splits::find_split_folders(found.images.iter().map(|(name, _)| name.as_str())) {
        let got = format!(
            "{train}/ and {validation}/; if these are the splits, rename them to train/ and val/ and pass their parent \
             folder"
        );
        return Err(Error::Format {
            path: root.into(),
            expected: "a folder of images without splits, or with train/ and val/",
            got,
        });
    }
    for (name, length) in found.images {
        let class = name.split_once('/').map_or("", |(class, _)| class).to_string();
        collector.add("", &class, name, 0, length);
    }
    collector.ignored("").join(&found.ignored);
    collector.finish_unsplit(Format::WholeFolder, Storage::Files(root.into()))
}
