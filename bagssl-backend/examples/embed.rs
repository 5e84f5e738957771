//! Embeds a batch of patches: `cargo run --example embed` with random weights, `-- CHECKPOINT` with trained ones.

use std::error::Error;

use bagssl_backend::{CpuOptions, ndarray};
use bagssl_core::architecture::{Architecture, mlp};
use bagssl_core::batch::{BatchShape, PatchBatch};
use bagssl_core::checkpoint::{Checkpoint, ModelPlan};
use bagssl_core::embed::FeatureLayer;

fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let (backend, layers) = (ndarray(CpuOptions::default()), [FeatureLayer::Embedding]);
    let (network, side) = match std::env::args_os().nth(1) {
        Some(path) => {
            let bytes = std::fs::read(path)?;
            let checkpoint = Checkpoint::from_bytes(&bytes)?;
            (backend.trained(&checkpoint, &layers)?, checkpoint.spec().patch.input())
        }
        None => {
            let encoder = Architecture::ResNetSmall.plan();
            let projector = mlp(encoder.output_dim(), &[8])?;
            (backend.random(&ModelPlan::new(encoder, projector)?, 0, 16, &layers)?, 16)
        }
    };
    // One image of two patches that brighten from the first to the last value: [batch, patch, channel, height, width].
    let shape = BatchShape { images: 1, patches: 2, channels: 3, height: side as usize, width: side as usize };
    let count = shape.rows() * shape.patch_len();
    let values = (0..count).map(|index| index as f32 / count as f32).collect();
    let rows = network.embed(&PatchBatch::new(shape, values, vec![0], vec![0])?, &layers)?.remove(0);
    for patch in 0..rows.len() {
        println!("patch {patch}: {} values, the first {:.4?}", rows.dim, &rows.row(patch)[..4]);
    }
    Ok(())
}
