//! Hugging Face's parquet layout: rows with `image.bytes` and `label`, or other columns. The footer
//! and the labels are read on opening. A page of images is read when one of its rows is requested.
//!
//! This is our own reader: the crate `parquet` 60.1 (arrow-rs) panics on one damaged file in 480,
//! and decompresses gzip without a limit.

pub(crate) mod columns;
pub(crate) mod table;
mod footer;
mod page;
mod codec;
mod delta;
mod thrift;
mod refusal;

use std::path::Path;
use std::sync::Arc;

use crate::entries::{Entries, Entry};
use crate::error::{Error, Result};
use crate::file::Archive;
use crate::format::Format;
use crate::formats::splits::{self, NamedPath};
use crate::index::Index;
use crate::split::Split;
use crate::storage::Storage;
use columns::Columns;
use table::{Bytes, PageCache, Table};

/// Opens one split of several files. The classes are those in the schema of the first file. Without
/// any, they are the numbers from 0 to the largest label in either split.
pub(crate) fn open(origin: &Path, files: &[NamedPath], split: Split, columns: &Columns) -> Result<Index> {
    let chosen = splits::assign(files, split, origin)?;
    let page_cache = Arc::new(PageCache::default());
    let (mut entries, mut tables, mut labels) = (Entries::default(), Vec::new(), Labels::default());
    for (file_split, files) in Split::ALL.into_iter().zip(&chosen.splits) {
        for (name, path) in files {
            let archive = Archive::open(path)?;
            let table = Table::new(path, Bytes::File(archive), page_cache.clone(), columns)?;
            if file_split == split {
                labels.add(&table, (&mut entries, name, tables.len() as u32))?;
                tables.push(table);
            } else if table.footer.names.is_none() {
                labels.count(&table)?;
            }
        }
    }
    let of_first = tables.first().map_or("", |table: &Table| table.footer.columns.as_str());
    let split_name = Some(format!("{}, {of_first}", chosen.name));
    let index = labels.dataset(origin, entries, tables)?;
    Ok(Index { split_name, is_unsplit: chosen.is_unsplit, ignored_outside: chosen.ignored, ..index })
}

/// Opens one file in memory, with all of its rows.
pub(crate) fn from_bytes(bytes: Vec<u8>, origin: &Path) -> Result<Index> {
    let table = Table::new(origin, Bytes::Memory(bytes), Arc::default(), &Columns::default())?;
    let (mut entries, mut labels) = (Entries::default(), Labels::default());
    labels.add(&table, (&mut entries, "memory", 0))?;
    labels.dataset(origin, entries, vec![table])
}

/// The classes and labels over several files.
#[derive(Default)]
struct Labels {
    names: Option<Vec<String>>,
    largest: u32,
    /// The names of the first image with a label and of the first one without.
    first: [Option<String>; 2],
}

impl Labels {
    /// Adds the rows of a file, given the file's name and its index.
    fn add(&mut self, table: &Table, (entries, file, source): (&mut Entries, &str, u32)) -> Result<()> {
        let names = table.footer.names.as_ref();
        if let (Some(ours), Some(theirs)) = (&self.names, names)
            && ours != theirs
        {
            let (expected, got) =
                ("the same class names as in the other files", format!("others ({} names)", theirs.len()));
            return Err(Error::Format { path: table.path.clone(), expected, got });
        }
        for (row, label) in table.classes()?.into_iter().enumerate() {
            let name = format!("{file}/{row}");
            self.first[usize::from(label.is_none())].get_or_insert_with(|| name.clone());
            self.largest = self.largest.max(label.unwrap_or(0));
            entries.push(Entry { name: &name, label: label.unwrap_or(0), source, offset: row as u64, length: 0 });
        }
        self.names = self.names.take().or_else(|| names.cloned());
        Ok(())
    }

    /// Accounts for the labels of the other split.
    fn count(&mut self, table: &Table) -> Result<()> {
        let largest = table.classes()?.into_iter().flatten().max();
        self.largest = self.largest.max(largest.unwrap_or(0));
        Ok(())
    }

    fn dataset(self, origin: &Path, entries: Entries, tables: Vec<Table>) -> Result<Index> {
        let refuse = |expected, got| Err(Error::Format { path: origin.into(), expected, got });
        if entries.len() == 0 {
            return refuse("files with rows", "none".into());
        }
        if let [Some(with), Some(without)] = &self.first {
            return refuse("a label for all images or for none", format!("{with} with one and {without} without"));
        }
        entries.check(origin)?;
        let classes = match (&self.first[0], self.names) {
            (None, _) => vec![String::new()],
            (Some(_), Some(names)) => names,
            (Some(_), None) => (0..=self.largest).map(|class| class.to_string()).collect(),
        };
        if self.largest as usize >= classes.len() && self.first[0].is_some() {
            return refuse("labels of named classes", format!("label {}", self.largest));
        }
        Ok(Index::new(origin, Format::Parquet, classes, entries, Storage::Tables(tables)))
    }
}
