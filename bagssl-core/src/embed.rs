//! Embeddings: the features that a network computes from patches.

use std::prelude::v1::*;

use std::collections::VecDeque;

use crate::batch::{PatchBatch, SourceError};

/// The layer whose features are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "checkpoint", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "checkpoint", serde(rename_all = "snake_case"))]
pub enum FeatureLayer {
    /// `h`, the encoder's output: the representation.
    Embedding,
    /// The output of the projector's first layer, after its activation (EMP-SSL's "pre_feature").
    FirstLayer,
    /// `z`, the projector's output: the input of the loss.
    Projection,
}

impl FeatureLayer {
    /// Returns the layer's name, as in configs and reports.
    pub fn name(self) -> &'static str {
        match self {
            FeatureLayer::Embedding => "embedding",
            FeatureLayer::FirstLayer => "first_layer",
            FeatureLayer::Projection => "projection",
        }
    }
}

/// Feature vectors, one per row.
#[derive(Debug, Clone, PartialEq)]
pub struct Rows {
    /// `[row, dim]`, row-major. The rows of a batch are ordered by image, then by patch.
    pub values: Vec<f32>,
    /// The length of a row.
    pub dim: usize,
}

impl Rows {
    /// Returns the number of rows (0 if `dim` is 0).
    pub fn len(&self) -> usize {
        self.values.len().checked_div(self.dim).unwrap_or(0)
    }

    /// Returns whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns a row.
    ///
    /// # Panics
    /// If `row` is out of range.
    pub fn row(&self, row: usize) -> &[f32] {
        &self.values[row * self.dim..][..self.dim]
    }
}

/// Features that are still being computed on a device.
pub struct Pending(Box<dyn FnOnce() -> core::result::Result<Vec<Rows>, SourceError>>);

impl Pending {
    /// Wraps a function that waits for the features and returns them.
    pub fn new(wait: impl FnOnce() -> core::result::Result<Vec<Rows>, SourceError> + 'static) -> Self {
        Pending(Box::new(wait))
    }

    /// Waits for the features and returns them.
    ///
    /// # Errors
    /// Returns the error that the device reports.
    pub fn wait(self) -> core::result::Result<Vec<Rows>, SourceError> {
        (self.0)()
    }
}

impl core::fmt::Debug for Pending {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Pending")
    }
}

/// A network in evaluation mode: it uses its running statistics and computes no gradients.
pub trait Embed {
    /// Computes the features of all patches at each layer in `layers`, in the order of `layers`:
    /// `[batch * patch, dim]` each.
    ///
    /// # Errors
    /// Returns the implementation's error, for instance if the network lacks one of the layers.
    fn embed(&self, batch: &PatchBatch, layers: &[FeatureLayer]) -> core::result::Result<Vec<Rows>, SourceError>;

    /// Starts to embed a batch. On a device with a queue, the work continues while the caller
    /// prepares the next batch. Other implementations finish before they return.
    ///
    /// # Errors
    /// Like [`Embed::embed`]; errors may also surface in [`Pending::wait`].
    fn begin(&self, batch: &PatchBatch, layers: &[FeatureLayer]) -> core::result::Result<Pending, SourceError> {
        self.embed(batch, layers).map(|features| Pending::new(|| Ok(features)))
    }

    /// Returns the number of batches that should be in flight to keep the device busy: 1 without a
    /// queue.
    fn in_flight(&self) -> usize {
        1
    }

    /// Returns the recommended number of patches of `[height, width]` pixels per batch. More
    /// patches need more memory, fewer need more time.
    fn rows(&self, size: [usize; 2]) -> usize {
        let _ = size;
        64
    }
}

/// A queue of batches that a network is embedding, in order, each with a value of the caller's.
#[derive(Debug)]
pub struct InFlight<'a, T> {
    network: &'a dyn Embed,
    pending: VecDeque<(T, Pending)>,
}

impl<'a, T> InFlight<'a, T> {
    /// Creates an empty queue.
    pub fn new(network: &'a dyn Embed) -> Self {
        InFlight { network, pending: VecDeque::new() }
    }

    /// Starts to embed a batch. If the queue then holds [`Embed::in_flight`] batches, waits for the
    /// oldest and returns it.
    ///
    /// # Errors
    /// Like [`Embed::begin`] and [`Pending::wait`].
    pub fn begin(
        &mut self,
        tag: T,
        batch: &PatchBatch,
        layers: &[FeatureLayer],
    ) -> core::result::Result<Option<(T, Vec<Rows>)>, SourceError> {
        self.pending.push_back((tag, self.network.begin(batch, layers)?));
        if self.pending.len() < self.network.in_flight() { Ok(None) } else { self.wait() }
    }

    /// Waits for the oldest batch and returns it, or `None` if the queue is empty.
    ///
    /// # Errors
    /// Like [`Pending::wait`].
    pub fn wait(&mut self) -> core::result::Result<Option<(T, Vec<Rows>)>, SourceError> {
        let Some((tag, pending)) = self.pending.pop_front() else { return Ok(None) };
        Ok(Some((tag, pending.wait()?)))
    }
}

impl core::fmt::Debug for dyn Embed + '_ {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Embed")
    }
}

#[cfg(all(test, feature = "std"))]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;
    use std::vec;

    use super::*;
    use crate::batch::BatchShape;

    /// Records each `begin` and `wait`. A batch is identified by its first image.
    struct Device(Rc<RefCell<Vec<String>>>);

    impl Embed for Device {
        fn embed(&self, batch: &PatchBatch, layers: &[FeatureLayer]) -> core::result::Result<Vec<Rows>, SourceError> {
            self.begin(batch, layers)?.wait()
        }

        fn begin(&self, batch: &PatchBatch, _: &[FeatureLayer]) -> core::result::Result<Pending, SourceError> {
            let (log, image) = (self.0.clone(), batch.images()[0]);
            log.borrow_mut().push(format!("begin {image}"));
            Ok(Pending::new(move || {
                log.borrow_mut().push(format!("wait {image}"));
                Ok(vec![Rows { values: vec![image as f32], dim: 1 }])
            }))
        }

        fn in_flight(&self) -> usize {
            3
        }
    }

    #[test]
    fn in_flight_batches_keep_their_order() {
        let log = Rc::default();
        let device = Device(Rc::clone(&log));
        let mut in_flight = InFlight::new(&device);
        let mut back = Vec::new();
        for image in 0..4 {
            let shape = BatchShape { images: 1, patches: 1, channels: 1, height: 1, width: 1 };
            let batch = PatchBatch::new(shape, vec![0.0], vec![image], vec![0]).unwrap();
            back.extend(in_flight.begin(image, &batch, &[FeatureLayer::Embedding]).unwrap());
        }
        while let Some(oldest) = in_flight.wait().unwrap() {
            back.push(oldest);
        }
        let expected: Vec<_> = (0..4).map(|image| (image, vec![Rows { values: vec![image as f32], dim: 1 }])).collect();
        assert_eq!(back, expected);
        let order = ["begin 0", "begin 1", "begin 2", "wait 0", "begin 3", "wait 1", "wait 2", "wait 3"];
        assert_eq!(*log.borrow(), order);
    }
}
