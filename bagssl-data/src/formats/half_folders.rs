//! The folders of the splits in a folder.

use std::path::Path;

use crate::formats::walk::has_image;
use crate::split::Split;

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

    pub(crate) fn names(self) -> impl Iterator<Item = &'static str> {
        self.0.into_iter().flatten().map(|(name, _)| name)
    }
}
