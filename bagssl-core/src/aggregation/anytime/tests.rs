use super::*;
use crate::bag::Grid;
use crate::patch::{ImageSize, PatchSide, PatchSpec};
use crate::random::{Address, Purpose, Stream};
use proptest::prelude::*;

const NEVER: fn() -> bool = || false;

fn anytime(patches: u64, tolerance: f64, min_patches: u64, most: u64) -> AnyTime {
    AnyTime::new(1, patches, StopRule { tolerance, min_patches, max_patches: most }).unwrap()
}

#[test]
fn stop_rule_refuses_values_out_of_range() {
    let good = StopRule::default();
    let bad = [
        StopRule { tolerance: -0.1, ..good },
        StopRule { tolerance: f64::NAN, ..good },
        StopRule { tolerance: f64::INFINITY, ..good },
        StopRule { min_patches: 1, ..good },
        StopRule { max_patches: 15, ..good },
    ];
    assert!(AnyTime::new(3, 9, good).is_ok());
    assert!(bad.iter().all(|&rule| AnyTime::new(3, 9, rule).is_err()));
    assert!(Decision::new(0, 9, 2, 0.9).is_err() && Decision::new(2, 9, 1, 0.9).is_err());
    assert!(Decision::new(2, 9, 2, 1.0).is_err());
}

/// 9, 11 of 8 patches: s^2 = 2, 2 / 2 (1 - 2 / 8) = 3 / 4, relative to a mean of 10: an uncertainty
/// of 0.0866.
#[test]
fn stop_reasons_by_hand() {
    for (tolerance, min_patches, most, expected) in [
        (0.0867, 2, 9, Next::Stop(Reason::Tolerance)),
        (0.0866, 2, 9, Next::Continue),
        (0.0867, 3, 9, Next::Continue),
        (0.0866, 2, 2, Next::Stop(Reason::Most)),
    ] {
        let mut image = anytime(8, tolerance, min_patches, most);
        assert_eq!(image.push(&[9.0], NEVER).unwrap(), Next::Continue);
        assert_eq!(image.push(&[11.0], NEVER).unwrap(), expected, "{tolerance} {min_patches} {most}");
        assert!((image.uncertainty().unwrap() - 0.75f64.sqrt() / 10.0).abs() < 1e-12);
    }
    let mut late = anytime(8, 0.1, 2, 9);
    assert_eq!(late.push(&[9.0], || true).unwrap(), Next::Stop(Reason::Deadline));
    assert_eq!((late.mean().mean(), late.uncertainty()), (Some(vec![9.0]), None));
}

/// With a tolerance of 0 only the last patch stops, even if all are equal. No further patch is
/// accepted.
#[test]
fn zero_tolerance_never_stops() {
    let mut image = anytime(4, 0.0, 2, u64::MAX);
    let next: Vec<Next> = (0..4).map(|_| image.push(&[5.0], NEVER).unwrap()).collect();
    assert_eq!(next, [Next::Continue, Next::Continue, Next::Continue, Next::Stop(Reason::Complete)]);
    let error = image.push(&[5.0], NEVER).unwrap_err().to_string();
    assert_eq!(error, "grid patches: expected length 4, got 5");
    assert!(anytime(4, 0.0, 2, 9).push(&[1.0, 2.0], NEVER).is_err());
}

#[test]
fn decision_schedule_by_hand() {
    let due = |min_patches, patches| {
        let schedule = DecisionSchedule::new(min_patches, patches).unwrap();
        let due: Vec<u64> = (0..=patches).filter(|&count| schedule.is_due(count)).collect();
        assert_eq!(due.len(), schedule.count() as usize);
        due
    };
    assert_eq!(due(8, 576), [8, 16, 32, 64, 128, 256, 512]);
    assert_eq!(due(3, 24), [3, 6, 12]);
    assert_eq!(due(3, 25), [3, 6, 12, 24]);
    assert!(due(8, 8).is_empty());
    assert!((DecisionSchedule::new(3, 25).unwrap().confidence(0.9) - 0.975).abs() < 1e-12);
    assert!(DecisionSchedule::new(1, 25).is_err());
}

/// Margins 1, 2, 3 of 6: mean 2, s^2 = 1, standard error sqrt(1 / 3 (1 - 3 / 6)) = 0.408. One check
/// (at 3), one other class: t with 2 degrees of freedom is 2.92 at 95 % and 6.96 at 99 %, so the
/// lower bounds are 0.81 and -0.84.
#[test]
fn decision_by_hand() {
    for (confidence, expected) in [(0.95, Next::Stop(Reason::Decided)), (0.99, Next::Continue)] {
        let mut decision = Decision::new(2, 6, 3, confidence).unwrap();
        for logits in [[0.5, 1.5], [1.0, 3.0]] {
            assert_eq!(decision.push(&logits).unwrap(), Next::Continue);
        }
        assert_eq!(decision.push(&[-1.0, 2.0]).unwrap(), expected);
        assert_eq!(decision.leader(), Some(1));
        assert!((decision.lower_bound(1, 0, student_t(0.95, 2)) - 0.808).abs() < 1e-3);
    }
    let mut decision = Decision::new(2, 6, 3, 0.95).unwrap();
    assert!(decision.push(&[1.0]).is_err() && decision.leader().is_none());
}

/// Tied classes are never decided. The last patch completes the image, and the first tied class
/// leads.
#[test]
fn decision_tie_never_stops() {
    let mut decision = Decision::new(3, 5, 2, 0.9).unwrap();
    let next: Vec<Next> = (0..5).map(|_| decision.push(&[1.0, 1.0, 0.0]).unwrap()).collect();
    assert_eq!(next[3..], [Next::Continue, Next::Stop(Reason::Complete)]);
    assert_eq!(decision.leader(), Some(0));
    assert!(decision.push(&[0.0; 3]).is_err());
}

/// Student's t with 5 degrees of freedom: a normal divided by the root of a mean of 5 squares. Its
/// kurtosis is 9.
fn heavy(random: &mut Stream) -> f64 {
    let squares: f64 = (0..5).map(|_| random.normal_pair().0.powi(2)).sum();
    random.normal_pair().0 / (squares / 5.0).sqrt()
}

/// The embeddings of all patches of a grid of 8 rows and 12 columns, `[patch, 4]`: heavy tails of
/// different scales, one component skewed, with a shared term as in a smooth image.
fn bag(image: u32) -> (Grid, Vec<[f32; 4]>) {
    let spec = PatchSpec::new(PatchSide::Pixels(3), 3).unwrap();
    let grid = Grid::new(spec, ImageSize { height: 25, width: 37 }, 3).unwrap();
    assert_eq!(grid.patches(), 96);
    let mut random = Address { seed: 5, image, ..Address::default() }.stream(Purpose::Evaluation);
    let level = random.normal_pair().0;
    let patch = |crop: crate::patch::Crop| {
        let slope = f64::from(crop.top) * 0.05 - f64::from(crop.left) * 0.02;
        let common = heavy(&mut random);
        let skewed = heavy(&mut random).abs();
        [level + common + slope, 10.0 * heavy(&mut random), common + heavy(&mut random), skewed].map(|x| x as f32)
    };
    (grid, grid.crops().map(patch).collect())
}

fn mean_of<'a>(embeddings: impl Iterator<Item = &'a [f32; 4]>) -> RunningMean {
    let mut mean = RunningMean::new(4);
    embeddings.for_each(|embedding| mean.push(embedding).unwrap());
    mean
}

/// Over 1,000 bags, the 95 % intervals cover the mean of the grid in 93 to 97 % of all cases, even
/// with heavy tails, and in at least 90 % for the skewed component. The ball covers it in at least
/// 95 %.
#[test]
fn decision_confidence_holds() {
    let counts = [8usize, 24, 64];
    let (mut covered, mut in_ball) = ([[0u32; 4]; 3], [0u32; 3]);
    for image in 0..1000 {
        let (grid, embeddings) = bag(image);
        let truth = mean_of(embeddings.iter()).mean().unwrap();
        let order: Vec<usize> = grid.order(Address { seed: 1, image, ..Address::default() }).collect();
        for (at, &count) in counts.iter().enumerate() {
            let mean = mean_of(order[..count].iter().map(|&patch| &embeddings[patch]));
            let found = mean.intervals(96, 0.95).unwrap().unwrap();
            for dim in 0..4 {
                covered[at][dim] += u32::from((found.low[dim]..=found.high[dim]).contains(&truth[dim]));
            }
            let distance: f32 = mean.mean().unwrap().iter().zip(&truth).map(|(a, b)| (a - b).powi(2)).sum();
            in_ball[at] += u32::from(f64::from(distance.sqrt()) <= mean.radius(96, 0.95).unwrap().unwrap());
        }
    }
    for (covered, count) in covered.iter().zip(counts) {
        let (symmetric, skewed) = covered.split_at(3);
        assert!(symmetric.iter().all(|covered| (930..=970).contains(covered)), "{count} patches: {covered:?}");
        assert!((900..=970).contains(&skewed[0]), "{count} patches: {covered:?}");
        let percent = f64::from(covered.iter().sum::<u32>()) / 40.0;
        assert!((93.0..=97.0).contains(&percent), "{count} patches: {percent} %");
    }
    assert!(in_ball.iter().all(|&count| count >= 950), "{in_ball:?}");
}

/// Four classes with close means over the grid: of 1,000 decisions at 90 %, fewer than 10 % are
/// wrong despite up to four checks each, and many stop early.
#[test]
fn decision_level_holds_over_all_checks() {
    let (mut wrong, mut early) = (0, 0);
    for image in 0..1000 {
        let (grid, embeddings) = bag(image);
        let logits = |patch: usize| {
            let [a, b, c, d] = embeddings[patch].map(f64::from);
            [a, 0.1 * b, c, d - 0.5]
        };
        let mut whole = Decision::new(4, 96, 96, 0.9).unwrap();
        (0..96).for_each(|patch| {
            whole.push(&logits(patch)).unwrap();
        });
        let mut decision = Decision::new(4, 96, 8, 0.9).unwrap();
        for patch in grid.order(Address { seed: 2, image, ..Address::default() }) {
            if decision.push(&logits(patch)).unwrap() == Next::Stop(Reason::Decided) {
                early += 1;
                wrong += u32::from(decision.leader() != whole.leader());
                break;
            }
        }
    }
    assert!(early > 400 && wrong < 100, "{early} early, {wrong} wrong");
}

proptest! {
    /// The final estimate is the mean of the grid, in any order of the patches.
    #[test]
    fn anytime_of_all_patches_is_the_grid_mean(h in 1u32..9, w in 1u32..9, seed: u64) {
        let spec = PatchSpec::new(PatchSide::Pixels(1), 1).unwrap();
        let grid = Grid::new(spec, ImageSize { height: h, width: w }, 1).unwrap();
        let embedding = |patch: usize| libm::sinf(patch as f32 * 1.7) * 3.0;
        let mut image = anytime(grid.patches() as u64, 0.0, 2, u64::MAX);
        let mut last = Next::Continue;
        for patch in grid.order(Address { seed, ..Address::default() }) {
            prop_assert_eq!(last, Next::Continue);
            last = image.push(&[embedding(patch)], NEVER).unwrap();
        }
        prop_assert_eq!((last, image.uncertainty()), (Next::Stop(Reason::Complete), Some(0.0)));
        let expected = (0..grid.patches()).map(embedding).sum::<f32>() / grid.patches() as f32;
        prop_assert!((image.mean().mean().unwrap()[0] - expected).abs() < 1e-5);
    }
}
