//! Compares the losses on the GPU with Burn's operations on the CPU.

use bagssl_core::model::Stock;
use burn::backend::Autodiff;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

use super::report::{Checks, Figure};
use super::values::{difference, flat, random, tensor};
use crate::backend::kernels::{Cudnn, F32};
use crate::ops::run::OnCuda;
use bagssl_train::backend::NdArray;
use bagssl_train::loss::{LinAlg, Loss};

/// Shapes `[image, patch, dim]`: fewer rows than dimensions, more rows, and several tiles of the
/// factorization.
const SHAPES: [[usize; 3]; 3] = [[7, 3, 12], [40, 2, 9], [70, 4, 130]];

/// Returns the values of a loss, and its gradient.
fn results<B: Backend, A: LinAlg<B>>(loss: Loss, dims: [usize; 3]) -> [Vec<f32>; 2] {
    let values = random(17, dims.iter().product());
    let projections = Tensor::<Autodiff<B>, 3>::from_inner(tensor(&values, dims, &Default::default())).require_grad();
    let loss = loss.check().expect("the settings are in their ranges");
    let value = loss.value::<Autodiff<B>, A>(projections.clone()).expect("there are images and patches enough");
    let gradient = projections.grad(&value.objective.backward()).map(flat).unwrap_or_default();
    [flat(Tensor::cat(value.values, 0)), gradient]
}

pub(super) fn losses<B: OnCuda>(checks: &mut Checks<'_>) {
    let losses = [
        ("tcr", Loss::tcr(200.0, 0.2)),
        ("vicreg", Loss::vicreg()),
        ("simclr", Loss::simclr()),
        ("spectral", Loss::spectral()),
    ];
    for (name, loss) in losses {
        for dims in SHAPES {
            checks.check("f32", &format!("{name}, {dims:?}"), || {
                let got = results::<B, Cudnn<F32>>(loss, dims);
                let expected = results::<NdArray, Stock>(loss, dims);
                let figure = |((part, got), expected): ((&str, &Vec<f32>), &Vec<f32>)| {
                    let expected: Vec<f64> = expected.iter().map(|&value| f64::from(value)).collect();
                    Figure::new(format!("{name}, {part}"), difference(got, &expected), 1e-4)
                };
                ["values", "gradient"].into_iter().zip(&got).zip(&expected).map(figure).collect()
            });
        }
    }
}
