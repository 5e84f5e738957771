//! The formats of data sets. Each module builds the [`Index`](crate::index::Index) of a split and
//! does not depend on the other formats.

pub(crate) mod detect;
pub(crate) mod splits;
pub(crate) mod walk;
mod split_folders;
mod collector;
pub(crate) mod folder;
pub(crate) mod lists;
pub(crate) mod archive;
mod tarball;
pub(crate) mod cifar;
pub(crate) mod webdataset;
pub(crate) mod parquet;
pub(crate) mod imagenet;
