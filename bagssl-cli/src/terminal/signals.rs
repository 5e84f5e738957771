//! Signals that end a training, which saves its state first.
//!
//! While a training waits for them ([`Waiting`]), the first one is only noted, and a second one ends the program at once. At any
//! other time one does.

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
    /// The first signal that came, or 0.
    caught: Arc<AtomicUsize>,
    /// Whether a signal ends the program at once.
    at_once: Arc<AtomicBool>,
}

static FLAGS: LazyLock<io::Result<Flags>> = LazyLock::new(register);
/// Trainings that wait for a signal.
static WAITING: Mutex<usize> = Mutex::new(0);

/// In the order in which they act: the second signal finds `at_once` as the first has left it.
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
    // Under nohup a terminal that closes is to be ignored.
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

/// A training that waits for signals: as long as one does, the first signal is noted.
#[derive(Debug)]
pub(crate) struct Waiting(&'static Flags);

impl Waiting {
    /// Begins to wait, unless a signal has come before.
    pub(crate) fn begin() -> Result<Self> {
        let flags = FLAGS.as_ref().map_err(|error| anyhow!("signals: {error}"))?;
        let mut waiting = WAITING.lock().unwrap_or_else(PoisonError::into_inner);
        if *waiting == 0 && flags.caught.load(SeqCst) == 0 {
            flags.at_once.store(false, SeqCst);
        }
        *waiting += 1;
        Ok(Waiting(flags))
    }

    /// The signal that has come.
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

/// Says stop when a signal has come.
impl Observer for &Waiting {
    fn observe(&mut self, _: &Event<'_>) -> Result<Verdict, SourceError> {
        Ok(if self.caught().is_some() { Verdict::Stop } else { Verdict::Continue })
    }
}

/// How a training ended that was stopped.
#[derive(Debug)]
pub(crate) struct Stopped {
    /// The signal, if it was one.
    pub(crate) signal: Option<i32>,
    /// Steps that are done and saved.
    pub(crate) step: u64,
}

impl Stopped {
    /// As shells say it of a program that a signal has ended.
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
        write!(formatter, "stopped{by} after step {}, which is saved; the same command goes on from there", self.step)
    }
}

impl std::error::Error for Stopped {}
