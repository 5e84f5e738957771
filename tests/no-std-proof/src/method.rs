//! The method on a small image: patches, a toy network, the mean.

use alloc::vec::Vec;

use bagssl_core::aggregate::RunningMean;
use bagssl_core::anytime::{AnyTime, Next, Reason, StopRule};
use bagssl_core::bag::{Bag, Grid};
use bagssl_core::embed::Rows;
use bagssl_core::explain::evidence;
use bagssl_core::heat::HeatMap;
use bagssl_core::patch::{Crop, ImageSize, PatchSide, PatchSpec};
use bagssl_core::random::Address;
use bagssl_core::{Error, Result};

const SIZE: ImageSize = ImageSize { height: 4, width: 6 };

/// The value of a pixel of the image: 0 to 23, row by row.
fn pixel(row: u32, column: u32) -> f32 {
    (row * SIZE.width + column) as f32
}

/// A toy network: the mean of a patch, and its first pixel.
fn embed(crop: Crop) -> [f32; 2] {
    let (rows, columns) = (crop.top..crop.top + crop.height, crop.left..crop.left + crop.width);
    let sum: f32 = rows.flat_map(|row| columns.clone().map(move |column| pixel(row, column))).sum();
    [sum / (crop.height * crop.width) as f32, pixel(crop.top, crop.left)]
}

fn mean_of(bag: Bag, address: Address) -> Result<(Vec<f32>, Vec<f32>)> {
    let mut mean = RunningMean::new(2);
    for crop in bag.crops(SIZE, address)? {
        mean.push(&embed(crop))?;
    }
    let few = || Error::Length { name: "bag", expected: 2, got: mean.count() as usize };
    Ok((mean.mean().ok_or_else(few)?, mean.standard_error().ok_or_else(few)?))
}

/// Patches of 2x2 in 2 rows and 3 columns cover the image: their mean is the image's, 11.5. Their first pixels are 0,
/// 2, 4, 12, 14 and 16: mean 8, squares of the deviations 232, standard error sqrt(232 / 30).
pub(crate) fn grid_mean() -> Result<bool> {
    let spec = PatchSpec::new(PatchSide::Pixels(2), 2)?;
    let (mean, error) = mean_of(Bag::Grid { spec, stride: 2 }, Address::default())?;
    let expected = if cfg!(feature = "wrong-answer") { [8.0, 11.5] } else { [11.5, 8.0] };
    Ok(mean == expected && (error[1] * error[1] - 232.0 / 30.0).abs() < 1e-5)
}

/// Random patches lie inside the image, and an address gives the same bag each time and another one elsewhere. The
/// middle of a patch of 2x2 is half a row and half a column from its first pixel: 3.5 more.
pub(crate) fn random_mean() -> Result<bool> {
    let spec = PatchSpec::new(PatchSide::AreaShare(0.25), 2)?;
    let bag = Bag::Random { spec, patches: 50 };
    let address = Address { seed: 7, epoch: 1, image: 3, patch: 0 };
    let inside = bag.crops(SIZE, address)?.iter().all(|crop| crop.height == 2 && crop.fits(SIZE));
    let (mean, _) = mean_of(bag, address)?;
    let again = mean_of(bag, address)?.0 == mean;
    let elsewhere = bag.crops(SIZE, Address { image: 4, ..address })? != bag.crops(SIZE, address)?;
    Ok(inside && again && elsewhere && (mean[0] - mean[1] - 3.5).abs() < 1e-4)
}

/// The grid again, in random order: certain after its sixth patch, with an error from the second on. The evidence of the
/// patches' means, with a weight of 2, sums to 23, and is greatest in the last one, which is red.
pub(crate) fn any_time() -> Result<bool> {
    let grid = Grid::new(PatchSpec::new(PatchSide::Pixels(2), 2)?, SIZE, 2)?;
    let mut image = AnyTime::new(2, grid.patches() as u64, StopRule { tolerance: 0.0, ..StopRule::default() })?;
    let (mut last, mut known) = (Next::Continue, true);
    for patch in grid.order(Address::default()) {
        last = image.push(&embed(grid.crop(patch)), || false)?;
        let radius = image.mean().radius(6, 0.95)?;
        known &= radius.is_some() == (image.mean().count() > 1);
    }
    let complete = last == Next::Stop(Reason::Complete) && image.uncertainty() == Some(0.0);
    let near = |found: f32, expected: f32| (found - expected).abs() < 1e-5;
    let mean = image.mean().mean().is_some_and(|mean| near(mean[0], 11.5) && near(mean[1], 8.0));

    let patches = Rows { values: grid.crops().map(|crop| embed(crop)[0]).collect(), dim: 1 };
    let evidence = evidence(&patches, &[2.0], 1)?;
    let heat = HeatMap::new(&evidence, grid, SIZE)?;
    let picture = heat.overlay(&[0; 4 * 6 * 3], heat.max_abs(), 1.0)?;
    let logit = evidence.iter().sum::<f64>();
    Ok(known && complete && mean && (logit - 23.0).abs() < 1e-9 && picture[picture.len() - 3..] == [180, 4, 38])
}
