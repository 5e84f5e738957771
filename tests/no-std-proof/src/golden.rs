//! The golden bag: a trained checkpoint with int8 weights that lie in the program, a real tile, their embedding.

use alloc::format;
use alloc::vec;
use alloc::vec::Vec;

use bagssl_core::aggregate::RunningMean;
use bagssl_core::bag::Bag;
use bagssl_core::checkpoint::Checkpoint;
use bagssl_core::cpu::{ArenaExecutor, Executor, ExecutorOptions, InstructionSet, Serial};
use bagssl_core::patch::{Crop, ImageSize, PatchSide, PatchSpec};
use bagssl_core::random::Address;
use bagssl_core::{Error, Result};

use crate::runtime;

static CHECKPOINT: &[u8] = include_bytes!("../../golden/checkpoint.safetensors");
/// `[row, column, color]`
static TILE: &[u8] = include_bytes!("../../golden/tile.rgb");
static EMBEDDING: &str = include_str!("../../golden/embedding.txt");

const SIZE: ImageSize = ImageSize { height: 64, width: 64 };
const SIDE: u32 = 16;

/// A patch as the network reads it, `[color, row, column]`.
fn patch(checkpoint: &Checkpoint<'_>, crop: Crop) -> Vec<f32> {
    let mut values = Vec::with_capacity((3 * SIDE * SIDE) as usize);
    for color in 0..3 {
        for row in crop.top..crop.top + crop.height {
            for column in crop.left..crop.left + crop.width {
                let value = TILE[((row * SIZE.width + column) * 3) as usize + color];
                values.push(checkpoint.spec().normalization.apply(color, f32::from(value) / 255.0));
            }
        }
    }
    values
}

/// Prints the embedding, and says whether both executors agree with what Burn gave.
pub(crate) fn embeds_as_burn_does() -> Result<bool> {
    let checkpoint = Checkpoint::from_bytes(CHECKPOINT)?;
    let spec = PatchSpec::new(PatchSide::Pixels(SIDE), SIDE)?;
    let crops = Bag::Grid { spec, stride: SIDE }.crops(SIZE, Address::default())?;
    let size = [SIDE as usize; 2];

    let lean = ArenaExecutor::encoder(&checkpoint)?;
    let mut arena = vec![f32::NAN; lean.arena_len(size)?];
    let encoder = checkpoint.spec().model.encoder();
    let mut source = |name: &str| checkpoint.tensor_ref(&format!("encoder.{name}")).map(Into::into);
    let options = ExecutorOptions { set: InstructionSet::best(), exact: false, batch: crops.len(), size };
    let executor = Executor::new(encoder, &mut source, options)?;
    let mut workspace = executor.workspace(crops.len(), size, &Serial)?;

    let mut mean = RunningMean::new(encoder.output_dim());
    let mut all = Vec::new();
    for crop in crops {
        let patch = patch(&checkpoint, crop);
        mean.push(lean.run(&mut arena, &patch, size)?)?;
        all.extend(patch);
    }
    let mut fast = RunningMean::new(encoder.output_dim());
    let rows = executor.run(&mut workspace, &all, &Serial)?;
    rows.chunks(encoder.output_dim()).try_for_each(|row| fast.push(row))?;

    let none = || Error::Length { name: "bag", expected: 16, got: 0 };
    let (mean, fast) = (mean.mean().ok_or_else(none)?, fast.mean().ok_or_else(none)?);
    let expected: Vec<f32> = EMBEDDING.lines().filter_map(|line| line.parse().ok()).collect();
    mean.iter().for_each(|value| runtime::print(&format!("{value}\n")));
    let largest = expected.iter().fold(0_f32, |largest, value| largest.max(value.abs()));
    let agrees = |got: &[f32]| {
        let close = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-4 * largest;
        got.len() == expected.len() && got.iter().zip(&expected).all(close)
    };
    Ok(largest > 0.0 && agrees(&mean) && agrees(&fast))
}
