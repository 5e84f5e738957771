//! The operations: their inputs and outputs, and their execution on tensors.

pub(crate) mod form;
pub(crate) mod operation;
pub(crate) mod run;
pub(crate) mod map;
pub(crate) mod convolution;
pub(crate) mod gemm;
pub(crate) mod norm;
pub(crate) mod matrices;
pub(crate) mod vectors;
pub(crate) mod step;
pub(crate) mod fused_optimizer;
