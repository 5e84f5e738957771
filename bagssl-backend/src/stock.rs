//! The CPU, with Burn's own operations.

use bagssl_core::checkpoint::ModelPlan;
use bagssl_core::model::{Differentiable, Stock};
use bagssl_core::plan::Op;
use bagssl_train::backend::{Candle, NdArray};
use bagssl_train::distributed::SyncBatchNorm;

use crate::backend::Backend;
use crate::error::{Error, Result};
use crate::target::Target;

/// Returns Burn's candle backend, which shares no kernel with this project.
pub fn candle() -> Box<dyn Backend> {
    Box::new(OnCandle)
}

/// Returns Burn's ndarray backend with Burn's own operations: the slowest, as a reference.
pub fn ndarray_stock() -> Box<dyn Backend> {
    Box::new(OnStock)
}

#[derive(Debug)]
struct OnCandle;

impl Target for OnCandle {
    type Burn = Candle;
    type Kernels = Stock;
    type Training = Differentiable<SyncBatchNorm<Stock>>;

    /// Candle's convolutions have a single stride and padding for both directions.
    fn check_plan(plan: &ModelPlan) -> Result<()> {
        for layer in plan.encoder().layers() {
            if let Op::ConvNorm { conv, window, .. } = &layer.op
                && (window.stride[0] != window.stride[1] || window.padding[0] != window.padding[1])
            {
                return Err(Error::Plan {
                    backend: "candle",
                    expected: "one stride and padding for both directions",
                    got: format!("{window:?} in {conv}"),
                });
            }
        }
        Ok(())
    }
}

#[derive(Debug)]
struct OnStock;

impl Target for OnStock {
    type Burn = NdArray;
    type Kernels = Stock;
    type Training = Differentiable<SyncBatchNorm<Stock>>;
}
