//! One checkpoint and one bag give the same embedding on every backend.

use bagssl_core::aggregate::RunningMean;
use bagssl_core::bag::Bag;
use bagssl_core::batch::PatchBatch;
use bagssl_core::checkpoint::Checkpoint;
use bagssl_core::cpu::{self, EmbedderOptions, InstructionSet};
use bagssl_core::embed::{Embed, FeatureLayer, Rows};
use bagssl_core::model::{Batching, CpuFast, Embedder, Kernels, Model, Stock};
use bagssl_data::{BagConfig, BagLoader, Dataset, Split};
use bagssl_tests::{GOLDEN_TILE, golden, loader};
use bagssl_train::backend::NdArray;
use bagssl_train::run_state::Nowhere;
use burn::tensor::backend::Backend;

const TAPS: [FeatureLayer; 3] = [FeatureLayer::Embedding, FeatureLayer::FirstLayer, FeatureLayer::Projection];

fn batch(checkpoint: &Checkpoint<'_>) -> PatchBatch {
    let spec = checkpoint.spec();
    let dataset = std::sync::Arc::new(Dataset::embedded(Split::Validation).unwrap());
    let bag = Bag::Grid { spec: spec.patch, stride: 16 };
    let config = BagConfig {
        bag,
        input: spec.patch.input(),
        normalization: spec.normalization,
        filter: spec.filter,
        batch: 5,
        ..BagConfig::default()
    };
    let batch = BagLoader::new(dataset, config).unwrap().batches().next().unwrap().unwrap();
    assert_eq!((batch.shape().images, batch.shape().patches), (5, 9));
    batch
}

fn on_burn<B: Backend, K: Kernels<B>>(checkpoint: &Checkpoint<'_>) -> Vec<Rows> {
    let model = Model::<B>::load(checkpoint, &Default::default()).unwrap();
    let batch = batch(checkpoint);
    // 7 patches at once: the last part of the batch is smaller.
    let batching = Batching { pixels: 7 * batch.shape().height * batch.shape().width, in_flight: 1 };
    Embedder::<B, K>::new(&model, Default::default(), batching).embed(&batch, &TAPS).unwrap()
}

fn without_burn(checkpoint: &Checkpoint<'_>, set: InstructionSet, exact: bool) -> Vec<Rows> {
    let options = EmbedderOptions { set, exact, rows: 7, side: checkpoint.spec().patch.input() as usize };
    cpu::Embedder::new(checkpoint, &TAPS, options).unwrap().embed(&batch(checkpoint), &TAPS).unwrap()
}

/// The largest difference over the largest magnitude, for each tap.
fn errors(got: &[Rows], expected: &[Rows]) -> Vec<f32> {
    let error = |(got, expected): (&Rows, &Rows)| {
        assert_eq!((got.len(), got.dim), (45, expected.dim));
        let largest = expected.values.iter().fold(0_f32, |largest, value| largest.max(value.abs()));
        assert!(largest > 1e-3, "an embedding is not nothing");
        let pairs = got.values.iter().zip(&expected.values);
        pairs.fold(0_f32, |error, (a, b)| error.max((a - b).abs())) / largest
    };
    got.iter().zip(expected).map(error).collect()
}

#[test]
fn trained_checkpoint_embeds_equally_on_all_backends() {
    let mut run = bagssl_tests::run(None).unwrap();
    run.run(&loader(2), &mut Vec::new(), &mut Nowhere).unwrap();
    let bytes = run.checkpoint().unwrap();
    let checkpoint = Checkpoint::from_bytes(&bytes).unwrap();
    let stock = on_burn::<NdArray, Stock>(&checkpoint);
    // What the others are compared with: Burn's candle backend, if it is there.
    #[cfg(feature = "candle")]
    let expected = on_burn::<bagssl_train::backend::Candle, Stock>(&checkpoint);
    #[cfg(not(feature = "candle"))]
    let expected = stock.clone();
    let mut all = vec![
        #[cfg(feature = "candle")]
        ("ndarray".to_string(), stock, 1e-4),
        ("own kernels".to_string(), on_burn::<NdArray, CpuFast>(&checkpoint), 1e-4),
    ];
    for set in InstructionSet::ALL.into_iter().filter(|set| set.is_available()) {
        for exact in [false, true] {
            let tolerance = if set.is_bf16() { 3e-2 } else { 1e-4 };
            all.push((format!("{set:?}, exact {exact}"), without_burn(&checkpoint, set, exact), tolerance));
        }
    }
    for (name, got, tolerance) in all {
        let errors = errors(&got, &expected);
        println!("{name}: {errors:?}");
        assert!(errors.iter().all(|&error| error <= tolerance), "{name}: {errors:?}");
    }
}

/// The loader's threads do not touch the result: the weights of a run are the same, bit for bit.
#[test]
fn training_is_bit_identical_for_any_thread_count() {
    let weights = |threads| {
        let mut run = bagssl_tests::run(None).unwrap();
        run.run(&loader(threads), &mut Vec::new(), &mut Nowhere).unwrap();
        run.checkpoint().unwrap()
    };
    let one = weights(1);
    for threads in [2, 7] {
        assert!(weights(threads) == one, "{threads} threads");
    }
}

/// The files of `golden` (made by the example `make_golden`), of which the program without a standard library has the
/// same: int8 weights, a real tile, and the embedding that Burn's candle backend gave for them.
#[test]
fn golden_embedding_on_every_executor() {
    let bytes = include_bytes!("../golden/checkpoint.safetensors");
    let rgb = include_bytes!("../golden/tile.rgb");
    let expected: Vec<f32> =
        include_str!("../golden/embedding.txt").lines().map(|line| line.parse().unwrap()).collect();
    let checkpoint = Checkpoint::from_bytes(bytes).unwrap();
    let bag = golden::bag(&checkpoint, rgb).unwrap();
    let image = Dataset::embedded(Split::Validation).unwrap().decode(GOLDEN_TILE).unwrap();
    assert!(image.rgb() == rgb, "the tile is that of the data");
    let mut all = Vec::new();
    #[cfg(feature = "candle")]
    all.push(("candle".to_string(), golden::by_definition(&checkpoint, rgb).unwrap(), 1e-6));
    for set in InstructionSet::ALL.into_iter().filter(|set| set.is_available()) {
        let options = EmbedderOptions { set, exact: false, rows: 64, side: golden::SIDE };
        let network = cpu::Embedder::new(&checkpoint, &[FeatureLayer::Embedding], options).unwrap();
        let tolerance = if set.is_bf16() { 3e-2 } else { 1e-4 };
        all.push((format!("{set:?}"), golden::mean(&network, &bag).unwrap(), tolerance));
    }
    let lean = cpu::ArenaExecutor::encoder(&checkpoint).unwrap();
    let size = [golden::SIDE; 2];
    let mut arena = vec![f32::NAN; lean.arena_len(size).unwrap()];
    let mut mean = RunningMean::new(expected.len());
    for patch in bag.data().chunks(bag.shape().patch_len()) {
        mean.push(lean.run(&mut arena, patch, size).unwrap()).unwrap();
    }
    all.push(("lean".into(), mean.mean().unwrap(), 1e-4));
    let largest = expected.iter().fold(0_f32, |largest, value| largest.max(value.abs()));
    for (name, got, tolerance) in all {
        assert_eq!(got.len(), expected.len());
        let error = got.iter().zip(&expected).fold(0_f32, |error, (a, b)| error.max((a - b).abs())) / largest;
        println!("{name}: {error:e}");
        assert!(error <= tolerance, "{name}: {error}");
    }
}
