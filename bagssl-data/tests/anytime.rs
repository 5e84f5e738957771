//! Any-time bags on photographs: whether the stated confidence is kept where the patches are those of real images.
#![cfg(feature = "embedded")]

use bagssl_core::aggregate::RunningMean;
use bagssl_core::anytime::{AnyTime, Next, StopRule};
use bagssl_core::bag::Grid;
use bagssl_core::patch::{Crop, PatchSide, PatchSpec};
use bagssl_core::random::Address;
use bagssl_data::{Dataset, Image, Split};

/// Statistics of a patch in place of a network: the means of red, green and blue, and the deviation of green.
fn statistics(image: &Image, crop: Crop) -> [f32; 4] {
    let patch = image.crop(crop);
    let pixels = patch.rgb().as_chunks::<3>().0;
    let mean = |of: &dyn Fn(&[u8; 3]) -> f64| pixels.iter().map(of).sum::<f64>() / pixels.len() as f64;
    let [red, green, blue] = [0, 1, 2].map(|channel| mean(&|pixel| f64::from(pixel[channel])));
    let deviation = mean(&|pixel| (f64::from(pixel[1]) - green).powi(2)).sqrt();
    [red, green, blue, deviation].map(|value| value as f32)
}

/// Patches of 8x8, 4 pixels apart, over tiles of 64x64: the grid, and the statistics of its 225 patches.
fn embed(image: &Image) -> (Grid, Vec<[f32; 4]>) {
    let spec = PatchSpec::new(PatchSide::Pixels(8), 8).unwrap();
    let grid = Grid::new(spec, image.size(), 4).unwrap();
    (grid, grid.crops().map(|crop| statistics(image, crop)).collect())
}

fn mean_of<'a>(embeddings: impl Iterator<Item = &'a [f32; 4]>) -> RunningMean {
    let mut mean = RunningMean::new(4);
    embeddings.for_each(|embedding| mean.push(embedding).unwrap());
    mean
}

fn distance(a: &RunningMean, b: &[f32]) -> f64 {
    a.mean().unwrap().iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>().sqrt()
}

/// Over 1,000 tiles the intervals of 95 % cover the mean of the grid in 93 to 97 % of the cases; the balls in 93 % or more.
/// With a tolerance of 5 %, less than a sixth of the patches is looked at; the mean of these is within 5 % (root mean square)
/// of that of all, and the uncertainty at the end is too small by less than a tenth, though each image ends where its own
/// is small. (From 8 patches on, not 16, the means would be 5.5 % off and the uncertainty 4.2 %.)
#[test]
fn the_stated_confidence_is_kept_on_photographs() {
    let (train, validation) = (Dataset::embedded(Split::Train).unwrap(), Dataset::embedded(Split::Validation).unwrap());
    let images = (0..train.len()).map(|i| train.decode(i)).chain((0..100).map(|i| validation.decode(i)));
    let counts = [16usize, 48, 120];
    let (mut covered, mut in_ball) = ([[0u32; 4]; 3], [0u32; 3]);
    let (mut looked_at, mut squares, mut stated) = (0, 0.0, 0.0);
    for (number, image) in images.enumerate() {
        let (grid, embeddings) = embed(&image.unwrap());
        let truth = mean_of(embeddings.iter()).mean().unwrap();
        let order: Vec<usize> = grid.order(Address { image: number as u32, ..Address::default() }).collect();
        for (at, &count) in counts.iter().enumerate() {
            let mean = mean_of(order[..count].iter().map(|&patch| &embeddings[patch]));
            let found = mean.intervals(225, 0.95).unwrap().unwrap();
            for dim in 0..4 {
                covered[at][dim] += u32::from((found.low[dim]..=found.high[dim]).contains(&truth[dim]));
            }
            in_ball[at] += u32::from(distance(&mean, &truth) <= mean.radius(225, 0.95).unwrap().unwrap());
        }
        let mut any_time = AnyTime::new(4, 225, StopRule::default()).unwrap();
        let pushed = order.iter().map(|&patch| any_time.push(&embeddings[patch], || false).unwrap());
        looked_at += pushed.take_while(|&next| next == Next::Continue).count() + 1;
        let length = truth.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>();
        squares += distance(any_time.mean(), &truth).powi(2) / length;
        stated += any_time.uncertainty().unwrap().powi(2);
    }
    for (covered, count) in covered.iter().zip(counts) {
        let percent = f64::from(covered.iter().sum::<u32>()) / 40.0;
        assert!((93.0..=97.0).contains(&percent), "{count} patches: {percent} %, {covered:?}");
    }
    assert!(in_ball.iter().all(|&count| count >= 930), "{in_ball:?}");
    assert!(looked_at < 225 * 1000 / 6, "{looked_at} patches");
    let [found, stated] = [squares, stated].map(|squares: f64| (squares / 1000.0).sqrt());
    assert!(found < 0.05 && found < 1.1 * stated, "errors of {found}, stated {stated}");
}
