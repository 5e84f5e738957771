//! Profiles training: records the spans of kernels and trainer, and reports them as a table and a
//! Chrome trace.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use bagssl_core::batch::SourceError;
use bagssl_core::observe::{Event, Observer, Verdict};
use bagssl_core::profile::{Lane, Recorder, record};
use serde::Serialize;
use serde_json::{Value, json};

use crate::input::files::Output;
use crate::terminal::output::note;

/// The profile of this process.
static PROFILE: OnceLock<Profile> = OnceLock::new();

/// The recorded spans, and the file to write them to.
#[derive(Debug)]
pub(crate) struct Profile {
    path: PathBuf,
    origin: Instant,
    is_on: AtomicBool,
    kept: Mutex<Recorded>,
}

#[derive(Debug, Default)]
struct Recorded {
    spans: Vec<Span>,
    counts: BTreeMap<&'static str, u64>,
    notes: Vec<(&'static str, String)>,
    threads: BTreeMap<u64, String>,
    /// The start and, so far, the end of the recording, in nanoseconds.
    window: [u64; 2],
    /// Steps that ended within the window.
    steps: usize,
    is_written: bool,
}

#[derive(Debug, Clone, Copy)]
struct Span {
    lane: Lane,
    thread: u64,
    name: &'static str,
    begin: u64,
    end: u64,
}

/// The sums over all spans with the same name.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Sum {
    calls: u64,
    /// Nanoseconds on host threads, without nested spans.
    host: u64,
    /// Nanoseconds on the device.
    device: u64,
}

/// The average step. The table and the JSON output have the same numbers.
#[derive(Debug)]
struct StepMeans {
    /// The number of steps in the average.
    steps: usize,
    ms: f64,
    has_device: bool,
    /// Sorted by time, the longest first.
    operations: Vec<(&'static str, Operation)>,
    counts: Vec<(&'static str, f64)>,
    notes: Vec<String>,
}

/// An operation's share of a step.
#[derive(Debug, Clone, Copy, Serialize)]
struct Operation {
    calls: f64,
    host_ms: f64,
    device_ms: f64,
}

impl Profile {
    /// Prepares a recording that will be written to `path`. Recording has not started yet.
    pub(crate) fn prepare(path: &Path) -> Result<&'static Self> {
        // Report an unwritable path before the work, not after it.
        Output::new(path, false, &[]).map(drop).context("--profile")?;
        let (is_on, kept) = (AtomicBool::new(false), Mutex::default());
        let profile = Profile { path: path.into(), origin: Instant::now(), is_on, kept };
        if PROFILE.set(profile).is_err() {
            bail!("--profile: expected one profile per process, got two");
        }
        let profile = PROFILE.get().expect("it has just been set");
        record(profile);
        Ok(profile)
    }

    /// Starts recording.
    fn begin(&self) {
        self.kept().window[0] = self.now();
        self.is_on.store(true, Relaxed);
    }

    /// Counts a finished step. `is_last` stops the recording.
    fn step(&self, is_last: bool) {
        if self.is_on.load(Relaxed) {
            let mut kept = self.kept();
            kept.steps += 1;
            kept.window[1] = self.now();
            self.is_on.store(!is_last, Relaxed);
        }
    }

    /// Writes the trace, if it is not written yet, and returns the table and the same numbers as
    /// JSON. If no step was recorded, prints a warning and returns `None`.
    pub(crate) fn finish(&self) -> Result<Option<(String, Value)>> {
        self.is_on.store(false, Relaxed);
        if self.kept().steps == 0 {
            note!(
                "warning: --profile: expected more than {UNTIMED} steps (the first {UNTIMED} are not recorded), got \
                 fewer"
            );
            return Ok(None);
        }
        self.write()?;
        let step = self.kept().step_means();
        Ok(Some((step.table(), step.json())))
    }

    fn write(&self) -> Result<()> {
        let mut kept = self.kept();
        if !kept.is_written {
            Output::new(&self.path, false, &[])?.write(&serde_json::to_vec(&kept.trace())?)?;
            kept.is_written = true;
        }
        Ok(())
    }

    fn kept(&self) -> MutexGuard<'_, Recorded> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Recorder for Profile {
    fn is_on(&self) -> bool {
        self.is_on.load(Relaxed)
    }

    fn now(&self) -> u64 {
        self.origin.elapsed().as_nanos() as u64
    }

    fn span(&self, lane: Lane, name: &'static str, begin: u64, end: u64) {
        let thread = thread();
        let mut kept = self.kept();
        kept.threads.entry(thread).or_insert_with(|| {
            let current = std::thread::current();
            current.name().map_or_else(|| format!("thread {thread}"), String::from)
        });
        kept.spans.push(Span { lane, thread, name, begin, end });
    }

    fn count(&self, name: &'static str, more: u64) {
        *self.kept().counts.entry(name).or_insert(0) += more;
    }

    fn note(&self, name: &'static str, text: String) {
        let mut kept = self.kept();
        if !kept.notes.contains(&(name, text.clone())) {
            kept.notes.push((name, text));
        }
    }
}

/// Starts a profile after the first steps, which compile kernels and allocate memory, and stops it
/// after a number of steps.
#[derive(Debug)]
pub(crate) struct Window {
    profile: &'static Profile,
    seen: usize,
    max: usize,
}

/// The number of steps before a profile starts.
pub(crate) const UNTIMED: usize = 3;

impl Window {
    /// Records at most `max` steps.
    pub(crate) fn new(profile: &'static Profile, max: usize) -> Self {
        Window { profile, seen: 0, max }
    }
}

impl Observer for Window {
    fn observe(&mut self, event: &Event<'_>) -> std::result::Result<Verdict, SourceError> {
        if let Event::Step { .. } = event {
            self.seen += 1;
            if self.seen == UNTIMED {
                self.profile.begin();
            } else if self.seen > UNTIMED {
                self.profile.step(self.seen - UNTIMED == self.max);
            }
            // By now a device has finished the work that was queued within the window. Write here,
            // because the run may continue for days, or fail.
            if self.seen == UNTIMED + self.max + 2 {
                self.profile.write()?;
            }
        }
        Ok(Verdict::Continue)
    }
}

/// Returns the number of the calling thread.
fn thread() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    thread_local! {
        static OWN: u64 = NEXT.fetch_add(1, Relaxed);
    }
    OWN.with(|own| *own)
}

impl Recorded {
    /// Returns the sums by name, sorted by time, the longest first.
    fn sums(&self) -> Vec<(&'static str, Sum)> {
        let mut sums: HashMap<&'static str, Sum> = HashMap::new();
        for span in self.spans.iter().filter(|span| span.lane == Lane::Device) {
            sums.entry(span.name).or_default().device += span.end - span.begin;
        }
        let mut host: Vec<Span> = self.spans.iter().copied().filter(|span| span.lane == Lane::Host).collect();
        // If two spans start at the same time, the longer one encloses the other.
        host.sort_by_key(|span| (span.thread, span.begin, std::cmp::Reverse(span.end)));
        let mut around: Vec<Span> = Vec::new();
        for span in host {
            while around.last().is_some_and(|outer| outer.thread != span.thread || outer.end <= span.begin) {
                around.pop();
            }
            if let Some(outer) = around.last() {
                let outer = sums.entry(outer.name).or_default();
                outer.host = outer.host.saturating_sub(span.end - span.begin);
            }
            let sum = sums.entry(span.name).or_default();
            sum.calls += 1;
            sum.host += span.end - span.begin;
            around.push(span);
        }
        let mut sums: Vec<_> = sums.into_iter().collect();
        sums.sort_by_key(|(name, sum)| (std::cmp::Reverse((sum.device, sum.host)), *name));
        sums
    }

    fn has_device(&self) -> bool {
        self.spans.iter().any(|span| span.lane == Lane::Device)
    }

    /// Returns the recorded time in nanoseconds.
    fn length(&self) -> u64 {
        self.window[1].saturating_sub(self.window[0])
    }

    /// Returns the average over the recorded steps.
    fn step_means(&self) -> StepMeans {
        let steps = self.steps.max(1) as f64;
        let ms = |nanoseconds: u64| nanoseconds as f64 / 1e6 / steps;
        let operation = |(name, sum): (&'static str, Sum)| {
            (name, Operation { calls: sum.calls as f64 / steps, host_ms: ms(sum.host), device_ms: ms(sum.device) })
        };
        StepMeans {
            steps: self.steps,
            ms: ms(self.length()),
            has_device: self.has_device(),
            operations: self.sums().into_iter().map(operation).collect(),
            counts: self.counts.iter().map(|(&name, &count)| (name, count as f64 / steps)).collect(),
            notes: self.notes.iter().map(|(name, note)| format!("{name}: {note}")).collect(),
        }
    }

    /// Returns the trace in Chrome's format, for <https://ui.perfetto.dev> or chrome://tracing.
    fn trace(&self) -> Value {
        let named = |process: u32, thread: u64, name: &str| json!({"ph": "M", "name": "thread_name", "pid": process, "tid": thread, "args": {"name": name}});
        let process = |process: u32, name: &str| json!({"ph": "M", "name": "process_name", "pid": process, "args": {"name": name}});
        let mut events = vec![process(0, "host")];
        events.extend(self.threads.iter().map(|(&thread, name)| named(0, thread, name)));
        if self.has_device() {
            events.push(process(1, "device"));
        }
        events.extend(self.spans.iter().map(|span| {
            let microseconds = |nanoseconds: u64| nanoseconds as f64 / 1e3;
            json!({
                "ph": "X",
                "name": span.name,
                "pid": u32::from(span.lane == Lane::Device),
                "tid": span.thread,
                "ts": microseconds(span.begin),
                "dur": microseconds(span.end - span.begin),
            })
        }));
        json!({"traceEvents": events, "displayTimeUnit": "ms"})
    }
}

impl StepMeans {
    fn table(&self) -> String {
        let mut text = format!("profile of {} steps: {:.2} ms each\n", self.steps, self.ms);
        let head = ["operation", "calls", "host ms", "device ms", "share"];
        let _ = writeln!(text, "{:<40} {:>7} {:>9} {:>10} {:>7}", head[0], head[1], head[2], head[3], head[4]);
        let share = |ms: f64| 100.0 * ms / self.ms.max(f64::MIN_POSITIVE);
        let mut left = self.ms;
        for (name, Operation { calls, host_ms, device_ms }) in &self.operations {
            let counted = if self.has_device { *device_ms } else { *host_ms };
            left -= counted;
            let on_device = if *device_ms > 0.0 { format!("{device_ms:.3}") } else { "-".into() };
            let share = share(counted);
            let _ = writeln!(text, "{name:<40} {calls:>7.1} {host_ms:>9.3} {on_device:>10} {share:>6.1}%");
        }
        let rest = if self.has_device { "device: other work, and idle" } else { "all else" };
        let [host, device] =
            if self.has_device { ["-".into(), format!("{left:.3}")] } else { [format!("{left:.3}"), "-".into()] };
        let _ = writeln!(text, "{rest:<40} {:>7} {host:>9} {device:>10} {:>6.1}%", "-", share(left));
        for (name, count) in &self.counts {
            let _ = writeln!(text, "{name}: {count:.1} a step");
        }
        self.notes.iter().for_each(|note| _ = writeln!(text, "{note}"));
        text
    }

    fn json(&self) -> Value {
        let operations: BTreeMap<_, _> = self.operations.iter().copied().collect();
        let counts: BTreeMap<_, _> = self.counts.iter().copied().collect();
        json!({"steps": self.steps, "step_ms": self.ms, "operations": operations, "counts": counts, "notes": self.notes})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept() -> Recorded {
        let host = |thread, name, begin, end| Span { lane: Lane::Host, thread, name, begin, end };
        // "backward" encloses two other spans, one of which starts with it. Another thread works at
        // the same time.
        let spans = vec![
            host(0, "convolution", 10_000_000, 14_000_000),
            host(0, "norm", 15_000_000, 16_000_000),
            host(0, "backward", 10_000_000, 20_000_000),
            host(0, "step", 20_000_000, 22_000_000),
            host(1, "norm", 10_000_000, 11_000_000),
        ];
        Recorded { spans, window: [0, 40_000_000], steps: 2, counts: [("launches", 6)].into(), ..Recorded::default() }
    }

    #[test]
    fn nested_spans_count_once() {
        let ms = |calls, host: u64| Sum { calls, host: host * 1_000_000, device: 0 };
        let expected = [("backward", ms(1, 5)), ("convolution", ms(1, 4)), ("norm", ms(2, 2)), ("step", ms(1, 2))];
        assert_eq!(kept().sums(), expected);
    }

    #[test]
    fn table_has_means_per_step() {
        let step = kept().step_means();
        let table = step.table();
        let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[0], ["profile", "of", "2", "steps:", "20.00", "ms", "each"]);
        assert_eq!(lines[2], ["backward", "0.5", "2.500", "-", "12.5%"]);
        assert_eq!(lines[6], ["all", "else", "-", "13.500", "-", "67.5%"]);
        assert_eq!(lines[7].join(" "), "launches: 3.0 a step");
        let json = step.json();
        let backward = json!({"calls": 0.5, "host_ms": 2.5, "device_ms": 0.0});
        assert_eq!((&json["operations"]["backward"], &json["counts"]["launches"]), (&backward, &json!(3.0)));
        assert_eq!((&json["steps"], &json["step_ms"]), (&json!(2), &json!(20.0)));
    }

    #[test]
    fn device_time_takes_precedence() {
        let mut kept = Recorded { steps: 1, ..kept() };
        let of = |name, begin, end| Span { lane: Lane::Device, thread: 1, name, begin, end };
        kept.spans.push(of("norm", 30_000_000, 36_000_000));
        let table = kept.step_means().table();
        let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[2], ["norm", "2.0", "2.000", "6.000", "15.0%"]);
        assert_eq!(lines[6], ["device:", "other", "work,", "and", "idle", "-", "-", "34.000", "85.0%"]);
        let trace = kept.trace();
        let events = trace["traceEvents"].as_array().unwrap();
        let last = events.last().unwrap();
        assert_eq!((&last["pid"], &last["ts"], &last["dur"]), (&json!(1), &json!(30_000.0), &json!(6_000.0)));
    }
}
