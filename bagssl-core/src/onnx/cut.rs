//! Computes the cropping of residuals that are larger than the output (see [`Op::ConvNorm`]).

use std::prelude::v1::*;

use crate::error::{Error, Result};
use crate::plan::{Op, Plan, Window};

/// The part of a layer's residual that is added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    /// All of it: it has the output's size, or there is no residual.
    Whole,
    /// The top left part of `[height, width]`.
    To([usize; 2]),
    /// The top left part with the output's size, which depends on the input's size.
    ToOutput,
}

/// Computes the cut of each layer's residual, for an input of `[height, width]` or of any size.
///
/// # Errors
/// [`Error::Setting`] if the plan does not accept the size. [`Error::Plan`] if no size is given and
/// a residual is smaller than the output for some input.
pub(super) fn cuts(plan: &Plan, size: Option<[usize; 2]>) -> Result<Vec<Cut>> {
    match size {
        Some(size) => cuts_at(plan, size),
        None => cuts_anywhere(plan),
    }
}

fn cuts_at(plan: &Plan, size: [usize; 2]) -> Result<Vec<Cut>> {
    let sizes = plan.sizes(size).ok_or_else(|| Error::Setting {
        name: "size",
        expected: "an input (height x width) large enough for the network's kernels",
        got: format!("{}x{}", size[0], size[1]),
    })?;
    let cut = |(index, op): (usize, &Op)| match residual(op) {
        Some(residual) if sizes[residual] != sizes[index + 1] => Cut::To(sizes[index + 1]),
        _ => Cut::Whole,
    };
    Ok(plan.layers().iter().map(|layer| &layer.op).enumerate().map(cut).collect())
}

fn cuts_anywhere(plan: &Plan) -> Result<Vec<Cut>> {
    let mut extents = vec![[Extent { offset: 0, stride: 1 }; 2]];
    let mut cuts = Vec::new();
    for (index, layer) in plan.layers().iter().enumerate() {
        let read = extents[layer.input];
        let extent = match &layer.op {
            Op::ConvNorm { window, .. } | Op::MaxPool { window } => {
                let along = |axis: usize| read[axis].through(window, axis);
                along(0).zip(along(1)).map(|(height, width)| [height, width]).ok_or_else(|| {
                    Error::Plan(format!("layer {index}: expected strides with a product below 2^63, or a fixed size"))
                })?
            }
            Op::GlobalMean | Op::Linear { .. } => read,
        };
        cuts.push(match residual(&layer.op).map(|residual| extents[residual]) {
            Some(beside) if !covers(beside, extent) => {
                return Err(Error::Plan(format!(
                    "layer {index}: expected a residual as large as the output for every input, got {beside:?} for \
                     output {extent:?}; give a fixed size"
                )));
            }
            Some(beside) if beside != extent => Cut::ToOutput,
            _ => Cut::Whole,
        });
        extents.push(extent);
    }
    Ok(cuts)
}

fn residual(op: &Op) -> Option<usize> {
    match op {
        Op::ConvNorm { residual, .. } => *residual,
        Op::MaxPool { .. } | Op::GlobalMean | Op::Linear { .. } => None,
    }
}

/// The size of a map along one axis, as a function of the input's size:
/// `(input + offset) / stride`, rounded down. All windows preserve this form, so two maps have the
/// same size for every input if and only if offset and stride agree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Extent {
    offset: i64,
    stride: i64,
}

impl Extent {
    /// Returns the size of a window's output, or `None` on overflow.
    fn through(self, window: &Window, axis: usize) -> Option<Self> {
        let [kernel, stride, padding] = [window.kernel, window.stride, window.padding].map(|of| of[axis] as i64);
        // (size + 2 padding - kernel) / stride + 1, with the 1 moved into the fraction.
        let offset = self.offset.checked_add((2 * padding - kernel + stride).checked_mul(self.stride)?)?;
        Some(Extent { offset, stride: self.stride.checked_mul(stride)? })
    }
}

/// Whether a map is at least as large as another for every input. Returns `false` if the strides
/// differ.
fn covers(map: [Extent; 2], other: [Extent; 2]) -> bool {
    map.iter().zip(other).all(|(map, other)| map.stride == other.stride && map.offset >= other.offset)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::architecture::Architecture;
    use crate::plan::{Kind, Layer};
    use proptest::prelude::*;

    fn conv(input: usize, window: Window, residual: Option<usize>) -> Layer {
        let name = format!("{input}.{residual:?}");
        let (conv, norm) = (format!("conv{name}"), format!("bn{name}"));
        Layer { input, op: Op::ConvNorm { conv, norm, inputs: 3, outputs: 3, window, residual, relu: true } }
    }

    #[test]
    fn by_hand() {
        let plan = Plan::new(
            Kind::Map(3),
            vec![
                conv(0, Window { kernel: [3, 1], stride: [1, 1], padding: [0, 0] }, Some(0)),
                conv(1, Window::square(3, 1, 1), Some(1)),
            ],
        )
        .unwrap();
        assert_eq!(cuts(&plan, None).unwrap(), [Cut::ToOutput, Cut::Whole]);
        assert_eq!(cuts(&plan, Some([5, 4])).unwrap(), [Cut::To([3, 4]), Cut::Whole]);
        let error = cuts(&plan, Some([2, 9])).unwrap_err().to_string();
        assert_eq!(error, "size: expected an input (height x width) large enough for the network's kernels, got 2x9");
    }

    #[test]
    fn cut_of_smaller_residual_needs_a_size() {
        let needs_a_size = |layers: Vec<Layer>, layer: &str| {
            let plan = Plan::new(Kind::Map(3), layers).unwrap();
            let error = cuts(&plan, None).unwrap_err().to_string();
            assert!(error.starts_with(layer) && error.ends_with("give a fixed size"), "{error}");
            plan
        };
        let smaller = vec![conv(0, Window::square(3, 1, 0), None), conv(0, Window::square(2, 1, 0), Some(1))];
        let plan = needs_a_size(smaller, "plan: layer 1: ");
        assert!(cuts(&plan, Some([9, 9])).is_err());
        let plan = needs_a_size(vec![conv(0, Window::square(1, 2, 0), Some(0))], "plan: layer 0: ");
        assert_eq!(cuts(&plan, Some([5, 1])).unwrap(), [Cut::To([3, 1])]);
    }

    #[test]
    fn only_bagnets_need_cuts() {
        for architecture in Architecture::ALL {
            let cuts = cuts(&architecture.plan(), None).unwrap();
            let cutting = cuts.iter().filter(|cut| **cut != Cut::Whole).count();
            let expected = match architecture {
                Architecture::BagNet9 => 2,
                Architecture::BagNet17 => 3,
                Architecture::BagNet33 => 4,
                _ => 0,
            };
            assert_eq!(cutting, expected, "{}", architecture.name());
        }
    }

    proptest! {
        #[test]
        fn extent_is_the_map_size(
            windows in prop::collection::vec((1usize..6, 1usize..4, 0usize..3), 1..6),
            input in 40usize..400,
        ) {
            let mut extent = Extent { offset: 0, stride: 1 };
            let mut size = Some([input, input]);
            for (kernel, stride, padding) in windows {
                let window = Window::square(kernel, stride, padding);
                size = size.and_then(|size| window.output(size));
                extent = extent.through(&window, 1).unwrap();
            }
            if let Some([_, size]) = size {
                prop_assert_eq!((input as i64 + extent.offset).div_euclid(extent.stride), size as i64);
            }
        }
    }
}
