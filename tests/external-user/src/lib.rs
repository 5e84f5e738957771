//! How another crate uses `bagssl-core`: its own images and its own "network", our patches and aggregation.

use bagssl_core::Result;
use bagssl_core::aggregate::{RunningMean, pool};
use bagssl_core::bag::Grid;
use bagssl_core::patch::{Crop, ImageSize, PatchSpec};

/// A grey image, row by row.
pub struct Grey {
    pub size: ImageSize,
    pub pixels: Vec<f32>,
}

/// The mean of a patch, and how much it brightens from left to right.
pub fn embed(image: &Grey, crop: Crop) -> [f32; 2] {
    let row = |row: u32| &image.pixels[(row * image.size.width + crop.left) as usize..][..crop.width as usize];
    let rows = (crop.top..crop.top + crop.height).map(row);
    let (mut sum, mut slope) = (0.0, 0.0);
    for row in rows {
        sum += row.iter().sum::<f32>() / row.len() as f32;
        slope += row[row.len() - 1] - row[0];
    }
    [sum / crop.height as f32, slope / crop.height as f32]
}

/// The mean embedding of all patches of a grid, with its standard error.
pub fn represent(image: &Grey, spec: PatchSpec, stride: u32) -> Result<(Vec<f32>, Option<Vec<f32>>)> {
    let mut mean = RunningMean::new(2);
    for crop in Grid::new(spec, image.size, stride)?.crops() {
        mean.push(&embed(image, crop))?;
    }
    Ok((mean.mean().unwrap_or_default(), mean.standard_error()))
}

/// The same in four parts of the image.
pub fn represent_by_quarter(image: &Grey, spec: PatchSpec, stride: u32) -> Result<Vec<f32>> {
    let grid = Grid::new(spec, image.size, stride)?;
    let embeddings: Vec<f32> = grid.crops().flat_map(|crop| embed(image, crop)).collect();
    pool(&embeddings, 2, grid, 2)
}
