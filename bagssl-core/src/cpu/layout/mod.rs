//! How maps and weights lie in memory.

pub(crate) mod feature_map;
pub(crate) mod padded;
pub(crate) mod values;
pub(crate) mod view;
