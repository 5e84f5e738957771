//! The pipeline with networks of its own.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicUsize};

use bagssl_core::checkpoint::Checkpoint;
use bagssl_data::Split;

use super::*;

const GOLDEN: &[u8] = include_bytes!("../../../tests/golden/checkpoint.safetensors");

/// A network that does something while it looks at its first batch, and gives rows of zeros but for a one.
struct Slow<F> {
    first: F,
    has_begun: AtomicBool,
    /// Patches of its first batch.
    patches: AtomicUsize,
}

impl<F: Fn()> Slow<F> {
    fn new(first: F) -> Self {
        Slow { first, has_begun: AtomicBool::new(false), patches: AtomicUsize::new(0) }
    }
}

impl<F: Fn()> Embed for Slow<F> {
    fn embed(&self, batch: &PatchBatch, _: &[FeatureLayer]) -> std::result::Result<Vec<Rows>, SourceError> {
        if !self.has_begun.swap(true, Relaxed) {
            self.patches.store(batch.shape().rows(), Relaxed);
            (self.first)();
        }
        let (rows, dim) = (batch.shape().rows(), spec().model.dim(FeatureLayer::Embedding));
        Ok(vec![Rows { values: (0..rows * dim).map(|value| f32::from(u8::from(value % dim == 0))).collect(), dim }])
    }
}

fn spec() -> Spec {
    Checkpoint::from_bytes(GOLDEN).unwrap().spec().clone()
}

/// What comes of all images of the crate's own, in patches one pixel from one to the next.
fn with<T>(stop: StopOptions, memory_limit: Option<u64>, work: impl FnOnce(&EmbedJob<'_>) -> T) -> T {
    let dataset = Arc::new(Dataset::embedded(Split::Validation).unwrap());
    let patches = Patches::Grid { stride: Some(1) };
    let options = EmbedOptions { patches, stop, threads: 2, memory_limit, ..EmbedOptions::default() };
    work(&EmbedJob { dataset: &dataset, spec: &spec(), options: &options })
}

/// Of eight images that are open, four come to the network at first. The others are decoded and cut meanwhile, and wait: that is time
/// that they have taken.
#[test]
fn an_images_clock_runs_while_it_waits_for_the_network() {
    let stop = StopOptions { deadline: Some(Duration::from_secs(1)), ..StopOptions::at_most(20) };
    let network = Slow::new(|| std::thread::sleep(Duration::from_millis(2500)));
    let streamed = with(stop, None, |job| job.run(&network)).unwrap();
    let ends: Vec<_> = streamed.images.iter().take(8).map(|image| (image.used, image.reason)).collect();
    assert_eq!(ends, [(16, Reason::Deadline); 8]);
}

/// A network that takes 256 MiB while it looks at patches, and gives them back.
#[cfg(target_os = "linux")]
#[test]
fn memory_of_the_network_is_reserved() {
    const TAKES: u64 = 256 << 20;
    let limit = 8 * TAKES;
    let network = Slow::new(|| {
        let taken = vec![1_u8; TAKES as usize];
        assert_eq!(taken.iter().map(|&byte| u64::from(byte)).max(), Some(1));
    });
    let limits = with(StopOptions::default(), Some(limit), |job| job.limits(&network)).unwrap();
    assert_eq!(network.patches.load(Relaxed), 127, "63 are not enough, and the next cut brings 64");
    let room = |bytes| limits.budget.try_take(bytes, "an image").is_ok();
    assert!(room(limit / 4) && !room(limit - TAKES));
}

/// A network whose embeddings have another length than the spec says, or are too few.
struct Other(fn(usize, usize) -> (usize, usize));

impl Embed for Other {
    fn embed(&self, batch: &PatchBatch, _: &[FeatureLayer]) -> std::result::Result<Vec<Rows>, SourceError> {
        let (rows, dim) = (self.0)(batch.shape().rows(), spec().model.dim(FeatureLayer::Embedding));
        Ok(vec![Rows { values: vec![0.5; rows * dim], dim }])
    }
}

#[test]
fn a_network_of_another_shape_is_an_error() {
    let run = |network: Other| with(StopOptions::at_most(4), None, |job| job.run(&network));
    assert!(run(Other(|rows, dim| (rows, dim))).is_ok());
    for network in [|rows, dim| (rows, dim / 2), |rows, dim| (rows, 2 * dim), |rows, dim| (rows - 1, dim)] {
        let error = run(Other(network)).unwrap_err();
        assert!(matches!(error, Error::Network(_)), "{error}");
    }
}
