//! Features of as many images as ImageNet has, on disk, and a kNN classifier on them: whether they need memory.
//!
//! `cargo run --release -p bagssl-eval --example imagenet_size -- FOLDER [IMAGES]` writes `IMAGES x 2048` features (10.5 GB for
//! ImageNet's 1,281,167 images) to FOLDER, or goes on where it was stopped, and classifies 500 others by them. The features are
//! drawn around a centre for each of 1,000 classes: there is no network, and nothing is said of one. Linux tells the memory.

use std::error::Error;
use std::time::Instant;

use bagssl_core::batch::{BatchShape, PatchBatch, SourceError};
use bagssl_core::embed::{Embed, Rows, Tap};
use bagssl_core::random::{Address, Purpose};
use bagssl_eval::features::{Order, extract};
use bagssl_eval::knn::Knn;
use bagssl_eval::store::Store;

const IMAGENET: usize = 1_281_167;
const CLASSES: usize = 1000;
const DIM: usize = 2048;
const QUERIES: usize = 500;
const BATCH: usize = 256;
/// Of the noise, relative to that of the centres: with much noise, some neighbours are of another class.
const NOISE: f32 = 12.0;

/// Draws an image's feature from its index alone.
struct Drawn {
    centres: Vec<f32>,
}

impl Embed for Drawn {
    fn embed(&self, batch: &PatchBatch, _: &[Tap]) -> Result<Vec<Rows>, SourceError> {
        let mut values = Vec::with_capacity(batch.images().len() * DIM);
        for (&image, &label) in batch.images().iter().zip(batch.labels()) {
            let centre = &self.centres[label as usize * DIM..][..DIM];
            let mut state = u64::from(image).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
            values.extend(centre.iter().map(|value| value + NOISE * uniform(&mut state)));
        }
        Ok(vec![Rows { values, dim: DIM }])
    }
}

/// From -0.5 to 0.5, by Marsaglia's xorshift: 2.6 billion are needed.
fn uniform(state: &mut u64) -> f32 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    (*state >> 40) as f32 / (1 << 24) as f32 - 0.5
}

fn batches(images: std::ops::Range<usize>) -> impl Iterator<Item = Result<PatchBatch, SourceError>> {
    let end = images.end;
    images.step_by(BATCH).map(move |first| {
        let images: Vec<u32> = (first..end.min(first + BATCH)).map(|image| image as u32).collect();
        let labels = images.iter().map(|image| image % CLASSES as u32).collect();
        let shape = BatchShape { images: images.len(), patches: 1, channels: 1, height: 1, width: 1 };
        Ok(PatchBatch::new(shape, vec![0.0; images.len()], images, labels)?)
    })
}

/// What the process holds of its own and of mapped files, at this moment.
fn memory() -> String {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let of = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok()).map_or(0, |kib| kib / 1024)
    };
    format!("memory: {} MiB of its own, {} MiB of mapped files", of("RssAnon"), of("RssFile"))
}

fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().ok_or("expected a folder")?;
    let images = arguments.next().map_or(Ok(IMAGENET), |text| text.parse())?;
    let mut random = Address::default().stream(Purpose::Evaluation);
    let network = Drawn { centres: (0..CLASSES * DIM).map(|_| random.normal_pair().0 as f32).collect() };

    let started = Instant::now();
    let store = Store { folder: folder.as_ref(), of: "drawn features" };
    let mut told = 0;
    let mut progress = |done: usize| {
        if done >= told + 200_000 || done == images {
            told = done;
            println!("{done} of {images} images after {:.0} s; {}", started.elapsed().as_secs_f64(), memory());
        }
    };
    let train = store.extract(&network, |first| batches(first..images), &[Tap::Embedding], &mut progress)?.remove(0);
    let train = train.samples(1, Order::Given)?;
    let test = extract(&network, batches(images..images + QUERIES), &[Tap::Embedding], &mut |_| ())?.remove(0);
    let test = test.samples(1, Order::Given)?;

    let started = Instant::now();
    let score = Knn::default().evaluate(&train, &test)?;
    let seconds = started.elapsed().as_secs_f64();
    println!("kNN of {QUERIES} by {images}: {:.1} % in {seconds:.1} s; {}", score.accuracy, memory());
    Ok(())
}
