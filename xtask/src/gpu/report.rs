//! `cargo xtask gpu report`: writes a page from the results of `run.sh`.

use std::collections::HashSet;
use std::fmt::Write;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use super::bounds::{self, BAGSSL, Bound, FIRST_STEP, MEMORY, RATE, Requirement, TORCH, Verdict};
use super::results::{Outcome, Part, Results, Row};
use crate::run::root;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Folders written by ./run.sh; a call that is in several is taken from the last
    #[arg(required = true, value_name = "RESULTS")]
    results: Vec<PathBuf>,
    /// The page [default: docs/gpu/DATE.md]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

pub(super) fn run(args: &Args) -> Result<ExitCode> {
    let results = Results::read(&args.results)?;
    let page = page(&results);
    let out = args.out.clone().unwrap_or_else(|| root().join(format!("docs/gpu/{}.md", date(&results))));
    if out.exists() {
        bail!("{}: expected no file, got one; choose another --out", out.display());
    }
    fs::write(&out, page).with_context(|| out.display().to_string())?;
    println!("{}", out.display());
    Ok(ExitCode::SUCCESS)
}

/// Returns the date of the first call.
fn date(results: &Results) -> String {
    let begun = results.calls.iter().map(|call| call.begun.get(..10).unwrap_or_default());
    begun.filter(|date| !date.is_empty()).min().unwrap_or("undated").into()
}

/// Returns the complete page as Markdown.
pub(super) fn page(results: &Results) -> String {
    let text = |part: &str, figure: &str| Some(results.part(part)?.row(figure)?.text());
    let gpu = text("environment", "GPU").unwrap_or_default();
    let gpu = gpu.split(',').next().filter(|name| !name.is_empty()).unwrap_or("a GPU");
    let mut page = format!("# A run on {gpu}, {}\n", date(results));
    let sections = [
        machine(results),
        requirements(results),
        compare_with_torch(results),
        parts(results),
        figures(results),
        failed(results),
    ];
    for section in sections.iter().filter(|section| !section.is_empty()) {
        page.push('\n');
        page.push_str(section);
    }
    if results.unread > 0 {
        let _ = writeln!(page, "\nUnreadable lines in the results: {}.", results.unread);
    }
    page
}

/// Formats a Markdown table with a heading, columns and rows. Returns an empty string without rows.
fn table(heading: &str, columns: &[&str], rows: &[Vec<String>]) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let escaped = |cell: &String| cell.replace('|', "\\|").replace('\n', " ");
    let rows = rows.iter().map(|row| line(&row.iter().map(escaped).collect::<Vec<_>>()));
    let columns: Vec<String> = columns.iter().map(ToString::to_string).collect();
    let rule = format!("|{}\n", "---|".repeat(columns.len()));
    format!("## {heading}\n\n{}{rule}{}", line(&columns), rows.collect::<String>())
}

fn machine(results: &Results) -> String {
    let names = [
        "GPU",
        "driver's CUDA",
        "kernel",
        "glibc",
        "cores",
        "Python",
        "torch",
        "triton",
        "nvidia-cudnn",
        "nvidia-cublas",
    ];
    let environment = results.part("environment");
    let rows = environment.into_iter().flat_map(|part| names.iter().flat_map(|name| part.rows_of(name)));
    let rows = rows.filter(|row| row.figure != "GPU busy with");
    let mut rows: Vec<_> = rows.map(|row| vec![row.figure.clone(), row.text()]).collect();
    // Uses the first successful search, or the last one if all failed.
    let doctors = ["doctor", "doctor with pip's folders"].map(|name| results.part(name));
    let doctor = doctors.iter().flatten().find(|part| part.is_ok()).or(doctors.iter().flatten().last());
    let found = doctor.into_iter().flat_map(|part| part.rows.iter()).filter(|row| row.figure != "error");
    rows.extend(found.map(|row| vec![format!("bagssl: {}", row.figure), row.text()]));
    table("The machine", &["what", "found"], &rows)
}

/// A bound in words.
pub(super) fn bound(bound: Bound) -> String {
    match bound {
        Bound::AtLeast(least) => format!("at least {}", number(least)),
        Bound::AtMost(most) => format!("at most {}", number(most)),
    }
}

fn requirements(results: &Results) -> String {
    let row = |requirements: &Requirement| {
        let verdict = match requirements.verdict() {
            Verdict::Met => "met",
            Verdict::Missed => "**missed**",
            Verdict::NotMeasured => "not measured",
        };
        vec![
            requirements.metric.into(),
            bound(requirements.bound),
            requirements.found.map_or("-".into(), number),
            verdict.into(),
        ]
    };
    let rows: Vec<_> = bounds::requirements(results).iter().map(row).collect();
    let table = table("Bounds", &["figure", "bound", "measured", ""], &rows);
    format!(
        "{table}\nRates, first step and memory are those of ResNet-18, 32x32 patches, batch 2048, VICReg and AdamW.\n"
    )
}

/// Compares the runs of call2, which ran one after the other on the same machine.
fn compare_with_torch(results: &Results) -> String {
    let best = bounds::best(results).and_then(|part| results.number(part, RATE));
    let row = |part: &&str| {
        let rate = results.number(part, RATE)?;
        let [first, memory] = [FIRST_STEP, MEMORY].map(|figure| results.number(part, figure));
        let shown = |value: Option<f64>| value.map_or("-".into(), number);
        let name = part.replace("torch", "PyTorch").replace("bench", "bagssl");
        let over = best.map(|best| rate / best);
        Some(vec![name, number(rate), shown(over), shown(first), shown(memory.map(|bytes| bytes / f64::from(1 << 20)))])
    };
    let rows: Vec<_> = BAGSSL.iter().chain(&TORCH).filter_map(row).collect();
    table(
        "Comparison with PyTorch",
        &["", "patches/s", "over PyTorch's best", "first step, s", "peak memory, MiB"],
        &rows,
    )
}

fn parts(results: &Results) -> String {
    let row = |call: &str, part: &Part| vec![call.into(), part.name.clone(), outcome_text(part), number(part.seconds)];
    let rows: Vec<_> =
        results.calls.iter().flat_map(|call| call.parts.iter().map(move |part| row(&call.name, part))).collect();
    table("The parts", &["call", "part", "outcome", "s"], &rows)
}

fn outcome_text(part: &Part) -> String {
    match &part.outcome {
        Outcome::Reported(outcome) if part.detail.is_empty() => outcome.clone(),
        Outcome::Reported(outcome) => format!("{outcome}: {}", part.detail),
        Outcome::Began => "cut off while it ran".into(),
        Outcome::Missing => "cut off before it started".into(),
    }
}

/// Returns the other measurements: totals of the check, a step's kernels, the training and its
/// accuracies.
fn figures(results: &Results) -> String {
    let of = |part: &str, start: &str, most: usize| -> Vec<Vec<String>> {
        let rows = results.part(part).into_iter().flat_map(|part| part.rows_of(start)).take(most);
        rows.map(|row: &Row| {
            vec![part.into(), row.figure.clone(), format!("{} {}", shown(row), row.unit).trim_end().into()]
        })
        .collect()
    };
    let chosen = [
        ("check", "sums", 40),
        ("golden", "", 12),
        ("loading", "loading", 2),
        ("train", "steps", 1),
        ("train", "seconds", 1),
        ("train", "loss", 2),
        ("eval", "knn", 8),
        ("eval", "linear", 8),
        ("ncu", "", 32),
        ("profile", "line", 120),
    ];
    let rows: Vec<_> = chosen.iter().flat_map(|(part, start, most)| of(part, start, *most)).collect();
    let rows: Vec<_> = rows.into_iter().filter(|row| row[1] != "error").collect();
    table("Other figures", &["part", "figure", "value"], &rows)
}

fn shown(row: &Row) -> String {
    let words = |text: String| text.split_whitespace().collect::<Vec<_>>().join(" ");
    row.value.as_f64().map_or_else(|| words(row.text()), number)
}

/// Returns the error lines.
fn failed(results: &Results) -> String {
    let mut text = String::new();
    for call in &results.calls {
        for part in &call.parts {
            let mut lines: Vec<_> = part.rows_of("error").chain(part.rows_of("check failed")).map(Row::text).collect();
            let mut seen = HashSet::new();
            lines.retain(|line| seen.insert(line.clone()));
            if !lines.is_empty() {
                let fenced = lines.join("\n").replace("```", "'''");
                let _ = write!(
                    text,
                    "\n{}, {} ({}):\n\n```text\n{fenced}\n```\n",
                    call.name,
                    part.name,
                    outcome_text(part)
                );
            }
        }
    }
    if text.is_empty() { text } else { format!("## What failed\n{text}") }
}

/// Formats a number with its significant digits.
fn number(value: f64) -> String {
    match value.abs() {
        size if value.fract() == 0.0 && size < 1e15 => format!("{value}"),
        size if size >= 1000.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1e-3 => format!("{value:.4}").trim_end_matches('0').into(),
        _ => format!("{value:.1e}"),
    }
}
