//! Where the bytes of images lie.

use std::borrow::Cow;
use std::path::PathBuf;

use crate::file::Archive;
use crate::formats::parquet::table::Table;

/// Where the bytes of images lie.
#[derive(Debug)]
pub(crate) enum Storage {
    /// Each in a file of its own, under this folder.
    Files(PathBuf),
    /// In these files, each at its place.
    Archives(Vec<Archive>),
    /// In the rows of these files.
    Tables(Vec<Table>),
    /// All in memory.
    Memory(Cow<'static, [u8]>),
    /// Raw pixels of 32x32, plane by plane, of some files in memory.
    PlanarRgb(Vec<Vec<u8>>),
}
