//! The provenance of the numbers: data, protocols, machine.

use std::thread::available_parallelism;

use serde::{Deserialize, Serialize};

use super::Report;
use super::document::{Part, Section, Table};

/// The provenance of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provenance {
    /// The version of the program.
    pub version: String,
    /// The date and time when the run ended, in ISO 8601.
    pub date: String,
    /// The command line.
    pub command: String,
    /// The machine.
    pub machine: Machine,
    /// The backend for training and embedding.
    pub backend: String,
}

/// The machine of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// The name of the processor, or "unknown" if the system does not report it.
    pub cpu: String,
    /// The number of cores that the process may use.
    pub cores: usize,
}

impl Machine {
    /// Returns the current machine.
    pub fn here() -> Self {
        let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let name = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
        Machine {
            cpu: name.map_or("unknown".into(), |(_, name)| name.trim().into()),
            cores: available_parallelism().map_or(1, usize::from),
        }
    }
}

/// The training and test data.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Data {
    /// The data set's name.
    pub name: String,
    /// The fingerprint of the data set.
    pub fingerprint: String,
    /// The number of training images.
    pub train_images: usize,
    /// The number of test images.
    pub test_images: usize,
    /// The class names, in the order of their labels.
    pub classes: Vec<String>,
    /// The authors and licenses of the images, one line each.
    pub attribution: Vec<String>,
}

/// One step of the protocol.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// The name of the step, such as "training patches" or "kNN".
    pub name: String,
    /// A description in one sentence.
    pub text: String,
}

pub(super) fn protocol(report: &Report) -> Section {
    let rows: Vec<Vec<String>> =
        report.protocol.iter().map(|note| vec![note.name.clone(), note.text.clone()]).collect();
    let head = ["step", "how"].map(String::from).to_vec();
    let caption = "The recipes are this project's own unless a source is named.".into();
    let parts =
        if rows.is_empty() { vec![] } else { vec![Part::Table(Table { caption, head, rows, text_columns: 2 })] };
    Section { title: "Protocol".into(), text: vec![], parts }
}

pub(super) fn provenance(report: &Report) -> Section {
    let Provenance { version, date, command, machine, backend } = &report.provenance;
    let seeds: Vec<String> = report.seeds.iter().map(u64::to_string).collect();
    let time = format!("{:.0} s in total", report.total_seconds);
    let rows = [
        ("profile", report.profile.clone()),
        ("seeds", seeds.join(", ")),
        ("time", time),
        ("command", command.clone()),
        ("version", version.clone()),
        ("date", date.clone()),
        ("machine", format!("{}, {} cores", machine.cpu, machine.cores)),
        ("backend", backend.clone()),
        ("data", format!("{} ({})", report.data.name, report.data.fingerprint)),
    ];
    let rows = rows.into_iter().map(|(name, value)| vec![name.to_string(), value]).collect();
    let head = ["", ""].map(String::from).to_vec();
    let table = Table { caption: "Settings for reproducing this run.".into(), head, rows, text_columns: 2 };
    let mut parts = vec![Part::Table(table)];
    if !report.data.attribution.is_empty() {
        parts.push(Part::LinePlot(report.data.attribution.clone()));
    }
    Section { title: "Provenance and attribution".into(), text: vec![], parts }
}
