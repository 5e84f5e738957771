//! Reports of the checks, during and at the end of a run.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use crate::runtime::job::said;

/// The deviation of a result from its expected value.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// The part of the check.
    pub part: &'static str,
    /// The compared value.
    pub figure: String,
    /// The shapes and memory layouts.
    pub shape: String,
    /// The precision.
    pub dtype: &'static str,
    /// The largest difference, relative to the largest expected value.
    pub error: f64,
    /// The largest allowed error.
    pub bound: f64,
    /// The duration of the check that this value belongs to.
    pub seconds: f64,
    /// Whether the error is within its bound and no other error occurred.
    pub pass: bool,
    /// Further information: an error of the GPU, or the message of a panic.
    pub note: String,
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Row { part, figure, dtype, error, bound, seconds, pass, note, .. } = self;
        let verdict = if *pass { "ok" } else { "FAILED" };
        write!(f, "{verdict:<6} {part:<17} {figure:<36} {dtype:<4} {error:>8.1e} <= {bound:.0e} {seconds:>7.2} s")?;
        if note.is_empty() { Ok(()) } else { write!(f, "  ({note})") }
    }
}

/// A progress report.
#[derive(Debug, Clone, Copy)]
pub enum Told<'a> {
    /// A check begins: its part, precision and shapes.
    Begins(&'static str, &'static str, &'a str),
    /// One of a check's values, reported when the check has ended.
    Ended(&'a Row),
}

impl fmt::Display for Told<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Told::Begins(part, dtype, shape) => write!(f, "       {part} in {dtype}: {shape}"),
            Told::Ended(row) => row.fmt(f),
        }
    }
}

/// The results of all checks.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Summary {
    /// The parts, in the order in which they ran.
    pub parts: Vec<PartSummary>,
    /// The rows that failed.
    pub failed: Vec<Row>,
}

/// The results of a part's checks.
#[derive(Debug, Clone, PartialEq)]
pub struct PartSummary {
    /// The name of the part.
    pub name: &'static str,
    /// The number of compared values.
    pub figures: usize,
    /// The number of values that failed.
    pub failed: usize,
    /// The largest error, as a multiple of its bound.
    pub worst: f64,
    /// The duration in seconds.
    pub seconds: f64,
}

impl fmt::Display for Summary {
    /// Writes a line for each part, the failed rows, and the totals.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for PartSummary { name, figures, failed, worst, seconds } in &self.parts {
            let share = format!("largest error {worst:.2} times its bound");
            writeln!(f, "{name:<17} {figures:>4} figures, {failed:>3} failed, {share}, {seconds:.1} s")?;
        }
        for row in &self.failed {
            writeln!(f, "{row}: {}", row.shape)?;
        }
        let sum = |of: fn(&PartSummary) -> f64| self.parts.iter().map(of).sum::<f64>();
        let (figures, seconds) = (sum(|part| part.figures as f64), sum(|part| part.seconds));
        write!(f, "{figures} figures, {} failed, {seconds:.1} s", self.failed.len())
    }
}

/// The error of a result and its bound.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Figure {
    pub(super) of: String,
    pub(super) error: f64,
    pub(super) bound: f64,
    pub(super) note: String,
}

impl Figure {
    pub(super) fn new(of: impl Into<String>, error: f64, bound: f64) -> Self {
        Figure { of: of.into(), error, bound, note: String::new() }
    }
}

/// The running checks.
pub(super) struct Checks<'a> {
    tell: &'a mut dyn FnMut(Told<'_>),
    /// Returns the errors on the GPU since the last call.
    ask: &'a dyn Fn() -> Option<String>,
    summary: Summary,
}

impl<'a> Checks<'a> {
    pub(super) fn new(tell: &'a mut dyn FnMut(Told<'_>), ask: &'a dyn Fn() -> Option<String>) -> Self {
        Checks { tell, ask, summary: Summary::default() }
    }

    /// Runs the checks of a part.
    pub(super) fn part(&mut self, name: &'static str, run: impl FnOnce(&mut Self)) {
        self.summary.parts.push(PartSummary { name, figures: 0, failed: 0, worst: 0.0, seconds: 0.0 });
        let begun = Instant::now();
        // Panics within a check are caught there. This catches panics between checks.
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| run(self))) {
            self.end(panicked(&*panic), "", "between checks", 0.0, String::new());
        }
        self.last().seconds = begun.elapsed().as_secs_f64();
    }

    /// Runs a check, which returns its values. The check also fails if the GPU reports an error.
    pub(super) fn check(&mut self, dtype: &'static str, shape: &str, work: impl FnOnce() -> Vec<Figure>) {
        let part = self.last().name;
        (self.tell)(Told::Begins(part, dtype, shape));
        let begun = Instant::now();
        let figures = catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| vec![panicked(&*panic)]);
        let seconds = begun.elapsed().as_secs_f64();
        let error = (self.ask)().unwrap_or_default();
        for figure in figures {
            self.end(figure, dtype, shape, seconds, error.clone());
        }
    }

    pub(super) fn finish(self) -> Summary {
        self.summary
    }

    fn end(&mut self, figure: Figure, dtype: &'static str, shape: &str, seconds: f64, failure: String) {
        let Figure { of: figure, error, bound, note } = figure;
        let pass = failure.is_empty() && error <= bound;
        let notes = [note, failure].into_iter().filter(|note| !note.is_empty()).collect::<Vec<_>>();
        let (part, shape, note) = (self.last().name, shape.to_string(), notes.join("; "));
        let row = Row { part, figure, shape, dtype, error, bound, seconds, pass, note };
        (self.tell)(Told::Ended(&row));
        let part = self.last();
        part.figures += 1;
        part.failed += usize::from(!pass);
        if bound > 0.0 {
            part.worst = part.worst.max(error / bound);
        }
        if !pass {
            self.summary.failed.push(row);
        }
    }

    fn last(&mut self) -> &mut PartSummary {
        self.summary.parts.last_mut().expect("checks run in a part")
    }
}

fn panicked(panic: &(dyn std::any::Any + Send)) -> Figure {
    let words = said(panic);
    let note = format!("panicked: {}", words.lines().collect::<Vec<_>>().join(" "));
    Figure { of: "the check".into(), error: f64::INFINITY, bound: 0.0, note }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    thread_local! {
        static ERROR: Cell<Option<String>> = const { Cell::new(None) };
    }

    fn told(run: impl FnOnce(&mut Checks<'_>)) -> (Vec<String>, Summary) {
        let mut lines = Vec::new();
        let mut tell = |told: Told<'_>| lines.push(told.to_string());
        let ask = || ERROR.take();
        let mut checks = Checks::new(&mut tell, &ask);
        checks.part("norm", run);
        let summary = checks.finish();
        (lines, summary)
    }

    #[test]
    fn each_figure_is_told_as_its_check_ends() {
        let (lines, summary) = told(|checks| {
            checks.check("bf16", "[2, 3]", || {
                vec![Figure::new("output", 5e-3, 1e-2), Figure::new("input gradient", 2e-2, 1e-2)]
            });
        });
        assert_eq!(lines[0], "       norm in bf16: [2, 3]");
        assert_eq!(
            lines[1],
            "ok     norm              output                               bf16   5.0e-3 <= 1e-2    0.00 s"
        );
        assert_eq!(
            lines[2],
            "FAILED norm              input gradient                       bf16   2.0e-2 <= 1e-2    0.00 s"
        );
        let text = summary.to_string();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "norm                 2 figures,   1 failed, largest error 2.00 times its bound, 0.0 s");
        assert!(lines[1].starts_with("FAILED norm ") && lines[1].ends_with(": [2, 3]"), "{text}");
        assert_eq!(lines[2], "2 figures, 1 failed, 0.0 s");
    }

    #[test]
    fn what_fails_or_panics_does_not_stop_the_next() {
        let (lines, summary) = told(|checks| {
            checks.check("f32", "a", || panic!("gone\nfor good"));
            checks.check("f32", "b", || vec![Figure::new("output", f64::NAN, 1.0)]);
            checks.check("f32", "c", || vec![Figure::new("output", 1e-5, 1e-4)]);
            panic!("between");
        });
        assert!(lines[1].starts_with("FAILED") && lines[1].ends_with("(panicked: gone for good)"), "{}", lines[1]);
        // NaN does not pass.
        assert!(lines[3].starts_with("FAILED") && lines[5].starts_with("ok"), "{lines:?}");
        assert!(lines[6].ends_with("(panicked: between)"), "{}", lines[6]);
        assert_eq!((summary.parts[0].figures, summary.parts[0].failed, summary.failed.len()), (4, 3, 3));
    }

    #[test]
    fn an_error_of_the_gpu_fails_all_figures_of_its_check_alone() {
        let good = || vec![Figure::new("output", 0.0, 1e-4), Figure::new("mean", 0.0, 1e-4)];
        let (lines, summary) = told(|checks| {
            checks.check("f32", "a", || {
                ERROR.set(Some("cuda: norm: gone".into()));
                good()
            });
            checks.check("f32", "b", good);
        });
        assert!(lines[1].ends_with("(cuda: norm: gone)") && lines[2].ends_with("(cuda: norm: gone)"), "{lines:?}");
        assert_eq!(summary.failed.len(), 2);
    }
}
