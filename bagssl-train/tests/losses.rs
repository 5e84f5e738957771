//! Losses by hand, by finite differences, and at their bounds.
#![cfg(feature = "ndarray")]

use bagssl_core::coding_rate;
use bagssl_core::model::Stock;
use bagssl_train::backend::NdArray;
use bagssl_train::loss::{LinAlg, Loss, LossValue, similarity};
use burn::backend::Autodiff;
use burn::tensor::{Tensor, TensorData};
use proptest::prelude::*;

type B = Autodiff<NdArray>;

const ALL: [Loss; 4] = [
    Loss::Tcr { invariance: 200.0, epsilon: 0.2 },
    Loss::VicReg { invariance: 25.0, variance: 25.0, covariance: 1.0 },
    Loss::SimClr { temperature: 0.5 },
    Loss::Spectral { lambda: 0.5 },
];

fn tensor(values: &[f32], dims: [usize; 3]) -> Tensor<B, 3> {
    Tensor::from_data(TensorData::new(values.to_vec(), dims), &Default::default())
}

fn value(loss: Loss, values: &[f32], dims: [usize; 3]) -> LossValue<B> {
    loss.check().unwrap().value::<_, Stock>(tensor(values, dims)).unwrap()
}

fn gradient(loss: Loss, values: &[f32], dims: [usize; 3]) -> Vec<f32> {
    let projections = tensor(values, dims).require_grad();
    let value = loss.check().unwrap().value::<_, Stock>(projections.clone()).unwrap();
    projections.grad(&value.objective.backward()).unwrap().into_data().into_vec().unwrap()
}

/// How near any deviation over images comes to 1, where VICReg's variance term has a kink.
fn distance_to_kink(values: &[f32], [images, patches, dim]: [usize; 3]) -> f64 {
    let deviation = |column: usize| {
        let column = || values.iter().skip(column).step_by(patches * dim).map(|value| f64::from(*value));
        let mean = column().sum::<f64>() / images as f64;
        let variance = column().map(|value| (value - mean).powi(2)).sum::<f64>() / (images as f64 - 1.0);
        (variance + 1e-4).sqrt()
    };
    (0..patches * dim).map(|column| (deviation(column) - 1.0).abs()).fold(f64::INFINITY, f64::min)
}

fn wave(count: usize, phase: f64) -> Vec<f32> {
    (0..count).map(|i| (1.3 * (i as f64 + 0.4).powf(1.2) + phase).sin() as f32).collect()
}

#[track_caller]
fn close(value: &str, got: f64, expected: f64, tolerance: f64) {
    assert!((got - expected).abs() <= tolerance * expected.abs().max(1.0), "{value}: expected {expected}, got {got}");
}

/// Two images, two patches, two dimensions: the patches of the first image are (1, 0) and (0, 2), those of the second
/// (0, 1) twice. Cosines to the mean: twice 1/sqrt(2), twice 1. Patch 0 gives orthogonal rows: -1/2 ln(6^2) at d/(B eps) =
/// 1 / 0.2; patch 1 gives equal rows: -1/2 ln(1 + 2 * 5).
#[test]
fn tcr_by_hand() {
    let values = [1.0, 0.0, 0.0, 2.0, 0.0, 1.0, 0.0, 1.0];
    let value = value(Loss::tcr(3.0, 0.2), &values, [2, 2, 2]);
    let cosine = (std::f64::consts::SQRT_2 + 2.0) / 4.0;
    let rate = -0.25 * (36_f64.ln() + 11_f64.ln());
    close("invariance", value.metric("invariance").unwrap(), cosine, 1e-6);
    close("tcr", value.metric("tcr").unwrap(), rate, 1e-6);
    close("loss", value.metric("loss").unwrap(), rate - 3.0 * cosine, 1e-6);
    close("share", value.metric("tcr_share").unwrap(), rate / (-(6_f64.ln())), 1e-6);
}

/// One dimension, three images: patch 0 is 0, 2, 4 and patch 1 is 0, 0, 0. Differences 0, 4, 16 on average; deviations 2
/// and sqrt(1e-4), so that hinges are 0 and 0.99. A second dimension that repeats the first has covariance 4 with it.
#[test]
fn vicreg_by_hand() {
    let one = value(Loss::vicreg(), &[0.0, 0.0, 2.0, 0.0, 4.0, 0.0], [3, 2, 1]);
    close("invariance", one.metric("invariance").unwrap(), 20.0 / 3.0, 1e-5);
    close("variance", one.metric("variance").unwrap(), 0.495, 1e-5);
    close("covariance", one.metric("covariance").unwrap(), 0.0, 1e-5);
    let two = [0.0, 0.0, 0.0, 0.0, 2.0, 2.0, 0.0, 0.0, 4.0, 4.0, 0.0, 0.0];
    let two = value(Loss::vicreg(), &two, [3, 2, 2]);
    close("covariance", two.metric("covariance").unwrap(), 2.0 * 16.0 / 2.0, 1e-5);
    close("loss", two.metric("loss").unwrap(), 25.0 * 20.0 / 3.0 + 25.0 * 0.495 + 16.0, 1e-5);
}

/// The patches of `tcr_by_hand` are at unit length e1, e2 and e2, e2. At temperature 1/2 their exponentials are 1 where they are
/// orthogonal and e^2 where they are equal: 1 / 3 for e1, 1 / (1 + 2 e^2) for the first e2, e^2 / (2 e^2 + 1) for the others.
#[test]
fn simclr_by_hand() {
    let value = value(Loss::simclr(), &[1.0, 0.0, 0.0, 2.0, 0.0, 1.0, 0.0, 1.0], [2, 2, 2]);
    let square = 2_f64.exp();
    let expected = (3_f64.ln() + (1.0 + 2.0 * square).ln() + 2.0 * (2.0 + 1.0 / square).ln()) / 4.0;
    close("loss", value.metric("loss").unwrap(), expected, 1e-6);
    close("invariance", value.metric("invariance").unwrap(), 0.5, 1e-6);
}

/// Positives do not compete: three equal patches of an image that are orthogonal to those of another have no more to gain
/// than two, but against more negatives: -ln(e^2 / (e^2 + 3)).
#[test]
fn simclr_with_three_patches_by_hand() {
    let values = [[3.0, 0.0].repeat(3), [0.0, 2.0].repeat(3)].concat();
    let value = value(Loss::simclr(), &values, [2, 3, 2]);
    close("loss", value.metric("loss").unwrap(), (3.0 * (-2_f64).exp()).ln_1p(), 1e-6);
    let sharp = Loss::SimClr { temperature: 1e-3 };
    assert!(gradient(sharp, &wave(24, 0.2), [3, 4, 2]).iter().all(|value| value.is_finite()));
}

/// Of one image (1, 0) and (0, 2), of the other (0, 1) twice: products 0 and 1 within; 0, 0, 2, 2 between, squared 2 on average.
#[test]
fn spectral_by_hand() {
    let value = value(Loss::Spectral { lambda: 3.0 }, &[1.0, 0.0, 0.0, 2.0, 0.0, 1.0, 0.0, 1.0], [2, 2, 2]);
    close("invariance", value.metric("invariance").unwrap(), 0.5, 1e-6);
    close("repulsion", value.metric("repulsion").unwrap(), 2.0, 1e-6);
    close("loss", value.metric("loss").unwrap(), 5.5, 1e-6);
}

/// Values and gradients of PyTorch (`reference/losses.py` made them).
#[test]
fn losses_match_pytorch() {
    let reference: serde_json::Value = serde_json::from_str(include_str!("reference/losses.json")).unwrap();
    let numbers = |value: &serde_json::Value| -> Vec<f32> {
        value["data"].as_array().unwrap().iter().map(|number| number.as_f64().unwrap() as f32).collect()
    };
    let (tcr, vicreg) = (&reference["tcr"], &reference["vicreg"]);
    let tcr_loss = Loss::tcr(tcr["weight"].as_f64().unwrap(), tcr["epsilon"].as_f64().unwrap());
    for (part, loss, terms) in [
        (tcr, tcr_loss, ["invariance", "tcr"].as_slice()),
        (vicreg, Loss::vicreg(), ["invariance", "variance", "covariance"].as_slice()),
        (&reference["simclr"], Loss::simclr(), ["loss", "invariance"].as_slice()),
        (&reference["spectral"], Loss::spectral(), ["invariance", "repulsion"].as_slice()),
    ] {
        for case in part["cases"].as_array().unwrap() {
            let dims = [0, 1, 2].map(|axis| case["z"]["shape"][axis].as_u64().unwrap() as usize);
            let (z, exact) = (numbers(&case["z"]), numbers(&case["z_grad_of_total"]));
            let got = value(loss, &z, dims);
            close("total", got.metric("loss").unwrap(), case["total"].as_f64().unwrap(), 1e-5);
            for term in terms {
                close(term, got.metric(term).unwrap(), case[term].as_f64().unwrap(), 1e-5);
            }
            let largest = exact.iter().fold(0_f32, |largest, value| largest.max(value.abs()));
            for (got, exact) in gradient(loss, &z, dims).iter().zip(exact) {
                assert!((got - exact).abs() < 1e-4 * largest, "{dims:?}: {got}, expected {exact}");
            }
        }
    }
}

/// The formulas themselves, in f64: NT-Xent at the temperature 0.5 and the spectral loss at `lambda` 0.5.
fn by_loops(loss: Loss, values: &[f32], [images, patches, dim]: [usize; 3]) -> f64 {
    let row = |image: usize, patch: usize| &values[(image * patches + patch) * dim..][..dim];
    let product = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    let cosine = |a: &[f32], b: &[f32]| product(a, b) / (product(a, a) * product(b, b)).sqrt();
    let (mut sum, mut squares) = (0.0, 0.0);
    for (image, a) in (0..images).flat_map(|image| (0..patches).map(move |a| (image, a))) {
        let one = row(image, a);
        let others = || (0..images).filter(|k| *k != image).flat_map(|k| (0..patches).map(move |b| row(k, b)));
        let negatives: f64 = others().map(|other| (cosine(one, other) / 0.5).exp()).sum();
        squares += others().map(|other| product(one, other).powi(2)).sum::<f64>();
        for b in (0..patches).filter(|b| *b != a) {
            let positive = (cosine(one, row(image, b)) / 0.5).exp();
            sum += match loss {
                Loss::SimClr { .. } => -(positive / (positive + negatives)).ln(),
                _ => -product(one, row(image, b)),
            };
        }
    }
    let mean = sum / (images * patches * (patches - 1)) as f64;
    match loss {
        Loss::SimClr { .. } => mean,
        _ => mean + 0.5 * squares / (images * (images - 1) * patches * patches) as f64,
    }
}

/// Images, patches and dimensions of different numbers, of which each is once the largest.
#[test]
fn contrastive_losses_match_their_formulas() {
    for dims in [[17, 3, 5], [3, 11, 4], [2, 3, 40], [5, 2, 7]] {
        let values = wave(dims.iter().product(), 0.7);
        // The spectral loss takes the squares within images from those of all, which are of the order of |z|^4.
        let longest =
            values.chunks(dims[2]).map(|row| row.iter().map(|z| f64::from(z * z)).sum::<f64>()).fold(0.0, f64::max);
        for (loss, rounding) in [(Loss::simclr(), 0.0), (Loss::spectral(), 1e-7 * longest * longest)] {
            let got = value(loss, &values, dims).metric("loss").unwrap();
            let expected = by_loops(loss, &values, dims);
            let tolerance = rounding + 1e-6 * expected.abs().max(1.0);
            assert!((got - expected).abs() < tolerance, "{loss:?} {dims:?}: {got}, {expected} within {tolerance:.0e}");
        }
    }
}

/// An algebra whose products are twice what they should be.
#[derive(Debug)]
struct Twice;

impl LinAlg<NdArray> for Twice {
    fn bmm(left: Tensor<NdArray, 3>, right: Tensor<NdArray, 3>, transposed: [bool; 2]) -> Tensor<NdArray, 3> {
        <Stock as LinAlg<NdArray>>::bmm(left, right, transposed) * 2.0
    }
}

/// All products are the algebra's: of values, and of gradients.
#[test]
fn contrastive_losses_use_their_lin_alg() {
    let (dims, values) = ([4, 3, 5], wave(60, 0.2));
    for loss in [Loss::simclr(), Loss::spectral()] {
        let projections = tensor(&values, dims).require_grad();
        let twice = loss.check().unwrap().value::<_, Twice>(projections.clone()).unwrap();
        let once = value(loss, &values, dims);
        close("invariance", twice.metric("invariance").unwrap(), 2.0 * once.metric("invariance").unwrap(), 1e-6);
        let changed: Vec<f32> = projections.grad(&twice.objective.backward()).unwrap().into_data().into_vec().unwrap();
        assert!(changed.iter().zip(gradient(loss, &values, dims)).any(|(a, b)| (a - b).abs() > 1e-3), "{loss:?}");
    }
}

#[test]
fn collapsed_projections_have_higher_loss() {
    let collapsed: Vec<f32> = [0.6, -0.8, 0.0].repeat(8);
    let spread = wave(24, 0.0);
    let tcr = |values: &[f32]| value(Loss::tcr(0.0, 0.2), values, [4, 2, 3]).metric("loss").unwrap();
    let vicreg = |values: &[f32]| {
        let loss = Loss::VicReg { invariance: 0.0, variance: 25.0, covariance: 1.0 };
        value(loss, values, [4, 2, 3]).metric("loss").unwrap()
    };
    assert!(tcr(&collapsed) > tcr(&spread) + 0.5);
    assert!(vicreg(&collapsed) > vicreg(&spread) + 0.5);
    // Images that are all alike, against images that differ; patches agree in both.
    let apart = [[1.0, 0.0].repeat(3), [0.0, 1.0].repeat(3)].concat();
    for loss in [Loss::simclr(), Loss::spectral()] {
        let of = |values: &[f32]| value(loss, values, [2, 3, 2]).metric("loss").unwrap();
        assert!(of(&[1.0, 0.0].repeat(6)) > of(&apart) + 0.4, "{loss:?}");
    }
}

/// Swapping batch and patch changes each loss.
#[test]
fn losses_distinguish_images_from_patches() {
    let values = wave(6 * 3 * 4, 0.3);
    let mut swapped = Vec::new();
    for patch in 0..3 {
        for image in 0..6 {
            swapped.extend_from_slice(&values[(image * 3 + patch) * 4..][..4]);
        }
    }
    for loss in ALL {
        let right = value(loss, &values, [6, 3, 4]).metric("loss").unwrap();
        let wrong = value(loss, &swapped, [3, 6, 4]).metric("loss").unwrap();
        assert!((right - wrong).abs() > 1e-2, "{loss:?}");
    }
}

#[test]
fn non_finite_projections_have_non_finite_loss() {
    for loss in ALL {
        let mut values = wave(12, 0.1);
        values[7] = f32::NAN;
        assert!(value(loss, &values, [3, 2, 2]).metric("loss").unwrap().is_nan());
        for dims in [[1, 2, 2], [2, 1, 2]] {
            assert!(loss.check().unwrap().value::<_, Stock>(tensor(&wave(4, 0.1), dims)).is_err());
        }
    }
    assert!(Loss::tcr(-1.0, 0.2).check().is_err());
    assert!(Loss::tcr(1.0, 0.0).check().is_err());
    assert!(Loss::tcr(f64::NAN, 0.2).check().is_err());
    for bad in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert!(Loss::SimClr { temperature: bad }.check().is_err());
        assert!(Loss::Spectral { lambda: bad }.check().is_err());
    }
}

#[test]
fn zero_row_has_finite_gradient() {
    let mut values = wave(12, 0.1);
    values[..2].fill(0.0);
    for loss in ALL {
        assert!(gradient(loss, &values, [3, 2, 2]).iter().all(|value| value.is_finite()), "{loss:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    /// The surrogate's gradient is that of the loss itself.
    #[test]
    fn gradients_match_finite_differences(
        images in 2usize..6, patches in 2usize..5, dim in 1usize..7, phase in 0f64..6.0, which in 0usize..4,
    ) {
        let loss = [Loss::tcr(7.0, 0.2), ALL[1], ALL[2], ALL[3]][which];
        let dims = [images, patches, dim];
        // Rows well away from 0, where the unit length has a kink.
        let values: Vec<f32> =
            wave(images * patches * dim, phase).iter().map(|value| value + 0.3 * value.signum()).collect();
        // A step moves a deviation by at most its own length.
        let step = 5e-3;
        prop_assume!(!matches!(loss, Loss::VicReg { .. }) || distance_to_kink(&values, dims) > f64::from(step));
        let exact = gradient(loss, &values, dims);
        let largest = exact.iter().fold(0.1_f32, |largest, value| largest.max(value.abs()));
        for index in 0..values.len().min(12) {
            let at = |step: f32| {
                let mut moved = values.clone();
                moved[index] += step;
                value(loss, &moved, dims).metric("loss").unwrap()
            };
            let difference = (at(step) - at(-step)) / (2.0 * f64::from(step));
            let error = (difference - f64::from(exact[index])).abs();
            prop_assert!(error < 2e-2 * f64::from(largest), "{loss:?} {dims:?}: {difference} and {}", exact[index]);
        }
    }

    #[test]
    fn coding_rate_is_above_its_bound(
        images in 2usize..9, dim in 1usize..9, epsilon in 0.01f64..2.0, phase in 0f64..6.0,
    ) {
        let values = wave(images * 2 * dim, phase);
        let value = value(Loss::tcr(1.0, epsilon), &values, [images, 2, dim]);
        let rate = value.metric("tcr").unwrap();
        let bound = coding_rate::bound(images, dim, epsilon);
        prop_assert!(rate <= 0.0 && rate >= bound * (1.0 + 1e-5), "{rate} below {bound}");
        let share = value.metric("tcr_share").unwrap();
        prop_assert!((0.0..=1.0 + 1e-5).contains(&share));
    }

    /// Only the length of projections depends on `lambda`.
    #[test]
    fn spectral_lambda_sets_the_length(patches in 2usize..5, phase in 0f64..6.0, factor in 0.2f64..5.0) {
        let dims = [3, patches, 2];
        let values = wave(3 * patches * 2, phase);
        let shorter: Vec<f32> = values.iter().map(|value| value / factor.sqrt() as f32).collect();
        let loss = |lambda, values: &[f32]| value(Loss::Spectral { lambda }, values, dims).metric("loss").unwrap();
        prop_assert!((factor * loss(0.5 * factor, &shorter) - loss(0.5, &values)).abs() < 1e-4);
    }

    /// For any number of patches the pair term is the mean over pairs.
    #[test]
    fn vicreg_invariance_is_the_mean_over_pairs(patches in 2usize..6, phase in 0f64..6.0) {
        let (images, dim) = (3, 2);
        let values = wave(images * patches * dim, phase);
        let got = value(Loss::vicreg(), &values, [images, patches, dim]).metric("invariance").unwrap();
        let at = |image: usize, patch: usize, d: usize| f64::from(values[(image * patches + patch) * dim + d]);
        let (mut sum, mut count) = (0.0, 0.0);
        for (image, a, b, d) in (0..images).flat_map(|i| (0..patches).flat_map(move |a| (0..a).flat_map(move |b| (0..dim).map(move |d| (i, a, b, d))))) {
            sum += (at(image, a, d) - at(image, b, d)).powi(2);
            count += 1.0;
        }
        prop_assert!((got - sum / count).abs() < 1e-5);
    }
}

/// Two patches of each of three images.
#[test]
fn similarity_by_hand() {
    let of = |values: [[[f32; 2]; 2]; 3]| {
        let projections = Tensor::<NdArray, 3>::from_floats(values, &Default::default());
        similarity(projections).into_scalar()
    };
    let (x, y) = ([5.0, 0.0], [0.0, 0.5]);
    assert!((of([[x, x], [x, x], [x, x]]) - 1.0).abs() < 1e-6);
    // Of 12 pairs between images the 4 of the first two have the cosine 1.
    assert!((of([[x, x], [x, x], [y, y]]) - 4.0 / 12.0).abs() < 1e-6);
    // Two patches of one image that differ do not count: 1, 0, 1, 0 with the second; 0.6, 0.8, -0.6, -0.8 with the third.
    let third = [[3.0, 4.0], [-3.0, -4.0]];
    assert!((of([[x, y], [x, x], third]) - 2.0 / 12.0).abs() < 1e-6);
    assert!(of([[[0.0; 2]; 2]; 3]).abs() < 1e-6);
}
