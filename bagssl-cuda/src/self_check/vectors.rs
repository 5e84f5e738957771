//! Checks the parts of a step besides the network and the loss: transfers, sums of maps, reductions
//! of many vectors, inverses.

use bagssl_core::model::{Kernels, Running, Stock};
use burn::tensor::backend::Backend;
use burn::tensor::{FloatDType, Tensor};

use super::report::{Checks, Figure};
use super::values::{difference, flat, random, tensor};
use crate::backend::kernels::{Bf16, Cudnn, F32};
use crate::ops::run::OnCuda;
use bagssl_train::backend::NdArray;
use bagssl_train::loss::LinAlg;

type Ours = Cudnn<F32>;

pub(super) fn vectors<B: OnCuda>(checks: &mut Checks<'_>) {
    let device = B::Device::default();
    checks.check("f32", "[3, 5, 7, 6] there and back, twice", || there_and_back::<B>(&device));
    let dims = [2, 6, 5, 3];
    checks.check("f32", &format!("sum of gradients {dims:?}"), || sum::<B, Cudnn<F32>>(dims, None, &device));
    checks.check("bf16", &format!("sum of gradients {dims:?}"), || {
        sum::<B, Cudnn<Bf16>>(dims, Some(FloatDType::BF16), &device)
    });
    checks.check("f32", &format!("squares of {SQUARES} vectors of 1 to 70001 values"), || squares::<B>(&device));
    checks.check("f32", &format!("{SQUARES} vectors of 1 to 70001 values, joined"), || joined::<B>(&device));
    checks.check("f32", &format!("running statistics of {RUNNING} vectors of 1 to 3294 values"), || {
        running::<B>(&device)
    });
    for dims in [[7, 3, 12], [40, 2, 130]] {
        checks.check("f32", &format!("similarity, {dims:?}"), || similarity::<B>(dims, &device));
    }
    for dims in [[2, 65], [1, 200]] {
        checks.check("f32", &format!("inverses, {dims:?}"), || inverses::<B>(dims, &device));
    }
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&value| f64::from(value)).collect()
}

fn compared(of: &str, got: &[f32], expected: &[f64], bound: f64) -> Figure {
    Figure::new(of, difference(got, expected), bound)
}

/// Uploads a batch from pinned memory. A read that is queued early must not see later changes.
fn there_and_back<B: OnCuda>(device: &B::Device) -> Vec<Figure> {
    let dims = [3, 5, 7, 6];
    let [first, second] = [1, 2].map(|seed| random(seed, dims.iter().product()));
    let mut tensor = <Ours as Kernels<B>>::upload(first.clone(), dims, device);
    let early = <Ours as Kernels<B>>::read_later(tensor.clone().reshape([-1]));
    tensor = tensor + <Ours as Kernels<B>>::upload(second.clone(), dims, device);
    let late = <Ours as Kernels<B>>::read_later(tensor.reshape([-1]));
    let sums: Vec<f64> = wide(&first).iter().zip(wide(&second)).map(|(first, second)| first + second).collect();
    let figure = |of: &str, reading: bagssl_core::model::Reading, expected: &[f64]| match reading.wait() {
        Ok(got) => compared(of, &got, expected, 1e-6),
        Err(note) => Figure { note, ..Figure::new(of, f64::INFINITY, 1e-6) },
    };
    vec![figure("read early", early, &wide(&first)), figure("read late", late, &sums)]
}

/// Checks the sum of two maps with different memory layouts.
fn sum<B: OnCuda, K: Kernels<B>>(dims: [usize; 4], maps: Option<FloatDType>, device: &B::Device) -> Vec<Figure> {
    let [n, c, h, w] = dims;
    let (left, last) = (random(1, n * c * h * w), random(2, n * c * h * w));
    let entering = |map: Tensor<B, 4>| maps.map_or_else(|| map.clone(), |dtype| map.clone().cast(dtype));
    let right = tensor::<B, 4>(&last, [n, h, w, c], device).permute([0, 3, 1, 2]);
    let got = flat(K::sum(entering(tensor(&left, dims, device)), entering(right)));
    let expected: Vec<f64> = (0..left.len())
        .map(|at| {
            let (pixel, channel, image) = (at % (h * w), at / (h * w) % c, at / (c * h * w));
            f64::from(left[at]) + f64::from(last[(image * h * w + pixel) * c + channel])
        })
        .collect();
    vec![compared("sum of gradients", &got, &expected, if maps.is_some() { 1e-2 } else { 1e-6 })]
}

/// Returns the lengths of `count` vectors, one of them long.
fn lengths(count: usize, longest: usize) -> Vec<usize> {
    (0..count).map(|index| if index == 7 { longest } else { 1 + 37 * index }).collect()
}

/// More than fit in one launch: 160 vectors, 80 statistics.
const SQUARES: usize = 170;
const RUNNING: usize = 90;

fn many() -> Vec<Vec<f32>> {
    lengths(SQUARES, 70001).into_iter().enumerate().map(|(seed, length)| random(seed as u64, length)).collect()
}

fn joined<B: OnCuda>(device: &B::Device) -> Vec<Figure> {
    let vectors = many();
    let tensors = vectors.iter().map(|vector| tensor(vector, [vector.len()], device)).collect();
    vec![compared("joined", &flat(<Ours as LinAlg<B>>::joined(tensors)), &wide(&vectors.concat()), 1e-6)]
}

fn squares<B: OnCuda>(device: &B::Device) -> Vec<Figure> {
    let vectors = many();
    let expected: Vec<f64> =
        vectors.iter().map(|vector| wide(vector).iter().map(|value| value * value).sum()).collect();
    let tensors = vectors.iter().map(|vector| tensor(vector, [vector.len()], device)).collect();
    vec![compared("squared lengths", &flat(<Ours as LinAlg<B>>::squared_norms(tensors)), &expected, 1e-5)]
}

fn running<B: OnCuda>(device: &B::Device) -> Vec<Figure> {
    let (mut statistics, mut expected) = (Vec::new(), Vec::new());
    for (index, length) in lengths(RUNNING, 1555).into_iter().enumerate() {
        let [value, batch] = [1, 2].map(|seed| random(seed * 100 + index as u64, length));
        // The factor of a variance is above 1.
        let factor = if index % 2 == 0 { 1.0 } else { 1.25 };
        let moved = |(value, batch): (f64, f64)| value * 0.9 + batch * factor * 0.1;
        expected.extend(wide(&value).into_iter().zip(wide(&batch)).map(moved));
        let [value, batch] = [value, batch].map(|values| tensor(&values, [length], device));
        statistics.push(Running { value, batch, factor });
    }
    let got: Vec<f32> = <Ours as LinAlg<B>>::update_running_stats(statistics).into_iter().flat_map(flat).collect();
    vec![compared("running statistics", &got, &expected, 1e-6)]
}

fn similarity<B: OnCuda>(dims: [usize; 3], device: &B::Device) -> Vec<Figure> {
    let values = random(5, dims.iter().product());
    let got = flat(<Ours as LinAlg<B>>::similarity(tensor(&values, dims, device)));
    let expected = <Stock as LinAlg<NdArray>>::similarity(tensor(&values, dims, &Default::default()));
    vec![compared("similarity", &got, &wide(&flat(expected)), 1e-4)]
}

/// Checks the inverses of `A A^T / side + I`, with several tiles of the factorization, the last one
/// partial.
fn inverses<B: OnCuda>([sets, side]: [usize; 2], device: &B::Device) -> Vec<Figure> {
    fn matrices<B: Backend>([sets, side]: [usize; 2], device: &B::Device) -> Tensor<B, 3> {
        let factor = random(9, sets * side * side);
        let mut values = vec![0.0; factor.len()];
        for (set, matrix) in factor.chunks(side * side).enumerate() {
            for (row, column) in (0..side).flat_map(|row| (0..side).map(move |column| (row, column))) {
                let [left, right] = [row, column].map(|at| &matrix[at * side..][..side]);
                let product: f64 = left.iter().zip(right).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum();
                let diagonal = if row == column { 1.0 } else { 0.0 };
                values[(set * side + row) * side + column] = (product / side as f64 + diagonal) as f32;
            }
        }
        tensor(&values, [sets, side, side], device)
    }
    let (inverses, logarithms) = <Ours as LinAlg<B>>::cholesky_inverse_logdet(matrices([sets, side], device));
    let cpu = matrices::<NdArray>([sets, side], &Default::default());
    let (expected, expected_logarithms) = <Stock as LinAlg<NdArray>>::cholesky_inverse_logdet(cpu);
    vec![
        compared("inverses", &flat(inverses), &wide(&flat(expected)), 1e-4),
        compared("logarithms of determinants", &flat(logarithms), &wide(&flat(expected_logarithms)), 1e-5),
    ]
}
