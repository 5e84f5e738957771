//! The metrics of a step, read from the device without blocking it.

use std::marker::PhantomData;

use bagssl_core::model::{Kernels, Reading};
use burn::tensor::Tensor;
use burn::tensor::backend::AutodiffBackend;

use crate::error::{Error, Result};
use crate::loss::{LinAlg, LossValue};

/// The metrics of a step and the values of its finiteness checks, in one tensor that is read in one
/// transfer.
#[derive(Debug)]
pub(crate) struct StepMetrics<B: AutodiffBackend, K> {
    step: u64,
    images: Vec<u32>,
    names: Vec<&'static str>,
    /// The metrics of the loss, the similarity of different images, a sum over each image's
    /// projections, the squared norm of each parameter's gradient, and the number of workers that
    /// request a stop.
    values: Tensor<B::InnerBackend, 1>,
    projections: Tensor<B::InnerBackend, 3>,
    kernels: PhantomData<K>,
}

impl<B: AutodiffBackend, K: Kernels<B> + LinAlg<B::InnerBackend>> StepMetrics<B, K> {
    /// # Shapes
    /// - `projections`: `[image, patch, dim]`
    /// - `squares`: `[parameter]`
    /// - `stops`: `[1]`
    pub(crate) fn new(
        step: u64,
        images: Vec<u32>,
        value: LossValue<B>,
        projections: Tensor<B::InnerBackend, 3>,
        squares: Tensor<B::InnerBackend, 1>,
        stops: Tensor<B::InnerBackend, 1>,
    ) -> Self {
        let similarity = K::similarity(projections.clone());
        let sums = projections.clone().sum_dim(2).sum_dim(1).reshape([images.len()]);
        let mut parts = value.values;
        parts.extend([similarity, sums, squares, stops]);
        StepMetrics { step, images, names: value.names, values: K::joined(parts), projections, kernels: PhantomData }
    }

    /// Returns the projections, `[image, patch, dim]`.
    pub(crate) fn projections(&self) -> Tensor<B::InnerBackend, 3> {
        self.projections.clone()
    }

    /// Starts the transfer of the metrics. On asynchronous backends the copy precedes all work
    /// queued later.
    pub(crate) fn begin(self) -> PendingMetrics<B, K> {
        let StepMetrics { step, images, names, values, .. } = self;
        // The kernels are implemented for autodiff tensors.
        let reading = K::read_later(Tensor::from_inner(values));
        PendingMetrics { step, images, names, reading, kernels: PhantomData }
    }
}

/// The metrics of a step, in transfer to the host.
#[derive(Debug)]
pub(crate) struct PendingMetrics<B, K> {
    step: u64,
    images: Vec<u32>,
    names: Vec<&'static str>,
    reading: Reading,
    kernels: PhantomData<fn(B) -> K>,
}

impl<B: AutodiffBackend, K: Kernels<B>> PendingMetrics<B, K> {
    /// Returns the step of the metrics.
    pub(crate) fn step(&self) -> u64 {
        self.step
    }

    /// Returns the names of the metrics.
    pub(crate) fn names(&self) -> Vec<&'static str> {
        self.names.iter().copied().chain([SIMILARITY, GRADIENT]).collect()
    }

    /// Waits for the metrics. Returns them by name, including [`SIMILARITY`] and [`GRADIENT`], and
    /// whether a worker requests a stop. `parameters` are the names of the trained parameters.
    ///
    /// # Errors
    /// [`Error::Kernels`] if queued work has failed, [`Error::NotFinite`] with the images that
    /// caused it.
    pub(crate) fn read(self, parameters: &[String]) -> Result<(Vec<(&'static str, f64)>, bool)> {
        let values = {
            let _span = bagssl_core::profile::span("wait for figures");
            self.reading.wait()
        };
        // The first kernel failure is more informative than the failed read.
        K::check().map_err(Error::Kernels)?;
        let values = values.map_err(Error::Kernels)?;
        let (metrics, rest) = values.split_at(self.names.len());
        let (similarity, rest) = rest.split_first().expect("there is a similarity");
        let (sums, rest) = rest.split_at(self.images.len());
        let (stops, squares) = rest.split_last().expect("there is a number of workers");
        if let Some(value) = not_finite(metrics, squares, parameters) {
            let broken = sums.iter().zip(&self.images).filter(|(sum, _)| !sum.is_finite());
            let broken: Vec<u32> = broken.map(|(_, &image)| image).collect();
            let images = if broken.is_empty() { self.images } else { broken };
            return Err(Error::NotFinite { value, step: Some(self.step), images });
        }
        let length = squares.iter().map(|&square| f64::from(square)).sum::<f64>().sqrt();
        let metrics = self.names.into_iter().zip(metrics.iter().map(|&value| f64::from(value)));
        let more = [(SIMILARITY, f64::from(*similarity)), (GRADIENT, length)];
        Ok((metrics.chain(more).collect(), *stops > 0.0))
    }
}

/// The metric that reveals a collapse: the mean cosine similarity between projections of different
/// images (of this worker, if there are several). It is 1 if all projections are identical.
pub(crate) const SIMILARITY: &str = "similarity";

/// The norm of the complete gradient.
pub(crate) const GRADIENT: &str = "gradient";

/// Returns the name of the first non-finite value among the loss and the gradients.
fn not_finite(metrics: &[f32], squares: &[f32], parameters: &[String]) -> Option<String> {
    if metrics.iter().any(|metric| !metric.is_finite()) {
        return Some("the loss".into());
    }
    let wrong = squares.iter().position(|square| !square.is_finite())?;
    Some(format!("the gradient of {}", parameters.get(wrong).map_or("a parameter", |name| name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loss_is_reported_before_gradients() {
        let names = ["encoder.a".to_string(), "encoder.b".to_string()];
        assert_eq!(not_finite(&[1.0, -2.0], &[0.0, 3.0], &names), None);
        assert_eq!(not_finite(&[1.0], &[0.0, f32::INFINITY], &names).unwrap(), "the gradient of encoder.b");
        assert_eq!(not_finite(&[f32::NAN], &[0.0, f32::NAN], &names).unwrap(), "the loss");
    }
}
