//! Limits on the size of a network. A checkpoint may come from an untrusted source, so its plan is
//! checked against these limits before memory is allocated for it.

use std::prelude::v1::*;

use crate::checkpoint::Spec;
use crate::error::{Error, Result};
use crate::plan::{Kind, Op, Plan};

/// The maximum number of layers of a network.
pub(crate) const MAX_LAYERS: usize = 4096;
/// The maximum number of bytes of the maps that are in memory at the same time for one patch. A
/// ResNet-50 for small images reaches it for a patch with a side of about 500 pixels.
pub(crate) const MAX_MAP_BYTES: u64 = 1 << 30;

/// Channels are padded to a multiple of this.
const CHANNELS: u64 = 16;

/// Checks the resources that a checkpoint needs.
///
/// # Errors
/// [`Error::Checkpoint`] if its networks exceed [`MAX_LAYERS`] or [`MAX_MAP_BYTES`].
pub(crate) fn check(spec: &Spec) -> Result<()> {
    let side = spec.patch.input() as usize;
    for (name, plan, size) in
        [("encoder", spec.model.encoder(), [side; 2]), ("projector", spec.model.projector(), [1, 1])]
    {
        let layers = plan.layers().len();
        if layers > MAX_LAYERS {
            return Err(Error::Checkpoint(format!("{name}: expected at most {MAX_LAYERS} layers, got {layers}")));
        }
        // Inputs that are too small are rejected where the network is used.
        let bytes = map_bytes(plan, size).unwrap_or(0);
        if bytes > MAX_MAP_BYTES {
            return Err(Error::Checkpoint(format!(
                "{name}: expected feature maps of at most {} MiB for a patch of side {side}, got {} MiB",
                MAX_MAP_BYTES >> 20,
                bytes.div_ceil(1 << 20)
            )));
        }
    }
    Ok(())
}

/// Returns the peak memory of the maps for one input of `[height, width]`, in bytes. Counts `f32`
/// values with padded channels and with the borders that later layers need. Returns `None` if the
/// input is too small.
pub(crate) fn map_bytes(plan: &Plan, input: [usize; 2]) -> Option<u64> {
    let (sizes, last_use) = (plan.sizes(input)?, plan.last_use());
    let mut borders = vec![[0; 2]; sizes.len()];
    for layer in plan.layers() {
        if let Op::ConvNorm { window, .. } | Op::MaxPool { window } = &layer.op {
            let border = &mut borders[layer.input];
            *border = [0, 1].map(|axis| border[axis].max(window.padding[axis]));
        }
    }
    let bytes = |value: usize| {
        let (Kind::Map(channels) | Kind::Rows(channels)) = plan.kind(value);
        let along = |axis: usize| (sizes[value][axis] as u64).saturating_add(2 * borders[value][axis] as u64);
        let pixels = along(0).saturating_mul(along(1));
        pixels.saturating_mul((channels as u64).next_multiple_of(CHANNELS)).saturating_mul(4)
    };
    // Track the live values layer by layer: a value is added when it is computed and removed after
    // its last use.
    let (mut held, mut most) = (bytes(0), bytes(0));
    let mut leaving: Vec<Vec<usize>> = vec![Vec::new(); sizes.len()];
    last_use.iter().enumerate().for_each(|(value, &last)| leaving[last].push(value));
    for (made, leaving) in leaving.iter().enumerate().skip(1) {
        held = held.saturating_add(bytes(made));
        most = most.max(held);
        leaving.iter().for_each(|&value| held = held.saturating_sub(bytes(value)));
    }
    Some(most)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::architecture::Architecture;
    use crate::plan::{Layer, Window};

    fn conv(input: usize, inputs: usize, outputs: usize, kernel: [usize; 2], padding: [usize; 2]) -> Layer {
        let window = Window { kernel, stride: [1, 1], padding };
        let (conv, norm) = (format!("conv{input}"), format!("bn{input}"));
        Layer { input, op: Op::ConvNorm { conv, norm, inputs, outputs, window, residual: None, relu: true } }
    }

    #[test]
    fn map_bytes_by_hand() {
        // 5x7 pixels with a border of 1 above and below, 3 channels padded to 16; then 5x5 pixels
        // of 20 channels, padded to 32.
        let plan =
            Plan::new(Kind::Map(3), vec![conv(0, 3, 20, [3, 3], [1, 0]), conv(1, 20, 4, [1, 1], [0, 0])]).unwrap();
        let [first, second, third] = [7 * 7 * 16 * 4, 5 * 5 * 32 * 4, 5 * 5 * 16 * 4];
        assert_eq!(map_bytes(&plan, [5, 7]), Some(first + second));
        assert!(second + third < first + second);
        assert_eq!(map_bytes(&plan, [5, 2]), None);
    }

    /// The first layer adds 160,000 pixels of height with 384 KiB of weights, the second as much
    /// width with 128 KiB.
    #[test]
    fn map_bytes_of_growing_maps() {
        let grown = [conv(0, 3, 1, [32_768, 1], [98_304, 0]), conv(1, 1, 1, [1, 32_768], [0, 98_304])];
        let plan = Plan::new(Kind::Map(3), grown.to_vec()).unwrap();
        assert!(map_bytes(&plan, [16, 16]).unwrap() > 1 << 40);
        assert!(map_bytes(&plan, [1 << 40, 1 << 40]).is_some(), "it saturates");
    }

    #[test]
    fn built_in_networks_are_within_limits() {
        for architecture in Architecture::ALL {
            let bytes = map_bytes(&architecture.plan(), [224, 224]).unwrap();
            assert!(bytes < MAX_MAP_BYTES / 3, "{architecture:?}: {bytes}");
        }
    }
}
