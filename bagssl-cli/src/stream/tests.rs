use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use bagssl_core::checkpoint::Checkpoint;
use bagssl_data::dataset::Split;

use super::*;

const GOLDEN: &[u8] = include_bytes!("../../../tests/golden/checkpoint.safetensors");

/// A network that does something while it looks at its first batch, and gives rows of zeros but for a one.
struct Slow<F> {
    first: F,
    has_begun: AtomicBool,
}

impl<F: Fn()> Slow<F> {
    fn new(first: F) -> Self {
        Slow { first, has_begun: AtomicBool::new(false) }
    }
}

impl<F: Fn()> Embed for Slow<F> {
    fn embed(&self, batch: &PatchBatch, _: &[Tap]) -> std::result::Result<Vec<Rows>, SourceError> {
        if !self.has_begun.swap(true, Relaxed) {
            (self.first)();
        }
        let (rows, dim) = (batch.shape().rows(), spec().model.dim(Tap::Embedding));
        Ok(vec![Rows { values: (0..rows * dim).map(|value| f32::from(u8::from(value % dim == 0))).collect(), dim }])
    }
}

fn spec() -> Spec {
    Checkpoint::from_bytes(GOLDEN).unwrap().spec().clone()
}

/// What comes of all images of the program's own, in patches one pixel from one to the next.
fn with<T>(stop: &StopArgs, memory: Option<u64>, work: impl FnOnce(&Stream<'_>) -> T) -> T {
    let dataset = Arc::new(Dataset::embedded(Split::Validation).unwrap());
    let (spec, bag) = (spec(), BagArgs::with_stride(Some(1)));
    work(&Stream {
        dataset: &dataset,
        spec: &spec,
        bag: &bag,
        whole: false,
        stop,
        decide: None,
        tap: Tap::Embedding,
        keep: false,
        threads: 2,
        on_bad_image: OnBadImage::Fail,
        memory,
        quiet: true,
    })
}

/// Of eight images that are open, four come to the network at first. The others are decoded and cut meanwhile, and wait: that is time
/// that they have taken.
#[test]
fn an_images_clock_runs_while_it_waits_for_the_network() {
    let stop = StopArgs { deadline_ms: Some(1000), ..StopArgs::at_most(20) };
    let network = Slow::new(|| std::thread::sleep(Duration::from_millis(2500)));
    let streamed = with(&stop, None, |stream| stream.run(&network)).unwrap();
    let ends: Vec<_> = streamed.images.iter().take(8).map(|image| (image.used, image.reason)).collect();
    assert_eq!(ends, [(16, Reason::Deadline); 8]);
}
