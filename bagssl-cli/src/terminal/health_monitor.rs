//! Monitors the health of a representation during training.

use bagssl_core::batch::SourceError;
use bagssl_core::embed::{FeatureLayer, Rows};
use bagssl_core::observe::{Event, Observer, Verdict};
use bagssl_eval::Features;
use bagssl_eval::analysis::{self, Health};

/// Forwards all events to an observer, and adds the health of each epoch's projections.
pub(crate) struct HealthMonitor<O>(pub(crate) O);

/// The approximate number of patches to examine: enough for a verdict, at a negligible cost per
/// epoch.
const PATCHES: usize = 512;

impl<O: Observer> Observer for HealthMonitor<O> {
    fn observe(&mut self, event: &Event<'_>) -> Result<Verdict, SourceError> {
        let told = self.0.observe(event)?;
        let &Event::Projections { epoch, step, rows, patches } = event else { return Ok(told) };
        let health = health(rows, patches)?;
        let said = self.0.observe(&Event::Health {
            epoch,
            step,
            verdict: health.verdict.name(),
            metrics: &figures(&health),
            reasons: &health.reasons,
        })?;
        Ok(if told == Verdict::Stop { told } else { said })
    }
}

/// Stores the last health verdict of a training, for a warning at its end.
#[derive(Debug, Default)]
pub(crate) struct LastHealth {
    verdict: Option<String>,
    reasons: String,
}

impl Observer for LastHealth {
    fn observe(&mut self, event: &Event<'_>) -> Result<Verdict, SourceError> {
        if let Event::Health { verdict, reasons, .. } = event {
            (self.verdict, self.reasons) = (Some((*verdict).into()), reasons.join("; "));
        }
        Ok(Verdict::Continue)
    }
}

impl LastHealth {
    /// Returns the last verdict, or `None` if no epoch has finished.
    pub(crate) fn verdict(&self) -> Option<&str> {
        self.verdict.as_deref()
    }

    /// Returns a warning if the model has collapsed.
    pub(crate) fn warning(&self) -> Option<String> {
        let is_collapsed = self.verdict() == Some(analysis::Verdict::Collapsed.name());
        let advice = "a lower --lr, more --images or --patches, or another --preset (another loss) may help";
        is_collapsed.then(|| format!("warning: the model has collapsed: {}; {advice}", self.reasons))
    }
}

/// Computes the health of the first images' projections.
fn health(rows: &Rows, patches: usize) -> Result<Health, SourceError> {
    let images = (rows.len() / patches).min((PATCHES / patches).max(2));
    let values = rows.values[..images * patches * rows.dim].to_vec();
    let numbers: Vec<u32> = (0..images as u32).collect();
    let rows = Rows { values, dim: rows.dim };
    Ok(Health::new(&Features::new(FeatureLayer::Projection, rows, patches, numbers.clone(), numbers)?))
}

fn figures(health: &Health) -> Vec<(&'static str, f64)> {
    let known = [
        ("deviation", Some(health.unit.mean)),
        ("effective_rank", Some(health.effective_rank)),
        ("rank_limit", Some(health.rank_limit as f64)),
        ("coding_rate_share", Some(health.coding_rate_share)),
        ("cosine_within", health.cosine_within),
        ("cosine_between", health.cosine_between),
        ("uniformity", health.uniformity),
    ];
    known.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct RecordedEvents(Vec<(String, Vec<&'static str>, usize)>);

    impl Observer for RecordedEvents {
        fn observe(&mut self, event: &Event<'_>) -> Result<Verdict, SourceError> {
            if let Event::Health { epoch: 3, step: 40, verdict, metrics, reasons } = event {
                let names = metrics.iter().map(|(name, _)| *name).collect();
                self.0.push(((*verdict).into(), names, reasons.len()));
            }
            Ok(Verdict::Continue)
        }
    }

    /// Three images with two patches of four values: first all the same, then in all directions.
    #[test]
    fn collapse_is_reported() {
        let mut watch = HealthMonitor(RecordedEvents::default());
        let mut see = |values: Vec<f32>| {
            let rows = Rows { values, dim: 4 };
            watch.observe(&Event::Projections { epoch: 3, step: 40, rows: &rows, patches: 2 }).unwrap();
        };
        see([0.5, -1.0, 2.0, 0.25].repeat(6));
        see((0..24).map(|i| f32::from(u8::from(i % 5 == 0))).collect());
        let [alike, spread] = &watch.0.0[..] else { panic!("two epochs") };
        assert_eq!((alike.0.as_str(), spread.0.as_str(), spread.2), ("collapsed", "healthy", 0));
        assert!(alike.2 > 0 && alike.1.contains(&"effective_rank") && alike.1.contains(&"uniformity"));
    }

    /// The last epoch decides.
    #[test]
    fn collapse_is_reported_at_the_end() {
        let mut last = LastHealth::default();
        assert_eq!((last.verdict(), last.warning()), (None, None));
        let mut hear = |verdict, reasons: &[&str]| {
            let reasons: Vec<String> = reasons.iter().map(|&reason| reason.into()).collect();
            last.observe(&Event::Health { epoch: 0, step: 1, verdict, metrics: &[], reasons: &reasons }).unwrap();
            (last.verdict().map(String::from), last.warning())
        };
        let (verdict, warning) = hear("collapsed", &["all alike", "rank 1"]);
        let warning = warning.unwrap();
        assert_eq!(verdict.unwrap(), "collapsed");
        assert!(warning.starts_with("warning: the model has collapsed: all alike; rank 1; a lower --lr"), "{warning}");
        assert_eq!(hear("suspect", &["rank 2"]), (Some("suspect".into()), None));
        assert_eq!(hear("healthy", &[]), (Some("healthy".into()), None));
    }

    #[test]
    fn health_of_a_large_batch_uses_a_part() {
        let values: Vec<f32> = (0..600 * 4 * 3).map(|i| ((i * i) as f32 * 0.1).sin()).collect();
        let health = health(&Rows { values, dim: 3 }, 4).unwrap();
        assert_eq!((health.images, health.patches, health.dim), (128, 4, 3));
    }
}
