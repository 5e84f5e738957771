//! Estimates the memory of a training step in advance.

use bagssl_core::plan::{Kind, Op, Plan};

use crate::config::CheckedConfig;
use crate::optimizer::OptimizerConfig;

/// The memory of a training step in bytes, estimated from shapes alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryEstimate {
    /// Parameters, their gradients and the optimizer's state, all in `f32`.
    parameters: u64,
    /// The activations that the forward pass stores for the backward pass, per patch.
    patch: u64,
    /// The additional memory of the backward pass, per patch: the input and output gradients of the
    /// largest feature map.
    transient: u64,
}

impl MemoryEstimate {
    /// Estimates a run whose feature maps have `value_bytes` bytes per value (4 for `f32`, 2 for
    /// bf16).
    ///
    /// The estimate counts the input patches, the output of each convolution and linear layer, the
    /// output of its norm and ReLU, and the output of each pooling layer. It does not count
    /// implementation overhead: workspaces, packed weights and queued batches.
    pub fn new(config: &CheckedConfig, value_bytes: u64) -> Self {
        let side = config.config().patch.input() as usize;
        let plan = config.plan();
        let trained = plan.parameters().into_iter().map(|parameter| parameter.len() as u64).sum::<u64>();
        let copies = match config.config().optimizer {
            OptimizerConfig::Sgd { momentum: 0.0, .. } | OptimizerConfig::Lars { momentum: 0.0, .. } => 2,
            OptimizerConfig::Sgd { .. } | OptimizerConfig::Lars { .. } => 3,
            OptimizerConfig::AdamW { .. } => 4,
        };
        let (encoder, projector) = (stored_values(plan.encoder(), [side; 2]), stored_values(plan.projector(), [1, 1]));
        MemoryEstimate {
            parameters: trained * 4 * copies,
            patch: ((3 * side * side) as u64 + encoder.0 + projector.0) * value_bytes,
            transient: 2 * encoder.1.max(projector.1) * value_bytes,
        }
    }

    /// Returns the bytes of a step with `patches` patches per forward pass.
    pub fn bytes(&self, patches: u64) -> u64 {
        (self.patch + self.transient).saturating_mul(patches).saturating_add(self.parameters)
    }

    /// Returns the largest number of patches per image such that a forward pass of `images` images
    /// fits in `bytes`. The result is a divisor of `patches`, for
    /// [`BatchConfig::micro_batch`](crate::config::BatchConfig::micro_batch). Returns `None` if not
    /// even one patch fits.
    pub fn max_micro_batch(&self, bytes: u64, images: usize, patches: usize) -> Option<usize> {
        let fits = |&micro_batch: &usize| self.bytes((images as u64).saturating_mul(micro_batch as u64)) <= bytes;
        // An upper bound on any practical number of patches per image.
        (1..=patches.min(1 << 16)).rev().filter(|micro_batch| patches.is_multiple_of(*micro_batch)).find(fits)
    }
}

/// Returns the number of values that a plan stores for one input, not counting the input itself,
/// and the number of values of its largest feature map.
fn stored_values(plan: &Plan, size: [usize; 2]) -> (u64, u64) {
    let sizes = plan.sizes(size).expect("a checked config's patches are large enough");
    let values = |value: usize| {
        let (Kind::Map(channels) | Kind::Rows(channels)) = plan.kind(value);
        (channels * sizes[value][0] * sizes[value][1]) as u64
    };
    let copies = |op: &Op| match op {
        Op::ConvNorm { .. } | Op::Linear { norm: Some(_), .. } => 2,
        Op::Linear { relu: true, .. } => 2,
        Op::MaxPool { .. } | Op::GlobalMean | Op::Linear { .. } => 1,
    };
    let layers = plan.layers().iter().enumerate();
    let stored_values = layers.map(|(index, layer)| copies(&layer.op) * values(index + 1)).sum::<u64>();
    (stored_values, (0..=plan.layers().len()).map(values).max().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::preset::preset;

    fn config() -> CheckedConfig {
        preset("bagssl").unwrap().config().check().unwrap()
    }

    /// `resnet-small` on 16x16: the input has 768 values. Each of the following is stored twice:
    /// two convolutions and the stem with 16 x 256 values, three convolutions (including the
    /// shortcut's) with 32 x 64, three with 64 x 16. The mean has 64 values. The projector's first
    /// layer has 128 values, stored twice, and its last has 128.
    #[test]
    fn memory_estimate_by_hand() {
        let estimate = MemoryEstimate::new(&config(), 4);
        let values = 768 + 2 * (3 * 4096 + 3 * 2048 + 3 * 1024) + 64 + 2 * 128 + 128;
        assert_eq!(estimate.patch, 4 * values);
        assert_eq!(estimate.transient, 4 * 2 * 4096);
        // AdamW stores values, gradients and two moments.
        let parameters: usize = config().plan().parameters().iter().map(|parameter| parameter.len()).sum();
        assert_eq!(estimate.parameters, 16 * parameters as u64);
        assert_eq!(MemoryEstimate::new(&config(), 2).patch, 2 * values);
    }

    #[test]
    fn max_micro_batch_is_a_divisor() {
        let estimate = MemoryEstimate { parameters: 100, patch: 8, transient: 2 };
        assert_eq!(estimate.bytes(12), 220);
        let max_micro_batch = |bytes| estimate.max_micro_batch(bytes, 3, 4);
        assert_eq!([220, 219, 159, 130, 129].map(max_micro_batch), [Some(4), Some(2), Some(1), Some(1), None]);
    }
}
