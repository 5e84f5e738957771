//! What several tests need.

use bagssl::{Dataset, EvalOptions, Patches, Split, Splits};

pub(crate) const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/checkpoint.safetensors");

/// Every tenth of the embedded photographs, which are tiles of 64 x 64 pixels: 90 training and 27 test images of 9 classes.
pub(crate) fn photographs() -> Splits {
    let tenth = |split| {
        let all = Dataset::embedded(split).unwrap();
        let images: Vec<u32> = (0..all.len() as u32).step_by(10).collect();
        all.select_images(&images)
    };
    Splits::new(tenth(Split::Train), tenth(Split::Validation)).unwrap()
}

/// Options with a grid of 2 x 2 patches per photograph, for patches of 32 x 32 pixels.
pub(crate) fn four_patches() -> EvalOptions<'static> {
    EvalOptions { patches: Some(Patches::Grid { stride: Some(32) }), seed: 5, ..EvalOptions::default() }
}
