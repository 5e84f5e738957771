//! Tables: rows of numbers, in memory or in a file.
//!
//! Results computed from a table in a file are stored in another file beside it, so that features
//! larger than memory stay on disk. A network returns [`Rows`], which convert to a [`Table`].
//! Functions accept both as a [`RowsView`].

mod mapped;

use std::fs::File;
use std::io::{BufWriter, Write};
use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;

use bagssl_core::embed::Rows;

use crate::error::{Error, Result};
pub(crate) use mapped::Mapped;

/// Rows of the same length, in memory or in a mapped file.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    /// `[row, dim]`, row-major.
    pub values: Values,
    /// The length of a row.
    pub dim: usize,
}

/// A view of rows of the same length: of a [`Table`] or of [`Rows`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RowsView<'a> {
    /// `[row, dim]`, row-major.
    pub values: &'a [f32],
    /// The length of a row.
    pub dim: usize,
}

/// Numbers in memory or in a mapped file. They dereference to a slice; clones share them.
#[derive(Debug, Clone)]
pub struct Values(Storage);

#[derive(Debug, Clone)]
enum Storage {
    Memory(Arc<Vec<f32>>),
    File(Mapped),
}

impl Table {
    /// Returns a view of the table.
    pub fn view(&self) -> RowsView<'_> {
        RowsView { values: &self.values, dim: self.dim }
    }

    /// The number of rows (0 if `dim` is 0).
    pub fn len(&self) -> usize {
        self.view().len()
    }

    /// Returns whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns one row.
    ///
    /// # Panics
    /// If the index is out of range.
    pub fn row(&self, row: usize) -> &[f32] {
        self.view().row(row)
    }

    /// Copies the table to memory.
    pub fn to_rows(&self) -> Rows {
        self.view().to_rows()
    }
}

impl<'a> RowsView<'a> {
    /// The number of rows (0 if `dim` is 0).
    pub fn len(self) -> usize {
        self.values.len().checked_div(self.dim).unwrap_or(0)
    }

    /// Returns whether there are no rows.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// Returns one row.
    ///
    /// # Panics
    /// If the index is out of range.
    pub fn row(self, row: usize) -> &'a [f32] {
        &self.values[row * self.dim..][..self.dim]
    }

    /// Copies the rows to memory.
    pub fn to_rows(self) -> Rows {
        Rows { values: self.values.to_vec(), dim: self.dim }
    }
}

impl From<Rows> for Table {
    fn from(rows: Rows) -> Self {
        Table { values: rows.values.into(), dim: rows.dim }
    }
}

impl<'a> From<&'a Rows> for RowsView<'a> {
    fn from(rows: &'a Rows) -> Self {
        RowsView { values: &rows.values, dim: rows.dim }
    }
}

impl<'a> From<&'a Table> for RowsView<'a> {
    fn from(table: &'a Table) -> Self {
        table.view()
    }
}

impl From<Vec<f32>> for Values {
    fn from(values: Vec<f32>) -> Self {
        Values(Storage::Memory(Arc::new(values)))
    }
}

impl From<Mapped> for Values {
    fn from(mapped: Mapped) -> Self {
        Values(Storage::File(mapped))
    }
}

impl Deref for Values {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        match &self.0 {
            Storage::Memory(values) => values,
            Storage::File(mapped) => mapped,
        }
    }
}

impl PartialEq for Values {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Values {
    /// Creates a buffer for values that are computed from these. It is in memory if these are,
    /// otherwise in an anonymous file in the same folder, which is deleted when it is no longer in
    /// use.
    pub(crate) fn writer_beside(&self, count: usize) -> Result<ValuesWriter> {
        match &self.0 {
            Storage::Memory(_) => Ok(ValuesWriter::Memory(Vec::with_capacity(count))),
            Storage::File(mapped) => ValuesWriter::file(mapped.folder()),
        }
    }

    /// Returns the values in memory for appending.
    ///
    /// # Panics
    /// If the values are in a file.
    pub(crate) fn as_mut_vec(&mut self) -> &mut Vec<f32> {
        match &mut self.0 {
            Storage::Memory(values) => Arc::make_mut(values),
            Storage::File(_) => panic!("values in a file are complete"),
        }
    }
}

/// Values that are being written.
#[derive(Debug)]
pub(crate) enum ValuesWriter {
    /// Values in memory.
    Memory(Vec<f32>),
    /// Values in an anonymous file in this folder.
    File(Box<BufWriter<File>>, Box<Path>),
}

impl ValuesWriter {
    fn file(folder: &Path) -> Result<Self> {
        let file = tempfile::tempfile_in(folder).map_err(|source| Error::Write { path: folder.into(), source })?;
        Ok(ValuesWriter::File(Box::new(BufWriter::with_capacity(1 << 20, file)), folder.into()))
    }

    /// Appends values.
    pub(crate) fn extend(&mut self, more: &[f32]) -> Result<()> {
        match self {
            ValuesWriter::Memory(values) => values.extend_from_slice(more),
            ValuesWriter::File(file, folder) => {
                let written = file.write_all(bytemuck::cast_slice(more));
                written.map_err(|source| Error::Write { path: folder.to_path_buf(), source })?;
            }
        }
        Ok(())
    }

    /// Returns all values.
    pub(crate) fn finish(self) -> Result<Values> {
        match self {
            ValuesWriter::Memory(values) => Ok(values.into()),
            ValuesWriter::File(file, folder) => {
                let failed = |source| Error::Write { path: folder.to_path_buf(), source };
                let file = file.into_inner().map_err(|error| failed(error.into_error()))?;
                Ok(Mapped::new(&file, 0, &folder).map_err(failed)?.into())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_of_a_mapped_table_are_mapped() {
        let folder = tempfile::tempdir().unwrap();
        let mut growing = ValuesWriter::file(folder.path()).unwrap();
        growing.extend(&[1.5, -2.0, 0.25]).unwrap();
        growing.extend(&[3.0]).unwrap();
        let values = growing.finish().unwrap();
        assert_eq!(*values, [1.5, -2.0, 0.25, 3.0]);
        let mut beside = values.writer_beside(2).unwrap();
        beside.extend(&values[1..3]).unwrap();
        assert!(matches!(beside, ValuesWriter::File(..)));
        drop(values);
        assert_eq!(*beside.finish().unwrap(), [-2.0, 0.25]);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "files without names");
        assert!(matches!(Values::from(vec![1.0]).writer_beside(1).unwrap(), ValuesWriter::Memory(_)));
    }

    #[test]
    fn empty_tables_can_be_mapped() {
        let folder = tempfile::tempdir().unwrap();
        assert!(ValuesWriter::file(folder.path()).unwrap().finish().unwrap().is_empty());
    }

    #[test]
    fn rows_by_hand() {
        let table = Table::from(Rows { values: vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0], dim: 3 });
        assert_eq!((table.len(), table.row(1)), (2, &[4.0, 5.0, 6.0][..]));
        assert!(RowsView { values: &[], dim: 0 }.is_empty());
        assert_eq!(table.to_rows().values, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    }
}
