//! Classifiers on any-time bags: how often one is decided early, and how often that is not what all patches say.

use bagssl_core::aggregate::RunningMean;
use bagssl_core::anytime::{Decision, DecisionSchedule, Next};
use bagssl_core::embed::Rows;
use bagssl_core::random::{Address, Purpose};
use bagssl_eval::Knn;
use bagssl_eval::Samples;
use bagssl_eval::{Linear, SoftmaxModel};

const PATCHES: usize = 400;
const DIM: usize = 8;
const LEAST: u64 = 8;
const CONFIDENCE: f64 = 0.9;

/// How far the classes lie from each other, and the images of one from each other. Each patch deviates by 1.5.
#[derive(Clone, Copy)]
struct Spread {
    classes: f64,
    images: f64,
}

/// An image of one of three classes as the embeddings of its patches, in random order: `[patch, dim]`.
fn image(number: u32, spread: Spread) -> (Rows, u32) {
    let mut random = Address { seed: 3, image: number, ..Address::default() }.stream(Purpose::Evaluation);
    let label = random.below(3);
    let center: Vec<f64> = (0..DIM)
        .map(|dim| {
            f64::from(u8::from(dim == label as usize)) * spread.classes + spread.images * random.normal_pair().0 + 0.5
        })
        .collect();
    let values = (0..PATCHES * DIM).map(|i| (center[i % DIM] + 1.5 * random.normal_pair().0) as f32).collect();
    (Rows { values, dim: DIM }, label)
}

fn mean_of(patches: &Rows, count: usize) -> RunningMean {
    let mut mean = RunningMean::new(DIM);
    patches.values.chunks(DIM).take(count).for_each(|patch| mean.push(patch).unwrap());
    mean
}

fn rows(mean: &RunningMean) -> Rows {
    Rows { values: mean.mean().unwrap(), dim: DIM }
}

fn training(spread: Spread) -> Samples {
    let images: Vec<(Rows, u32)> = (1000..1060).map(|number| image(number, spread)).collect();
    let values = images.iter().flat_map(|(patches, _)| rows(&mean_of(patches, PATCHES)).values).collect();
    Samples::new(Rows { values, dim: DIM }, images.iter().map(|(_, label)| *label).collect()).unwrap()
}

/// The patches after which a probe is decided, and its class.
fn probe_decides(model: &SoftmaxModel, patches: &Rows) -> (usize, u32) {
    let mut decision = Decision::new(model.classes().len(), PATCHES as u64, LEAST, CONFIDENCE).unwrap();
    let logits = model.logits(patches).unwrap();
    let mut logits = logits.chunks(model.classes().len());
    while decision.push(logits.next().unwrap()).unwrap() == Next::Continue {}
    (decision.count() as usize, model.classes()[decision.leader().unwrap()])
}

/// The same of the nearest neighbors.
fn knn_decides(knn: Knn, train: &Samples, patches: &Rows) -> (usize, u32) {
    let looks = DecisionSchedule::new(LEAST, PATCHES as u64).unwrap();
    for count in (1..PATCHES).filter(|&count| looks.is_due(count as u64)) {
        let seen = Rows { values: patches.values[..count * DIM].to_vec(), dim: DIM };
        if let Some(class) = knn.decide(train, &seen, PATCHES as u64, looks.confidence(CONFIDENCE)).unwrap() {
            return (count, class);
        }
    }
    (PATCHES, knn.predict(train, &rows(&mean_of(patches, PATCHES))).unwrap()[0])
}

/// Of 400 images, how many a probe and nearest neighbors decide early, and how many of these not as all patches do.
fn decide(spread: Spread) -> ([usize; 2], [usize; 2]) {
    let train = training(spread);
    let (model, knn) = (Linear::default().fit(&train).unwrap(), Knn { neighbors: 5, ..Knn::default() });
    let (mut early, mut wrong) = ([0; 2], [0; 2]);
    for number in 0..400 {
        let (patches, _) = image(number, spread);
        let whole = rows(&mean_of(&patches, PATCHES));
        let ranks = [model.predict(&whole).unwrap()[0], knn.predict(&train, &whole).unwrap()[0]];
        let decide = [probe_decides(&model, &patches), knn_decides(knn, &train, &patches)];
        for (at, (count, class)) in decide.into_iter().enumerate() {
            early[at] += usize::from(count < PATCHES);
            wrong[at] += usize::from(class != ranks[at]);
        }
    }
    (early, wrong)
}

/// At 90 %, fewer than 40 of 400 may be decided wrongly. With classes that lie apart most are decided early; with classes
/// that hardly do, few are.
#[test]
fn decisions_are_early_and_keep_their_level() {
    for (spread, least_early) in
        [(Spread { classes: 0.2, images: 0.6 }, [300, 200]), (Spread { classes: 0.05, images: 0.1 }, [50, 5])]
    {
        let (early, wrong) = decide(spread);
        assert!(wrong.iter().all(|&wrong| wrong < 40), "{wrong:?} wrong");
        assert!(early.iter().zip(least_early).all(|(&early, least)| early > least && early < 350), "{early:?} early");
    }
}
