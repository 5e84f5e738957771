//! A worker's part of each batch.

use std::ops::Range;

use bagssl_core::batch::{BatchShape, Batches, PatchBatch, PatchSource, SourceError};

use super::Rank;

/// A source of whole batches, of which a worker takes its images. (A loader that makes no more than a worker's images takes
/// less time; this is for sources that are cheap.)
#[derive(Debug)]
pub struct Shard<S> {
    whole: S,
    images: Range<usize>,
}

impl<S: PatchSource> Shard<S> {
    /// The part of the worker with this rank.
    ///
    /// # Errors
    /// [`Error::Setting`](crate::Error::Setting) if the images of a batch cannot be divided evenly.
    pub fn new(whole: S, rank: Rank) -> crate::Result<Self> {
        let images = rank.share(whole.shape().images)?;
        Ok(Shard { whole, images })
    }
}

/// Some images of a batch.
fn part(batch: &PatchBatch, images: Range<usize>) -> Result<PatchBatch, SourceError> {
    let whole = batch.shape();
    let each = whole.patches * whole.patch_len();
    let data = batch.data()[images.start * each..images.end * each].to_vec();
    let of = |list: &[u32]| list[images.clone()].to_vec();
    let shape = BatchShape { images: images.len(), ..whole };
    Ok(PatchBatch::new(shape, data, of(batch.images()), of(batch.labels()))?)
}

impl<S: PatchSource> PatchSource for Shard<S> {
    fn shape(&self) -> BatchShape {
        BatchShape { images: self.images.len(), ..self.whole.shape() }
    }

    fn batches_per_epoch(&self) -> usize {
        self.whole.batches_per_epoch()
    }

    fn epoch(&self, epoch: u32, first: usize) -> Batches<'_> {
        let images = self.images.clone();
        Box::new(self.whole.epoch(epoch, first).map(move |batch| part(&batch?, images.clone())))
    }
}
