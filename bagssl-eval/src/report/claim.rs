//! A claim of the paper that a run has checked: a page as a section of the report.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::document::Section;
use super::page::Page;
use crate::error::Result;

/// A claim and the results of checking it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ClaimSection {
    /// The name, which is that of its command.
    pub name: String,
    /// The section's title.
    pub title: String,
    /// The method: which images, patches and checkpoints were used, one sentence each.
    #[serde(rename = "how")]
    pub setup: Vec<String>,
    /// The page with the results; not part of the JSON.
    #[serde(skip)]
    pub page: Page,
    /// The results as data.
    pub data: Value,
}

impl ClaimSection {
    pub(super) fn section(&self) -> Result<Section> {
        self.page.section(&self.title, &self.setup)
    }
}
