//! The algebra of losses: products of matrices, and what a coding rate asks of them.

#[cfg(feature = "ndarray")]
use bagssl_core::model::CpuFast;
use bagssl_core::model::{Differentiable, Running, Stock};
use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};
use nalgebra::{Cholesky, DMatrix};

use super::similarity;

/// What losses ask of matrices and a step of many vectors, in f32 or better whatever the network computes in. Nothing here carries a gradient: losses
/// know theirs.
///
/// The defaults are Burn's product, and a factorisation on the host in f64. The markers are those of
/// [`Kernels`](bagssl_core::model::Kernels), so that what runs a network fast can do the same here.
pub trait LinAlg<B: Backend> {
    /// The products of matrices, one of each pair, each factor taken as it is or transposed.
    ///
    /// # Shapes
    /// - `left`: `[set, row, inner]`, or `[set, inner, row]` if it is to be transposed
    /// - `right`: `[set, inner, column]`, or `[set, column, inner]`
    /// - returns: `[set, row, column]`
    fn bmm(left: Tensor<B, 3>, right: Tensor<B, 3>, transposed: [bool; 2]) -> Tensor<B, 3> {
        let turned = |matrices: Tensor<B, 3>, turn| if turn { matrices.swap_dims(1, 2) } else { matrices };
        turned(left, transposed[0]).matmul(turned(right, transposed[1]))
    }

    /// The inverse of each matrix, which is symmetric and positive definite, and the logarithm of its determinant. Of a
    /// matrix that is not, both are no numbers.
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

    /// The squared length of each of some vectors, at least one: `[vector]`.
    fn squared_norms(vectors: Vec<Tensor<B, 1>>) -> Tensor<B, 1> {
        Tensor::cat(vectors.into_iter().map(|vector| (vector.clone() * vector).sum()).collect(), 0)
    }

    /// What becomes of each running statistic.
    fn update_running_stats(statistics: Vec<Running<B>>) -> Vec<Tensor<B, 1>> {
        statistics.into_iter().map(Running::moved).collect()
    }

    /// [`similarity`](similarity()) of projections `[image, patch, dim]`.
    fn similarity(projections: Tensor<B, 3>) -> Tensor<B, 1> {
        similarity(projections)
    }

    /// Some vectors, at least one, one behind the other.
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
