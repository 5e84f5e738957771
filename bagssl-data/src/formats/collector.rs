//! Collection of images in folders of classes, and numbering of the classes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::entries::{Entries, Entry};
use crate::error::{Error, Result};
use crate::format::Format;
use crate::ignored::{IgnoreReason, Ignored};
use crate::index::Index;
use crate::split::Split;
use crate::storage::Storage;

/// Collects images by folder and class, then numbers the classes.
pub(crate) struct Collector {
    origin: PathBuf,
    classes: BTreeSet<(&'static str, String)>,
    found: Vec<FoundImage>,
    /// Images directly in a split's folder.
    loose: Vec<FoundImage>,
    ignored: BTreeMap<&'static str, Ignored>,
    ignored_outside: Ignored,
}

/// An image in one of the folders that a split may have.
struct FoundImage {
    folder: &'static str,
    class: String,
    name: String,
    offset: u64,
    length: u64,
}

impl FoundImage {
    fn entry(&self, label: u32) -> Entry<'_> {
        Entry { name: &self.name, label, source: 0, offset: self.offset, length: self.length }
    }
}

impl Collector {
    pub(crate) fn new(origin: &Path) -> Self {
        Collector {
            origin: origin.into(),
            classes: BTreeSet::new(),
            found: Vec::new(),
            loose: Vec::new(),
            ignored: BTreeMap::new(),
            ignored_outside: Ignored::default(),
        }
    }

    pub(crate) fn add_class(&mut self, folder: &'static str, class: &str) {
        self.classes.insert((folder, class.into()));
    }

    /// The ignored files in a folder.
    pub(crate) fn ignored(&mut self, folder: &'static str) -> &mut Ignored {
        self.ignored.entry(folder).or_default()
    }

    /// Adds ignored files outside of the splits.
    pub(crate) fn add_ignored_outside(&mut self, ignored: &Ignored) {
        self.ignored_outside.join(ignored);
    }

    pub(crate) fn add(&mut self, folder: &'static str, class: &str, name: String, offset: u64, length: u64) {
        self.add_class(folder, class);
        self.found.push(FoundImage { folder, class: class.into(), name, offset, length });
    }

    /// Adds an image that lies directly in a split's folder. It has no class and is ignored if
    /// other images of the folder have one.
    pub(crate) fn add_loose(&mut self, folder: &'static str, name: String, offset: u64, length: u64) {
        self.loose.push(FoundImage { folder, class: String::new(), name, offset, length });
    }

    /// Returns whether exactly one of the splits has images or classes.
    pub(crate) fn has_one_split(&self) -> bool {
        Split::ALL.into_iter().filter(|split| self.folder_of(*split).is_some()).count() == 1
    }

    /// Returns the images of one split, sorted by name, with the classes of both splits.
    pub(crate) fn finish(mut self, split: Split, format: Format, storage: Storage) -> Result<Index> {
        let folders = Split::ALL.map(|split| self.folder_of(split));
        self.settle(&folders);
        let Some(folder) = folders[split as usize] else { return Err(self.without(split)) };
        let index = self.numbered(&folders, folder, format, storage)?;
        Ok(Index { split_name: Some(format!("{folder}/")), ..index })
    }

    /// Returns all images of a data set without splits.
    pub(crate) fn finish_unsplit(self, format: Format, storage: Storage) -> Result<Index> {
        let index = self.numbered(&[Some(""), None], "", format, storage)?;
        Ok(Index { is_unsplit: true, ..index })
    }

    /// Returns the folder of a split: the first one with images, or else the first one with
    /// classes.
    fn folder_of(&self, split: Split) -> Option<&'static str> {
        let folders = || split.folders().iter().copied();
        let has_image = |folder: &&str| self.found.iter().chain(&self.loose).any(|found| found.folder == *folder);
        let has_class = |folder: &&str| self.classes.iter().any(|(other, _)| other == folder);
        folders().find(has_image).or_else(|| folders().find(has_class))
    }

    /// Keeps or ignores the images without a class, and counts the images in unused folders.
    fn settle(&mut self, folders: &[Option<&'static str>; 2]) {
        let labeled: BTreeSet<&str> = self.found.iter().map(|found| found.folder).collect();
        let (ignored, kept): (Vec<FoundImage>, _) =
            std::mem::take(&mut self.loose).into_iter().partition(|loose| labeled.contains(loose.folder));
        for loose in ignored {
            self.ignored.entry(loose.folder).or_default().add(IgnoreReason::NoClass, loose.name);
        }
        for loose in kept {
            self.add(loose.folder, "", loose.name, loose.offset, loose.length);
        }
        for found in self.found.iter().filter(|found| !folders.contains(&Some(found.folder))) {
            self.ignored_outside.add(IgnoreReason::UnusedSplit, &found.name);
        }
    }

    /// Numbers the classes of `folders` and returns the images of `folder`.
    fn numbered(
        self,
        folders: &[Option<&'static str>; 2],
        folder: &'static str,
        format: Format,
        storage: Storage,
    ) -> Result<Index> {
        let file_kind = self.classes.iter().filter(|(other, _)| folders.contains(&Some(other)));
        let classes: Vec<String> =
            file_kind.map(|(_, class)| class.clone()).collect::<BTreeSet<_>>().into_iter().collect();
        let number = |class: &String| classes.binary_search(class).expect("each image's class is known") as u32;
        let here = self.found.iter().filter(|found| found.folder == folder);
        let entries: Entries = here.map(|found| found.entry(number(&found.class))).collect();
        let entries = entries.sorted();
        let ignored = self.ignored.get(folder).cloned().unwrap_or_default();
        if entries.len() == 0 {
            let instead = if ignored.is_empty() { String::new() } else { format!(", but {ignored}") };
            let got = format!("no image under {folder}/{instead}");
            return Err(Error::Format { path: self.origin, expected: IMAGES, got });
        }
        entries.check(&self.origin)?;
        let index = Index::new(&self.origin, format, classes, entries, storage);
        Ok(Index { ignored, ignored_outside: self.ignored_outside, ..index })
    }

    /// The error for a split without images and classes.
    fn without(self, split: Split) -> Error {
        let mut ignored = self.ignored_outside;
        self.ignored.values().for_each(|more| ignored.join(more));
        let instead = if ignored.is_empty() { String::new() } else { format!(", but {ignored}") };
        let got = format!("no image under {}{instead}{}", split.names("/"), split.advice());
        Error::Format { path: self.origin, expected: IMAGES, got }
    }
}

const IMAGES: &str = "train/ and val/, each with one folder of images per class";
