//! Compares entire networks with this project's CPU kernels: a training pass with all gradients,
//! and inference.

use bagssl_core::architecture::{Architecture, mlp};
use bagssl_core::checkpoint::ModelPlan;
use bagssl_core::embed::FeatureLayer;
use bagssl_core::model::{CpuFast, Differentiable, Kernels, Model};
use burn::backend::Autodiff;
use burn::module::AutodiffModule;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

use super::operations::Checked;
use super::report::{Checks, Figure};
use super::values::{flat, random, tensor};
use crate::backend::kernels::{Bf16, Cudnn, F32, Tf32};
use crate::ops::run::OnCuda;
use bagssl_train::backend::NdArray;

/// A small network, one with ImageNet's stem and pooling, and one whose shortcuts are cropped to
/// smaller outputs.
const NETWORKS: [(Architecture, [usize; 2]); 3] =
    [(Architecture::ResNetSmall, [16, 24]), (Architecture::ResNet18, [48, 64]), (Architecture::BagNet9, [17, 25])];

const ROWS: usize = 8;
const SEED: u64 = 11;

/// Returns the bounds on `1 - cosine` between results on the GPU and the CPU: for inference,
/// training and gradients.
///
/// Rounding to nearest has a relative error of about `r = 0.4 u` (root mean square), with
/// `u = 2^-8` for bf16 (7 explicit mantissa bits) and `2^-11` for TF32. It occurs three times per
/// layer (weight, convolution, norm). So the output of `L` layers has an error of
/// `e = r sqrt(3 L)`, and the cosine is below 1 by `e^2 / 2`. For the 20 layers of ResNet-18 that
/// is 7e-5 in bf16 and 1e-6 in TF32. Norms over few values amplify it.
///
/// Gradients lose more. A value with an error of `e` standard deviations has the wrong sign in a
/// fraction `e / pi` of places, where the ReLU passes what it should stop. Each ReLU changes that
/// fraction of the squared gradient, so `1 - cosine` grows with `e`, not with its square. With a
/// mean `e` of 8e-3, 17 times `e / (2 pi)` gives about 2e-2 in bf16, 3e-3 in TF32 and 1e-6 in f32.
///
/// The tests in `rounding` measure both on the CPU, and require that the bounds are at least four
/// times the measured values. An untrained BagNet maps all rows to nearly the same embedding, and
/// the projector's norms amplify the rounding errors of their differences. Results whose direction
/// is reversed by rounding alone are reported but not judged. Sums of f32 in another order differ
/// by about 2^-20, 2^-9 of TF32's rounding.
fn bounds(architecture: Architecture, dtype: &str) -> [f64; 3] {
    const NONE: f64 = f64::INFINITY;
    match (dtype, architecture) {
        ("bf16", Architecture::BagNet9) => [3e-2, NONE, NONE],
        ("bf16", Architecture::ResNet18) => [1e-3, 2e-2, 6e-1],
        ("bf16", _) => [1e-3, 1e-2, 2e-1],
        ("tf32", Architecture::BagNet9) => [5e-4, 5e-2, NONE],
        ("tf32", Architecture::ResNet18) => [1e-5, 2e-4, 1e-1],
        ("tf32", _) => [1e-5, 1e-4, 1e-2],
        (_, Architecture::BagNet9) => [1e-6, 1e-4, 5e-3],
        (_, Architecture::ResNet18) => [1e-6, 1e-6, 5e-4],
        _ => [1e-6, 1e-6, 1e-4],
    }
}

/// Returns embeddings and projections of inference, projections of training, and all gradients.
fn results<B: Backend, K: Kernels<B>, T: Kernels<Autodiff<B>>>(plan: &ModelPlan, [h, w]: [usize; 2]) -> [Vec<f32>; 3] {
    let device = Default::default();
    let dims = [ROWS, 3, h, w];
    let patches = tensor::<B, 4>(&random(1, dims.iter().product()), dims, &device);
    let mut model = Model::<Autodiff<B>>::init(plan, SEED, &device);
    let trained = model.forward_train::<T>(Tensor::from_inner(patches.clone()));
    let [rows, dim] = trained.projection.dims();
    let weights = tensor::<B, 2>(&random(2, rows * dim), [rows, dim], &device);
    let gradients = (trained.projection.clone() * Tensor::from_inner(weights)).sum().backward();
    let mut all = Vec::new();
    let gradients = model.gradients(&gradients);
    model.update_all(gradients, |changes| {
        let each = |change: bagssl_core::model::Change<B>| {
            all.extend(flat(change.gradient));
            change.value
        };
        changes.into_iter().map(each).collect()
    });
    let projections = flat(trained.projection.inner());
    model.update_running(trained.statistics);
    let features = model.valid().features::<K>(patches, &[FeatureLayer::Embedding, FeatureLayer::Projection]);
    [features.into_iter().flat_map(flat).collect(), projections, all]
}

pub(super) fn networks<B: OnCuda>(checks: &mut Checks<'_>) {
    in_precision::<B, F32>(checks);
    in_precision::<B, Tf32>(checks);
    in_precision::<B, Bf16>(checks);
}

fn in_precision<B: OnCuda, P: Checked>(checks: &mut Checks<'_>) {
    for (architecture, size) in NETWORKS {
        let shape = format!("{}, [{ROWS}, 3, {}, {}]", architecture.name(), size[0], size[1]);
        checks.check(P::NAME, &shape, || {
            let plan = plan(architecture);
            let expected = results::<NdArray, CpuFast, Differentiable<CpuFast>>(&plan, size);
            let got = results::<B, Cudnn<P>, Cudnn<P>>(&plan, size);
            let errors = got.iter().zip(&expected).map(|(got, expected)| apart(got, expected));
            let parts = PARTS.into_iter().zip(bounds(architecture, P::NAME));
            let name = |part| format!("{}, {part}, 1 - cosine", architecture.name());
            parts.zip(errors).map(|((part, bound), error)| Figure::new(name(part), error, bound)).collect()
        });
    }
}

/// The names of the compared results.
const PARTS: [&str; 3] = ["inference", "training", "gradients"];

fn plan(architecture: Architecture) -> ModelPlan {
    let encoder = architecture.plan();
    let bagssl_core::plan::Kind::Rows(dim) = encoder.output() else { unreachable!("an encoder puts out rows") };
    let plan = mlp(dim, &[32, 16]).and_then(|projector| ModelPlan::new(encoder, projector));
    plan.expect("the projector reads what the encoder puts out")
}

/// Returns 1 minus the cosine of two lists of values; infinite if it is NaN or the lengths differ.
fn apart(got: &[f32], expected: &[f32]) -> f64 {
    let product = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>();
    let lengths = (product(got, got) * product(expected, expected)).sqrt();
    let apart = 1.0 - product(got, expected) / lengths;
    if got.len() == expected.len() && apart.is_finite() { apart.max(0.0) } else { f64::INFINITY }
}

#[cfg(test)]
mod rounding;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directions_are_compared() {
        assert_eq!(apart(&[1.0, 2.0], &[2.0, 4.0]), 0.0);
        assert_eq!(apart(&[1.0, 0.0], &[0.0, 3.0]), 1.0);
        assert_eq!(apart(&[1.0, 0.0], &[-1.0, 0.0]), 2.0);
        assert_eq!(apart(&[1.0], &[1.0, 0.0]), f64::INFINITY);
        assert_eq!(apart(&[f32::NAN], &[1.0]), f64::INFINITY);
    }

    /// Computes the reference in two ways: with the CPU kernels, and with Burn's own operations.
    #[test]
    fn the_reference_does_not_depend_on_its_kernels() {
        let encoder = Architecture::ResNetSmall.plan();
        let plan = ModelPlan::new(encoder, mlp(64, &[32, 16]).unwrap()).unwrap();
        let fast = results::<NdArray, CpuFast, Differentiable<CpuFast>>(&plan, [16, 24]);
        use bagssl_core::model::Stock;
        let stock = results::<NdArray, Stock, Stock>(&plan, [16, 24]);
        for ((fast, stock), bound) in fast.iter().zip(&stock).zip(bounds(Architecture::ResNetSmall, "f32")) {
            assert!(apart(fast, stock) < bound, "{} of {bound}", apart(fast, stock));
        }
    }
}
