//! The bounds that a GPU must meet.

use super::results::Results;

/// A bound on a value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Met,
    Missed,
    NotMeasured,
}

/// A required value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Requirement {
    pub(super) metric: &'static str,
    pub(super) bound: Bound,
    /// The measured value. NaN meets no bound.
    pub(super) found: Option<f64>,
}

impl Requirement {
    pub(super) fn verdict(&self) -> Verdict {
        let is_met = self.found.map(|found| match self.bound {
            Bound::AtLeast(least) => found >= least,
            Bound::AtMost(most) => found <= most,
        });
        match is_met {
            Some(true) => Verdict::Met,
            Some(false) => Verdict::Missed,
            None => Verdict::NotMeasured,
        }
    }
}

/// The runs of bagssl to compare with PyTorch.
pub(super) const BAGSSL: [&str; 2] = ["bench", "bench again"];
/// The runs of PyTorch, in different modes.
pub(super) const TORCH: [&str; 3] = ["torch eager", "torch compiled", "torch reduce-overhead"];
pub(super) const RATE: &str = "patches_per_second";
pub(super) const FIRST_STEP: &str = "first_step_seconds";
pub(super) const MEMORY: &str = "peak_memory_bytes";

/// Returns all required values (docs/gpu/README.md).
pub(super) fn requirements(results: &Results) -> Vec<Requirement> {
    use Bound::{AtLeast, AtMost};
    let torch = best(results);
    let over = |ours: Option<f64>, figure| Some(ours? / results.number(torch?, figure)?);
    let row = |metric, bound, found| Requirement { metric, bound, found };
    vec![
        row("rate over PyTorch's best", AtLeast(1.25), over(rate(results), RATE)),
        row("rate, patches/s (an H100 made as many with the prototype)", AtLeast(86_000.0), rate(results)),
        row("first step, s", AtMost(20.0), first_step(results)),
        row("peak memory over that of PyTorch's best", AtMost(1.3), over(results.number("bench", MEMORY), MEMORY)),
        row("rate on images over the rate on noise", AtLeast(0.9), results.number("loading", "loading_ratio")),
        row("lowest cosine in bf16 to the exact embedding", AtLeast(0.999), cosine(results)),
        row("first loss of two GPUs, relative difference to one", AtMost(1e-4), devices(results)),
        row("checks of `doctor --check` that failed", AtMost(0.0), failed_checks(results)),
    ]
}

fn cosine(results: &Results) -> Option<f64> {
    results.number("golden", "cuda: lowest cosine")
}

/// Returns the mean rate of bagssl's runs, in patches per second.
pub(super) fn rate(results: &Results) -> Option<f64> {
    let rates: Vec<f64> = BAGSSL.iter().filter_map(|part| results.number(part, RATE)).collect();
    (!rates.is_empty()).then(|| rates.iter().sum::<f64>() / rates.len() as f64)
}

/// Returns PyTorch's fastest run.
pub(super) fn best(results: &Results) -> Option<&'static str> {
    let rates = TORCH.into_iter().filter_map(|part| Some((part, results.number(part, RATE)?)));
    rates.max_by(|(_, a), (_, b)| a.total_cmp(b)).map(|(part, _)| part)
}

/// Returns the longest first step: that of the run without cached kernels and tuning results.
fn first_step(results: &Results) -> Option<f64> {
    ["resnet18", "bench"].iter().filter_map(|part| results.number(part, FIRST_STEP)).max_by(f64::total_cmp)
}

fn devices(results: &Results) -> Option<f64> {
    let loss = |part| results.number(part, "loss of the first step");
    let (one, two) = (loss("one GPU")?, loss("two GPUs")?);
    Some(((two - one) / one).abs())
}

/// Returns the number of failed checks; `None` if none failed but the check is incomplete.
fn failed_checks(results: &Results) -> Option<f64> {
    let failed = results.number("check", "failed")?;
    let complete = results.part("check")?.row("complete")?.value.as_bool()?;
    (complete || failed > 0.0).then_some(failed)
}
