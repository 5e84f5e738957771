//! ImageFolder: `{train,val}/{class}/../{image}`.

use std::fs;
use std::path::{Path, PathBuf};

use crate::collector::Collector;
use crate::dataset::{Dataset, Split, is_image};
use crate::detect::Format;
use crate::error::{Error, Result};
use crate::storage::Storage;

/// Folders below a class that are looked into: a link to a folder above would never end.
const DEEPEST: usize = 16;

/// Opens one half of a folder. Of the other half only the classes are read.
pub(crate) fn open(root: &Path, split: Split) -> Result<Dataset> {
    let mut collector = Collector::new(root);
    for half in Split::ALL {
        let Some(folder) = half.folders().iter().find(|name| root.join(name).is_dir()) else {
            continue;
        };
        collect_half(root, folder, half == split, &mut collector)?;
    }
    collector.finish(split, Format::ImageFolder, Storage::Files(root.into()))
}

/// Adds the classes of a half's folder, and their images if they are wanted.
pub(crate) fn collect_half(root: &Path, folder: &'static str, images: bool, collector: &mut Collector) -> Result<()> {
    if !root.join(folder).is_dir() {
        return Ok(());
    }
    for path in list(&root.join(folder))?.into_iter().filter(|path| path.is_dir()) {
        let class = text(&path)?;
        collector.add_class(folder, &class);
        if images {
            let mut found = Listing::default();
            collect(&path, &format!("{folder}/{class}"), DEEPEST, &mut found)?;
            collector.add_others(folder, found.others);
            found.images.into_iter().for_each(|(name, length)| collector.add(folder, &class, name, 0, length));
        }
    }
    Ok(())
}

/// What lies in a folder and those below it.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    /// The names and lengths of all images, by name.
    pub(crate) images: Vec<(String, u64)>,
    /// How many other files there are, hidden ones apart.
    pub(crate) others: u64,
}

/// What lies in a folder and those below it.
pub(crate) fn images(root: &Path) -> Result<Listing> {
    let mut found = Listing::default();
    collect(root, "", DEEPEST, &mut found)?;
    found.images.iter_mut().for_each(|(name, _)| *name = name.trim_start_matches('/').to_string());
    Ok(found)
}

/// Adds the names and lengths of the images of a folder and of those below it.
fn collect(folder: &Path, inside: &str, depth: usize, found: &mut Listing) -> Result<()> {
    let refuse = |path: &Path, expected, got: &str| Error::Format { path: path.into(), expected, got: got.into() };
    if depth == 0 {
        return Err(refuse(folder, "at most 16 folders in each other", "one more"));
    }
    for path in list(folder)? {
        let name = format!("{inside}/{}", text(&path)?);
        let meta = fs::metadata(&path).map_err(|error| Error::Read { path: path.clone(), error })?;
        if meta.is_dir() {
            collect(&path, &name, depth - 1, found)?;
        } else if is_image(&name) {
            if !meta.is_file() {
                return Err(refuse(&path, "an image file", "a special file"));
            }
            found.images.push((name, meta.len()));
        } else {
            found.others += 1;
        }
    }
    Ok(())
}

/// What lies in a folder, by name, but for what is hidden.
pub(crate) fn list(folder: &Path) -> Result<Vec<PathBuf>> {
    let failed = |error| Error::Read { path: folder.into(), error };
    let entries = fs::read_dir(folder).map_err(failed)?;
    let mut paths: Vec<PathBuf> =
        entries.map(|entry| entry.map(|entry| entry.path())).collect::<std::io::Result<_>>().map_err(failed)?;
    paths.retain(|path| !path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b".")));
    paths.sort();
    Ok(paths)
}

pub(crate) fn text(path: &Path) -> Result<String> {
    let name = path.file_name().unwrap_or_default();
    name.to_str().map(Into::into).ok_or_else(|| Error::Format {
        path: path.into(),
        expected: "a name in UTF-8",
        got: format!("{name:?}"),
    })
}
