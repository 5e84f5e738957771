//! Reports an epoch's events to the observer.

use bagssl_core::embed::Rows;
use bagssl_core::observe::{Event, Observer, Verdict};
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

use crate::error::{Error, Result};
use crate::schedule::StepSchedule;

/// Reports an epoch's events to the observer.
pub(super) struct EpochReporter<'a> {
    pub(super) observer: &'a mut dyn Observer,
    pub(super) epoch: u32,
    pub(super) schedule: StepSchedule,
    /// The peak learning rate.
    pub(super) rate: f64,
}

impl EpochReporter<'_> {
    /// Reports a completed step and adds its metrics to the epoch's means.
    pub(super) fn step(
        &mut self,
        step: u64,
        mut metrics: Vec<(&'static str, f64)>,
        means: &mut Means,
    ) -> Result<Verdict> {
        metrics.push((RATE, self.rate * self.schedule.factor(step - 1)));
        means.add(&metrics);
        self.send(&Event::Step { step, steps: self.schedule.steps(), epoch: self.epoch, metrics: &metrics })
    }

    /// Reports a skipped step. `names` are the names that its metrics would have had: in a resumed
    /// epoch no other step may provide them.
    pub(super) fn skipped(
        &mut self,
        step: u64,
        (value, images): (&str, &[u32]),
        mut names: Vec<&'static str>,
        means: &mut Means,
    ) -> Result<Verdict> {
        names.push(RATE);
        means.name(names);
        self.send(&Event::Skipped { step, value, images })
    }

    /// Reports the projections of the last batch, `[image, patch, dim]`.
    pub(super) fn projections<B: Backend>(&mut self, step: u64, projections: Tensor<B, 3>) -> Result<Verdict> {
        let [_, patches, dim] = projections.dims();
        let values = projections.into_data().convert::<f32>().into_vec().expect("converted to f32");
        self.send(&Event::Projections { epoch: self.epoch, step, rows: &Rows { values, dim }, patches })
    }

    /// Reports the end of the epoch.
    pub(super) fn epoch(&mut self, step: u64, means: &Means) -> Result<Verdict> {
        self.send(&Event::Epoch { epoch: self.epoch, step, metrics: &means.metrics() })
    }

    pub(super) fn send(&mut self, event: &Event<'_>) -> Result<Verdict> {
        self.observer.observe(event).map_err(Error::Observer)
    }
}

/// The name of the learning rate, which follows the metrics of the batch.
const RATE: &str = "rate";

/// The means of the metrics over the steps of an epoch so far.
#[derive(Debug, Default)]
pub(super) struct Means {
    names: Vec<&'static str>,
    sums: Vec<f64>,
    count: u64,
}

impl Means {
    /// Restores means from the [`bits`](Means::bits) stored in a state. The next step sets their
    /// names.
    pub(super) fn restored(bits: &[u64], count: u64) -> Self {
        Means { names: Vec::new(), sums: bits.iter().map(|&bits| f64::from_bits(bits)).collect(), count }
    }

    fn add(&mut self, metrics: &[(&'static str, f64)]) {
        if self.sums.len() != metrics.len() {
            (self.sums, self.count) = (vec![0.0; metrics.len()], 0);
        }
        self.names = metrics.iter().map(|(name, _)| *name).collect();
        self.sums.iter_mut().zip(metrics).for_each(|(sum, (_, value))| *sum += value);
        self.count += 1;
    }

    /// Sets the names of the sums, if no step has.
    fn name(&mut self, names: Vec<&'static str>) {
        if self.names.is_empty() && names.len() == self.sums.len() {
            self.names = names;
        }
    }

    fn metrics(&self) -> Vec<(&'static str, f64)> {
        let count = self.count.max(1) as f64;
        self.names.iter().zip(&self.sums).map(|(&name, sum)| (name, sum / count)).collect()
    }

    /// Returns the bit patterns of the sums.
    pub(super) fn bits(&self) -> Vec<u64> {
        self.sums.iter().map(|sum| sum.to_bits()).collect()
    }

    /// Returns the number of steps in the sums.
    pub(super) fn count(&self) -> u64 {
        self.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interrupted_means_are_equal() {
        let steps = [[0.1, -1.0], [0.2, 1e9], [0.3, 1e-9]];
        let add = |means: &mut Means, [loss, rate]: [f64; 2]| means.add(&[("loss", loss), ("rate", rate)]);
        let mut uninterrupted = Means::default();
        steps.iter().for_each(|&step| add(&mut uninterrupted, step));
        assert_eq!(uninterrupted.metrics()[0], ("loss", (0.1 + 0.2 + 0.3) / 3.0));
        let mut first = Means::default();
        steps[..2].iter().for_each(|&step| add(&mut first, step));
        let mut resumed = Means::restored(&first.bits(), first.count());
        add(&mut resumed, steps[2]);
        assert_eq!((resumed.metrics(), resumed.count()), (uninterrupted.metrics(), 3));
        // All later steps are skipped.
        let mut resumed = Means::restored(&first.bits(), first.count());
        resumed.name(vec!["loss"]);
        assert_eq!(resumed.metrics(), [], "names of other figures");
        resumed.name(vec!["loss", "rate"]);
        resumed.name(vec!["rate", "loss"]);
        assert_eq!((resumed.metrics(), resumed.count()), (first.metrics(), 2));
        assert_eq!(Means::default().metrics(), []);
    }
}
