//! The report of a run, as JSON, Markdown, HTML and CSV.

// Circle: `Report` is defined here, and its headline and tables are files of their own.

mod markup;
mod outcome;
mod provenance;
mod headline;
mod document;
mod results;
mod training;
mod gallery;
mod block;
mod page;
mod claim;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bagssl_files::write_atomic;
use serde::{Deserialize, Serialize};

pub use block::{Block, LinePlot, PatchSheet, PlotLine, TextTable};
pub use claim::ClaimSection;
pub use headline::{Comparison, Headline};
pub use markup::picture::{BagSheet, Sheet, SheetRow, Thumbnail, Tile};
pub use markup::scatter::{Point, Scatter};
pub use outcome::{Accuracy, Convergence, Curve, CurvePoint, Method, Outcome, Space, View};
pub use page::Page;
pub use provenance::{Data, Machine, Note, Provenance};

use crate::analysis::Health;
use crate::error::{Error, Result};
use document::Section;
use markup::csv;
use markup::escape::escape_markdown;

/// The results of a run. The fields are those of `report.json`, which also has the [`Headline`]
/// under `headline`. Pixels are not part of the JSON.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The profile's name.
    pub profile: String,
    /// The seeds. Each [`Accuracy`] has its values in this order.
    pub seeds: Vec<u64>,
    /// The accuracy of guessing, in percent.
    pub chance: f64,
    /// The total run time in seconds.
    pub total_seconds: f64,
    /// The accuracies of all representations.
    pub results: Vec<Outcome>,
    /// The similarity of the mean of patches to the whole image.
    pub convergence: Vec<Convergence>,
    /// The health of the features, by model and space.
    pub health: BTreeMap<Method, BTreeMap<Space, Health>>,
    /// The training curves, one per model and seed.
    pub curves: Vec<Curve>,
    /// The training and test data.
    pub data: Data,
    /// The steps of the evaluation.
    pub protocol: Vec<Note>,
    /// The provenance of the run.
    pub provenance: Provenance,
    /// Some training images, with class names as in `data`.
    pub tiles: Vec<Tile>,
    /// Some images with their patches.
    pub bags: Vec<BagSheet>,
    /// The nearest neighbors of some patches.
    pub sheets: Vec<Sheet>,
    /// The paper's claims that were checked, one section each.
    #[serde(default)]
    pub claims: Vec<ClaimSection>,
}

impl Report {
    /// Returns the main comparisons of the run.
    pub fn headline(&self) -> Headline {
        Headline::new(self)
    }

    /// Returns the report as JSON.
    pub fn json(&self) -> String {
        #[derive(Serialize)]
        struct Whole<'a> {
            #[serde(flatten)]
            report: &'a Report,
            headline: Headline,
        }
        let whole = Whole { report: self, headline: self.headline() };
        serde_json::to_string_pretty(&whole).expect("names are strings, and nothing else can fail") + "\n"
    }

    /// Returns the report as Markdown, without plots and pictures.
    ///
    /// # Errors
    /// [`Error::Thumbnail`] if a picture cannot be encoded.
    pub fn markdown(&self) -> Result<String> {
        let lead: String = self.lead().iter().map(|sentence| format!("{}\n\n", escape_markdown(sentence))).collect();
        let sections: String = self.sections()?.iter().map(Section::markdown).collect();
        let note = "Plots and pictures are in report.html.";
        Ok(format!("# {}\n\n{lead}{note}\n\n{}\n", escape_markdown(&self.title()), sections.trim_end()))
    }

    /// Returns the report as one self-contained HTML file.
    ///
    /// # Errors
    /// [`Error::Thumbnail`] if a picture cannot be encoded.
    pub fn html(&self) -> Result<String> {
        Ok(document::page(&self.title(), &self.lead(), &self.sections()?))
    }

    /// The files that [`Report::write`] writes.
    pub const FILES: [&str; 7] =
        ["report.json", "report.md", "report.html", "results.csv", "convergence.csv", "curves.csv", "claims.csv"];

    /// Writes `report.json`, `report.md`, `report.html` and the plots' data (`results.csv`,
    /// `convergence.csv`, `curves.csv`, `claims.csv`) to an existing folder. Each file is written
    /// atomically and replaces an older one. Returns the paths of the files.
    ///
    /// # Errors
    /// [`Error::Write`] if a file cannot be written, and
    /// [`Error::Thumbnail`] if a picture cannot be encoded.
    pub fn write(&self, folder: &Path) -> Result<Vec<PathBuf>> {
        let texts = [
            self.json(),
            self.markdown()?,
            self.html()?,
            csv::results(self),
            csv::convergence(self),
            csv::curves(self),
            csv::claims(self),
        ];
        let written = Self::FILES.into_iter().zip(texts).map(|(name, text)| {
            let path = folder.join(name);
            write_atomic(&path, text.as_bytes()).map_err(|source| Error::Write { path: path.clone(), source })?;
            Ok(path)
        });
        written.collect()
    }

    fn title(&self) -> String {
        format!("BagSSL on {}", self.data.name)
    }

    /// The first paragraphs: the main results in numbers.
    fn lead(&self) -> Vec<String> {
        self.headline().sentences(self)
    }

    fn sections(&self) -> Result<Vec<Section>> {
        let mut sections = vec![
            gallery::bags(self)?,
            gallery::neighbors(self)?,
            results::accuracy(self),
            results::patches(self),
            results::convergence(self),
        ];
        for claim in &self.claims {
            sections.push(claim.section()?);
        }
        sections.extend([
            training::curves(self),
            training::health(self),
            gallery::data(self)?,
            provenance::protocol(self),
            provenance::provenance(self),
        ]);
        Ok(sections.into_iter().filter(|section| !section.is_empty()).collect())
    }
}
