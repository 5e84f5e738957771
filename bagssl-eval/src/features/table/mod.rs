//! Tables: rows of numbers, in memory or in a file.
//!
//! What is computed from a table in a file goes to a file beside it, so that features that do not fit in memory never have to. A
//! network gives [`Rows`], which a [`Table`] can hold; functions take either as a [`RowsView`].

mod mapped;

use std::fs::File;
use std::io::{BufWriter, Write};
use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;

use bagssl_core::embed::Rows;

use crate::error::{Error, Result};
pub(crate) use mapped::Mapped;

/// Rows of the same length, in memory or in a file that is mapped.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    /// `[row, dim]`, row-major.
    pub values: Values,
    /// Length of a row.
    pub dim: usize,
}

/// Rows of the same length that are somewhere else: what functions here take, a [`Table`] or [`Rows`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RowsView<'a> {
    /// `[row, dim]`, row-major.
    pub values: &'a [f32],
    /// Length of a row.
    pub dim: usize,
}

/// Numbers in memory or in a file that is mapped. They are read as a slice; clones share them.
#[derive(Debug, Clone)]
pub struct Values(Place);

#[derive(Debug, Clone)]
enum Place {
    Memory(Arc<Vec<f32>>),
    File(Mapped),
}

impl Table {
    /// The table, to look at.
    pub fn view(&self) -> RowsView<'_> {
        RowsView { values: &self.values, dim: self.dim }
    }

    /// How many rows there are (0 if `dim` is 0).
    pub fn len(&self) -> usize {
        self.view().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// One row.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn row(&self, row: usize) -> &[f32] {
        self.view().row(row)
    }

    /// A copy in memory.
    pub fn to_rows(&self) -> Rows {
        self.view().to_rows()
    }
}

impl<'a> RowsView<'a> {
    /// How many rows there are (0 if `dim` is 0).
    pub fn len(self) -> usize {
        self.values.len().checked_div(self.dim).unwrap_or(0)
    }

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// One row.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn row(self, row: usize) -> &'a [f32] {
        &self.values[row * self.dim..][..self.dim]
    }

    /// A copy in memory.
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
        Values(Place::Memory(Arc::new(values)))
    }
}

impl From<Mapped> for Values {
    fn from(mapped: Mapped) -> Self {
        Values(Place::File(mapped))
    }
}

impl Deref for Values {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        match &self.0 {
            Place::Memory(values) => values,
            Place::File(mapped) => mapped,
        }
    }
}

impl PartialEq for Values {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Values {
    /// Room for values that are computed from these: in memory if these are, else in a file without a name in the same folder,
    /// which is gone with the last that uses it.
    pub(crate) fn beside(&self, count: usize) -> Result<Growing> {
        match &self.0 {
            Place::Memory(_) => Ok(Growing::Memory(Vec::with_capacity(count))),
            Place::File(mapped) => Growing::file(mapped.folder()),
        }
    }

    /// Values that grew in memory, to be added to.
    ///
    /// # Panics
    /// If they are in a file.
    pub(crate) fn memory(&mut self) -> &mut Vec<f32> {
        match &mut self.0 {
            Place::Memory(values) => Arc::make_mut(values),
            Place::File(_) => panic!("values in a file are complete"),
        }
    }
}

/// Values that are being written.
#[derive(Debug)]
pub(crate) enum Growing {
    /// To memory.
    Memory(Vec<f32>),
    /// To a file without a name in this folder.
    File(Box<BufWriter<File>>, Box<Path>),
}

impl Growing {
    fn file(folder: &Path) -> Result<Self> {
        let file = tempfile::tempfile_in(folder).map_err(|source| Error::Write { path: folder.into(), source })?;
        Ok(Growing::File(Box::new(BufWriter::with_capacity(1 << 20, file)), folder.into()))
    }

    /// Adds values.
    pub(crate) fn extend(&mut self, more: &[f32]) -> Result<()> {
        match self {
            Growing::Memory(values) => values.extend_from_slice(more),
            Growing::File(file, folder) => {
                let written = file.write_all(bytemuck::cast_slice(more));
                written.map_err(|source| Error::Write { path: folder.to_path_buf(), source })?;
            }
        }
        Ok(())
    }

    /// All of them.
    pub(crate) fn finish(self) -> Result<Values> {
        match self {
            Growing::Memory(values) => Ok(values.into()),
            Growing::File(file, folder) => {
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
    fn what_is_made_of_a_file_is_in_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let mut growing = Growing::file(folder.path()).unwrap();
        growing.extend(&[1.5, -2.0, 0.25]).unwrap();
        growing.extend(&[3.0]).unwrap();
        let values = growing.finish().unwrap();
        assert_eq!(*values, [1.5, -2.0, 0.25, 3.0]);
        let mut beside = values.beside(2).unwrap();
        beside.extend(&values[1..3]).unwrap();
        assert!(matches!(beside, Growing::File(..)));
        drop(values);
        assert_eq!(*beside.finish().unwrap(), [-2.0, 0.25]);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "files without names");
        assert!(matches!(Values::from(vec![1.0]).beside(1).unwrap(), Growing::Memory(_)));
    }

    #[test]
    fn nothing_can_be_mapped_too() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Growing::file(folder.path()).unwrap().finish().unwrap().is_empty());
    }

    #[test]
    fn rows_by_hand() {
        let table = Table::from(Rows { values: vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0], dim: 3 });
        assert_eq!((table.len(), table.row(1)), (2, &[4.0, 5.0, 6.0][..]));
        assert!(RowsView { values: &[], dim: 0 }.is_empty());
        assert_eq!(table.to_rows().values, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    }
}
