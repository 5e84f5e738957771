//! Checks of a complete data set: damaged images, duplicates, classes, and splits that keep related
//! images together.

mod check;
pub(crate) mod duplicates;
mod classes;
mod groups;

pub use check::{CheckReport, check};
pub use classes::{Classes, similar_names};
pub use duplicates::Duplicates;
pub use groups::{group_by_key, group_duplicates, split_groups};
