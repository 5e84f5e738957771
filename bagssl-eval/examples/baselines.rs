//! kNN and linear probes on raw pixels and color histograms of an image folder in a tar:
//! `cargo run --release --example baselines -- photo-tiles-mini.tar`, with `NAME/train/CLASS/*` and `NAME/val/CLASS/*` in it.

use std::collections::BTreeSet;
use std::error::Error;
use std::io::Read;
use std::time::Instant;

use bagssl_core::batch::{BatchShape, PatchBatch};
use bagssl_core::color::Color;
use bagssl_core::embed::{Embed, FeatureLayer};
use bagssl_core::normalize::Normalization;
use bagssl_eval::Knn;
use bagssl_eval::baselines::{Histogram, Pixels};
use bagssl_eval::extract;
use bagssl_eval::{Linear, Sgd};
use bagssl_eval::{Samples, Score};

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// An image with its class.
type Labeled = (String, image::RgbImage);

fn main() -> Outcome<()> {
    let path = std::env::args().nth(1).ok_or("expected the path of a tar")?;
    let (train, test) = (read(&path, "train")?, read(&path, "val")?);
    println!("{} training and {} test images", train.len(), test.len());
    let normalization = Normalization::HALF;
    for color in [Color::Rgb, Color::Grey] {
        report(&format!("pixels {}", color.name()), &Pixels { normalization, color }, &train, &test)?;
        for bins in [4, Histogram::BINS, 8, 16] {
            let histogram = Histogram::new(normalization, color, bins)?;
            report(&format!("histogram {} {bins}", color.name()), &histogram, &train, &test)?;
        }
    }
    Ok(())
}

fn report(name: &str, baseline: &dyn Embed, train: &[Labeled], test: &[Labeled]) -> Outcome<()> {
    let (train, test) = (samples(baseline, train)?, samples(baseline, test)?);
    let timed = |evaluate: &dyn Fn() -> bagssl_eval::Result<Score>| -> Outcome<String> {
        let start = Instant::now();
        let accuracy = evaluate()?.accuracy;
        Ok(format!("{accuracy:5.1} ({:.2} s)", start.elapsed().as_secs_f64()))
    };
    let knn = timed(&|| Knn::default().evaluate(&train, &test))?;
    let logistic = timed(&|| Linear::default().evaluate(&train, &test))?;
    let sgd = timed(&|| Linear::Sgd(Sgd::EMP_SSL).evaluate(&train, &test))?;
    println!("{name:18} kNN {knn}, logistic {logistic}, SGD {sgd}");
    Ok(())
}

fn samples(baseline: &dyn Embed, images: &[Labeled]) -> Outcome<Samples> {
    let classes: BTreeSet<&String> = images.iter().map(|(class, _)| class).collect();
    let batches = images.iter().enumerate().map(|(number, (class, image))| {
        let label = classes.iter().position(|&other| other == class).expect("a class of these images");
        batch(image, number as u32, label as u32)
    });
    let features = extract(baseline, batches, &[FeatureLayer::Embedding], &mut |_| ())?.remove(0);
    Ok(Samples::new(features.mean()?, features.labels().to_vec())?)
}

fn batch(image: &image::RgbImage, number: u32, label: u32) -> Outcome<PatchBatch> {
    let (width, height) = (image.width() as usize, image.height() as usize);
    let shape = BatchShape { images: 1, patches: 1, channels: 3, height, width };
    let value =
        |channel: usize, pixel: &image::Rgb<u8>| Normalization::HALF.apply(channel, f32::from(pixel[channel]) / 255.0);
    let data = (0..3).flat_map(|channel| image.pixels().map(move |pixel| value(channel, pixel))).collect();
    Ok(PatchBatch::new(shape, data, vec![number], vec![label])?)
}

fn read(path: &str, split: &str) -> Outcome<Vec<Labeled>> {
    let mut images = vec![];
    for entry in tar::Archive::new(std::fs::File::open(path)?).entries()? {
        let mut entry = entry?;
        let name = entry.path()?.to_string_lossy().into_owned();
        let parts: Vec<&str> = name.split('/').collect();
        if let [_, folder, class, _] = parts[..]
            && folder == split
        {
            let mut bytes = vec![];
            entry.read_to_end(&mut bytes)?;
            images.push((class.to_string(), image::load_from_memory(&bytes)?.to_rgb8()));
        }
    }
    Ok(images)
}
