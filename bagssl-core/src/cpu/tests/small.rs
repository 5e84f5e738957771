//! Tests of dense bags and of the arena executor.

use std::prelude::v1::*;

use proptest::prelude::*;

use super::super::{ArenaExecutor, Dense, Executor, ExecutorOptions, Pool, Serial};
use super::{Naive, conv, naive, source, values};
use crate::plan::{Kind, Layer, Op, Plan, Window};

/// A small network without padding: receptive fields of 7 pixels, 2 apart, and a shortcut past an
/// unpadded convolution.
fn unpadded() -> Plan {
    Plan::new(
        Kind::Map(3),
        vec![
            conv(0, 3, 18, Window::square(3, 1, 0), None),
            conv(1, 18, 18, Window::square(3, 2, 0), None),
            conv(2, 18, 18, Window::square(2, 1, 0), Some(2)),
            Layer { input: 3, op: Op::GlobalMean },
        ],
    )
    .unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, failure_persistence: None, ..ProptestConfig::default() })]

    /// One pass over an image gives the same result as one pass per crop, for images of any size.
    #[test]
    fn dense_equals_separate_crops(
        seed in 0u64..1000,
        (height, width) in (7u32..40, 7u32..40),
        more in 0usize..3,
    ) {
        let plan = unpadded();
        let field = plan.receptive_field().unwrap();
        prop_assert_eq!((field.side, field.stride), (7, 2));
        let side = field.side + more * field.stride;
        let options = ExecutorOptions::new(1, [height as usize, width as usize]);
        let dense = Dense::new(&plan, &mut source(&plan, seed), side, options).unwrap();
        let size = crate::patch::ImageSize { height, width };
        let image = values(seed, "image", (3 * height * width) as usize);
        let Ok(grid) = dense.grid(size) else {
            prop_assert!((side as u32) > height.min(width));
            return Ok(());
        };
        let rows = dense.encode(&image, size, &Serial).unwrap();
        prop_assert_eq!((rows.grid, rows.values.len()), (grid, grid[0] * grid[1] * 18));
        let executor = Executor::new(&plan, &mut source(&plan, seed), ExecutorOptions::new(1, [side, side])).unwrap();
        let mut workspace = executor.workspace(1, [side, side], &Serial).unwrap();
        let largest = rows.values.iter().fold(0f32, |most, value| most.max(value.abs()));
        for row in 0..grid[0] {
            for column in 0..grid[1] {
                let mut crop = Vec::new();
                for channel in 0..3 {
                    for y in 0..side {
                        let start = (channel * height as usize + row * 2 + y) * width as usize + column * 2;
                        crop.extend_from_slice(&image[start..][..side]);
                    }
                }
                let alone = executor.run(&mut workspace, &crop, &Serial).unwrap();
                let got = &rows.values[(row * grid[1] + column) * 18..][..18];
                for (got, alone) in got.iter().zip(&alone) {
                    prop_assert!((got - alone).abs() <= 1e-4 * largest, "{row} {column}: {got} {alone}");
                }
            }
        }
    }
}

/// An image of several pieces: the embeddings at the edges of pieces equal those of the crops.
#[test]
fn dense_continues_across_piece_borders() {
    let plan = unpadded();
    let size = crate::patch::ImageSize { height: 300, width: 530 };
    let dense = Dense::new(&plan, &mut source(&plan, 3), 7, ExecutorOptions::new(1, [300, 530])).unwrap();
    let image = values(3, "image", 3 * 300 * 530);
    let rows = dense.encode(&image, size, &Pool::new(2)).unwrap();
    assert_eq!(rows.grid, [147, 262]);
    let executor = Executor::new(&plan, &mut source(&plan, 3), ExecutorOptions::new(1, [7, 7])).unwrap();
    let mut workspace = executor.workspace(1, [7, 7], &Serial).unwrap();
    for (row, column) in [(0, 0), (124, 124), (125, 125), (124, 249), (125, 250), (146, 261), (3, 251)] {
        let mut crop = Vec::new();
        for channel in 0..3 {
            (0..7)
                .for_each(|y| crop.extend_from_slice(&image[(channel * 300 + row * 2 + y) * 530 + column * 2..][..7]));
        }
        let alone = executor.run(&mut workspace, &crop, &Serial).unwrap();
        let got = &rows.values[(row * 262 + column) * 18..][..18];
        let largest = alone.iter().fold(1e-3f32, |most, value| most.max(value.abs()));
        assert!(got.iter().zip(&alone).all(|(a, b)| (a - b).abs() <= 1e-4 * largest), "{row} {column}");
    }
}

#[test]
fn dense_refuses_padding() {
    let resnet = crate::architecture::Architecture::ResNetSmall.plan();
    let error =
        Dense::new(&resnet, &mut source(&resnet, 0), 16, ExecutorOptions::new(1, [16, 16])).unwrap_err().to_string();
    assert!(error.contains("layer 0: expected no padding"), "{error}");
    let plan = unpadded();
    for side in [6, 8] {
        assert!(Dense::new(&plan, &mut source(&plan, 0), side, ExecutorOptions::new(1, [16, 16])).is_err());
    }
}

/// The relative error of the arena executor against the naive network, for one input. The arena
/// initially contains NaN.
fn lean_error(plan: &Plan, seed: u64, size: [usize; 2]) -> f64 {
    let (Kind::Map(channels) | Kind::Rows(channels)) = plan.input();
    let input = values(seed, "input", channels * size[0] * size[1]);
    let parameters: Vec<(String, Vec<[u8; 4]>)> = plan
        .parameters()
        .iter()
        .map(|parameter| {
            let values = values(seed, &parameter.name, parameter.len());
            (parameter.name.clone(), values.iter().map(|value| value.to_le_bytes()).collect())
        })
        .collect();
    let mut source = |name: &str| {
        let (_, bytes) = parameters.iter().find(|(known, _)| known == name).expect("it is in the plan");
        Ok(crate::checkpoint::TensorRef::F32(bytes))
    };
    let lean = ArenaExecutor::new(plan, &mut source).unwrap();
    let needed = lean.arena_len(size).unwrap();
    assert!(lean.run(&mut vec![0.0; needed - 1], &input, size).is_err(), "one value less is too few");
    let mut arena = vec![f32::NAN; needed];
    let got = lean.run(&mut arena, &input, size).unwrap();
    let image = Naive { size, values: input.iter().copied().map(f64::from).collect() };
    let expected = naive(plan, seed, image).pop().expect("a plan has a layer").values;
    assert_eq!(got.len(), expected.len());
    let largest = expected.iter().fold(1e-30f64, |most, value| most.max(value.abs()));
    let difference = got.iter().zip(&expected).map(|(&got, expected)| (f64::from(got) - expected).abs());
    difference.fold(0.0, |most, value| if value > most || value.is_nan() { value } else { most }) / largest
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arena_convolution_of_any_shape(
        seed in 0u64..1000,
        size in (1usize..12, 1usize..12),
        channels in (1usize..5, 1usize..6, 1usize..5),
        kernel in (1usize..4, 1usize..4),
        stride in (1usize..4, 1usize..4),
        padding in (0usize..4, 0usize..4),
    ) {
        let first = Window { kernel: kernel.into(), stride: stride.into(), padding: padding.into() };
        let plan = Plan::new(Kind::Map(channels.0), vec![
            conv(0, channels.0, channels.1, first, None),
            conv(1, channels.1, channels.2, Window::square(3, 1, 1), None),
        ]).unwrap();
        prop_assume!(plan.sizes(size.into()).is_some());
        let error = lean_error(&plan, seed, size.into());
        prop_assert!(error < 1e-5, "{error}");
    }
}

/// Shortcuts, pooling, rows. The arena of the small network has the size that its largest layers
/// need: three maps of 16 channels on 16x16 pixels.
#[test]
fn arena_networks_match_executor() {
    use crate::architecture::{Architecture, mlp};
    let small = Architecture::ResNetSmall.plan();
    assert!(lean_error(&small, 1, [16, 16]) < 1e-5);
    assert!(lean_error(&small, 1, [21, 10]) < 1e-5);
    assert!(lean_error(&unpadded(), 1, [15, 9]) < 1e-5);
    assert!(lean_error(&mlp(20, &[33, 7]).unwrap(), 2, [1, 1]) < 1e-5);
    let pool = Window { kernel: [3, 2], stride: [2, 1], padding: [1, 0] };
    let pooled =
        vec![conv(0, 3, 5, Window::square(3, 1, 1), None), Layer { input: 1, op: Op::MaxPool { window: pool } }];
    assert!(lean_error(&Plan::new(Kind::Map(3), pooled).unwrap(), 3, [9, 7]) < 1e-5);
    let zeros = vec![[0; 4]; 1 << 16];
    let shapes = small.parameters();
    let mut source = |name: &str| {
        let length = shapes.iter().find(|parameter| parameter.name == name).unwrap().len();
        Ok(crate::checkpoint::TensorRef::F32(&zeros[..length]))
    };
    let lean = ArenaExecutor::new(&small, &mut source).unwrap();
    assert_eq!(lean.arena_len([16, 16]).unwrap(), 3 * 16 * 16 * 16);
    let mut short = |_: &str| Ok(crate::checkpoint::TensorRef::F32(&zeros[..3]));
    assert!(ArenaExecutor::new(&small, &mut short).is_err());
}
