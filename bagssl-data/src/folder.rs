//! ImageFolder: `{train,val}/{class}/{image}`.

use std::fs;
use std::path::{Path, PathBuf};

use crate::dataset::{Collector, Dataset, Split, Storage, is_image};
use crate::error::{Error, Result};

/// Opens one half of a folder.
pub(crate) fn open(root: &Path, split: Split) -> Result<Dataset> {
    let mut collector = Collector::new(root);
    let mut classes = Vec::new();
    for half in [Split::Train, Split::Validation] {
        let Some(folder) = half.folders().iter().find(|name| root.join(name).is_dir()) else {
            continue;
        };
        for class in list(&root.join(folder))?.into_iter().filter(|path| path.is_dir()) {
            let class_name = text(&class)?;
            classes.push(class_name.clone());
            if half == split {
                collect(&class, &format!("{folder}/{class_name}"), &class_name, &mut collector)?;
            }
        }
    }
    collector.finish(classes, split, Storage::Files(root.into()))
}

/// Adds the images of a folder and of those below it.
fn collect(folder: &Path, inside: &str, class: &str, collector: &mut Collector) -> Result<()> {
    for path in list(folder)? {
        let name = format!("{inside}/{}", text(&path)?);
        let meta = fs::metadata(&path).map_err(|error| Error::Read { path: path.clone(), error })?;
        if meta.is_dir() {
            collect(&path, &name, class, collector)?;
        } else if is_image(&name) {
            collector.add(class.into(), name, 0, meta.len());
        }
    }
    Ok(())
}

fn list(folder: &Path) -> Result<Vec<PathBuf>> {
    let failed = |error| Error::Read { path: folder.into(), error };
    let entries = fs::read_dir(folder).map_err(failed)?;
    let mut paths: Vec<PathBuf> =
        entries.map(|entry| entry.map(|entry| entry.path())).collect::<std::io::Result<_>>().map_err(failed)?;
    paths.retain(|path| !path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b".")));
    paths.sort();
    Ok(paths)
}

fn text(path: &Path) -> Result<String> {
    let name = path.file_name().unwrap_or_default();
    name.to_str().map(Into::into).ok_or_else(|| Error::Format {
        path: path.into(),
        expected: "a name in UTF-8",
        got: format!("{name:?}"),
    })
}
