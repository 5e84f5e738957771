//! The Burn backends that are supported.

/// Burn's pure-Rust CPU backend.
#[cfg(feature = "ndarray")]
pub type NdArray = burn_ndarray::NdArray<f32>;

/// Burn's candle backend: a second, independent CPU backend.
#[cfg(feature = "candle")]
#[allow(deprecated, reason = "Burn 0.21 is the last release with it, and this workspace is pinned to that")]
pub type Candle = burn_candle::Candle<f32, i64>;
