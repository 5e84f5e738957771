//! Output of a claim's results: to the terminal, as JSON, or to a folder of pages.

use std::path::PathBuf;

use anyhow::{Result, bail};
use bagssl_eval::report::{Machine, Page};
use serde::Serialize;

use crate::input::files::{self, Output};
use crate::provenance;
use crate::terminal::output::say;
use crate::terminal::progress::Progress;

/// Where the results go.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct PageArgs {
    /// Print the result as JSON, without progress
    #[arg(long)]
    pub(crate) json: bool,
    /// Also write the results to this folder, as CLAIM.html, .md, .json and .csv (data of the
    /// plots)
    #[arg(long, value_name = "DIR")]
    report: Option<PathBuf>,
    /// Overwrite existing files
    #[arg(long, requires = "report")]
    force: bool,
}

impl PageArgs {
    /// Returns whether the results go anywhere besides the terminal.
    pub(crate) fn is_written(&self) -> bool {
        self.json || self.report.is_some()
    }

    /// Returns a progress bar over images. It is hidden with `--json`.
    pub(crate) fn bar(&self, name: &str) -> Progress {
        Progress::images(name, 0, self.json)
    }

    /// Checks, before the work begins, that `--report` names a folder or a path that does not
    /// exist.
    pub(crate) fn check(&self) -> Result<()> {
        if let Some(folder) = self.report.as_ref().filter(|folder| folder.exists() && !folder.is_dir()) {
            bail!("--report: expected a folder, got {}", folder.display());
        }
        Ok(())
    }

    /// Checks, before the work begins, that no output file exists, unless `--force` is set.
    pub(crate) fn check_files(&self, claim: &str) -> Result<()> {
        self.check()?;
        if let Some(folder) = &self.report.as_ref().filter(|folder| folder.is_dir() && !self.force) {
            for ending in ENDINGS {
                let path = folder.join(format!("{claim}.{ending}"));
                if path.symlink_metadata().is_ok() {
                    bail!("{}: already exists; --force replaces it", path.display());
                }
            }
        }
        Ok(())
    }

    /// Prints the results, and writes them to the report folder if there is one.
    pub(crate) fn show(&self, claim: &str, mut page: Page, report: &impl Serialize) -> Result<()> {
        let mut data = serde_json::to_value(report)?;
        let machine = Machine::here();
        let command = provenance::command();
        let how = format!("{} {}, {} cores: {command}", provenance::date(), machine.cpu, machine.cores);
        data["command"] = command.into();
        let json = serde_json::to_string_pretty(&data)? + "\n";
        if self.json {
            crate::terminal::output::write(format_args!("{json}"));
        } else {
            say!("{}", page.text().trim_end());
        }
        let Some(folder) = &self.report else { return Ok(()) };
        files::make_folder(folder)?;
        page.origins.push(how);
        let texts = [page.html()?, page.markdown(), json, page.csv()];
        let paths = ENDINGS.map(|ending| folder.join(format!("{claim}.{ending}")));
        let mut outputs = Vec::new();
        for (path, text) in paths.iter().zip(&texts) {
            outputs.push((Output::new(path, self.force, &[])?, text.as_bytes()));
        }
        let outputs: [_; ENDINGS.len()] = outputs.try_into().expect("a file for each ending");
        files::write_together(outputs)?;
        if !self.json {
            say!("written: {}", paths[0].display());
        }
        Ok(())
    }
}

const ENDINGS: [&str; 4] = ["html", "md", "json", "csv"];
