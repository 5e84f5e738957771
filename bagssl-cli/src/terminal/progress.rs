//! Shows the progress of long work. This module alone decides how: a bar if standard error is a
//! terminal, a line at intervals if it is a file or a pipe, and no progress if a program reads the
//! result (`--json`). Warnings are always printed.

use std::io::IsTerminal;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bagssl_core::batch::SourceError;
use bagssl_core::observe::{Event, Observer, Verdict};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::terminal::output::{note, tell};

/// The minimum time between two lines.
const INTERVAL: Duration = Duration::from_secs(30);

/// The progress of work with a known number of items.
#[derive(Debug)]
pub(crate) struct Progress(Kind);

#[derive(Debug)]
enum Kind {
    Bar(ProgressBar),
    /// Lines, or no output if the flag is `false`.
    Lines(Mutex<Lines>, bool),
}

impl Progress {
    /// Shows progress in images, unless `quiet`.
    pub(crate) fn images(label: &str, length: usize, quiet: bool) -> Self {
        Self::new(label, length as u64, "images", quiet)
    }

    /// Shows progress in units of `unit`, unless `quiet`.
    pub(crate) fn new(label: &str, length: u64, unit: &'static str, quiet: bool) -> Self {
        Self::on(|bar| bar, label, length, unit, quiet)
    }

    fn on(
        place: impl FnOnce(ProgressBar) -> ProgressBar,
        label: &str,
        length: u64,
        unit: &'static str,
        quiet: bool,
    ) -> Self {
        if quiet || !std::io::stderr().is_terminal() {
            return Progress(Kind::Lines(Mutex::new(Lines::new(label, length, unit)), !quiet));
        }
        let template = format!("{{prefix}} {{bar:30}} {{pos}}/{{len}} {unit}, {{eta}} left  {{msg}}");
        let (bar, style) = (place(ProgressBar::new(length)), ProgressStyle::with_template(&template));
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.set_prefix(label.to_string());
        Progress(Kind::Bar(bar))
    }

    /// Adds to the number of finished items.
    pub(crate) fn inc(&self, more: u64) {
        match &self.0 {
            Kind::Bar(bar) => bar.inc(more),
            Kind::Lines(lines, is_shown) => {
                let mut lines = lock(lines);
                lines.position += more;
                lines.show(*is_shown);
            }
        }
    }

    /// Sets the number of finished items.
    pub(crate) fn set_position(&self, position: u64) {
        match &self.0 {
            Kind::Bar(bar) => bar.set_position(position),
            Kind::Lines(lines, is_shown) => {
                let mut lines = lock(lines);
                lines.position = position;
                lines.show(*is_shown);
            }
        }
    }

    /// Returns the number of finished items.
    pub(crate) fn position(&self) -> u64 {
        match &self.0 {
            Kind::Bar(bar) => bar.position(),
            Kind::Lines(lines, _) => lock(lines).position,
        }
    }

    /// Adds to the total number of items.
    pub(crate) fn inc_length(&self, more: u64) {
        match &self.0 {
            Kind::Bar(bar) => bar.inc_length(more),
            Kind::Lines(lines, _) => lock(lines).length += more,
        }
    }

    /// Sets the total number of items, and the number that an earlier call has finished.
    fn begin(&self, length: u64, done: u64) {
        match &self.0 {
            Kind::Bar(bar) => {
                bar.set_length(length);
                bar.set_position(done);
                // Estimate the remaining time from the work of this call only.
                bar.reset_eta();
            }
            Kind::Lines(lines, _) => {
                let mut lines = lock(lines);
                (lines.length, lines.position, lines.from, lines.begun) = (length, done, done, Instant::now());
            }
        }
    }

    fn length(&self) -> u64 {
        match &self.0 {
            Kind::Bar(bar) => bar.length().unwrap_or(0),
            Kind::Lines(lines, _) => lock(lines).length,
        }
    }

    /// Sets the message after the numbers.
    fn set_message(&self, message: String) {
        match &self.0 {
            Kind::Bar(bar) => bar.set_message(message),
            Kind::Lines(lines, _) => lock(lines).message = message,
        }
    }

    /// Prints a line that stays, even if progress is not shown.
    pub(crate) fn warn(&self, text: &str) {
        match &self.0 {
            Kind::Bar(bar) => bar.suspend(|| note!("{text}")),
            Kind::Lines(..) => note!("{text}"),
        }
    }

    /// Ends the progress display.
    pub(crate) fn finish(&self) {
        if let Kind::Bar(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}

/// The progress of several jobs that run in parallel.
#[derive(Debug)]
pub(crate) struct Several(MultiProgress);

impl Several {
    pub(crate) fn new() -> Self {
        Several(MultiProgress::new())
    }

    /// Adds a job, shown with the others.
    pub(crate) fn add(&self, label: &str, length: u64, unit: &'static str) -> Progress {
        Progress::on(|bar| self.0.add(bar), label, length, unit, false)
    }

    /// Prints a line that stays.
    pub(crate) fn report(&self, text: &str) {
        self.0.suspend(|| tell!("{text}"));
    }
}

/// Progress that is printed as a line at intervals.
#[derive(Debug)]
struct Lines {
    label: String,
    unit: &'static str,
    length: u64,
    position: u64,
    /// The position at which this call started.
    from: u64,
    begun: Instant,
    last: Instant,
    message: String,
}

impl Lines {
    fn new(label: &str, length: u64, unit: &'static str) -> Self {
        let (now, message) = (Instant::now(), String::new());
        Lines { label: label.into(), unit, length, position: 0, from: 0, begun: now, last: now, message }
    }

    fn show(&mut self, is_shown: bool) {
        let now = Instant::now();
        if is_shown && let Some(line) = self.line(now) {
            note!("{line}");
        }
    }

    /// Returns the line if the interval has passed.
    fn line(&mut self, now: Instant) -> Option<String> {
        if now.duration_since(self.last) < INTERVAL {
            return None;
        }
        self.last = now;
        let Lines { label, unit, length, position, message, .. } = self;
        let left = match position.saturating_sub(self.from) {
            0 => String::new(),
            done => {
                let each = now.duration_since(self.begun).as_secs_f64() / done as f64;
                format!(", {} left", time((each * length.saturating_sub(*position) as f64) as u64))
            }
        };
        let gap = if message.is_empty() { "" } else { "  " };
        Some(format!("{label}: {position}/{length} {unit}{left}{gap}{message}"))
    }
}

/// Formats a duration in its two largest units; indicatif's `HumanDuration` has only one.
fn time(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
    }
}

/// Locks the lines. A poisoned lock is still usable.
fn lock(lines: &Mutex<Lines>) -> MutexGuard<'_, Lines> {
    lines.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Shows the steps of a training with their metrics, and prints warnings.
#[derive(Debug)]
pub(crate) struct Steps(pub(crate) Progress);

impl Steps {
    /// Shows the training under a label, unless `quiet`.
    pub(crate) fn new(label: &str, quiet: bool) -> Self {
        Steps(Progress::new(label, 0, "steps", quiet))
    }
}

impl Observer for Steps {
    fn observe(&mut self, event: &Event<'_>) -> Result<Verdict, SourceError> {
        match event {
            Event::Step { step, steps, epoch, metrics } => {
                if self.0.length() != *steps {
                    // A resumed run does not start at 0.
                    self.0.begin(*steps, step.saturating_sub(1));
                }
                let metrics: Vec<_> = metrics.iter().map(|(name, value)| format!("{name} {value:.4}")).collect();
                self.0.set_message(format!("epoch {}  {}", epoch + 1, metrics.join("  ")));
                self.0.set_position(*step);
            }
            Event::Skipped { step, value, images } => {
                let count = images.len();
                self.0.warn(&format!("skipped step {step}: {value} is not finite, from {count} images"));
            }
            Event::Health { epoch, verdict, reasons, .. } if !reasons.is_empty() => {
                self.0.warn(&format!("epoch {}: {verdict}: {}", epoch + 1, reasons.join("; ")));
            }
            Event::Changed { step, setting, from, to } => {
                self.0.warn(&format!("after step {step}: {setting} is {to}, was {from}"));
            }
            _ => {}
        }
        Ok(Verdict::Continue)
    }
}

impl Drop for Steps {
    fn drop(&mut self) {
        if let Kind::Bar(bar) = &self.0.0 {
            bar.abandon();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_lines_keep_their_interval() {
        let mut lines = Lines::new("train", 0, "steps");
        let begun = lines.begun;
        let after = |seconds| begun + Duration::from_secs(seconds);
        (lines.length, lines.from, lines.position) = (400, 100, 160);
        assert_eq!(lines.line(after(29)), None);
        // Half a second per step, 240 left.
        assert_eq!(lines.line(after(30)).unwrap(), "train: 160/400 steps, 2 min 0 s left");
        assert_eq!(lines.line(after(59)), None);
        (lines.position, lines.message) = (100, "loss 1".into());
        assert_eq!(lines.line(after(60)).unwrap(), "train: 100/400 steps  loss 1");
        assert_eq!([time(59), time(3599), time(7384)], ["59 s", "59 min 59 s", "2 h 3 min"]);
    }

    #[test]
    fn quiet_progress_still_counts() {
        let progress = Progress::images("embed", 3, true);
        progress.inc(2);
        progress.inc_length(4);
        assert_eq!((progress.position(), progress.length()), (2, 7));
        progress.begin(9, 5);
        progress.set_position(6);
        assert_eq!((progress.position(), progress.length()), (6, 9));
    }
}
