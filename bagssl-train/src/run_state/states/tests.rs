use super::*;
use bagssl_core::architecture::{Architecture, mlp};
use bagssl_core::bag::Views;
use bagssl_core::checkpoint::{FORMAT_VERSION, ModelPlan, Provenance, Spec, Training, to_bytes};
use bagssl_core::embed::FeatureLayer;
use bagssl_core::normalize::Normalization;
use bagssl_core::patch::{Filter, PatchSide, PatchSpec};

/// Returns the file names in a folder, sorted.
fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Serializes a state after `step` steps, with one optimizer tensor that contains `value`.
fn state(step: u64, value: f32) -> Vec<u8> {
    let patch = PatchSpec::new(PatchSide::Pixels(32), 16).unwrap();
    let encoder = Architecture::ResNetSmall.plan();
    let model = ModelPlan::new(encoder, mlp(64, &[4]).unwrap()).unwrap();
    let mut tensors = model.init_weights(step);
    tensors.push(("optimiser.velocity.x".into(), vec![3], vec![1.0, value, -2.0]));
    let training = Training {
        epoch: 1,
        batch: 2,
        step,
        skipped: 0,
        summed: 2,
        sums: vec![0.1_f64.to_bits()],
        config: 7,
        fixed: vec![("batch.images".into(), "8".into())],
        settings: vec![("epochs".into(), "3".into())],
        changes: vec![],
    };
    let spec = Spec {
        format_version: FORMAT_VERSION,
        model,
        patch,
        filter: Filter::Bilinear,
        normalization: Normalization::HALF,
        layer: FeatureLayer::Embedding,
        views: Views::FixedScale(patch),
        provenance: Provenance::default(),
        training: Some(training),
    };
    to_bytes(&spec, &tensors).unwrap()
}

/// Returns the position after `step` steps, with three batches per epoch.
fn position(step: u64) -> Position {
    Position { step, epoch: (step / 3) as u32, batch: step % 3 }
}

#[test]
fn save_interval_by_hand() {
    let time = |seconds| Ok(SaveInterval::Time(Duration::from_secs(seconds)));
    let parse = |text: &str| text.parse::<SaveInterval>();
    assert_eq!(parse("500"), Ok(SaveInterval::Steps(500)));
    assert_eq!([parse("90s"), parse("10m"), parse("2h")], [time(90), time(600), time(7200)]);
    for bad in ["", "0", "0m", "m", "10mm", "1.5h", "-3", "10 m", "5000000000", "10d"] {
        assert!(parse(bad).unwrap_err().contains(&format!("got {bad:?}")), "{bad}");
    }
    let due = |interval, milestones, step| {
        States::new("", Retention { interval, milestones, ..Retention::default() }).is_due(position(step))
    };
    let dues = |interval, milestones| (1..=12).filter(|&step| due(interval, milestones, step)).collect::<Vec<_>>();
    assert_eq!(dues(SaveInterval::Steps(5), None), [5, 10]);
    assert_eq!(dues(SaveInterval::Time(Duration::from_secs(600)), Some(2)), [6, 12]);
    assert_eq!(dues(SaveInterval::Time(Duration::ZERO), None).len(), 12);
}

#[test]
fn prune_keeps_last_states_and_milestones() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("states");
    let retention = Retention { interval: SaveInterval::Steps(1), last: 2, milestones: Some(2) };
    let mut states = States::new(&path, retention);
    assert!(states.newest().unwrap().is_none());
    for step in 1..=14 {
        states.save(position(step), &state(step, 0.5)).unwrap();
    }
    let expected_names =
        ["06-milestone", "12-milestone", "13", "14"].map(|step| format!("step-000000{step}.safetensors"));
    assert_eq!(names(&path), expected_names);
    assert_eq!(states.newest().unwrap().unwrap().step, 14);
    let found = states.at(6).unwrap();
    assert_eq!(found.bytes, state(6, 0.5));
    let error = states.at(7).unwrap_err().to_string();
    assert!(error.ends_with("states: expected a state of step 7, got states of steps 6, 12, 13, 14"), "{error}");
    // A run that is reset to an earlier state repeats the later steps.
    states.rewind_to(&found).unwrap();
    assert_eq!(names(&path), expected_names[..1]);
}

#[test]
fn newest_skips_damaged_states() {
    let folder = tempfile::tempdir().unwrap();
    let mut states = States::new(folder.path(), Retention { last: 3, ..Retention::default() });
    for step in [4, 5, 8] {
        states.save(position(step), &state(step, 0.5)).unwrap();
    }
    let file = |step: u64| folder.path().join(format!("step-0000000{step}.safetensors"));
    fs::write(file(8), &state(8, 0.5)[..5000]).unwrap();
    // Intact, but with a value that cannot be computed with.
    fs::write(file(5), state(5, f32::INFINITY)).unwrap();
    let found = states.newest().unwrap().unwrap();
    assert_eq!((found.step, found.bytes.clone()), (4, state(4, 0.5)));
    let [(last, cut), (_, infinite)] = &found.damaged[..] else { panic!("{:?}", found.damaged) };
    assert_eq!(*last, file(8));
    assert!(cut.contains("safetensors") && infinite.contains("\"optimiser.velocity.x\""), "{cut} {infinite}");
    assert!(states.at(5).unwrap_err().to_string().contains("step-00000005.safetensors: expected a valid state"));
    states.rewind_to(&found).unwrap();
    assert_eq!(names(folder.path()), ["step-00000004.safetensors", "step-00000005.damaged", "step-00000008.damaged"]);
    fs::write(file(4), "nothing").unwrap();
    let error = states.newest().unwrap_err().to_string();
    assert!(error.contains("--force") && error.contains("got 1 damaged") && !error.contains('\n'), "{error}");
}

/// The flips cover the entire file: its length, header, metadata and tensors.
#[test]
fn any_flipped_bit_is_detected() {
    let intact = state(3, 0.5);
    assert!(parse_state(&intact).is_ok());
    let header = u64::from_le_bytes(intact[..8].try_into().unwrap()) as usize + 8;
    let places = (0..100).map(|i| i * header / 100).chain((0..100).map(|i| header + i * (intact.len() - header) / 100));
    for (number, place) in places.enumerate() {
        let mut flipped = intact.clone();
        flipped[place] ^= 1 << (number % 8);
        assert!(parse_state(&flipped).is_err(), "bit {} of byte {place} of {}", number % 8, intact.len());
    }
}

/// A pipe in place of a state counts as damaged and does not block.
#[cfg(unix)]
#[test]
fn pipe_is_not_a_state() {
    let folder = tempfile::tempdir().unwrap();
    let mut states = States::new(folder.path(), Retention::default());
    states.save(position(3), &state(3, 1.0)).unwrap();
    let pipe = folder.path().join("step-00000004.safetensors");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let found = states.newest().unwrap().unwrap();
    assert_eq!((found.step, found.damaged.len()), (3, 1));
    assert!(found.damaged[0].1.contains("expected a regular file"), "{:?}", found.damaged);
}
