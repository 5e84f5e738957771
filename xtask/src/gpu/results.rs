//! Reads the rows that `run.sh` writes to `rows.jsonl`.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_json::Value;

/// The file to read in a folder of results.
const ROWS: &str = "rows.jsonl";
/// The format version of the rows, as stated by the first line.
const FORMAT: u64 = 1;

/// A line of the file.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct Row {
    call: String,
    part: String,
    pub(super) figure: String,
    /// A number, a text, or null for NaN.
    pub(super) value: Value,
    pub(super) unit: String,
    seconds: f64,
}

/// The outcome of a part.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Outcome {
    /// `ok`, `failed`, `timed out`, `not run` or `cut off`.
    Reported(String),
    /// The part began, but there is no record of its end.
    Began,
    /// There is no record of the part.
    Missing,
}

/// A part of a call.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Part {
    pub(super) name: String,
    pub(super) outcome: Outcome,
    /// The reason why it failed or was not run.
    pub(super) detail: String,
    pub(super) seconds: f64,
    pub(super) rows: Vec<Row>,
}

/// A call of `run.sh`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Call {
    pub(super) name: String,
    /// The time, such as 2026-11-28T03:15:00Z.
    pub(super) begun: String,
    /// The planned parts.
    plan: Vec<String>,
    /// The parts in the order in which they ran, then those without a record.
    pub(super) parts: Vec<Part>,
}

/// The results of several folders: the last run of each call.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Results {
    pub(super) calls: Vec<Call>,
    /// The number of lines that could not be parsed, such as a truncated last line.
    pub(super) unread: usize,
}

impl Results {
    /// # Errors
    /// If a folder has no rows, or they were not written by `run.sh`.
    pub(super) fn read<P: AsRef<Path>>(folders: &[P]) -> Result<Results> {
        let mut results = Results::default();
        for folder in folders {
            let folder = folder.as_ref();
            let path = folder.join(ROWS);
            if !path.is_file() {
                bail!("{}: expected a results folder of run.sh, got one without {ROWS}", folder.display());
            }
            let text = fs::read(&path).with_context(|| path.display().to_string())?;
            results.add(&String::from_utf8_lossy(&text)).with_context(|| path.display().to_string())?;
        }
        Ok(results)
    }

    fn add(&mut self, text: &str) -> Result<()> {
        let first = text.lines().next().unwrap_or_default();
        let format = serde_json::from_str::<Row>(first).ok().filter(|row| row.figure == "format");
        match format.map(|row| row.value) {
            Some(Value::Number(number)) if number.as_u64() == Some(FORMAT) => {}
            Some(other) => bail!("expected rows of format {FORMAT}, got {other}"),
            None => {
                bail!("expected rows written by run.sh, got {:?}", first.chars().take(60).collect::<String>())
            }
        }
        let mut calls = Vec::new();
        for line in text.lines() {
            match serde_json::from_str::<Row>(line) {
                Ok(row) => take(&mut calls, row),
                Err(_) => self.unread += 1,
            }
        }
        for mut call in calls {
            call.add_missing();
            if !call.parts.iter().any(Part::has_run) && self.calls.iter().any(|other| other.name == call.name) {
                continue;
            }
            self.calls.retain(|other| other.name != call.name);
            self.calls.push(call);
        }
        self.calls.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(())
    }

    /// Returns the part with this name. If several calls have it, the first one that has run it is
    /// used.
    pub(super) fn part(&self, name: &str) -> Option<&Part> {
        let mut named = self.calls.iter().flat_map(|call| &call.parts).filter(|part| part.name == name);
        let ran = named.clone().find(|part| !part.rows.is_empty());
        ran.or_else(|| named.next())
    }

    /// Returns a value as a number; NaN if the program reported null.
    pub(super) fn number(&self, part: &str, figure: &str) -> Option<f64> {
        match &self.part(part)?.row(figure)?.value {
            Value::Null => Some(f64::NAN),
            value => value.as_f64(),
        }
    }
}

impl Part {
    fn new(name: &str) -> Part {
        let (detail, rows) = (String::new(), Vec::new());
        Part { name: name.into(), outcome: Outcome::Missing, detail, seconds: 0.0, rows }
    }

    pub(super) fn row(&self, figure: &str) -> Option<&Row> {
        self.rows.iter().rev().find(|row| row.figure == figure)
    }

    /// Returns the rows whose names begin with `start`.
    pub(super) fn rows_of<'a>(&'a self, start: &'a str) -> impl Iterator<Item = &'a Row> {
        self.rows.iter().filter(move |row| row.figure.starts_with(start))
    }

    fn has_run(&self) -> bool {
        self.outcome != Outcome::Missing && self.outcome != Outcome::Reported("not run".into())
    }

    pub(super) fn is_ok(&self) -> bool {
        self.outcome == Outcome::Reported("ok".into())
    }
}

impl Row {
    /// Returns the value as text.
    pub(super) fn text(&self) -> String {
        match &self.value {
            Value::String(text) => text.clone(),
            value => value.to_string(),
        }
    }
}

/// Adds a row to the call and part that it belongs to.
fn take(calls: &mut Vec<Call>, row: Row) {
    if row.figure == "format" {
        calls.push(Call { name: row.call, begun: String::new(), plan: Vec::new(), parts: Vec::new() });
        return;
    }
    let Some(call) = calls.last_mut() else { return };
    match (row.part.as_str(), row.figure.as_str()) {
        ("call", "begun") => call.begun = row.text(),
        ("call", "plan") => {
            let names = row.value.as_array().into_iter().flatten().filter_map(Value::as_str);
            call.plan = names.map(ToString::to_string).collect();
        }
        _ => call.take(row),
    }
}

impl Call {
    fn add_missing(&mut self) {
        for name in &self.plan {
            if !self.parts.iter().any(|part| part.name == *name) {
                self.parts.push(Part::new(name));
            }
        }
    }

    fn take(&mut self, row: Row) {
        if !self.parts.iter().any(|part| part.name == row.part) {
            self.parts.push(Part::new(&row.part));
        }
        let Some(part) = self.parts.iter_mut().find(|part| part.name == row.part) else { return };
        match row.figure.as_str() {
            "command" => part.outcome = Outcome::Began,
            "outcome" => {
                (part.outcome, part.seconds, part.detail) = (Outcome::Reported(row.text()), row.seconds, row.unit);
            }
            _ => part.rows.push(row),
        }
    }
}
