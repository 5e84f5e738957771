//! The headline: the main results of a run in a few numbers.

use serde::{Deserialize, Serialize};

use super::Report;
use super::outcome::{Accuracy, Method, Outcome, Space, View};
use crate::color::Color;
use crate::stats::{Interval, accuracy_standard_error, paired_difference};

/// A comparison of two accuracies, in percent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// The first accuracy.
    pub this: Accuracy,
    /// The second accuracy.
    pub other: Accuracy,
    /// The mean paired difference over the seeds, with its 95 % confidence interval (Student's t).
    /// `None` for a single seed, or if the second accuracy does not depend on seeds.
    pub difference: Option<Interval>,
}

/// The main comparisons of a run. A comparison is `None` if one of its sides is missing.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Headline {
    /// BagSSL's embedding and random weights: grey, kNN, all patches.
    pub random: Option<Comparison>,
    /// BagSSL's embedding and the color histogram: color, linear, all patches.
    pub histogram: Option<Comparison>,
    /// BagSSL's embedding and that of the multi-scale baseline: grey, kNN, all patches.
    pub multi_scale: Option<Comparison>,
    /// BagSSL's embedding and that of the multi-scale baseline: grey, kNN, whole images.
    pub multi_scale_whole: Option<Comparison>,
    /// The standard error of BagSSL's accuracy in the first comparison that is due to the number of
    /// test images, in percentage points.
    pub standard_error: Option<f64>,
}

impl Headline {
    /// Computes the comparisons from the results.
    pub(super) fn new(report: &Report) -> Self {
        let patches = |model, color| report.all_patches(model, Space::Embedding, color);
        let whole = |model| report.whole(model, Space::Embedding, Color::Grey);
        let grey = patches(Method::Bagssl, Color::Grey);
        let knn = |outcome: &Outcome| outcome.knn.clone();
        let linear = |outcome: &Outcome| outcome.linear.clone();
        let histogram = report.input(Method::Histogram, Color::Rgb);
        Headline {
            random: compare(grey, patches(Method::Random, Color::Grey), knn),
            histogram: compare(patches(Method::Bagssl, Color::Rgb), histogram, linear),
            multi_scale: compare(grey, patches(Method::MultiScale, Color::Grey), knn),
            multi_scale_whole: compare(whole(Method::Bagssl), whole(Method::MultiScale), knn),
            standard_error: grey.map(|outcome| accuracy_standard_error(outcome.knn.mean, report.data.test_images)),
        }
    }

    /// Formats the headline as sentences.
    pub fn sentences(&self, report: &Report) -> Vec<String> {
        let mut sentences = vec![];
        let patches = report.all_patches(Method::Bagssl, Space::Embedding, Color::Grey).map_or(0, |it| it.patches);
        if let Some(Comparison { this, other, difference }) = &self.random {
            sentences.push(format!(
                "On grey images, nearest neighbors on the mean of {patches} patch embeddings classify {:.1} % with the \
                 trained network and {:.1} % with random weights (chance {:.1} %): a gain of {}.",
                this.mean,
                other.mean,
                report.chance,
                points(this.mean - other.mean, *difference),
            ));
        }
        if let Some(Comparison { this, other, .. }) = &self.histogram {
            let place = if this.mean > other.mean { "above" } else { "not above" };
            sentences.push(format!(
                "In color, a linear probe of the trained embedding reaches {:.1} %, {place} the {:.1} % of a color \
                 histogram.",
                this.mean, other.mean,
            ));
        }
        let against = [("averaged over patches", &self.multi_scale), ("on whole images", &self.multi_scale_whole)];
        for (how, comparison) in against {
            if let Some(Comparison { this, other, difference }) = comparison {
                sentences.push(format!(
                    "Fixed-scale patches reach {:.1} %, multi-scale crops {:.1} % (grey, nearest neighbors, {how}): \
                     {}.",
                    this.mean,
                    other.mean,
                    describe_significance(this.mean - other.mean, *difference),
                ));
            }
        }
        if let Some(health) = report.health.get(&Method::Bagssl).and_then(|spaces| spaces.get(&Space::Embedding)) {
            sentences.push(format!(
                "The trained embedding is {}: its effective rank is {:.1} of {}.",
                health.verdict.name(),
                health.effective_rank,
                health.rank_limit,
            ));
        }
        if let Some(error) = self.standard_error {
            sentences.push(format!(
                "With {} test images, the choice of images alone gives each accuracy a standard error of about \
                 {error:.1} points, and more if images are similar, such as tiles of one photograph. The intervals \
                 cover the variation over the seeds only.",
                report.data.test_images,
            ));
        }
        sentences
    }
}

fn compare(this: Option<&Outcome>, other: Option<&Outcome>, of: impl Fn(&Outcome) -> Accuracy) -> Option<Comparison> {
    let (this, other) = (of(this?), of(other?));
    // Accuracies with different numbers of values are not paired, and compared without an interval.
    let difference = paired_difference(&this.values, &other.values).ok().flatten();
    Some(Comparison { this, other, difference })
}

/// Formats a difference: "12.3 points (95 % interval over the seeds 8.1 to 16.5)".
fn points(difference: f64, interval: Option<Interval>) -> String {
    match interval {
        Some(Interval { low, high, .. }) => {
            format!("{difference:.1} points (95 % interval over the seeds {low:.1} to {high:.1})")
        }
        None => format!("{difference:.1} points (no interval: one seed)"),
    }
}

fn describe_significance(difference: f64, interval: Option<Interval>) -> String {
    let what = match interval {
        Some(Interval { low, .. }) if low > 0.0 => "better by",
        Some(Interval { high, .. }) if high < 0.0 => "worse by",
        Some(_) => "no significant difference over the seeds:",
        None => "a difference of",
    };
    format!("{what} {}", points(difference, interval))
}

impl Report {
    /// Returns the outcome with the most patches.
    pub(super) fn all_patches(&self, model: Method, space: Space, color: Color) -> Option<&Outcome> {
        self.outcomes(model, space, color, View::Patches).max_by_key(|outcome| outcome.patches)
    }

    /// Returns the outcome on whole images.
    pub(super) fn whole(&self, model: Method, space: Space, color: Color) -> Option<&Outcome> {
        self.outcomes(model, space, color, View::Whole).next()
    }

    /// Returns the outcome of a baseline without a network.
    pub(super) fn input(&self, model: Method, color: Color) -> Option<&Outcome> {
        self.results.iter().find(|it| (it.model, it.space, it.color) == (model, Space::Input, color))
    }

    /// Iterates over all outcomes of one representation.
    pub(super) fn outcomes(
        &self,
        model: Method,
        space: Space,
        color: Color,
        view: View,
    ) -> impl Iterator<Item = &Outcome> {
        let wanted = (model, space, color, view);
        self.results.iter().filter(move |it| (it.model, it.space, it.color, it.view) == wanted)
    }
}
