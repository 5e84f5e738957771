//! `bagssl eval compare`.

use anyhow::{Result, bail};
use bagssl_core::bag::Bag;
use bagssl_core::embed::FeatureLayer;
use bagssl_eval::classify::protocol::{Origin, Protocol as How};
use bagssl_eval::features::{Order, keep_common};
use bagssl_eval::report::{Block, Cells, Page};
use bagssl_eval::stats::{Interval, deviation, grouped_bootstrap, mean, paired_difference};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;

use super::{Analysis, Bars, ClaimArgs, PageArgs, Subject, analysis, on_each, with_interval};
use crate::evaluate::DRAWS;
use crate::input::bag::BagArgs;

/// Compare training methods, and measure what each gains from averaging patches
///
/// Measures the accuracy of the embedding on whole images and averaged over patches. Checkpoints of
/// the same preset count as seeds of one method. Models trained elsewhere are named after their
/// files. Each method is compared with the first one. Differences have two 95 % intervals. The
/// interval over seeds (Student's t for pairs of the same seed) requires that both methods were
/// trained with bagssl and the same seeds. The interval over test images is a cluster bootstrap
/// over groups of images, with seeds averaged.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) claim: ClaimArgs,
    #[command(flatten)]
    pub(crate) bag: BagArgs,
    /// Evaluation protocol: bagssl, solo, lightly, emp-ssl or vicreg
    #[arg(long, value_name = "NAME", default_value = "bagssl")]
    pub(crate) protocol: String,
    /// Skip the linear probes, which take most of the time
    #[arg(long)]
    pub(crate) only_knn: bool,
}

struct CompareReport {
    method: String,
    /// The training seed, if the model was trained with this program; the method is then its
    /// preset. `None` for other models.
    seed: Option<u64>,
    origin: Origin,
    patches: usize,
    /// The images of both splits that are usable in all views, training first.
    images: [Vec<u32>; 2],
    /// The groups of the test images.
    groups: Vec<u32>,
    /// For each measure, 100 for each correctly classified test image and 0 for the others.
    hits: BTreeMap<Measure, Vec<f64>>,
}

/// The classifier, and the view of an image that it classifies.
type Measure = (&'static str, &'static str);

const WHOLE: &str = "whole image";
const PATCHES: &str = "patches";

/// The complete results.
#[derive(Serialize, Deserialize)]
struct All {
    methods: Vec<Method>,
    /// The origins of the compared checkpoints, one per checkpoint.
    origins: Vec<Source>,
}

/// A checkpoint's method and origin.
#[derive(Serialize, Deserialize)]
struct Source {
    method: String,
    #[serde(flatten)]
    origin: Origin,
}

#[derive(Serialize, Deserialize)]
struct Method {
    name: String,
    seeds: usize,
    /// Patches per image: more than one value if the method's checkpoints differ in patch size.
    patches: Vec<usize>,
    measures: Vec<Measured>,
}

#[derive(Serialize, Deserialize)]
struct Measured {
    classifier: String,
    view: String,
    mean: f64,
    /// The sample standard deviation over the seeds (`n - 1`).
    deviation: f64,
    /// `None` if all test images are one group.
    over_groups: Option<Interval>,
    /// The difference from the first method.
    less_first: Option<Difference>,
    /// The patches' average minus the whole image, in the row of the patches.
    less_whole: Option<Difference>,
}

#[derive(Serialize, Deserialize)]
struct Difference {
    mean: f64,
    over_seeds: Option<Interval>,
    over_groups: Option<Interval>,
}

impl Analysis for Args {
    fn name(&self) -> &'static str {
        "compare"
    }

    fn output(&self) -> &PageArgs {
        &self.claim.page
    }

    fn find(&self, bars: Bars<'_>) -> Result<Value> {
        let how = How::preset(&self.protocol)?;
        let look = |subject: &Subject<'_>| look(subject, self.only_knn);
        let found = tell_apart(on_each(&self.claim, how, &self.bag, &[FeatureLayer::Embedding], bars, look)?);
        same_images(&self.claim.checkpoints, &found)?;
        let methods = methods(&found, self.claim.seed)?;
        let origins = found.into_iter().map(|CompareReport { method, origin, .. }| Source { method, origin }).collect();
        Ok(json!(All { methods, origins }))
    }

    fn page(&self, found: &Value) -> Result<Page> {
        Ok(page(&analysis::read(found)?, How::preset(&self.protocol)?))
    }
}

/// Checks that all checkpoints use the same images. A checkpoint with larger patches may skip more
/// images.
fn same_images(paths: &[PathBuf], found: &[CompareReport]) -> Result<()> {
    let other = paths.iter().zip(found).find(|(_, other)| other.images != found[0].images);
    let Some((path, other)) = other else { return Ok(()) };
    let count =
        |found: &CompareReport| format!("{} training and {} test images", found.images[0].len(), found.images[1].len());
    let (path, first) = (path.display(), paths[0].display());
    bail!("{path}: expected the images of {first} ({}), got others ({})", count(&found[0]), count(other))
}

/// Renames models from elsewhere that share a name with a method of this program, so that they do
/// not count as its seeds.
fn tell_apart(mut found: Vec<CompareReport>) -> Vec<CompareReport> {
    let ours: Vec<String> = found.iter().filter(|it| it.seed.is_some()).map(|it| it.method.clone()).collect();
    for other in found.iter_mut().filter(|it| it.seed.is_none() && ours.contains(&it.method)) {
        other.method += " (imported)";
    }
    found
}

fn look(subject: &Subject<'_>, only_knn: bool) -> Result<CompareReport> {
    let mut whole = subject.both(Bag::Whole, &[FeatureLayer::Embedding])?;
    let mut patches = subject.both(subject.protocol.bag, &[FeatureLayer::Embedding])?;
    // An image that is smaller than a patch has no patches, but it does have a whole-image view.
    for (whole, patches) in whole.iter_mut().zip(&mut patches) {
        keep_common([whole, patches])?;
    }
    let how = subject.protocol.how;
    let mut hits = BTreeMap::new();
    for (view, features) in [(WHOLE, &whole), (PATCHES, &patches)] {
        let samples = |half: usize| features[half][0].samples(features[half][0].patches(), Order::Given);
        let (train, test) = (samples(0)?, samples(1)?);
        hits.insert(("kNN", view), how.knn.evaluate(&train, &test)?.hits(test.labels()));
        if !only_knn {
            let linear = how.probe(&train, subject.claim.seed)?.evaluate(&train, &test)?;
            hits.insert(("linear", view), linear.hits(test.labels()));
        }
    }
    let trained = &subject.spec().provenance;
    let seed = (trained.steps > 0 && !trained.preset.is_empty()).then_some(trained.seed);
    Ok(CompareReport {
        method: if seed.is_some() { trained.preset.clone() } else { subject.name.clone() },
        seed,
        origin: subject.origin.clone(),
        patches: patches[1][0].patches(),
        images: whole.each_ref().map(|half| half[0].images().to_vec()),
        groups: subject.groups(&whole[1][0])?,
        hits,
    })
}

fn methods(found: &[CompareReport], seed: u64) -> Result<Vec<Method>> {
    let mut names: Vec<&str> = Vec::new();
    for found in found {
        if !names.contains(&found.method.as_str()) {
            names.push(&found.method);
        }
    }
    // Sort by seed, so that pairs over the seeds do not depend on the order of the files.
    let of = |name: &str| {
        let mut these: Vec<&CompareReport> = found.iter().filter(|found| found.method == name).collect();
        these.sort_by_key(|found| found.seed);
        these
    };
    let first = of(names[0]);
    let method = |name: &str| -> Result<Method> {
        let these = of(name);
        let measure = |&measure: &Measure| -> Result<Measured> {
            let seeds = accuracies(&these, measure);
            let less =
                |others: &[&CompareReport], other: Measure| difference(&these, measure, others, other, seed).map(Some);
            let (classifier, view) = measure;
            Ok(Measured {
                classifier: classifier.into(),
                view: view.into(),
                mean: mean(&seeds),
                deviation: deviation(&seeds),
                over_groups: grouped_bootstrap(&averaged(&these, measure), &these[0].groups, DRAWS, seed)?,
                less_first: if name == names[0] { None } else { less(&first, measure)? },
                less_whole: if view == PATCHES { less(&these, (classifier, WHOLE))? } else { None },
            })
        };
        let measures = these[0].hits.keys().map(measure).collect::<Result<_>>()?;
        let mut patches: Vec<usize> = these.iter().map(|found| found.patches).collect();
        patches.sort_unstable();
        patches.dedup();
        Ok(Method { name: name.into(), seeds: these.len(), patches, measures })
    };
    names.iter().map(|name| method(name)).collect()
}

fn difference(
    a: &[&CompareReport],
    of_a: Measure,
    b: &[&CompareReport],
    of_b: Measure,
    seed: u64,
) -> Result<Difference> {
    let (this, other) = (accuracies(a, of_a), accuracies(b, of_b));
    let over_seeds = if are_pairs(a, b) { paired_difference(&this, &other)? } else { None };
    let (ours, theirs) = (averaged(a, of_a), averaged(b, of_b));
    let each: Vec<f64> = ours.iter().zip(theirs).map(|(ours, theirs)| ours - theirs).collect();
    let over_groups = grouped_bootstrap(&each, &a[0].groups, DRAWS, seed)?;
    Ok(Difference { mean: mean(&this) - mean(&other), over_seeds, over_groups })
}

/// Returns whether the checkpoints, sorted by seed, form pairs of the same known seed, with each
/// seed once.
fn are_pairs(a: &[&CompareReport], b: &[&CompareReport]) -> bool {
    let is_known = a.iter().all(|found| found.seed.is_some());
    let is_once = a.windows(2).all(|pair| pair[0].seed < pair[1].seed);
    is_known && is_once && a.iter().map(|found| found.seed).eq(b.iter().map(|found| found.seed))
}

fn accuracies(found: &[&CompareReport], measure: Measure) -> Vec<f64> {
    found.iter().map(|found| mean(&found.hits[&measure])).collect()
}

/// Returns for each test image the percentage of seeds that classify it correctly.
fn averaged(found: &[&CompareReport], measure: Measure) -> Vec<f64> {
    let images = found[0].groups.len();
    (0..images)
        .map(|image| found.iter().map(|found| found.hits[&measure][image]).sum::<f64>() / found.len() as f64)
        .collect()
}

impl Method {
    /// Formats the patch counts, as in "9 patches" or "9 or 25 patches".
    fn patches(&self) -> String {
        let counts: Vec<String> = self.patches.iter().map(usize::to_string).collect();
        format!("{} patches", counts.join(" or "))
    }

    /// Returns the display name of a measure's view.
    fn view(&self, measured: &Measured) -> String {
        if measured.view == PATCHES { format!("mean of {}", self.patches()) } else { measured.view.clone() }
    }
}

fn page(All { methods, origins: sources }: &All, how: How) -> Page {
    let knn =
        |method: &'_ Method, view| method.measures.iter().position(|it| it.classifier == "kNN" && it.view == view);
    let lead = methods.iter().filter_map(|method| {
        let [whole, patches] = [WHOLE, PATCHES].map(|view| knn(method, view).map(|at| &method.measures[at]));
        let (whole, patches) = (whole?, patches?);
        let gain = patches.less_whole.as_ref()?;
        let interval = gain
            .over_groups
            .map_or(String::new(), |it| format!(" (95 % interval over test images {:+.1} to {:+.1})", it.low, it.high));
        Some(format!(
            "{}: kNN {:.1} % on whole images, {:.1} % averaged over {}: {:+.1} points{interval}.",
            method.name,
            whole.mean,
            patches.mean,
            method.patches(),
            gain.mean
        ))
    });
    let show = |difference: &Option<Difference>| -> [String; 2] {
        let Some(Difference { mean, over_seeds, over_groups }) = difference else { return ["-".into(), "-".into()] };
        let seeds = over_seeds.map_or("-".into(), |it| format!("{:+.1} to {:+.1}", it.low, it.high));
        [with_interval(*mean, *over_groups), seeds]
    };
    let words = |method: &Method, it: &Measured| [method.name.clone(), it.classifier.clone(), method.view(it)].to_vec();
    let accuracies = methods.iter().flat_map(|method| {
        method.measures.iter().map(move |it| {
            let accuracy = match method.seeds {
                1 => format!("{:.1}", it.mean),
                _ => format!("{:.1} ± {:.1}", it.mean, it.deviation),
            };
            let interval = it.over_groups.map_or("-".into(), |it| format!("{:.1} to {:.1}", it.low, it.high));
            [words(method, it), vec![method.seeds.to_string(), accuracy, interval]].concat()
        })
    });
    let differences = |of: fn(&Measured) -> &Option<Difference>| -> Vec<Vec<String>> {
        let each = methods.iter().flat_map(|method| method.measures.iter().map(move |it| (method, it)));
        let known = each.filter(|(_, it)| of(it).is_some());
        known.map(|(method, it)| [words(method, it), show(of(it)).to_vec()].concat()).collect()
    };
    let head = |more: &[&str]| -> Vec<String> {
        ["method", "classifier", "view"].iter().chain(more).map(|name| name.to_string()).collect()
    };
    let table = |caption: String, more: &[&str], rows| Cells { caption, head: head(more), rows, words: 3 };
    let of_difference = ["points (95 % over images)", "95 % over seeds"];
    let grids = vec![
        table(
            "Percent: mean and deviation over the seeds; the interval draws whole groups of test images.".into(),
            &["seeds", "accuracy", "95 % over images"],
            accuracies.collect(),
        ),
        table(
            format!(
                "Less {}. An interval that holds 0 bears out no difference; over the seeds there is one where both methods have the same.",
                methods[0].name
            ),
            &of_difference,
            differences(|it| &it.less_first),
        ),
        table("Averaged over patches less the whole image.".into(), &of_difference, differences(|it| &it.less_whole)),
    ];
    let [knn, linear] = how.describe();
    let is_probed = methods.iter().flat_map(|method| &method.measures).any(|it| it.classifier == "linear");
    let mut origins = vec![format!("kNN: {knn}")];
    origins.extend(is_probed.then(|| format!("linear: {linear}")));
    origins.extend(sources.iter().map(|source| format!("{}: {}", source.method, source.origin.line())));
    Page {
        title: "Methods side by side".into(),
        lead: lead.collect(),
        blocks: vec![Block {
            title: "Accuracy of the embedding".into(),
            text: vec![],
            grids: grids.into_iter().filter(|grid| !grid.rows.is_empty()).collect(),
            ..Block::default()
        }],
        origins,
    }
}

#[cfg(test)]
mod tests;
