//! Networks as data: layers, shapes and parameters.

pub mod plan;
pub mod architecture;
pub(crate) mod limits;
#[cfg(any(feature = "cpu", feature = "burn"))]
pub(crate) mod strided_conv_grad;
