//! Images in folders: `{train,val}/{class}/../{image}`, and folders without splits.

use std::fs;
use std::path::Path;

use crate::error::{Error, Result};
use crate::format::Format;
use crate::formats::collector::Collector;
use crate::formats::half_folders::HalfFolders;
use crate::formats::walk::{DEEPEST, FolderContents, Listing, add_hidden, collect, images, length, text};
use crate::formats::{lists, splits};
use crate::index::Index;
use crate::passed::{Named, PassedOver, Reason, is_image, named};
use crate::split::Split;
use crate::storage::Storage;

/// The maximum number of files and folders visited outside of the splits.
const MOST_COUNTED: usize = 10_000;

/// Opens one split of a folder. For the other split, only the names of the classes are read.
pub(crate) fn open(root: &Path, split: Split) -> Result<Index> {
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

/// Adds the classes of a split's folder, and its images if `images` is true.
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

/// Returns the ignored files beside the splits. Files with the extension `own` are not counted.
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

/// Counts the images of a folder and its subfolders. Skips unreadable folders.
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

/// Opens a folder without splits; all images are training images. The class of an image is the
/// first folder of its path.
pub(crate) fn open_whole(root: &Path) -> Result<Index> {
    let mut collector = Collector::new(root);
    let found = images(root)?;
    if let Some([train, validation]) = splits::inside(found.images.iter().map(|(name, _)| name.as_str())) {
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
    collector.passed("").join(&found.passed);
    collector.finish_whole(Format::WholeFolder, Storage::Files(root.into()))
}
