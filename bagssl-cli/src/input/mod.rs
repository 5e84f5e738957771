//! The inputs of a command: images, their splits and groups, the choice of patches, and files.

pub(crate) mod source;
pub(crate) mod splits;
pub(crate) mod groups;
pub(crate) mod bag;
pub(crate) mod features;
pub(crate) mod stop;
pub(crate) mod files;
