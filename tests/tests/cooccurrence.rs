//! The spectral loss as it is trained with, on batches drawn from a world where all is known: it comes to the optimum that
//! the eigenvalues of the world's distribution give.

use bagssl_core::model::Stock;
use bagssl_core::random::{Address, Purpose, Stream};
use bagssl_eval::analysis::World;
use bagssl_train::backend::NdArray;
use bagssl_train::loss::Loss;
use burn::backend::Autodiff;
use burn::tensor::{Int, Tensor, TensorData};

type B = Autodiff<NdArray>;

const PATCHES: usize = 12;
const DIM: usize = 4;
const IMAGES: usize = 512;
const STEPS: usize = 800;

/// Two patches of each image of a batch.
fn batch(world: &World, random: &mut Stream) -> Vec<i64> {
    let mut pairs = Vec::with_capacity(2 * IMAGES);
    for _ in 0..IMAGES {
        let mut rest = random.unit_f64();
        let drawn = world.joint().iter().position(|share| {
            rest -= share;
            rest < 0.0
        });
        let drawn = drawn.unwrap_or(PATCHES * PATCHES - 1);
        pairs.extend([(drawn / PATCHES) as i64, (drawn % PATCHES) as i64]);
    }
    pairs
}

/// A table of projections after training by gradient descent, the rate falling to 0.
fn train(world: &World, start: u64) -> Vec<f64> {
    let device = Default::default();
    let mut random = Address { seed: start, ..Address::default() }.stream(Purpose::Weights);
    let first: Vec<f32> = (0..PATCHES * DIM).map(|_| 0.3 * random.normal_pair().0 as f32).collect();
    let mut table = Tensor::<B, 2>::from_data(TensorData::new(first, [PATCHES, DIM]), &device).require_grad();
    let loss = Loss::spectral().check().unwrap();
    for step in 0..STEPS {
        let pairs = Tensor::<B, 1, Int>::from_data(TensorData::new(batch(world, &mut random), [2 * IMAGES]), &device);
        let projections = table.clone().select(0, pairs).reshape([IMAGES, 2, DIM]);
        let gradients = loss.value::<_, Stock>(projections).unwrap().objective.backward();
        let gradient = table.grad(&gradients).unwrap();
        let rate = 1.5 * (1.0 - step as f64 / STEPS as f64);
        table = Tensor::from_inner(table.inner() - gradient * rate).require_grad();
    }
    table.into_data().convert::<f64>().into_vec().unwrap()
}

#[test]
fn training_reaches_the_optimum() {
    let definite = World::random(PATCHES, 6, 2).unwrap();
    let indefinite = definite.without_repeats().unwrap();
    assert!(indefinite.eigenvalues().last().unwrap() < &-0.05);
    for world in [&definite, &indefinite] {
        let optimum = world.optimum(DIM, 0.5);
        for start in 0..3 {
            let reached = world.spectral_loss(&train(world, start), DIM, 0.5);
            let excess = (reached - optimum) / -optimum;
            assert!((-1e-6..0.01).contains(&excess), "start {start}: {reached}, expected {optimum}");
        }
    }
}
