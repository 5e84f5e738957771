//! Embeddings: what a network makes of patches.

use std::prelude::v1::*;

use std::collections::VecDeque;

use crate::batch::{PatchBatch, SourceError};

/// Where in the network a feature is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "checkpoint", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "checkpoint", serde(rename_all = "snake_case"))]
pub enum FeatureLayer {
    /// `h`, the encoder's output: the representation.
    Embedding,
    /// The projector's first layer after its activation (EMP-SSL's "pre_feature").
    FirstLayer,
    /// `z`, the projector's output: what the loss sees.
    Projection,
}

impl FeatureLayer {
    /// The tap's name, as in configs and reports.
    pub fn name(self) -> &'static str {
        match self {
            FeatureLayer::Embedding => "embedding",
            FeatureLayer::FirstLayer => "first_layer",
            FeatureLayer::Projection => "projection",
        }
    }
}

/// Feature vectors, a row each.
#[derive(Debug, Clone, PartialEq)]
pub struct Rows {
    /// `[row, dim]`, row-major. The rows of a batch run image by image, patch by patch.
    pub values: Vec<f32>,
    /// Length of a row.
    pub dim: usize,
}

impl Rows {
    /// How many rows there are (0 if `dim` is 0).
    pub fn len(&self) -> usize {
        self.values.len().checked_div(self.dim).unwrap_or(0)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// One row.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn row(&self, row: usize) -> &[f32] {
        &self.values[row * self.dim..][..self.dim]
    }
}

/// Features on their way from a device.
pub struct Pending(Box<dyn FnOnce() -> core::result::Result<Vec<Rows>, SourceError>>);

impl Pending {
    /// Features that `wait` waits for.
    pub fn new(wait: impl FnOnce() -> core::result::Result<Vec<Rows>, SourceError> + 'static) -> Self {
        Pending(Box::new(wait))
    }

    /// Waits for the features.
    ///
    /// # Errors
    /// What the device says.
    pub fn wait(self) -> core::result::Result<Vec<Rows>, SourceError> {
        (self.0)()
    }
}

impl core::fmt::Debug for Pending {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Pending")
    }
}

/// A network, as the evaluation sees it: with its running statistics, and without gradients.
pub trait Embed {
    /// The feature of every patch at each of the taps, in their order: `[batch * patch, dim]`.
    ///
    /// # Errors
    /// What the implementation says, for instance that a tap is not there.
    fn embed(&self, batch: &PatchBatch, taps: &[FeatureLayer]) -> core::result::Result<Vec<Rows>, SourceError>;

    /// Begins to embed a batch. A device that queues work goes on with it while the caller prepares the next batch; others
    /// are through with it on return.
    ///
    /// # Errors
    /// As [`Embed::embed`], now or when it is waited for.
    fn begin(&self, batch: &PatchBatch, taps: &[FeatureLayer]) -> core::result::Result<Pending, SourceError> {
        self.embed(batch, taps).map(|features| Pending::new(|| Ok(features)))
    }

    /// How many batches should be on their way at a time, to keep the device at work: 1 where nothing is queued.
    fn in_flight(&self) -> usize {
        1
    }

    /// How many patches of `[height, width]` pixels a batch should have. More need more memory, fewer more time.
    fn rows(&self, size: [usize; 2]) -> usize {
        let _ = size;
        64
    }
}

/// Batches that a network is at work on, in their order, each with something of the caller's.
#[derive(Debug)]
pub struct InFlight<'a, T> {
    network: &'a dyn Embed,
    pending: VecDeque<(T, Pending)>,
}

impl<'a, T> InFlight<'a, T> {
    /// No batch yet.
    pub fn new(network: &'a dyn Embed) -> Self {
        InFlight { network, pending: VecDeque::new() }
    }

    /// Begins to embed a batch. If enough are then on their way, waits for the oldest and gives it back.
    ///
    /// # Errors
    /// As [`Embed::begin`].
    pub fn begin(
        &mut self,
        of: T,
        batch: &PatchBatch,
        taps: &[FeatureLayer],
    ) -> core::result::Result<Option<(T, Vec<Rows>)>, SourceError> {
        self.pending.push_back((of, self.network.begin(batch, taps)?));
        if self.pending.len() < self.network.in_flight() { Ok(None) } else { self.wait() }
    }

    /// Waits for the oldest batch, if there is one, and gives it back.
    ///
    /// # Errors
    /// As [`Pending::wait`].
    pub fn wait(&mut self) -> core::result::Result<Option<(T, Vec<Rows>)>, SourceError> {
        let Some((of, pending)) = self.pending.pop_front() else { return Ok(None) };
        Ok(Some((of, pending.wait()?)))
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

    /// Tells what is begun and waited for: each batch by its first image.
    struct Device(Rc<RefCell<Vec<String>>>);

    impl Embed for Device {
        fn embed(&self, batch: &PatchBatch, taps: &[FeatureLayer]) -> core::result::Result<Vec<Rows>, SourceError> {
            self.begin(batch, taps)?.wait()
        }

        fn begin(&self, batch: &PatchBatch, _: &[FeatureLayer]) -> core::result::Result<Pending, SourceError> {
            let (told, image) = (self.0.clone(), batch.images()[0]);
            told.borrow_mut().push(format!("begin {image}"));
            Ok(Pending::new(move || {
                told.borrow_mut().push(format!("wait {image}"));
                Ok(vec![Rows { values: vec![image as f32], dim: 1 }])
            }))
        }

        fn in_flight(&self) -> usize {
            3
        }
    }

    #[test]
    fn batches_come_back_in_order_and_others_are_begun_before() {
        let told = Rc::default();
        let device = Device(Rc::clone(&told));
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
        assert_eq!(*told.borrow(), order);
    }
}
