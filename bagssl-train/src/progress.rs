//! Observers of a run: a bar for people, JSON lines for programs.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use bagssl_core::batch::SourceError;
use bagssl_core::observe::{Event, Observer, Verdict};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Map, Value, json};

use crate::error::{Error, Result};
use crate::store::write_whole;

/// A progress bar with the figures of the last step.
#[derive(Debug)]
pub struct Bar {
    bar: ProgressBar,
}

impl Bar {
    /// A bar with a label in front of it, to be drawn on standard error.
    pub fn new(label: impl Into<String>) -> Self {
        Self::on(ProgressBar::new(0), label)
    }

    /// The same on a bar that exists, for instance one of several.
    pub fn on(bar: ProgressBar, label: impl Into<String>) -> Self {
        let style = ProgressStyle::with_template("{prefix} {bar:30} {pos}/{len} steps, {eta} left  {msg}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.set_prefix(label.into());
        Bar { bar }
    }
}

impl Observer for Bar {
    fn observe(&mut self, event: &Event<'_>) -> std::result::Result<Verdict, SourceError> {
        if let Event::Skipped { step, what, images } = event {
            self.bar
                .println(format!("step {step} changed nothing: {what} is not finite, from {} images", images.len()));
        }
        if let Event::Step { step, steps, epoch, figures } = event {
            if self.bar.length() != Some(*steps) {
                self.bar.set_length(*steps);
                // A resumed run does not begin at 0; the time left is that of the steps from here.
                self.bar.set_position(step.saturating_sub(1));
                self.bar.reset_eta();
            }
            self.bar.set_position(*step);
            let figures: Vec<_> = figures.iter().map(|(name, value)| format!("{name} {value:.4}")).collect();
            self.bar.set_message(format!("epoch {}  {}", epoch + 1, figures.join("  ")));
        }
        if let Event::Health { epoch, verdict, reasons, .. } = event
            && !reasons.is_empty()
        {
            self.bar.println(format!("epoch {}: {verdict}: {}", epoch + 1, reasons.join("; ")));
        }
        Ok(Verdict::Continue)
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.abandon();
    }
}

/// A file of JSON lines: one for each step, each epoch, and what is said of its health.
#[derive(Debug)]
pub struct Metrics {
    path: PathBuf,
    file: File,
}

impl Metrics {
    /// A file that is begun anew, or goes on after `resumed` steps: lines of later ones, which the run will write again,
    /// are dropped.
    ///
    /// # Errors
    /// [`Error::File`] if it cannot be read or written.
    pub fn create(path: &Path, resumed: u64) -> Result<Self> {
        let failed = |error| Error::File { path: path.into(), error };
        let mut kept = Vec::new();
        if resumed > 0 && path.exists() {
            for line in BufReader::new(File::open(path).map_err(failed)?).lines() {
                let line = line.map_err(failed)?;
                let step = serde_json::from_str::<Value>(&line).ok().and_then(|line| line["step"].as_u64());
                if step.is_some_and(|step| step <= resumed) {
                    kept.push(line);
                }
            }
        }
        let kept: String = kept.iter().map(|line| format!("{line}\n")).collect();
        write_whole(path, kept.as_bytes())?;
        let file = OpenOptions::new().append(true).open(path).map_err(failed)?;
        Ok(Metrics { path: path.into(), file })
    }
}

impl Observer for Metrics {
    fn observe(&mut self, event: &Event<'_>) -> std::result::Result<Verdict, SourceError> {
        let (mut line, figures) = match event {
            Event::Step { step, epoch, figures, .. } => {
                (json!({"event": "step", "step": step, "epoch": epoch}), figures)
            }
            Event::Skipped { step, what, images } => {
                let line = json!({"event": "skipped", "step": step, "what": what, "images": images});
                let written = self.file.write_all(format!("{line}\n").as_bytes());
                written.map_err(|error| Error::File { path: self.path.clone(), error })?;
                return Ok(Verdict::Continue);
            }
            Event::Epoch { epoch, step, figures } => (json!({"event": "epoch", "step": step, "epoch": epoch}), figures),
            Event::Health { epoch, step, verdict, figures, reasons } => {
                let line =
                    json!({"event": "health", "step": step, "epoch": epoch, "verdict": verdict, "reasons": reasons});
                (line, figures)
            }
            _ => return Ok(Verdict::Continue),
        };
        let figures: Map<String, Value> = figures.iter().map(|(name, value)| ((*name).into(), json!(value))).collect();
        line.as_object_mut().expect("made as an object").extend(figures);
        let written = self.file.write_all(format!("{line}\n").as_bytes());
        written.map_err(|error| Error::File { path: self.path.clone(), error })?;
        Ok(Verdict::Continue)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(step: u64) -> Event<'static> {
        Event::Step { step, steps: 9, epoch: 0, figures: &[("loss", 0.5)] }
    }

    #[test]
    fn health_is_written_down() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let reasons = ["all alike".to_string()];
        let figures = &[("effective_rank", 1.0)];
        let health = Event::Health { epoch: 2, step: 9, verdict: "collapsed", figures, reasons: &reasons };
        Metrics::create(&path, 0).unwrap().observe(&health).unwrap();
        let line: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        let expected = json!({
            "event": "health", "epoch": 2, "step": 9, "verdict": "collapsed", "effective_rank": 1.0, "reasons": ["all alike"],
        });
        assert_eq!(line, expected);
    }

    #[test]
    fn a_resumed_file_repeats_no_step() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let mut metrics = Metrics::create(&path, 0).unwrap();
        for done in 1..=5 {
            metrics.observe(&step(done)).unwrap();
        }
        metrics.observe(&Event::Epoch { epoch: 0, step: 5, figures: &[] }).unwrap();
        drop(metrics);
        let mut metrics = Metrics::create(&path, 3).unwrap();
        metrics.observe(&step(4)).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let steps: Vec<_> =
            text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["step"].as_u64().unwrap()).collect();
        assert_eq!(steps, [1, 2, 3, 4]);
        assert!(text.lines().next().unwrap().contains("\"loss\":0.5"));
        drop(Metrics::create(&path, 0).unwrap());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "");
    }
}
