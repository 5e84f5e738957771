//! The interface that all claims share: analyze, store, show.

use std::process::ExitCode;

use anyhow::{Context, Result};
use bagssl_eval::report::Page;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::page::PageArgs;
use crate::terminal::progress::Progress;

/// Creates the progress bar of a checkpoint, by its name.
pub(crate) type Bars<'a> = &'a dyn Fn(&str) -> Progress;

/// A claim with its settings.
pub(crate) trait Analysis {
    /// Returns the name of the command and of the output files.
    fn name(&self) -> &'static str;

    /// Returns where the results go.
    fn output(&self) -> &PageArgs;

    /// Runs the analysis and returns the results, in the form of the JSON output.
    fn find(&self, bars: Bars<'_>) -> Result<Value>;

    /// Builds the page from the results.
    fn page(&self, found: &Value) -> Result<Page>;

    /// Returns whether the claim holds. Claims without a criterion return `true`.
    fn holds(&self, _found: &Value) -> bool {
        true
    }
}

/// Runs the analysis and shows the results. The exit code is 1 if the claim does not hold.
pub(super) fn answer(question: &dyn Analysis) -> Result<ExitCode> {
    let output = question.output();
    output.check_files(question.name())?;
    let found = question.find(&|name| output.bar(name))?;
    let (page, holds) = (question.page(&found)?, question.holds(&found));
    output.show(question.name(), page, found)?;
    Ok(if holds { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

/// Deserializes the results.
pub(super) fn read<T: DeserializeOwned>(found: &Value) -> Result<T> {
    serde_json::from_value(found.clone()).context("what was found for a claim")
}
