//! `bagssl data check`.

use std::process::ExitCode;

use anyhow::Result;
use bagssl_data::Split;
use bagssl_data::curate::{CheckReport, Classes, check};

use super::SetArgs;
use crate::terminal::output::{escaped, one_line, say};
use crate::terminal::progress::Progress;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    set: SetArgs,
    /// Decode only N evenly spaced images of each split
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    sample: Option<u32>,
    /// Print the result as JSON, without progress
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let source = args.set.source();
    let mut reports = Vec::new();
    let mut splits = vec![("train", source.read(Split::Train)?)];
    if !splits[0].1.is_unsplit() {
        splits.push(("validation", source.read(Split::Validation)?));
    }
    source.report(&splits.iter().map(|(_, dataset)| dataset).collect::<Vec<_>>());
    let classes = Classes::compare(&splits[0].1, &splits[splits.len() - 1].1);
    for (name, dataset) in &splits {
        let sample = args.sample.map(|sample| sample as usize);
        let count = sample.map_or(dataset.len(), |sample| sample.min(dataset.len()));
        let bar = Progress::images(name, count, args.json);
        let report = check(dataset, sample, &|| bar.inc(1));
        bar.finish();
        reports.push((*name, dataset.summary(), report));
    }
    let broken = reports.iter().any(|(.., report)| !report.broken.is_empty());
    if args.json {
        let mut all: serde_json::Map<_, _> = reports
            .iter()
            .map(|(name, _, report)| Ok(((*name).to_string(), serde_json::to_value(report)?)))
            .collect::<Result<_>>()?;
        all.insert("classes".into(), serde_json::to_value(&classes)?);
        say!("{}", serde_json::to_string_pretty(&all)?);
    } else {
        say!("{}", escaped(&source.name()));
        reports.iter().for_each(|(name, summary, report)| print(name, summary, report));
        if !classes.is_consistent() {
            say!("\nclasses: {}", one_line(&classes.to_string()));
        }
    }
    Ok(ExitCode::from(u8::from(broken)))
}

fn print(name: &str, summary: &str, report: &CheckReport) {
    say!("\n{name}: {summary}, {} broken", report.broken.len());
    say!("  {}; {} decoded", report.format, report.decoded);
    if !report.ignored.is_empty() {
        say!("  ignored: {}", one_line(&report.ignored.to_string()));
    }
    if let (Some(height), Some(width)) = (report.height, report.width) {
        say!("  height {} to {}, width {} to {} pixels", height.0, height.1, width.0, width.1);
    }
    if let (Some(mean), Some(std)) = (report.mean, report.std) {
        say!("  mean {mean:.4?}, deviation {std:.4?} (red, green, blue in [0, 1])");
    }
    for (class, count) in &report.classes {
        say!("  {count:>8}  {}", escaped(class));
    }
    for broken in &report.broken {
        say!("  broken    {}", escaped(broken));
    }
    let duplicates = &report.duplicates;
    for group in &duplicates.exact {
        say!("  identical {}", escaped(&group.join(", ")));
    }
    for (one, other) in &duplicates.near {
        say!("  similar   {}, {}", escaped(one), escaped(other));
    }
    if duplicates.near_count > 0 {
        say!("  {} similar pairs (difference hashes within {} of 64 bits)", duplicates.near_count, duplicates.radius);
    }
}
