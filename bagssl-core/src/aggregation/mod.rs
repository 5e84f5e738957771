//! Turns the embeddings of patches into a representation of the image, and computes the
//! contribution of each patch.

pub mod aggregate;
pub mod anytime;
pub mod explain;
pub mod heat;
pub mod coding_rate;
pub mod quantile;
