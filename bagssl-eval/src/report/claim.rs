//! A claim of the paper that a run has looked at: a page as a section of the report.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::document::Section;
use super::page::Page;
use crate::error::Result;

/// A claim and what was found.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ClaimSection {
    /// The name: that of its command.
    pub name: String,
    /// The section's title.
    pub title: String,
    /// How it was looked at here: which images, patches and checkpoints, a sentence each.
    pub how: Vec<String>,
    /// The page that is shown; no part of the JSON.
    #[serde(skip)]
    pub page: Page,
    /// The same as data.
    pub data: Value,
}

impl ClaimSection {
    pub(super) fn section(&self) -> Result<Section> {
        self.page.section(&self.title, &self.how)
    }
}
