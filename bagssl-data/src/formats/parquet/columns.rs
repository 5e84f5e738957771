//! Which columns are read.

/// Which columns of parquet's files are read, where that is said; else they are found out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Columns {
    /// The one with the bytes of images, or with a field `bytes` that has them.
    pub image: Option<String>,
    /// The one with the numbers of classes.
    pub label: Option<String>,
}
