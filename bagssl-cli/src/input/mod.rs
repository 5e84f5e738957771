//! What a command works on: images, their splits and groups, which patches of them, and files.

pub(crate) mod source;
pub(crate) mod splits;
pub(crate) mod groups;
pub(crate) mod bag;
pub(crate) mod stop;
pub(crate) mod tiles;
pub(crate) mod files;
