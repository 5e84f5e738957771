//! A run that is killed again and again ends as one that was not, bit for bit: its weights, its last state and its metrics.
#![cfg(feature = "ndarray")]

use std::cell::Cell;
use std::path::Path;

use bagssl_core::batch::SourceError;
use bagssl_core::model::{Differentiable, Kernels};
use bagssl_core::observe::{Event, Observer, Verdict};
use bagssl_train::config::CheckedConfig;
use bagssl_train::loss::LinAlg;
use bagssl_train::metrics::Metrics;
use bagssl_train::run_state::{METRICS, Position, Retention, RunFolder, STATES, SaveInterval, StateStore, States};
use bagssl_train::trainer::{Ended, Trainer};
use bagssl_train::{Error, Result};
use burn::tensor::backend::AutodiffBackend;

use crate::training::{Cpu, Fast, OnBurn, Queued, config, info, source};

/// How much a run may still do: each event, and each save, before and after, is one thing. Then nothing is written any more, as
/// after a kill.
struct Life(Cell<u64>);

impl Life {
    fn spend(&self) -> std::result::Result<(), SourceError> {
        self.0.set(self.0.get().checked_sub(1).ok_or("killed")?);
        Ok(())
    }
}

struct Watched<'a>(&'a Life, Metrics);

impl Observer for Watched<'_> {
    fn observe(&mut self, event: &Event<'_>) -> std::result::Result<Verdict, SourceError> {
        self.0.spend()?;
        self.1.observe(event)
    }
}

struct Mortal<'a>(&'a Life, States);

impl StateStore for Mortal<'_> {
    fn is_due(&self, position: Position) -> bool {
        self.1.is_due(position)
    }

    fn save(&mut self, position: Position, bytes: &[u8]) -> Result<()> {
        self.0.spend().map_err(Error::Observer)?;
        self.1.save(position, bytes)?;
        self.0.spend().map_err(Error::Observer)
    }
}

/// Begins or resumes a run in a folder, and does so much of it. Returns the steps from which to which it went, and the checkpoint
/// if it has come to its end.
fn live<B, K>(config: &CheckedConfig, folder: &Path, life: u64) -> (u64, u64, Option<Vec<u8>>)
where
    B: AutodiffBackend,
    K: Kernels<B> + LinAlg<B::InnerBackend>,
{
    let (config, life) = (config.clone(), Life(Cell::new(life)));
    let run = RunFolder::open(folder).unwrap();
    let states = States::new(run.join(STATES), Retention { interval: SaveInterval::Steps(3), ..Retention::default() });
    let found = states.newest().unwrap();
    let mut trainer: Trainer<B, K> = match &found {
        None => Trainer::new(config, info(), Default::default()).unwrap(),
        Some(found) => Trainer::resume(config, info(), Default::default(), &found.bytes).unwrap(),
    };
    let begun = trainer.step();
    let metrics = Metrics::create(&run.join(METRICS), begun, Box::new(|text| panic!("{text}"))).unwrap();
    match trainer.run(&source(), &mut Watched(&life, metrics), &mut Mortal(&life, states)) {
        Ok(ended) => {
            assert_eq!(ended, Ended::Finished);
            (begun, trainer.step(), Some(trainer.checkpoint().unwrap()))
        }
        Err(Error::Observer(error)) => {
            assert_eq!(error.to_string(), "killed");
            (begun, trainer.step(), None)
        }
        Err(error) => panic!("{error}"),
    }
}

/// Kills a run until it is done, and returns how often.
fn killed_until_done<B, K>(config: &CheckedConfig, lives: impl Iterator<Item = u64>) -> usize
where
    B: AutodiffBackend,
    K: Kernels<B> + LinAlg<B::InnerBackend>,
{
    let (uninterrupted, killed) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let expected = live::<B, K>(config, uninterrupted.path(), u64::MAX).2.unwrap();
    let (mut kills, mut from) = (0, Vec::new());
    for life in lives {
        let (begun, _, checkpoint) = live::<B, K>(config, killed.path(), life);
        from.push(begun);
        if let Some(checkpoint) = checkpoint {
            assert!(checkpoint == expected, "other weights");
            break;
        }
        kills += 1;
    }
    assert!(from.iter().any(|begun| begun % 4 != 0), "resumed within epochs: {from:?}");
    let steps = config.config().schedule.epochs * 4;
    for name in [METRICS.to_string(), format!("{STATES}/step-{steps:08}.safetensors")] {
        let [uninterrupted, killed] =
            [&uninterrupted, &killed].map(|folder| std::fs::read(folder.path().join(&name)).unwrap());
        assert!(uninterrupted == killed, "another {name}");
    }
    kills
}

fn longer(epochs: u32) -> CheckedConfig {
    let mut config = config("bagssl").config().clone();
    config.schedule.epochs = epochs;
    config.check().unwrap()
}

#[test]
fn run_killed_fifty_times_is_bit_identical() {
    // From 1 to 13 things a life, each as often as any other.
    let lives = (0..).map(|life| 1 + life * 5 % 13);
    let kills = killed_until_done::<Cpu, Fast>(&longer(26), lives);
    assert!(kills >= 50, "{kills} kills");
}

/// The same where a step is heard of when the next one has begun.
#[test]
fn run_killed_with_a_queued_step() {
    let lives = (0..).map(|life| 3 + life * 5 % 9);
    assert!(killed_until_done::<OnBurn, Differentiable<Queued>>(&config("bagssl"), lives) >= 4);
}
