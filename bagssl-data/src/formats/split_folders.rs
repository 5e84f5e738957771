//! The folders of the splits inside a data set's folder.

use std::path::Path;

use crate::formats::walk::has_image;
use crate::split::Split;

/// The folder name of each split (training first), and whether the folder has an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SplitFolders(pub(crate) [Option<(&'static str, bool)>; 2]);

impl SplitFolders {
    /// Finds the folder of each split: the first of its names whose folder has an image, or else
    /// the first whose folder exists.
    pub(crate) fn find(root: &Path) -> Self {
        SplitFolders(Split::ALL.map(|split| {
            let there = || split.folders().iter().copied().filter(|name| root.join(name).is_dir());
            let filled = there().find(|name| has_image(&root.join(name)));
            filled.map(|name| (name, true)).or_else(|| there().next().map(|name| (name, false)))
        }))
    }

    pub(crate) fn of(self, split: Split) -> Option<&'static str> {
        self.0[split as usize].map(|(name, _)| name)
    }

    /// Returns whether at least one split has an image.
    pub(crate) fn have_images(self) -> bool {
        self.0.iter().flatten().any(|(_, has_image)| *has_image)
    }

    /// Returns whether both splits have an image.
    pub(crate) fn have_both(self) -> bool {
        self.0.iter().all(|split| split.is_some_and(|(_, has_image)| has_image))
    }

    pub(crate) fn names(self) -> impl Iterator<Item = &'static str> {
        self.0.into_iter().flatten().map(|(name, _)| name)
    }
}
