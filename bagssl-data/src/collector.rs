//! Images found under the folders of classes, which are then numbered.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::dataset::{Dataset, Split};
use crate::detect::Format;
use crate::entries::{Entries, Entry};
use crate::error::{Error, Result};
use crate::storage::Storage;

/// Collects images under their folders' and classes' names; then numbers the classes.
pub(crate) struct Collector {
    origin: PathBuf,
    classes: BTreeSet<(&'static str, String)>,
    found: Vec<Found>,
    others: BTreeMap<&'static str, u64>,
}

/// An image in one of the folders that a half may have.
struct Found {
    folder: &'static str,
    class: String,
    name: String,
    offset: u64,
    length: u64,
}

impl Found {
    fn entry(&self, label: u32) -> Entry<'_> {
        Entry { name: &self.name, label, source: 0, offset: self.offset, length: self.length }
    }
}

impl Collector {
    pub(crate) fn new(origin: &Path) -> Self {
        Collector { origin: origin.into(), classes: BTreeSet::new(), found: Vec::new(), others: BTreeMap::new() }
    }

    pub(crate) fn add_class(&mut self, folder: &'static str, class: &str) {
        self.classes.insert((folder, class.into()));
    }

    /// Counts files that are no images.
    pub(crate) fn add_others(&mut self, folder: &'static str, count: u64) {
        *self.others.entry(folder).or_default() += count;
    }

    pub(crate) fn add(&mut self, folder: &'static str, class: &str, name: String, offset: u64, length: u64) {
        self.add_class(folder, class);
        self.found.push(Found { folder, class: class.into(), name, offset, length });
    }

    /// The images of one half, in the order of their names, with the classes of both.
    pub(crate) fn finish(self, split: Split, format: Format, storage: Storage) -> Result<Dataset> {
        let refuse = |expected, got| Err(Error::Format { path: self.origin.clone(), expected, got });
        let is_there = |folder: &&&str| self.classes.iter().any(|(other, _)| *other == **folder);
        let folder_of = |half: Split| half.folders().iter().find(is_there).copied();
        let halves = Split::ALL.map(folder_of);
        let named = self.classes.iter().filter(|(folder, _)| halves.contains(&Some(folder)));
        let classes: Vec<String> = named.map(|(_, class)| class.clone()).collect::<BTreeSet<_>>().into_iter().collect();
        let number = |class: &String| classes.binary_search(class).expect("each image's class is known") as u32;
        let folder_of = folder_of(split);
        let here = self.found.into_iter().filter(|found| Some(found.folder) == folder_of);
        let labelled = here.map(|found| (number(&found.class), found)).collect::<Vec<_>>();
        let entries: Entries = labelled.iter().map(|(label, found)| found.entry(*label)).collect();
        let entries = entries.sorted();
        if entries.len() == 0 {
            let expected = "a folder with train/ and val/, each with a folder of images for each class";
            return refuse(expected, format!("no image under {}/", split.folders().join("/ or ")));
        }
        entries.check(&self.origin)?;
        let others = folder_of.and_then(|folder| self.others.get(folder)).copied().unwrap_or(0);
        Ok(Dataset { others, ..Dataset::new(&self.origin, format, classes, entries, storage) })
    }
}
