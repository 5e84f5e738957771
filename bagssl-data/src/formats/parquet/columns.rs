//! The selection of parquet columns.

/// The columns of parquet files to read. A column that is `None` is detected.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Columns {
    /// The column with the bytes of images, or with a struct whose field `bytes` has them.
    pub image: Option<String>,
    /// The column with the labels.
    pub label: Option<String>,
}
