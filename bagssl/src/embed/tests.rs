//! The pipeline with networks of its own.

use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicUsize};

use bagssl_core::checkpoint::Checkpoint;
use bagssl_core::patch::ImageSize;
use bagssl_data::{Budget, Cifar, Split};
use bagssl_eval::{Classifier, ClassifierKind, Knn, Samples};

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

/// One neighbor of each of two classes.
fn classifier() -> Classifier {
    let dim = spec().model.dim(FeatureLayer::Embedding);
    let rows = Rows { values: (0..2 * dim).map(|value| value as f32).collect(), dim };
    let samples = Samples::new(rows, vec![0, 1]).unwrap();
    Classifier::new(ClassifierKind::Neighbors(Knn::default(), samples), vec!["a".into(), "b".into()], "net".into())
        .unwrap()
}

/// What an image of a data set of 32x32 pixels takes besides them: 16 bytes for the place of a patch and 4 for its turn, and under a
/// limit the two sums of its mean, and the embeddings that its class is searched for among, in a vector that may have twice the room.
#[test]
fn what_an_open_image_takes_by_hand() {
    let (dataset, spec, classifier) = (cifar(), spec(), classifier());
    let (dim, size) = (spec.model.dim(FeatureLayer::Embedding) as u64, ImageSize { height: 32, width: 32 });
    let beside = |patches, stop, decide, memory_limit| {
        let options = EmbedOptions { patches, stop, decide, memory_limit, ..EmbedOptions::default() };
        EmbedJob { dataset: &dataset, spec: &spec, options: &options }.bytes_beside(size)
    };
    let (never, decide) = (StopOptions::default(), Some((&classifier, 0.9)));
    assert_eq!(beside(Patches::Random(500), never, decide, None), 500 * 20);
    assert_eq!(beside(Patches::Random(500), never, None, Some(1)), 500 * 20 + 16 * dim);
    assert_eq!(beside(Patches::Random(500), never, decide, Some(1)), 500 * 20 + 16 * dim + 2 * 500 * 4 * dim);
    let few = StopOptions::at_most(4);
    assert_eq!(beside(Patches::Random(500), few, decide, Some(1)), 500 * 20 + 16 * dim + 2 * 4 * 4 * dim);
    assert_eq!(beside(Patches::Whole, never, decide, Some(1)), 20 + 16 * dim + 2 * 4 * dim);
}

/// Two images as CIFAR-10 stores them.
fn cifar() -> Arc<Dataset> {
    let list = b"a\nb";
    let records = [0, 1].map(|label| [vec![label], (0..3072).map(|at| at as u8).collect()].concat()).concat();
    Arc::new(Dataset::from_cifar(records, list, Cifar::Ten, Path::new("x")).unwrap())
}

/// A million patches of an image of 32x32 pixels have a list of 20 MB, and their embeddings far more: an image of which a budget has no
/// room for them is refused, one of few patches is not.
#[test]
fn patches_of_small_images_and_searches_among_them_count() {
    let (dataset, spec, classifier) = (cifar(), spec(), classifier());
    let decoded = |stop, decide, mebibytes: u64| {
        let patches = Patches::Random(MAX_PATCHES);
        let options = EmbedOptions { patches, stop, decide, memory_limit: Some(1 << 40), ..EmbedOptions::default() };
        let job = EmbedJob { dataset: &dataset, spec: &spec, options: &options };
        dataset.try_decode(0, &Budget::new(mebibytes << 20), &|size| job.bytes_beside(size))
    };
    let (few, decide) = (StopOptions::at_most(4), Some((&classifier, 0.9)));
    assert!(decoded(few, decide, 20).unwrap().is_some());
    for refused in [decoded(few, None, 19), decoded(StopOptions::default(), decide, 100)] {
        let error = refused.unwrap_err().to_string();
        assert!(error.starts_with("x: 0: expected an image that needs at most"), "{error}");
    }
}

/// What the caller has reserved is compared before the network begins.
#[cfg(target_os = "linux")]
#[test]
fn what_is_reserved_is_left_to_the_caller() {
    let (dataset, spec) = (cifar(), spec());
    for (memory_limit, reserved, is_enough) in
        [(1 << 40, 1 << 39, true), (1 << 40, 1 << 40, false), (1 << 40, u64::MAX, false), (u64::MAX, 1 << 60, true)]
    {
        let network = Slow::new(|| ());
        let options = EmbedOptions { memory_limit: Some(memory_limit), reserved, ..EmbedOptions::default() };
        let limits = EmbedJob { dataset: &dataset, spec: &spec, options: &options }.limits(&network);
        assert_eq!((limits.is_ok(), network.has_begun.load(Relaxed)), (is_enough, is_enough));
        match limits {
            Ok(limits) => assert!(limits.budget.bytes() < memory_limit - reserved),
            Err(error) => assert!(matches!(error, Error::MemoryLimit { .. }), "{error}"),
        }
    }
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
