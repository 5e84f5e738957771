//! The storage of the images' bytes.

use std::borrow::Cow;
use std::path::PathBuf;

use crate::file::Archive;
use crate::formats::parquet::table::Table;

/// The storage of the images' bytes.
#[derive(Debug)]
pub(crate) enum Storage {
    /// One file per image, in this folder.
    Files(PathBuf),
    /// These files, each with many images at the listed offsets.
    Archives(Vec<Archive>),
    /// The rows of these parquet files.
    Tables(Vec<Table>),
    /// One buffer in memory.
    Memory(Cow<'static, [u8]>),
    /// Raw pixels of 32x32 images in memory, plane by plane; one buffer per file.
    PlanarRgb(Vec<Vec<u8>>),
}
