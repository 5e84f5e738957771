//! The interface that all claims share: analyze, show. Only stages of `reproduce` store results, as
//! JSON.

use std::process::ExitCode;

use anyhow::{Context, Result};
use bagssl_eval::report::Page;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::page::PageArgs;
use crate::terminal::progress::Progress;

/// Creates the progress bar of a checkpoint, by its name.
pub(crate) type Bars<'a> = &'a dyn Fn(&str) -> Progress;

/// A claim with its settings.
pub(crate) trait Analysis {
    /// The results. Serialized, they are the JSON output.
    type Report: Serialize + DeserializeOwned;

    /// Returns the name of the command and of the output files.
    fn name(&self) -> &'static str;

    /// Returns where the results go.
    fn output(&self) -> &PageArgs;

    /// Runs the analysis.
    fn analyze(&self, bars: Bars<'_>) -> Result<Self::Report>;

    /// Builds the page from the results.
    fn page(&self, report: &Self::Report) -> Result<Page>;

    /// Returns whether the claim holds. Claims without a criterion return `true`.
    fn holds(&self, _report: &Self::Report) -> bool {
        true
    }
}

/// Runs the analysis and shows the results. The exit code is 1 if the claim does not hold.
pub(super) fn run_analysis(analysis: &impl Analysis) -> Result<ExitCode> {
    let output = analysis.output();
    output.check_files(analysis.name())?;
    let report = analysis.analyze(&|name| output.bar(name))?;
    let (page, holds) = (analysis.page(&report)?, analysis.holds(&report));
    output.show(analysis.name(), page, &report)?;
    Ok(if holds { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

/// A claim of any kind, whose results are stored as JSON.
pub(crate) trait StoredAnalysis {
    /// Returns the name of the claim.
    fn name(&self) -> &'static str;

    /// Runs the analysis and returns the results.
    fn analyze(&self, bars: Bars<'_>) -> Result<Value>;

    /// Builds the page from stored results.
    fn page(&self, stored: &Value) -> Result<Page>;
}

impl<A: Analysis> StoredAnalysis for A {
    fn name(&self) -> &'static str {
        Analysis::name(self)
    }

    fn analyze(&self, bars: Bars<'_>) -> Result<Value> {
        Ok(serde_json::to_value(Analysis::analyze(self, bars)?)?)
    }

    fn page(&self, stored: &Value) -> Result<Page> {
        let report = serde_json::from_value(stored.clone()).context("what was found for a claim")?;
        Analysis::page(self, &report)
    }
}
