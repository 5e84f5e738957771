//! The memory layout of maps and weights.

pub(crate) mod feature_map;
pub(crate) mod padded;
pub(crate) mod values;
pub(crate) mod view;
