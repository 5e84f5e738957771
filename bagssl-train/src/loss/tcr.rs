//! The total coding rate with cosine invariance.
//!
//! # Source
//! EMP-SSL, arXiv:2304.03977; the coding rate of Yu et al., *Learning Diverse and Discriminative Representations via the
//! Principle of Maximal Coding Rate Reduction*, NeurIPS 2020.

use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{Tensor, TensorData};
use nalgebra::{Cholesky, DMatrix};

use super::{LossValue, scalar};
use crate::error::{Error, Result};

/// Keeps the length of a row away from 0, so that a row of zeros has a gradient of zeros.
const SMALLEST_SQUARE: f64 = 1e-24;

/// `-weight * mean cos(z_i, mean z) + mean over patches of TCR`, on rows of unit length.
pub(super) fn loss<B: AutodiffBackend>(projections: Tensor<B, 3>, weight: f64, epsilon: f64) -> Result<LossValue<B>> {
    let [images, _, dim] = projections.dims();
    let rows = unit(projections);
    let invariance = (rows.clone() * unit(rows.clone().mean_dim(1))).sum_dim(2).mean();
    let (rate, surrogate) = total_coding_rate(rows.swap_dims(0, 1), epsilon)?;
    let cosine = scalar(invariance.clone());
    let objective = surrogate - invariance * weight;
    let figures = vec![
        ("loss", rate - weight * cosine),
        ("invariance", cosine),
        ("tcr", rate),
        ("tcr_share", rate / tcr_bound(images, dim, epsilon)),
    ];
    Ok(LossValue { objective, figures })
}

fn unit<B: Backend>(rows: Tensor<B, 3>) -> Tensor<B, 3> {
    let length = (rows.clone() * rows.clone()).sum_dim(2).add_scalar(SMALLEST_SQUARE).sqrt();
    rows / length
}

/// The mean over sets of `TCR(Z) = -1/2 logdet(I + d / (n eps) Z^T Z)`, and a surrogate with the same gradient.
///
/// The smaller of the two Gram matrices is factored, on the host in `f64`: both have the same determinant (Sylvester).
/// The gradient of `logdet A` is that of `<C, A>` with `C = A^-1` held fixed, so the surrogate `-1/2 <A^-1, A(Z)>` needs no
/// backward pass of its own. Its value means nothing.
///
/// # Shapes
/// - `sets`: `[set, row, dim]`, rows of unit length
///
/// # Errors
/// [`Error::NotFinite`] if a row is not finite.
pub fn total_coding_rate<B: AutodiffBackend>(sets: Tensor<B, 3>, epsilon: f64) -> Result<(f64, Tensor<B, 1>)> {
    let [count, rows, dim] = sets.dims();
    let scale = dim as f64 / (rows as f64 * epsilon);
    let turned = sets.clone().swap_dims(1, 2);
    let gram = if rows <= dim { sets.matmul(turned) } else { turned.matmul(sets) } * scale;
    let side = rows.min(dim);
    let device = gram.device();

    let values = gram.clone().into_data().convert::<f32>().into_vec::<f32>().expect("converted to f32");
    let mut rate = 0.0;
    let mut inverses = Vec::with_capacity(values.len());
    for matrix in values.chunks_exact(side * side) {
        let matrix = DMatrix::from_iterator(side, side, matrix.iter().map(|&value| f64::from(value)))
            + DMatrix::identity(side, side);
        let factor = Cholesky::new(matrix).ok_or_else(|| Error::not_finite("the coding rate"))?;
        rate -= factor.l_dirty().diagonal().iter().map(|value| value.ln()).sum::<f64>() / count as f64;
        inverses.extend(factor.inverse().iter().map(|&value| value as f32));
    }
    if !rate.is_finite() {
        return Err(Error::not_finite("the coding rate"));
    }
    let inverses = Tensor::from_data(TensorData::new(inverses, [count, side, side]), &device);
    Ok((rate, (gram * inverses).sum() * (-0.5 / count as f64)))
}

/// The lowest value that the total coding rate of `rows` unit rows of length `dim` can take: that of rows spread evenly
/// over as many directions as there are.
pub fn tcr_bound(rows: usize, dim: usize, epsilon: f64) -> f64 {
    let directions = rows.min(dim) as f64;
    // Each direction gets rows / directions of the unit lengths.
    let scale = dim as f64 / (rows as f64 * epsilon);
    -0.5 * directions * (scale * rows as f64 / directions).ln_1p()
}
