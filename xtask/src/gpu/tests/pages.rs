//! Tests pages from handwritten results.

use std::fs;
use std::process::Command;

use serde_json::{Value, json};

use super::super::bounds::{Verdict, requirements};
use super::super::report::{bound, page};
use super::super::results::{Outcome, Results};
use super::Folder;
use crate::run::root;

fn row(part: &str, figure: &str, value: Value) -> String {
    json!({"call": "call2", "part": part, "figure": figure, "value": value, "unit": "", "seconds": 1.5}).to_string()
}

/// Returns the lines of a call in which these parts have run, with one value each.
fn call(plan: &[&str], ran: &[(&str, &str, Value)]) -> Vec<String> {
    let mut lines = vec![
        row("call", "format", json!(1)),
        row("call", "begun", json!("2026-11-28T03:15:00Z")),
        row("call", "plan", json!(plan)),
    ];
    for (part, figure, value) in ran {
        lines.extend([
            row(part, "command", json!("x")),
            row(part, figure, value.clone()),
            row(part, "outcome", json!("ok")),
        ]);
    }
    lines
}

fn read(lines: &[String]) -> anyhow::Result<Results> {
    let folder = Folder::new("page");
    fs::write(folder.join("rows.jsonl"), lines.join("\n")).unwrap();
    Results::read(&[&*folder])
}

fn verdict(results: &Results, name: &str) -> Verdict {
    requirements(results).iter().find(|requirements| requirements.metric.starts_with(name)).unwrap().verdict()
}

#[test]
fn figures_are_held_against_their_bounds() {
    let ran = |rate: f64, other: f64| {
        let rate_of = |part, rate| (part, "patches_per_second", json!(rate));
        vec![
            rate_of("bench", rate),
            ("bench", "peak_memory_bytes", json!(other)),
            ("bench", "first_step_seconds", json!(20.0 * other)),
            rate_of("torch eager", 60_000.0),
            rate_of("torch compiled", 80_000.0),
            ("torch compiled", "peak_memory_bytes", json!(1.0)),
            ("loading", "loading_ratio", json!(0.9 / other)),
            ("golden", "cuda: lowest cosine", json!(0.999 / other)),
            ("one GPU", "loss of the first step", json!(10.0)),
            ("two GPUs", "loss of the first step", json!(10.0 + 0.000_9 * other.powi(4))),
            ("check", "failed", json!(other - 1.0)),
            ("check", "complete", json!(true)),
        ]
    };
    let all = |rate, other| requirements(&read(&call(&[], &ran(rate, other))).unwrap());
    for row in all(100_000.0, 1.0) {
        assert_eq!(row.verdict(), Verdict::Met, "{row:?}");
    }
    for row in all(80_000.0, 1.4) {
        assert_eq!(row.verdict(), Verdict::Missed, "{row:?}");
    }
}

#[test]
fn bounds_agree_in_all_documents() {
    let text = |path: &str| fs::read_to_string(root().join(path)).unwrap();
    let requirements = requirements(&Results::default());
    let rows = requirements.iter().map(|row| format!("| {} | {} |\n", row.metric, bound(row.bound)));
    let table = format!("\n| figure | bound |\n|---|---|\n{}\n", rows.collect::<String>());
    assert!(text("docs/gpu/README.md").contains(&table), "docs/gpu/README.md: expected this table:\n{table}");
    let parts = text("xtask/src/gpu/parts.py");
    let of = |name: &str| bound(requirements.iter().find(|row| row.metric.starts_with(name)).unwrap().bound);
    for said in [
        format!("({} is wanted)", of("rate over PyTorch's best")),
        format!("({} is wanted)", of("peak memory")),
        format!("\"--least\", \"{}\"", of("lowest cosine").trim_start_matches("at least ")),
    ] {
        assert!(parts.contains(&said), "parts.py: expected {said}");
    }
}

/// The tables of the prediction are those that its script prints.
#[test]
fn the_prediction_is_what_its_script_computes() {
    let script = root().join("docs/gpu/prediction.py");
    let Ok(output) = Command::new("python3").arg(script).output() else {
        eprintln!("skipped: no python3 found");
        return;
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let page = fs::read_to_string(root().join("docs/gpu/prediction.md")).unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    let missing: Vec<&str> = printed.lines().filter(|line| !page.lines().any(|other| other == *line)).collect();
    assert!(page.contains(printed.trim()), "docs/gpu/prediction.md: expected these lines:\n{}", missing.join("\n"));
    let rate = printed.lines().find_map(|line| line.split_once(" patches/s.")).unwrap().0;
    let quoting = fs::read_to_string(root().join("docs/gpu/README.md")).unwrap();
    assert!(quoting.contains(&format!(" {rate} patches/s")), "docs/gpu/README.md: expected {rate} patches/s");
}

#[test]
fn unmeasured_bounds_are_not_met() {
    let results = read(&call(&["bench", "torch eager"], &[("bench", "patches_per_second", json!(90_000.0))])).unwrap();
    for row in requirements(&results) {
        let expected = if row.metric.starts_with("rate, ") { Verdict::Met } else { Verdict::NotMeasured };
        assert_eq!(row.verdict(), expected, "{row:?}");
    }
    assert_eq!(results.part("torch eager").unwrap().outcome, Outcome::Missing);
    let page = page(&results);
    assert!(page.starts_with("# A run on a GPU, 2026-11-28\n"), "{page}");
    assert!(page.contains("| call2 | torch eager | cut off before it started | 0 |"), "{page}");
    assert!(page.contains("| rate over PyTorch's best | at least 1.25 | - | not measured |"), "{page}");
    // Zero failed checks only count if the check is complete. A NaN cosine does not pass.
    let of = |failed: u32, complete: bool| {
        let rows = [("check", "failed", json!(failed)), ("check", "complete", json!(complete))];
        verdict(&read(&call(&[], &rows)).unwrap(), "checks")
    };
    assert_eq!([of(0, true), of(0, false), of(1, false)], [Verdict::Met, Verdict::NotMeasured, Verdict::Missed]);
    let nan = read(&call(&[], &[("golden", "cuda: lowest cosine", Value::Null)])).unwrap();
    assert_eq!(verdict(&nan, "lowest cosine"), Verdict::Missed);
}

#[test]
fn timed_out_part_is_reported_with_its_lines() {
    let mut lines = call(&["bench"], &[]);
    lines.push(row("bench", "command", json!("./bagssl bench train")));
    lines.push(row("bench", "error", json!("panicked at a | place")));
    let mut last: Value = serde_json::from_str(&row("bench", "outcome", json!("timed out"))).unwrap();
    last["unit"] = json!("limit 60 s");
    lines.push(last.to_string());
    let page = page(&read(&lines).unwrap());
    assert!(page.contains("| call2 | bench | timed out: limit 60 s | 1.5 |"), "{page}");
    assert!(page.contains("call2, bench (timed out: limit 60 s):\n\n```text\npanicked at a | place\n```"), "{page}");
}

#[test]
fn a_file_that_was_cut_is_read_as_far_as_it_goes() {
    let mut lines = call(&["bench"], &[("bench", "patches_per_second", json!(90_000.0))]);
    let last = lines.pop().unwrap();
    lines.push(last[..last.len() / 2].into());
    let results = read(&lines).unwrap();
    assert_eq!((results.unread, &results.part("bench").unwrap().outcome), (1, &Outcome::Began));
    let page = page(&results);
    assert!(page.contains("cut off while it ran") && page.contains("Unreadable lines in the results: 1."), "{page}");
}

#[test]
fn repeated_call_is_reported_once() {
    let one = call(&["bench"], &[("bench", "patches_per_second", json!(1.0))]);
    let two = call(&["bench"], &[("bench", "patches_per_second", json!(2.0))]);
    let results = read(&[one, two].concat()).unwrap();
    assert_eq!((results.calls.len(), results.number("bench", "patches_per_second")), (1, Some(2.0)));
}

#[test]
fn a_call_in_which_nothing_ran_replaces_none() {
    let ran = call(&["bench"], &[("bench", "patches_per_second", json!(1.0))]);
    let mut stopped = call(&["bench"], &[]);
    stopped.push(row("bench", "outcome", json!("not run")));
    let results = read(&[ran, stopped.clone()].concat()).unwrap();
    assert_eq!(results.number("bench", "patches_per_second"), Some(1.0));
    let results = read(&stopped).unwrap();
    assert_eq!(results.part("bench").unwrap().outcome, Outcome::Reported("not run".into()));
}

#[test]
fn other_folders_are_refused_in_a_line() {
    let folder = Folder::new("none");
    let error = format!("{:#}", Results::read(&[&*folder]).unwrap_err());
    assert!(error.contains("expected a results folder of run.sh, got one without rows.jsonl"), "{error}");
    for (text, expected) in [
        ("", "expected rows written by run.sh, got \"\""),
        ("{\"a\": 1}\n", "expected rows written by run.sh, got \"{"),
        (&row("call", "format", json!(2)), "expected rows of format 1, got 2"),
    ] {
        let error = format!("{:#}", read(&[text.into()]).unwrap_err());
        assert!(error.contains(expected) && !error.contains('\n'), "{error}");
    }
}
