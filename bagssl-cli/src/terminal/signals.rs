//! Signal handling: a training that receives a signal saves its state before it ends.
//!
//! While a training waits for signals ([`Waiting`]), the first signal is only recorded, and a
//! second one ends the program at once. At any other time the first signal ends the program.

use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::{fmt, io};

use anyhow::{Result, anyhow};
use bagssl_core::batch::SourceError;
use bagssl_core::observe::{Event, Observer, Verdict};
#[cfg(unix)]
use signal_hook::consts::SIGHUP;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

#[derive(Debug)]
struct Flags {
    /// The first signal received, or 0.
    caught: Arc<AtomicUsize>,
    /// Whether a signal ends the program at once.
    at_once: Arc<AtomicBool>,
}

static FLAGS: LazyLock<io::Result<Flags>> = LazyLock::new(register);
/// The number of trainings that wait for a signal.
static WAITING: Mutex<usize> = Mutex::new(0);

/// Registers the actions in the order in which they run. The first signal sets `at_once`, so that
/// the second one ends the program.
fn register() -> io::Result<Flags> {
    let flags = Flags { caught: Arc::default(), at_once: Arc::new(AtomicBool::new(true)) };
    for signal in signals() {
        flag::register_conditional_default(signal, flags.at_once.clone())?;
        flag::register_usize(signal, flags.caught.clone(), signal as usize)?;
        flag::register(signal, flags.at_once.clone())?;
    }
    Ok(flags)
}

#[cfg(unix)]
fn signals() -> Vec<i32> {
    // Under nohup, a closed terminal must be ignored.
    let ignored = std::fs::read_to_string("/proc/self/status").ok().and_then(|status| {
        let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"))?;
        u64::from_str_radix(mask.trim(), 16).ok()
    });
    let is_ignored = |signal: i32| ignored.unwrap_or(0) >> (signal - 1) & 1 == 1;
    [SIGINT, SIGTERM].into_iter().chain((!is_ignored(SIGHUP)).then_some(SIGHUP)).collect()
}

#[cfg(not(unix))]
fn signals() -> Vec<i32> {
    vec![SIGINT, SIGTERM]
}

/// A training that waits for signals. While there is one, the first signal is only recorded.
#[derive(Debug)]
pub(crate) struct Waiting(&'static Flags);

impl Waiting {
    /// Starts to wait. If a signal has already come, the next one still ends the program at once.
    pub(crate) fn begin() -> Result<Self> {
        let flags = FLAGS.as_ref().map_err(|error| anyhow!("signals: {error}"))?;
        let mut waiting = WAITING.lock().unwrap_or_else(PoisonError::into_inner);
        if *waiting == 0 && flags.caught.load(SeqCst) == 0 {
            flags.at_once.store(false, SeqCst);
        }
        *waiting += 1;
        Ok(Waiting(flags))
    }

    /// Returns the signal received, if any.
    pub(crate) fn caught(&self) -> Option<i32> {
        Some(self.0.caught.load(SeqCst) as i32).filter(|&signal| signal != 0)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut waiting = WAITING.lock().unwrap_or_else(PoisonError::into_inner);
        *waiting -= 1;
        if *waiting == 0 {
            self.0.at_once.store(true, SeqCst);
        }
    }
}

/// Stops the training after a signal.
impl Observer for &Waiting {
    fn observe(&mut self, _: &Event<'_>) -> Result<Verdict, SourceError> {
        Ok(if self.caught().is_some() { Verdict::Stop } else { Verdict::Continue })
    }
}

/// The end of a training that was stopped.
#[derive(Debug)]
pub(crate) struct Stopped {
    /// The signal, or `None` if something else stopped the training.
    pub(crate) signal: Option<i32>,
    /// The number of steps completed and saved.
    pub(crate) step: u64,
}

impl Stopped {
    /// Returns the exit code that shells use for a program ended by a signal.
    pub(crate) fn exit_code(&self) -> u8 {
        self.signal.map_or(crate::terminal::output::NOT_DONE, |signal| 128 + signal as u8)
    }
}

impl fmt::Display for Stopped {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let by = match self.signal {
            Some(SIGINT) => " by SIGINT",
            Some(SIGTERM) => " by SIGTERM",
            Some(_) => " by SIGHUP",
            None => "",
        };
        write!(formatter, "stopped{by} after step {}, which is saved; rerun the same command to resume", self.step)
    }
}

impl std::error::Error for Stopped {}
