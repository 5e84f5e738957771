//! A compact table of images: 32 bytes per image, plus its name.

use crate::error::{Error, Result};

/// The maximum number of classes. Every label is below it.
pub(crate) const MAX_CLASSES: u32 = 1 << 20;

/// The table of images. All names are stored in one string and numbers in columns, so that tables
/// of millions of images stay small.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Entries {
    pub(crate) names: String,
    /// The end of each name in `names`.
    pub(crate) ends: Vec<u64>,
    pub(crate) offsets: Vec<u64>,
    pub(crate) lengths: Vec<u64>,
    pub(crate) labels: Vec<u32>,
    pub(crate) sources: Vec<u32>,
}

/// One row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry<'a> {
    /// The path inside the data set.
    pub(crate) name: &'a str,
    pub(crate) label: u32,
    /// The index of the file that contains the image, if there are several.
    pub(crate) source: u32,
    /// The position and number of the image's bytes. In parquet, `offset` is the row and `length`
    /// is 0.
    pub(crate) offset: u64,
    pub(crate) length: u64,
}

impl Entries {
    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    /// Returns the entry of an image.
    ///
    /// # Panics
    /// If the index is out of range.
    pub(crate) fn get(&self, image: usize) -> Entry<'_> {
        let start = if image == 0 { 0 } else { self.ends[image - 1] };
        Entry {
            name: &self.names[start as usize..self.ends[image] as usize],
            label: self.labels[image],
            source: self.sources[image],
            offset: self.offsets[image],
            length: self.lengths[image],
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Entry<'_>> {
        (0..self.len()).map(|image| self.get(image))
    }

    pub(crate) fn push(&mut self, entry: Entry<'_>) {
        self.names.push_str(entry.name);
        self.ends.push(self.names.len() as u64);
        self.offsets.push(entry.offset);
        self.lengths.push(entry.length);
        self.labels.push(entry.label);
        self.sources.push(entry.source);
    }

    /// Returns the same images, sorted by name.
    pub(crate) fn sorted(&self) -> Self {
        let mut order: Vec<u32> = (0..self.len() as u32).collect();
        order.sort_by(|&a, &b| self.get(a as usize).name.cmp(self.get(b as usize).name));
        order.into_iter().map(|image| self.get(image as usize)).collect()
    }

    /// Refuses more images than a `u32` counts, and equal names of adjacent entries.
    pub(crate) fn check(&self, dataset: &std::path::Path) -> Result<()> {
        let refuse = |expected, got| Err(Error::Format { path: dataset.into(), expected, got });
        if u32::try_from(self.len()).is_err() {
            return refuse("fewer than 2^32 images", self.len().to_string());
        }
        let twice = (1..self.len()).map(|image| (self.get(image - 1).name, self.get(image).name)).find(|(a, b)| a == b);
        match twice {
            Some((name, _)) => refuse("unique image names", format!("two images named {name}")),
            None => Ok(()),
        }
    }
}

impl<'a> FromIterator<Entry<'a>> for Entries {
    fn from_iter<I: IntoIterator<Item = Entry<'a>>>(entries: I) -> Self {
        let mut table = Entries::default();
        entries.into_iter().for_each(|entry| table.push(entry));
        table
    }
}
