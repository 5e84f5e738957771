//! The states of a run, one file each. The last ones and milestones are kept.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Duration, Instant};

use bagssl_core::checkpoint::{Checkpoint, OPTIMIZER_PREFIX, check_values};
use bagssl_core::plan::Role;
use bagssl_files::{check_regular, create_folder, write_atomic};

use super::{Position, StateStore, failed};
use crate::error::{Error, Result};

/// How often a state is saved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SaveInterval {
    /// At each multiple of this number of steps.
    Steps(u64),
    /// At the first step that ends at least this long after the last save.
    Time(Duration),
}

impl FromStr for SaveInterval {
    type Err = String;

    /// Parses `500` as 500 steps, and `90s`, `10m` and `2h` as durations.
    /// This is our own: the crate humantime takes `10M` for ten months, and knows no steps.
    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let refuse =
            || format!("expected a number of steps (500) or a time (90s, 10m, 2h) of at least 1, got {text:?}");
        let digits = text.trim_end_matches(['s', 'm', 'h']);
        let count = digits.parse::<u64>().ok().filter(|&count| (1..=u64::from(u32::MAX)).contains(&count));
        let count = count.ok_or_else(refuse)?;
        let time = |seconds: u64| Ok(SaveInterval::Time(Duration::from_secs(count * seconds)));
        match &text[digits.len()..] {
            "" => Ok(SaveInterval::Steps(count)),
            "s" => time(1),
            "m" => time(60),
            "h" => time(3600),
            _ => Err(refuse()),
        }
    }
}

/// Which states to save and to keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// How often to save a state.
    pub interval: SaveInterval,
    /// The number of most recent states to keep, at least 1.
    pub last: usize,
    /// If set, the states at multiples of this number of epochs are saved and kept.
    pub milestones: Option<u32>,
}

impl Default for Retention {
    /// Saves every ten minutes and keeps the last two states.
    fn default() -> Self {
        Retention { interval: SaveInterval::Time(Duration::from_secs(600)), last: 2, milestones: None }
    }
}

/// The states of a run: files `step-NUMBER.safetensors` and `step-NUMBER-milestone.safetensors` in
/// a folder.
#[derive(Debug)]
pub struct States {
    folder: PathBuf,
    retention: Retention,
    saved: Instant,
}

/// A state that was read.
#[derive(Debug)]
pub struct SavedState {
    /// The number of completed steps.
    pub step: u64,
    /// The path of the file.
    pub path: PathBuf,
    /// The contents of the file, validated.
    pub bytes: Vec<u8>,
    /// Later states that are damaged, with the reasons.
    pub damaged: Vec<(PathBuf, String)>,
}

impl States {
    /// Opens the states of a folder, which is created at the first save. Expects a single writer at
    /// a time, as [`RunFolder`](super::RunFolder) ensures.
    pub fn new(folder: impl Into<PathBuf>, retention: Retention) -> Self {
        States { folder: folder.into(), retention, saved: Instant::now() }
    }

    /// Returns the newest intact state, or `None` if there are no states.
    ///
    /// # Errors
    /// [`Error::NoState`] if all states are damaged, [`Error::File`] if the folder cannot be read.
    pub fn newest(&self) -> Result<Option<SavedState>> {
        let mut damaged = Vec::new();
        for State { step, path, .. } in self.list()? {
            match read(&path) {
                Ok(bytes) => return Ok(Some(SavedState { step, path, bytes, damaged })),
                Err(error) => damaged.push((path, error)),
            }
        }
        let Some((path, why)) = damaged.first() else { return Ok(None) };
        Err(Error::NoState {
            path: self.folder.clone(),
            expected: "a state to resume from (--force starts over)".into(),
            got: format!("{} damaged, {}: {why}", damaged.len(), path.display()),
        })
    }

    /// Returns the state after `step` steps.
    ///
    /// # Errors
    /// [`Error::NoState`] if it is missing or damaged, [`Error::File`] if the folder cannot be
    /// read.
    pub fn at(&self, step: u64) -> Result<SavedState> {
        let all = self.list()?;
        let Some(State { path, .. }) = all.iter().find(|state| state.step == step) else {
            let steps: Vec<String> = all.iter().rev().map(|state| state.step.to_string()).collect();
            let got = if steps.is_empty() { "none".into() } else { format!("states of steps {}", steps.join(", ")) };
            return Err(Error::NoState { path: self.folder.clone(), expected: format!("a state of step {step}"), got });
        };
        let bytes =
            read(path).map_err(|got| Error::NoState { path: path.clone(), expected: "a valid state".into(), got })?;
        Ok(SavedState { step, path: path.clone(), bytes, damaged: Vec::new() })
    }

    /// Discards the states after `found`, whose steps the run will repeat, starting with the
    /// newest. Damaged states are renamed to `.damaged`, others are removed.
    ///
    /// # Errors
    /// [`Error::File`] if this fails.
    pub fn rewind_to(&self, found: &SavedState) -> Result<()> {
        for State { path, .. } in self.list()?.into_iter().take_while(|state| state.step > found.step) {
            let is_damaged = found.damaged.iter().any(|(damaged, _)| *damaged == path);
            let gone = match is_damaged {
                true => fs::rename(&path, path.with_extension(DAMAGED)),
                false => fs::remove_file(&path),
            };
            gone.map_err(|error| failed(&path, error))?;
        }
        Ok(())
    }

    /// Returns all states, newest first.
    fn list(&self) -> Result<Vec<State>> {
        let failed = |error| failed(&self.folder, error);
        let entries = match fs::read_dir(&self.folder) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) if error.kind() == ErrorKind::NotADirectory => {
                return Err(failed(io::Error::other("expected a folder, got a file")));
            }
            entries => entries.map_err(failed)?,
        };
        let mut states = Vec::new();
        for entry in entries {
            states.extend(State::from_path(entry.map_err(failed)?.path()));
        }
        states.sort_unstable_by_key(|state| std::cmp::Reverse((state.step, state.is_milestone)));
        Ok(states)
    }

    fn is_milestone(&self, position: Position) -> bool {
        position.batch == 0 && self.retention.milestones.is_some_and(|epochs| position.epoch.is_multiple_of(epochs))
    }

    /// Removes all states but the most recent ones and milestones.
    fn prune(&self) -> Result<()> {
        let states = self.list()?;
        let mut steps: Vec<u64> = states.iter().map(|state| state.step).collect();
        steps.dedup();
        let oldest = steps.get(self.retention.last.max(1) - 1).copied().unwrap_or(0);
        for state in states.iter().filter(|state| state.step < oldest && !state.is_milestone) {
            // A state that cannot be removed is harmless and no reason to end a run.
            let _ = fs::remove_file(&state.path);
        }
        Ok(())
    }
}

impl StateStore for States {
    fn is_due(&self, position: Position) -> bool {
        let is_time = match self.retention.interval {
            SaveInterval::Steps(steps) => position.step.is_multiple_of(steps),
            SaveInterval::Time(time) => self.saved.elapsed() >= time,
        };
        is_time || self.is_milestone(position)
    }

    fn save(&mut self, at: Position, bytes: &[u8]) -> Result<()> {
        create_folder(&self.folder).map_err(|error| failed(&self.folder, error))?;
        let milestone = if self.is_milestone(at) { MILESTONE } else { "" };
        let path = self.folder.join(format!("{PREFIX}{:08}{milestone}{SUFFIX}", at.step));
        write_atomic(&path, bytes).map_err(|error| failed(&path, error))?;
        self.saved = Instant::now();
        self.prune()
    }
}

const PREFIX: &str = "step-";
const MILESTONE: &str = "-milestone";
const SUFFIX: &str = ".safetensors";
/// What a damaged state ends in instead, without the dot.
const DAMAGED: &str = "damaged";

/// Whether a file is a state by its name, or has been one before it was damaged.
pub(super) fn is_state(path: &Path) -> bool {
    let is_damaged = path.extension().is_some_and(|ending| ending == DAMAGED);
    let path = if is_damaged { path.with_extension(&SUFFIX[1..]) } else { path.into() };
    State::from_path(path).is_some()
}

/// A state file, parsed from its name.
#[derive(Debug)]
struct State {
    step: u64,
    is_milestone: bool,
    path: PathBuf,
}

impl State {
    fn from_path(path: PathBuf) -> Option<Self> {
        let name = path.file_name()?.to_str()?.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?;
        let (digits, is_milestone) = name.strip_suffix(MILESTONE).map_or((name, false), |digits| (digits, true));
        Some(State { step: digits.parse().ok()?, is_milestone, path })
    }
}

/// Returns the bytes of an intact state, or the reason why it is damaged.
fn read(path: &Path) -> std::result::Result<Vec<u8>, String> {
    let bytes = check_regular(path).and_then(|()| fs::read(path)).map_err(|error| error.to_string())?;
    parse_state(&bytes).map_err(|error| error.to_string())?;
    Ok(bytes)
}

/// Parses and validates a state. Rejects a state that has changed since it was written, has no
/// training position, or has non-finite or otherwise unusable values.
///
/// # Errors
/// [`Error::Core`] with the reason.
pub(crate) fn parse_state(bytes: &[u8]) -> Result<Checkpoint<'_>> {
    let checkpoint = Checkpoint::from_bytes(bytes)?;
    if checkpoint.spec().training.is_none() {
        let why = "expected a state to resume from, got a checkpoint without training state";
        return Err(bagssl_core::Error::Checkpoint(why.into()).into());
    }
    checkpoint.check_values()?;
    for name in checkpoint.names().into_iter().filter(|name| name.starts_with(OPTIMIZER_PREFIX)) {
        check_values(name, Role::Weight, &checkpoint.values(name)?)?;
    }
    Ok(checkpoint)
}

#[cfg(test)]
mod tests;
