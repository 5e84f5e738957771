//! The models, generic over Burn backends (feature `burn`).
//!
//! A [`Model`] is built from a [`ModelPlan`](crate::checkpoint::ModelPlan). Its operations go
//! through [`Kernels`], so a backend can supply faster kernels without a second definition of the
//! network.

mod pad_narrow;
mod batch_norm;
mod kernels;
mod gradient;
mod differentiable;
mod network;
mod encoder_projector;
mod folded;
mod embedder;
#[cfg(feature = "ndarray")]
mod fast;

pub use batch_norm::{BatchNormBackward, BatchNormGradients, BatchNormInputs, BatchNormOutput};
pub use differentiable::{Differentiable, add_gradient};
pub use embedder::{Batching, Embedder};
pub use encoder_projector::{Features, Model, ModelGradients, ModelParts};
#[cfg(feature = "ndarray")]
pub use fast::CpuFast;
pub use folded::{FoldedModel, FoldedNetwork};
pub use kernels::{Kernels, Reading, Stock};
pub use network::{BatchStatistics, Change, Gradients, Network, Running, Update};
