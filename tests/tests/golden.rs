//! One checkpoint and one bag give the same embedding on every backend.

use bagssl_core::bag::Bag;
use bagssl_core::checkpoint::Checkpoint;
use bagssl_core::embed::{Embed, Rows, Tap};
use bagssl_core::model::{Embedder, Model, Stock};
use bagssl_data::bags::{BagConfig, BagLoader};
use bagssl_data::dataset::{Dataset, Split};
use bagssl_tests::{Run, config, info, loader};
use bagssl_train::backend::{Candle, NdArray};
use bagssl_train::store::Nowhere;
use burn::tensor::backend::Backend;

const TAPS: [Tap; 3] = [Tap::Embedding, Tap::FirstLayer, Tap::Projection];

fn embeddings<B: Backend>(bytes: &[u8]) -> Vec<Rows> {
    let checkpoint = Checkpoint::from_bytes(bytes).unwrap();
    let spec = checkpoint.spec();
    let dataset = std::sync::Arc::new(Dataset::embedded(Split::Validation).unwrap());
    let bag = Bag::Grid { spec: spec.patch, stride: 16 };
    let config = BagConfig {
        bag,
        input: spec.patch.input(),
        normalisation: spec.normalisation,
        filter: spec.filter,
        batch: 5,
        ..BagConfig::default()
    };
    let batch = BagLoader::new(dataset, config).unwrap().batches().next().unwrap().unwrap();
    assert_eq!((batch.shape().images, batch.shape().patches), (5, 9));
    let model = Model::<B>::load(&checkpoint, &Default::default()).unwrap();
    // 7 patches at once: the last part of the batch is smaller.
    Embedder::<B, Stock>::new(model, Default::default(), 7).embed(&batch, &TAPS).unwrap()
}

#[test]
fn a_trained_checkpoint_embeds_alike_on_both_cpu_backends() {
    let mut run = Run::new(config(), info(), Default::default()).unwrap();
    run.run(&loader(2), &mut Vec::new(), &mut Nowhere).unwrap();
    let bytes = run.checkpoint().unwrap();
    for ((tap, ndarray), candle) in TAPS.iter().zip(embeddings::<NdArray>(&bytes)).zip(embeddings::<Candle>(&bytes)) {
        assert_eq!((ndarray.len(), ndarray.dim), (45, candle.dim));
        let largest = ndarray.values.iter().fold(0_f32, |largest, value| largest.max(value.abs()));
        let error = ndarray.values.iter().zip(&candle.values).fold(0_f32, |error, (a, b)| error.max((a - b).abs()));
        assert!(largest > 1e-3, "{tap:?} is not nothing");
        assert!(error <= 1e-4 * largest, "{tap:?}: error {error} of {largest}");
    }
}

/// The loader's threads do not touch the result: the weights of a run are the same, bit for bit.
#[test]
fn the_same_seed_gives_the_same_bits_for_any_number_of_threads() {
    let weights = |threads| {
        let mut run = Run::new(config(), info(), Default::default()).unwrap();
        run.run(&loader(threads), &mut Vec::new(), &mut Nowhere).unwrap();
        run.checkpoint().unwrap()
    };
    let one = weights(1);
    for threads in [2, 7] {
        assert!(weights(threads) == one, "{threads} threads");
    }
}
