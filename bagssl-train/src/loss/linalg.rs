//! Linear algebra of the losses: matrix products, and the factorization of the coding rate.

#[cfg(feature = "ndarray")]
use bagssl_core::model::CpuFast;
use bagssl_core::model::{Differentiable, Running, Stock};
use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};
use nalgebra::{Cholesky, DMatrix};

use super::similarity;

/// The linear algebra of losses, and the parts of a training step that work on many vectors.
/// Results are in f32 or better, whatever precision the network computes in. The operations carry
/// no gradients: losses compute their own.
///
/// The defaults are Burn's matrix product, and a factorization on the host in f64. The implementors
/// are the types that implement [`Kernels`](bagssl_core::model::Kernels), so that a fast kernel
/// library can provide these operations too.
pub trait LinAlg<B: Backend> {
    /// Multiplies pairs of matrices, as `torch.bmm`. Each factor may be transposed.
    ///
    /// # Shapes
    /// - `left`: `[set, row, inner]`, or `[set, inner, row]` if transposed
    /// - `right`: `[set, inner, column]`, or `[set, column, inner]` if transposed
    /// - returns: `[set, row, column]`
    fn bmm(left: Tensor<B, 3>, right: Tensor<B, 3>, transposed: [bool; 2]) -> Tensor<B, 3> {
        let turned = |matrices: Tensor<B, 3>, turn| if turn { matrices.swap_dims(1, 2) } else { matrices };
        turned(left, transposed[0]).matmul(turned(right, transposed[1]))
    }

    /// Returns the inverse and the log-determinant of each symmetric positive definite matrix. Both
    /// are NaN for a matrix that is not positive definite.
    ///
    /// # Shapes
    /// - `matrices`: `[set, side, side]`
    /// - returns: `[set, side, side]` and `[set]`
    fn cholesky_inverse_logdet(matrices: Tensor<B, 3>) -> (Tensor<B, 3>, Tensor<B, 1>) {
        let ([sets, side, _], device) = (matrices.dims(), matrices.device());
        let values = matrices.into_data().convert::<f32>().into_vec::<f32>().expect("converted to f32");
        let (mut inverses, mut logarithms) = (Vec::with_capacity(values.len()), Vec::with_capacity(sets));
        for matrix in values.chunks_exact(side * side) {
            let matrix = DMatrix::from_iterator(side, side, matrix.iter().map(|&value| f64::from(value)));
            let Some(factor) = Cholesky::new(matrix) else {
                inverses.extend(std::iter::repeat_n(f32::NAN, side * side));
                logarithms.push(f32::NAN);
                continue;
            };
            let half: f64 = factor.l_dirty().diagonal().iter().map(|value| value.ln()).sum();
            logarithms.push((2.0 * half) as f32);
            inverses.extend(factor.inverse().iter().map(|&value| value as f32));
        }
        let inverses = Tensor::from_data(TensorData::new(inverses, [sets, side, side]), &device);
        (inverses, Tensor::from_data(TensorData::new(logarithms, [sets]), &device))
    }

    /// Returns the squared length of each vector, `[vector]`. Expects at least one vector.
    fn squared_norms(vectors: Vec<Tensor<B, 1>>) -> Tensor<B, 1> {
        Tensor::cat(vectors.into_iter().map(|vector| (vector.clone() * vector).sum()).collect(), 0)
    }

    /// Returns the updated value of each running statistic.
    fn update_running_stats(statistics: Vec<Running<B>>) -> Vec<Tensor<B, 1>> {
        statistics.into_iter().map(Running::updated).collect()
    }

    /// Computes the [`similarity`](similarity()) of projections `[image, patch, dim]`.
    fn similarity(projections: Tensor<B, 3>) -> Tensor<B, 1> {
        similarity(projections)
    }

    /// Concatenates vectors. Expects at least one.
    fn joined(vectors: Vec<Tensor<B, 1>>) -> Tensor<B, 1> {
        Tensor::cat(vectors, 0)
    }
}

impl<B: Backend> LinAlg<B> for Stock {}

#[cfg(feature = "ndarray")]
impl<B: Backend> LinAlg<B> for CpuFast {}

impl<B: Backend, K: LinAlg<B>> LinAlg<B> for Differentiable<K> {
    fn bmm(left: Tensor<B, 3>, right: Tensor<B, 3>, transposed: [bool; 2]) -> Tensor<B, 3> {
        K::bmm(left, right, transposed)
    }

    fn cholesky_inverse_logdet(matrices: Tensor<B, 3>) -> (Tensor<B, 3>, Tensor<B, 1>) {
        K::cholesky_inverse_logdet(matrices)
    }

    fn squared_norms(vectors: Vec<Tensor<B, 1>>) -> Tensor<B, 1> {
        K::squared_norms(vectors)
    }

    fn update_running_stats(statistics: Vec<Running<B>>) -> Vec<Tensor<B, 1>> {
        K::update_running_stats(statistics)
    }

    fn similarity(projections: Tensor<B, 3>) -> Tensor<B, 1> {
        K::similarity(projections)
    }

    fn joined(vectors: Vec<Tensor<B, 1>>) -> Tensor<B, 1> {
        K::joined(vectors)
    }
}
