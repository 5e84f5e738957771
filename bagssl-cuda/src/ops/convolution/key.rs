//! The key of a convolution plan.

use bagssl_core::plan::Window;
use serde::{Deserialize, Serialize};

use crate::ops::form::Math;

/// The maximum workspace of a plan in bytes. Plans that need more are skipped.
pub(crate) const MOST_WORKSPACE: usize = 1 << 29;

/// The passes of a convolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Pass {
    Forward,
    InputGradient,
    WeightGradient,
}

/// The properties that a plan depends on. Sizes are those of maps in memory, including padding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Key {
    pub(crate) pass: Pass,
    pub(crate) bf16: bool,
    pub(crate) math: Math,
    /// `[images, channels, height, width]`.
    pub(crate) input: [i64; 4],
    pub(crate) outputs: i64,
    pub(crate) kernel: [i64; 2],
    pub(crate) stride: [i64; 2],
    pub(crate) padding: [i64; 2],
}

impl Key {
    /// Creates the key of a pass over an input of `[images, channels, height, width]`.
    pub(crate) fn new(pass: Pass, bf16: bool, math: Math, input: [usize; 4], outputs: usize, window: Window) -> Self {
        let both = |pair: [usize; 2]| pair.map(|size| size as i64);
        Key {
            pass,
            bf16,
            // Products of bf16 are always exact, so both settings share a plan.
            math: if bf16 { Math::Exact } else { math },
            input: input.map(|size| size as i64),
            outputs: outputs as i64,
            kernel: both(window.kernel),
            stride: both(window.stride),
            padding: both(window.padding),
        }
    }

    /// Whether the engine must not round factors. This only concerns f32.
    pub(crate) fn must_be_exact(&self) -> bool {
        !self.bf16 && self.math == Math::Exact
    }

    /// Returns a readable description.
    pub(crate) fn text(&self) -> String {
        let Key { pass, bf16, math, input: [images, inputs, height, width], outputs, kernel, stride, padding } = self;
        let numbers = if *bf16 { "bf16".to_string() } else { format!("f32 {math:?}").to_lowercase() };
        format!(
            "{pass:?} of {images} x {inputs} x {height} x {width} to {outputs}, window {}x{}, stride {}x{}, padding \
             {}x{}, {numbers}",
            kernel[0], kernel[1], stride[0], stride[1], padding[0], padding[1]
        )
    }

    pub(crate) fn output(&self) -> [i64; 4] {
        let along =
            |axis: usize| (self.input[axis + 2] + 2 * self.padding[axis] - self.kernel[axis]) / self.stride[axis] + 1;
        [self.input[0], self.outputs, along(0), along(1)]
    }

    pub(crate) fn weight(&self) -> [i64; 4] {
        [self.outputs, self.input[1], self.kernel[0], self.kernel[1]]
    }
}
