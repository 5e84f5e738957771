//! A checkpoint from a file, and images of any size to their embeddings.

use std::path::{Path, PathBuf};

use bagssl::{Crop, EmbedOptions, Encoder, Error, FeatureLayer, Image, ImageSize, OnBadImage, StopOptions};
use bagssl_core::anytime::Reason;
use bagssl_core::checkpoint::Checkpoint;
use bagssl_core::cpu::ArenaExecutor;
use bagssl_data::Resampler;

use crate::support::GOLDEN;

fn encoder() -> Encoder {
    Encoder::load(GOLDEN).unwrap()
}

/// An image whose pixels all differ from their neighbors.
fn image(height: u32, width: u32) -> Image {
    let pixel = |at: u32| (at.wrapping_mul(2_654_435_761) >> 24) as u8;
    Image::new(ImageSize { height, width }, (0..height * width * 3).map(pixel).collect())
}

fn write(folder: &Path, name: &str, picture: &Image) -> PathBuf {
    let (path, ImageSize { height, width }) = (folder.join(name), picture.size());
    image::save_buffer(&path, picture.rgb(), width, height, image::ExtendedColorType::Rgb8).unwrap();
    path
}

#[track_caller]
fn same(got: &[f32], expected: &[f32]) {
    assert_eq!(got.len(), expected.len());
    for (got, expected) in got.iter().zip(expected) {
        assert!((got - expected).abs() <= 1e-5 * expected.abs().max(1.0), "{got} is not {expected}");
    }
}

/// The same by its pieces: two crops side by side, resampled, normalized by hand as `[channel, row, column]`, through the executor
/// that shares no memory layout with the encoder's.
#[test]
fn a_wide_image_by_its_pieces() {
    let bytes = std::fs::read(GOLDEN).unwrap();
    let checkpoint = Checkpoint::from_bytes(&bytes).unwrap();
    let (spec, image) = (checkpoint.spec(), image(32, 40));
    let network = ArenaExecutor::encoder(&checkpoint).unwrap();
    let mut arena = vec![0.0; network.arena_len([16, 16]).unwrap()];
    let mut embedding = |left: u32| {
        let patch = Resampler::new(spec.filter).patch(&image, Crop { top: 0, left, height: 32, width: 32 }, 16);
        let values: Vec<f32> = (0..3 * 16 * 16)
            .map(|at| (at / 256, at % 256))
            .map(|(channel, pixel)| {
                spec.normalization.apply(channel, f32::from(patch.rgb()[pixel * 3 + channel]) / 255.0)
            })
            .collect();
        network.run(&mut arena, &values, [16, 16]).unwrap().to_vec()
    };
    let (first, second) = (embedding(0), embedding(8));
    let mean: Vec<f32> = first.iter().zip(&second).map(|(a, b)| (a + b) / 2.0).collect();
    assert!(first.iter().zip(&second).any(|(a, b)| (a - b).abs() > 1e-3));
    same(&encoder().embed(&image).unwrap(), &mean);
}

#[test]
fn files_of_several_sizes_as_one_image_at_a_time() {
    let (encoder, folder) = (encoder(), tempfile::tempdir().unwrap());
    let images = [image(40, 65), image(80, 33), image(32, 32)];
    let names = ["b.png", "a.png", "c.png"];
    let files: Vec<PathBuf> =
        names.iter().zip(&images).map(|(name, image)| write(folder.path(), name, image)).collect();
    let options = EmbedOptions { keep_patches: true, ..EmbedOptions::default() };
    let found = encoder.embed_files(&files, &options).unwrap();
    // Patches of 32 pixels, 8 from one to the next: rows times columns.
    assert_eq!(found.images.iter().map(|image| image.total).collect::<Vec<_>>(), [2 * 5, 7, 1]);
    let last = found.images[0].crops.last().unwrap();
    assert_eq!((last.top, last.left, last.height, last.width), (8, 32, 32, 32));
    for (image, embedding) in images.iter().zip(&found.images) {
        same(&embedding.mean, &encoder.embed(image).unwrap());
        let (count, dim) = (embedding.patches.len(), encoder.dim());
        let mean = |at: usize| (0..count).map(|patch| embedding.patches.row(patch)[at]).sum::<f32>() / count as f32;
        same(&embedding.mean, &(0..dim).map(mean).collect::<Vec<_>>());
    }
}

#[test]
fn an_early_stop() {
    let folder = tempfile::tempdir().unwrap();
    let file = write(folder.path(), "a.png", &image(64, 96));
    let options = EmbedOptions { stop: StopOptions::at_most(5), ..EmbedOptions::default() };
    let found = encoder().embed_files(&[&file], &options).unwrap();
    assert_eq!((found.images[0].used, found.images[0].total, found.images[0].reason), (5, 5 * 9, Reason::Most));
    for stop in [StopOptions::at_most(1), StopOptions { tolerance: Some(f64::NAN), ..StopOptions::default() }] {
        let error = encoder().embed_files(&[&file], &EmbedOptions { stop, ..EmbedOptions::default() }).unwrap_err();
        assert!(matches!(error, Error::Setting { .. }), "{error}");
    }
}

#[test]
fn features_that_were_not_loaded_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = write(folder.path(), "a.png", &image(32, 40));
    let with = |feature| {
        let options = EmbedOptions { feature: Some(feature), ..EmbedOptions::default() };
        encoder().embed_files(&[&file], &options)
    };
    assert_eq!(encoder().spec().layer, FeatureLayer::Embedding);
    assert!(with(FeatureLayer::Embedding).is_ok());
    let text = with(FeatureLayer::Projection).unwrap_err().to_string();
    assert!(text.contains("feature") && text.contains("embedding") && text.contains("projection"), "{text}");
}

#[test]
fn bad_images_are_skipped_if_asked() {
    let (encoder, folder) = (encoder(), tempfile::tempdir().unwrap());
    let broken = folder.path().join("broken.png");
    std::fs::write(&broken, b"no picture").unwrap();
    let files =
        [broken, write(folder.path(), "small.png", &image(31, 90)), write(folder.path(), "a.png", &image(32, 40))];
    let skip = EmbedOptions { on_bad_image: OnBadImage::Skip, ..EmbedOptions::default() };
    let found = encoder.embed_files(&files, &skip).unwrap();
    assert_eq!(found.images.iter().map(|image| image.image).collect::<Vec<_>>(), [2]);
    assert_eq!(found.skipped.iter().map(|skipped| skipped.image).collect::<Vec<_>>(), [0, 1]);
    let text = found.skipped[1].to_string();
    assert!(text.contains("small.png") && text.contains("31x90"), "{text}");
    assert!(matches!(encoder.embed_files(&files[..1], &EmbedOptions::default()), Err(Error::Data(_))));
    assert!(matches!(encoder.embed_files(&files[1..2], &EmbedOptions::default()), Err(Error::Patch { .. })));
    assert!(matches!(encoder.embed_files(&files[..2], &skip), Err(Error::NoImage { count: 2, .. })));
    assert!(matches!(encoder.embed(&image(90, 31)), Err(Error::Core(_))));
}

#[test]
fn non_checkpoints_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("run.safetensors");
    let missing = Encoder::load(&file).unwrap_err();
    std::fs::write(&file, b"no checkpoint").unwrap();
    let wrong = Encoder::load(&file).unwrap_err();
    assert!(matches!(missing, Error::Read { .. }) && matches!(wrong, Error::Checkpoint { .. }));
    for error in [missing, wrong] {
        let text = error.to_string();
        assert!(text.contains("run.safetensors") && !text.contains('\n'), "{text}");
    }
}
