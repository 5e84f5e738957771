//! The page of a comparison.

use bagssl_eval::Protocol;
use bagssl_eval::report::{Block, Page, TextTable};

use super::{CompareReport, Difference, MeasuredAccuracy, MethodAccuracy, PATCHES, WHOLE};
use crate::claims::wording::with_interval;

impl CompareReport {
    /// Renders the report, which was made with this protocol.
    pub fn page(&self, protocol: &Protocol) -> Page {
        let CompareReport { methods, origins } = self;
        let knn = |method: &'_ MethodAccuracy, view| {
            method.measures.iter().position(|it| it.classifier == "kNN" && it.view == view)
        };
        let lead = methods.iter().filter_map(|method| {
            let [whole, patches] = [WHOLE, PATCHES].map(|view| knn(method, view).map(|at| &method.measures[at]));
            let (whole, patches) = (whole?, patches?);
            let gain = patches.difference_from_whole.as_ref()?;
            let interval = gain.group_interval.map_or(String::new(), |it| {
                format!(" (95 % interval over test images {:+.1} to {:+.1})", it.low, it.high)
            });
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
            let Some(Difference { mean, seed_interval, group_interval }) = difference else {
                return ["-".into(), "-".into()];
            };
            let seeds = seed_interval.map_or("-".into(), |it| format!("{:+.1} to {:+.1}", it.low, it.high));
            [with_interval(*mean, *group_interval), seeds]
        };
        let words = |method: &MethodAccuracy, it: &MeasuredAccuracy| {
            [method.name.clone(), it.classifier.clone(), method.view(it)].to_vec()
        };
        let accuracies = methods.iter().flat_map(|method| {
            method.measures.iter().map(move |it| {
                let accuracy = match method.seeds {
                    1 => format!("{:.1}", it.mean),
                    _ => format!("{:.1} ± {:.1}", it.mean, it.deviation),
                };
                let interval = it.group_interval.map_or("-".into(), |it| format!("{:.1} to {:.1}", it.low, it.high));
                [words(method, it), vec![method.seeds.to_string(), accuracy, interval]].concat()
            })
        });
        let differences = |of: fn(&MeasuredAccuracy) -> &Option<Difference>| -> Vec<Vec<String>> {
            let each = methods.iter().flat_map(|method| method.measures.iter().map(move |it| (method, it)));
            let known = each.filter(|(_, it)| of(it).is_some());
            known.map(|(method, it)| [words(method, it), show(of(it)).to_vec()].concat()).collect()
        };
        let head = |more: &[&str]| -> Vec<String> {
            ["method", "classifier", "view"].iter().chain(more).map(|name| name.to_string()).collect()
        };
        let table =
            |caption: String, more: &[&str], rows| TextTable { caption, head: head(more), rows, text_columns: 3 };
        let of_difference = ["points (95 % over images)", "95 % over seeds"];
        let tables = vec![
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
                differences(|it| &it.difference_from_first),
            ),
            table(
                "Averaged over patches less the whole image.".into(),
                &of_difference,
                differences(|it| &it.difference_from_whole),
            ),
        ];
        let [knn, linear] = protocol.describe();
        let is_probed = methods.iter().flat_map(|method| &method.measures).any(|it| it.classifier == "linear");
        let mut sources = vec![format!("kNN: {knn}")];
        sources.extend(is_probed.then(|| format!("linear: {linear}")));
        sources.extend(origins.iter().map(|source| format!("{}: {}", source.method, source.origin.line())));
        Page {
            title: "Methods side by side".into(),
            lead: lead.collect(),
            blocks: vec![Block {
                title: "Accuracy of the embedding".into(),
                text: vec![],
                tables: tables.into_iter().filter(|grid| !grid.rows.is_empty()).collect(),
                ..Block::default()
            }],
            origins: sources,
        }
    }
}

impl MethodAccuracy {
    /// Formats the patch counts, as in "9 patches" or "9 or 25 patches".
    fn patches(&self) -> String {
        let counts: Vec<String> = self.patches.iter().map(usize::to_string).collect();
        format!("{} patches", counts.join(" or "))
    }

    /// Returns the display name of a measure's view.
    fn view(&self, measured: &MeasuredAccuracy) -> String {
        if measured.view == PATCHES { format!("mean of {}", self.patches()) } else { measured.view.clone() }
    }
}
