//! Splits batches between workers.

use std::ops::Range;

use bagssl_core::batch::{BatchShape, Batches, PatchBatch, PatchSource, SourceError};

use super::Rank;

/// A source that yields one worker's images from each batch of another source. It builds every
/// complete batch first, so it suits cheap sources. A loader that only builds the worker's own
/// images is faster.
#[derive(Debug)]
pub struct Shard<S> {
    source: S,
    images: Range<usize>,
}

impl<S: PatchSource> Shard<S> {
    /// Creates the source of the worker with this rank.
    ///
    /// # Errors
    /// [`Error::Setting`](crate::Error::Setting) if the images of a batch cannot be divided evenly.
    pub fn new(source: S, rank: Rank) -> crate::Result<Self> {
        let images = rank.share(source.shape().images)?;
        Ok(Shard { source, images })
    }
}

/// Returns the images of a batch in a range.
fn part(batch: &PatchBatch, images: Range<usize>) -> Result<PatchBatch, SourceError> {
    let full = batch.shape();
    let image_len = full.patches * full.patch_len();
    let data = batch.data()[images.start * image_len..images.end * image_len].to_vec();
    let select = |list: &[u32]| list[images.clone()].to_vec();
    let shape = BatchShape { images: images.len(), ..full };
    Ok(PatchBatch::new(shape, data, select(batch.images()), select(batch.labels()))?)
}

impl<S: PatchSource> PatchSource for Shard<S> {
    fn shape(&self) -> BatchShape {
        BatchShape { images: self.images.len(), ..self.source.shape() }
    }

    fn batches_per_epoch(&self) -> usize {
        self.source.batches_per_epoch()
    }

    fn epoch(&self, epoch: u32, first: usize) -> Batches<'_> {
        let images = self.images.clone();
        Box::new(self.source.epoch(epoch, first).map(move |batch| part(&batch?, images.clone())))
    }
}
