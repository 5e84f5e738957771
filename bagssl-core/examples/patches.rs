//! Represents an image by the mean over its patches, without a deep-learning framework: `cargo run --example patches`.

use bagssl_core::Error;
use bagssl_core::aggregate::RunningMean;
use bagssl_core::bag::Grid;
use bagssl_core::patch::{ImageSize, PatchSide, PatchSpec};

fn main() -> Result<(), Error> {
    // A grey image that brightens to the right, row by row.
    let size = ImageSize { height: 48, width: 64 };
    let pixels: Vec<f32> = (0..size.height * size.width).map(|pixel| (pixel % size.width) as f32 / 63.0).collect();
    let pixel = |row: u32, column: u32| pixels[(row * size.width + column) as usize];

    let grid = Grid::new(PatchSpec::new(PatchSide::Pixels(16), 16)?, size, 8)?;
    let mut representation = RunningMean::new(2);
    for crop in grid.crops() {
        // A "network" with two outputs: the patch's first and last pixel.
        let (bottom, right) = (crop.top + crop.height - 1, crop.left + crop.width - 1);
        representation.push(&[pixel(crop.top, crop.left), pixel(bottom, right)])?;
    }
    println!("{} rows and {} columns of patches", grid.rows(), grid.columns());
    println!("mean {:.3?}", representation.mean().expect("a grid has a patch"));
    println!("standard error {:.3?}", representation.standard_error().expect("a grid of several patches"));
    Ok(())
}
