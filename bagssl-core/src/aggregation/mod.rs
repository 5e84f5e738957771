//! From the embeddings of patches to a representation of the image, and what each patch adds to it.

pub mod aggregate;
pub mod anytime;
pub mod explain;
pub mod heat;
pub mod coding_rate;
pub mod quantile;
