//! Products and inverses of stacks of matrices.
#![cfg(feature = "ndarray")]

use bagssl_core::model::{Differentiable, Stock};
use bagssl_train::backend::NdArray;
use bagssl_train::loss::LinAlg;
use burn::tensor::{Tensor, TensorData};

fn tensor(values: &[f32], dims: [usize; 3]) -> Tensor<NdArray, 3> {
    Tensor::from_data(TensorData::new(values.to_vec(), dims), &Default::default())
}

fn values<const D: usize>(tensor: Tensor<NdArray, D>) -> Vec<f32> {
    tensor.into_data().into_vec().unwrap()
}

/// `[[4, 2], [2, 3]]` has the determinant 8, its inverse is `[[3, -2], [-2, 4]] / 8`; `[[1, 2], [2, 1]]` has a negative
/// one.
#[test]
fn inverses_by_hand() {
    let matrices = tensor(&[4.0, 2.0, 2.0, 3.0, 1.0, 2.0, 2.0, 1.0], [2, 2, 2]);
    let (inverses, logarithms) = Stock::cholesky_inverse_logdet(matrices);
    let (inverses, logarithms) = (values(inverses), values(logarithms));
    assert_eq!(inverses[..4], [0.375, -0.25, -0.25, 0.5]);
    assert!((logarithms[0] - 8_f32.ln()).abs() < 1e-6);
    assert!(inverses[4..].iter().all(|value| value.is_nan()) && logarithms[1].is_nan());
}

#[test]
fn products_by_hand() {
    // [1 2 3; 4 5 6] and [1 0; 0 2; 1 1], each as it is and transposed.
    let (left, right) = ([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [1.0, 0.0, 0.0, 2.0, 1.0, 1.0]);
    let (left_turned, right_turned) = ([1.0, 4.0, 2.0, 5.0, 3.0, 6.0], [1.0, 0.0, 1.0, 0.0, 2.0, 1.0]);
    for transposed in [[false, false], [false, true], [true, false], [true, true]] {
        let left = if transposed[0] { tensor(&left_turned, [1, 3, 2]) } else { tensor(&left, [1, 2, 3]) };
        let right = if transposed[1] { tensor(&right_turned, [1, 2, 3]) } else { tensor(&right, [1, 3, 2]) };
        let product = <Differentiable<Stock> as LinAlg<NdArray>>::bmm(left, right, transposed);
        assert_eq!(values(product), [4.0, 7.0, 10.0, 16.0]);
    }
}
