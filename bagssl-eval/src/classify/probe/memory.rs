//! The memory of a fit, from its shapes.

use super::Linear;
use super::logistic::PARTS;
use super::softmax::BLOCK;
use crate::numerics::lbfgs::VECTORS;

impl Linear {
    /// Returns the most bytes that a fit takes, besides the samples, with the classifier and the
    /// bytes of its file.
    pub fn work_bytes(&self, samples: usize, dim: usize, classes: usize) -> u64 {
        // Products of larger numbers are more bytes than are counted.
        let [samples, dim, classes] = [samples, dim, classes].map(|count| (count as u128).min(1 << 40));
        // The classifier, its parts as bytes, and the file.
        let model = 4 * classes * (dim + 1);
        let work = match self {
            Linear::Logistic(_) => {
                let is_wide = dim > samples;
                let parameters = classes * (dim.min(samples) + 1);
                let (vectors, parts, block) = (VECTORS as u128, PARTS as u128, BLOCK as u128);
                // Each part has a gradient; the product of few classes copies the weights.
                let of_part = 2 * parameters + block * (dim.min(samples) + 2 * classes);
                // The rows and a copy of them, and of the square of their products five.
                let space = if is_wide { 2 * samples * dim + 5 * samples * samples } else { 0 };
                (vectors + 2) * parameters + parts * of_part + space
            }
            Linear::Sgd(sgd) => 4 * classes * (dim + 1) + 2 * sgd.batch as u128 * (dim + classes),
        };
        // The target of each sample, the mean and the deviation of each dimension.
        let values = model + work + samples + 4 * dim;
        u64::try_from(values * size_of::<f64>() as u128).unwrap_or(u64::MAX)
    }
}
