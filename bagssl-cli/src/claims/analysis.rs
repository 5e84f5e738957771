//! What is common to all claims: how each is looked at, kept and shown.

use std::process::ExitCode;

use anyhow::{Context, Result};
use bagssl_eval::report::Page;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::page::PageArgs;
use crate::terminal::progress::Progress;

/// Makes the bar of a checkpoint, by its name.
pub(crate) type Bars<'a> = &'a dyn Fn(&str) -> Progress;

/// A claim with all that it is to be looked at by.
pub(crate) trait Analysis {
    /// The name: of the command, and of the files that it writes.
    fn name(&self) -> &'static str;

    /// Where the answer goes.
    fn output(&self) -> &PageArgs;

    /// Looks. What is found is also what a program reads.
    fn find(&self, bars: Bars<'_>) -> Result<Value>;

    /// The page of what was found.
    fn page(&self, found: &Value) -> Result<Page>;

    /// Whether the claim holds, if that can be said.
    fn holds(&self, _found: &Value) -> bool {
        true
    }
}

/// Looks, and shows what was found.
pub(super) fn answer(question: &dyn Analysis) -> Result<ExitCode> {
    let output = question.output();
    output.check_files(question.name())?;
    let found = question.find(&|name| output.bar(name))?;
    let (page, holds) = (question.page(&found)?, question.holds(&found));
    output.show(question.name(), page, found)?;
    Ok(if holds { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

/// What was found, as its own type.
pub(super) fn read<T: DeserializeOwned>(found: &Value) -> Result<T> {
    serde_json::from_value(found.clone()).context("what was found for a claim")
}
