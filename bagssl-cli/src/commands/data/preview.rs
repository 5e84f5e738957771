//! `bagssl data preview`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use bagssl_core::batch::{PatchBatch, PatchSource};
use bagssl_core::normalize::Normalization;
use bagssl_core::patch::ImageSize;
use bagssl_data::{Image, Split};

use super::SetArgs;
use crate::commands::train;
use crate::config::RecipeArgs;
use crate::input::files::Output;
use crate::input::source::{BadImageArgs, report_skipped};
use crate::terminal::output::{field, say};
use crate::terminal::picture::{GAP, enlarged, hstack, png, vstack, widened};

/// Draw images beside the augmented patches that training makes of them
///
/// Shows the first images of the first epoch of `bagssl train` with the same data, recipe and seed,
/// one per row. Each row has the image, and the exact patches that the network would get. Large
/// images are shrunk. Small images and patches are enlarged, with each pixel as a square.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    set: SetArgs,
    /// Output file, .png
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
    #[command(flatten)]
    recipe: RecipeArgs,
    #[command(flatten)]
    bad: BadImageArgs,
    /// Maximum number of images to draw
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=1000))]
    count: u16,
    /// Overwrite an existing file
    #[arg(long)]
    force: bool,
    /// Print the contents of the picture as JSON
    #[arg(long)]
    json: bool,
}

/// The maximum length of an image's longer side on the sheet, in pixels.
const IMAGE_SIDE: u32 = 160;
/// The minimum length of an image's or a patch's longer side on the sheet, in pixels.
const MIN_SIDE: u32 = 64;
/// The maximum width of a row of patches, in pixels. More patches wrap to the next row.
const ROW_WIDTH: u32 = 1280;
/// The maximum number of patches on a sheet.
const MAX_PATCHES: usize = 10_000;

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    if args.output.extension().is_none_or(|extension| extension != "png") {
        bail!("{}: expected a name that ends in .png", args.output.display());
    }
    let source = args.set.source();
    let inputs: Vec<_> = source.data.iter().map(PathBuf::as_path).collect();
    let output = Output::new(&args.output, args.force, &inputs)?;
    let mut config = args.recipe.resolve()?;
    config.train.clone().check()?;
    let dataset = source.open(Split::Train)?;
    config.train.batch.images = usize::from(args.count).min(dataset.len());
    let patches = config.train.batch.images * config.train.batch.patches;
    if patches > MAX_PATCHES {
        bail!("--count: expected at most {MAX_PATCHES} patches on a sheet, got {patches}");
    }
    let loader = train::loader(&config, dataset.clone(), 0, args.bad.on_bad_image.into())?;
    let batch = loader.epoch(0, 0).next().context("an epoch has a batch")?.map_err(anyhow::Error::from_boxed)?;
    let images = batch.images().iter();
    let wholes: Vec<Image> = images
        .map(|&image| Ok(visible(&dataset.decode(image as usize)?.shrink_to(IMAGE_SIDE))))
        .collect::<Result<_>>()?;
    let width = wholes.iter().map(|whole| whole.size().width).max().unwrap_or(1);
    let patches_at = |index: usize| patches_of(&batch, index, config.train.normalization);
    let lines: Vec<Image> =
        wholes.iter().enumerate().map(|(index, whole)| line(whole, width, &patches_at(index))).collect();
    output.write(&png(&vstack(&lines.iter().collect::<Vec<_>>()))?)?;
    report_skipped(&loader.skipped());
    let names: Vec<&str> = batch.images().iter().map(|&image| dataset.name(image as usize)).collect();
    if args.json {
        let (patches, seed) = (config.train.batch.patches, config.train.seed);
        say!("{}", serde_json::json!({"output": args.output, "images": names, "patches": patches, "seed": seed}));
    } else {
        names.iter().for_each(|name| say!("{}", field(name)));
        let (name, patches) = (&config.name, config.train.batch.patches);
        say!(
            "{patches} patches per image with {name}, seed {}, written to {}",
            config.train.seed,
            args.output.display()
        );
    }
    Ok(ExitCode::SUCCESS)
}

/// Enlarges an image that is small.
fn visible(image: &Image) -> Image {
    let ImageSize { height, width } = image.size();
    enlarged(image, MIN_SIDE.div_ceil(height.max(width)))
}

/// Draws an image and its patches side by side. `column` is the width of the image's column, so
/// that the patches of all rows are aligned.
fn line(whole: &Image, column: u32, patches: &[Image]) -> Image {
    let large: Vec<Image> = patches.iter().map(visible).collect();
    let side = large.first().map_or(1, |patch| patch.size().width);
    let in_row = (ROW_WIDTH / (side + GAP)).max(1) as usize;
    let rows: Vec<Image> = large.chunks(in_row).map(|row| hstack(&row.iter().collect::<Vec<_>>())).collect();
    hstack(&[&widened(whole, column), &vstack(&rows.iter().collect::<Vec<_>>())])
}

/// Returns the patches of an image in a batch as 8-bit images. Inverts the normalization.
fn patches_of(batch: &PatchBatch, image: usize, normalization: Normalization) -> Vec<Image> {
    let shape = batch.shape();
    let plane = shape.height * shape.width;
    let level = |channel: usize, value: f32| {
        let color = value * normalization.deviation()[channel] + normalization.mean()[channel];
        (color * 255.0).round() as u8
    };
    let values = &batch.data()[image * shape.patches * 3 * plane..][..shape.patches * 3 * plane];
    let pixels = |patch: &[f32]| -> Vec<u8> {
        (0..plane).flat_map(|at| [0, 1, 2].map(|channel| level(channel, patch[channel * plane + at]))).collect()
    };
    let size = ImageSize { height: shape.height as u32, width: shape.width as u32 };
    values.chunks_exact(3 * plane).map(|patch| Image::new(size, pixels(patch))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bagssl_core::batch::BatchShape;
    use bagssl_data::ToTensor;

    /// Two images of two patches: each patch is restored exactly, at its position.
    #[test]
    fn a_patch_comes_back_from_its_values() {
        let size = ImageSize { height: 4, width: 6 };
        let patch = |number: u32| Image::new(size, (0..72).map(|i| (i * 37 + number * 11) as u8).collect());
        let (normalization, mut values) = (Normalization::new([0.48, 0.4, 0.5], [0.2, 0.25, 0.3]).unwrap(), Vec::new());
        (0..4).for_each(|number| ToTensor::new(normalization).append(&patch(number), &mut values));
        let shape = BatchShape { images: 2, patches: 2, channels: 3, height: 4, width: 6 };
        let batch = PatchBatch::new(shape, values, vec![0, 1], vec![0, 0]).unwrap();
        assert_eq!(patches_of(&batch, 0, normalization), [patch(0), patch(1)]);
        assert_eq!(patches_of(&batch, 1, normalization), [patch(2), patch(3)]);
    }
}
