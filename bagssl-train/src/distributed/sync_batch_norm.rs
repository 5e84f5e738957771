//! Batch norm over the batches of all workers.

use std::any::Any;
use std::cell::RefCell;
use std::marker::PhantomData;
use std::sync::Arc;

use bagssl_core::model::{
    BatchNormBackward, BatchNormGradients, BatchNormInputs, BatchNormOutput, Kernels, Reading, Running,
};
use bagssl_core::plan::Window;
use burn::tensor::backend::Backend;
use burn::tensor::{FloatDType, Tensor};

use super::{Collective, Rank};
use crate::error::{Error, Result};
use crate::loss::LinAlg;

/// The kernels `K`, with batch norm statistics taken over the batches of all workers, as
/// `torch.nn.SyncBatchNorm`. On a thread without a collective they behave as `K`.
#[derive(Debug, Clone, Copy, Default)]
pub struct SyncBatchNorm<K>(PhantomData<K>);

/// The state that synchronized batch norms need during a worker's step.
#[derive(Default)]
struct Current {
    /// An `Arc<dyn Collective<B>>`.
    exchange: Option<Box<dyn Any>>,
    /// The first error of the collective.
    error: Option<Error>,
}

thread_local! {
    /// Set only during a worker's step.
    static CURRENT: RefCell<Current> = const { RefCell::new(Current { exchange: None, error: None }) };
}

/// Runs the work of a step with a collective for its batch norms.
///
/// # Errors
/// The errors of `work`, or [`Error::Workers`] if a batch norm could not communicate.
pub(crate) fn with_exchange<B: Backend, T>(
    exchange: Option<&Arc<dyn Collective<B>>>,
    work: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let Some(exchange) = exchange else { return work() };
    CURRENT.set(Current { exchange: Some(Box::new(exchange.clone())), error: None });
    let result = work();
    CURRENT.take().error.map_or(result, Err)
}

/// Returns the collective of this thread.
fn current<B: Backend>() -> Option<Arc<dyn Collective<B>>> {
    CURRENT.with_borrow(|current| current.exchange.as_ref()?.downcast_ref::<Arc<dyn Collective<B>>>().cloned())
}

/// Returns the result of a collective call, or `fallback` on an error. A batch norm cannot return an
/// error, so the error is stored and returned at the end of the step.
fn or_record<T>(result: Result<T>, fallback: impl FnOnce() -> T) -> T {
    result.unwrap_or_else(|error| {
        CURRENT.with_borrow_mut(|current| {
            current.error.get_or_insert(error);
        });
        fallback()
    })
}

impl<B: Backend, K: Kernels<B>> Kernels<B> for SyncBatchNorm<K> {
    const ACTIVATION_DTYPE: Option<FloatDType> = K::ACTIVATION_DTYPE;
    const IS_ASYNC: bool = K::IS_ASYNC;

    fn conv2d(input: Tensor<B, 4>, weight: Tensor<B, 4>, window: Window) -> Tensor<B, 4> {
        K::conv2d(input, weight, window)
    }

    fn conv2d_for_training(input: Tensor<B, 4>, weight: Tensor<B, 4>, window: Window) -> [Tensor<B, 4>; 3] {
        K::conv2d_for_training(input, weight, window)
    }

    fn conv2d_input_backward(
        gradient: Tensor<B, 4>,
        weight: Tensor<B, 4>,
        window: Window,
        size: [usize; 2],
    ) -> Tensor<B, 4> {
        K::conv2d_input_backward(gradient, weight, window, size)
    }

    fn conv2d_weight_backward(
        input: Tensor<B, 4>,
        gradient: Tensor<B, 4>,
        weight: Tensor<B, 4>,
        window: Window,
    ) -> Tensor<B, 4> {
        K::conv2d_weight_backward(input, gradient, weight, window)
    }

    fn conv2d_fused(
        input: Tensor<B, 4>,
        weight: Tensor<B, 4>,
        bias: Tensor<B, 1>,
        window: Window,
        residual: Option<Tensor<B, 4>>,
        relu: bool,
    ) -> Tensor<B, 4> {
        K::conv2d_fused(input, weight, bias, window, residual, relu)
    }

    fn batch_norm(inputs: BatchNormInputs<B>, residual: Option<Tensor<B, 4>>, relu: bool) -> BatchNormOutput<B> {
        let Some(exchange) = current::<B>() else { return K::batch_norm(inputs, residual, relu) };
        let own = K::batch_norm_stats(inputs.input.clone());
        let [channels] = own[0].dims();
        let together = Tensor::cat(own.to_vec(), 0);
        // [worker, statistic, channel]
        let all = or_record(exchange.all_gather(together.clone()), || together.unsqueeze());
        let workers = all.dims()[0];
        let all = all.reshape([workers, 2, channels]);
        let means: Tensor<B, 2> = all.clone().narrow(1, 0, 1).squeeze_dim(1);
        let variances: Tensor<B, 2> = all.narrow(1, 1, 1).squeeze_dim(1);
        // The overall variance is the mean of the variances plus the variance of the means.
        let mean = means.clone().mean_dim(0);
        let apart = means - mean.clone();
        let variance = (variances + apart.clone() * apart).mean_dim(0).reshape([channels]);
        let mean = mean.reshape([channels]);
        let output = K::batch_norm_elemt(inputs, [mean.clone(), variance.clone()], residual, relu);
        BatchNormOutput { output, mean, variance }
    }

    fn batch_norm_stats(input: Tensor<B, 4>) -> [Tensor<B, 1>; 2] {
        K::batch_norm_stats(input)
    }

    fn batch_norm_elemt(
        inputs: BatchNormInputs<B>,
        statistics: [Tensor<B, 1>; 2],
        residual: Option<Tensor<B, 4>>,
        relu: bool,
    ) -> Tensor<B, 4> {
        K::batch_norm_elemt(inputs, statistics, residual, relu)
    }

    fn batch_norm_backward(
        inputs: BatchNormInputs<B>,
        normed: BatchNormOutput<B>,
        has_residual: bool,
        relu: bool,
        gradient: Tensor<B, 4>,
    ) -> BatchNormGradients<B> {
        let Some(exchange) = current::<B>() else {
            return K::batch_norm_backward(inputs, normed, has_residual, relu, gradient);
        };
        let [rows, channels, height, width] = inputs.input.dims();
        let backward = BatchNormBackward { inputs, normed, has_residual, relu, gradient };
        let [scale, shift] = K::batch_norm_backward_reduce(backward.clone());
        let own = Tensor::cat(vec![scale.clone(), shift.clone()], 0);
        let sums = or_record(exchange.all_reduce(own.clone()), || own);
        let sums = [sums.clone().narrow(0, 0, channels), sums.narrow(0, channels, channels)];
        let count = rows * height * width * exchange.rank().world_size;
        let (input, residual) = K::batch_norm_backward_elemt(backward, sums, count);
        // The gradients of scale and shift are this worker's only. They are summed with all other
        // gradients later.
        BatchNormGradients { input, scale, shift, residual }
    }

    fn batch_norm_backward_reduce(backward: BatchNormBackward<B>) -> [Tensor<B, 1>; 2] {
        K::batch_norm_backward_reduce(backward)
    }

    fn batch_norm_backward_elemt(
        backward: BatchNormBackward<B>,
        sums: [Tensor<B, 1>; 2],
        count: usize,
    ) -> (Tensor<B, 4>, Option<Tensor<B, 4>>) {
        K::batch_norm_backward_elemt(backward, sums, count)
    }

    fn batches() -> usize {
        current::<B>().map_or(1, |exchange| {
            let Rank { world_size: count, .. } = exchange.rank();
            count
        })
    }

    fn max_pool2d(input: Tensor<B, 4>, window: Window) -> Tensor<B, 4> {
        K::max_pool2d(input, window)
    }

    fn global_mean(input: Tensor<B, 4>) -> Tensor<B, 2> {
        K::global_mean(input)
    }

    fn linear(input: Tensor<B, 2>, weight: Tensor<B, 2>, bias: Option<Tensor<B, 1>>) -> Tensor<B, 2> {
        K::linear(input, weight, bias)
    }

    fn sum(left: Tensor<B, 4>, right: Tensor<B, 4>) -> Tensor<B, 4> {
        K::sum(left, right)
    }

    fn upload(values: Vec<f32>, dims: [usize; 4], device: &B::Device) -> Tensor<B, 4> {
        K::upload(values, dims, device)
    }

    fn read_later(values: Tensor<B, 1>) -> Reading {
        K::read_later(values)
    }

    fn check() -> std::result::Result<(), String> {
        K::check()
    }
}

impl<B: Backend, K: LinAlg<B>> LinAlg<B> for SyncBatchNorm<K> {
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
