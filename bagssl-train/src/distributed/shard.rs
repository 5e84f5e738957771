//! Splits batches between workers.

use std::ops::Range;

use bagssl_core::batch::{BatchShape, Batches, PatchBatch, PatchSource, SourceError};

use super::Rank;

/// A source that yields one worker's images from each batch of another source. It builds every
/// complete batch first, so it suits cheap sources. A loader that only builds the worker's own
/// images is faster.
#[derive(Debug)]
pub struct Shard<S> {
    whole: S,
    images: Range<usize>,
}

impl<S: PatchSource> Shard<S> {
    /// Creates the source of the worker with this rank.
    ///
    /// # Errors
    /// [`Error::Setting`](crate::Error::Setting) if the images of a batch cannot be divided evenly.
    pub fn new(whole: S, rank: Rank) -> crate::Result<Self> {
        let images = rank.share(whole.shape().images)?;
        Ok(Shard { whole, images })
    }
}

/// Returns the images of a batch in a range.
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
