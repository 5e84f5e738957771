//! The metrics log of a run, as JSON lines.

pub(crate) mod step;
pub mod tensorboard;

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use bagssl_core::batch::SourceError;
use bagssl_core::observe::{Event, Observer, Verdict};
use bagssl_files::{check_regular, write_atomic};
use serde_json::{Map, Value, json};

use crate::error::{Error, Result};

/// A log of JSON lines: one for each step, epoch, health report and changed setting.
pub struct Metrics {
    path: PathBuf,
    file: File,
    /// The size of the file in bytes.
    length: u64,
    warn: Warn,
}

/// A callback for warnings about lost lines.
pub type Warn = Box<dyn FnMut(&str) + Send>;

impl Metrics {
    /// Creates the log, or continues one after `resumed` steps. Lines of later steps are dropped,
    /// since the run will write them again. Calls `warn` if lines of earlier steps are missing, now
    /// or during the run.
    ///
    /// # Errors
    /// [`Error::File`] if the file cannot be read or written.
    pub fn create(path: &Path, resumed: u64, mut warn: Warn) -> Result<Self> {
        let failed = |error| Error::File { path: path.into(), error };
        check_regular(path).map_err(failed)?;
        let before = match fs::read(path) {
            _ if resumed == 0 => Vec::new(),
            Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
            read => read.map_err(failed)?,
        };
        let (mut complete, mut steps) = (Vec::with_capacity(before.len()), 0);
        for line in before.split_inclusive(|&byte| byte == b'\n') {
            let Some(event) = read(line, resumed) else { continue };
            steps += u64::from(event == "step" || event == "skipped");
            complete.extend(line);
        }
        if steps < resumed {
            warn(&format!("{}: lines of {} of {resumed} steps are missing", path.display(), resumed - steps));
        }
        write_atomic(path, &complete).map_err(failed)?;
        let file = OpenOptions::new().append(true).open(path).map_err(failed)?;
        Ok(Metrics { path: path.into(), file, length: complete.len() as u64, warn })
    }

    fn write(&mut self, line: &Value) -> io::Result<()> {
        let line = format!("{line}\n");
        self.file.write_all(line.as_bytes())?;
        self.length += line.len() as u64;
        Ok(())
    }

    /// Syncs the file to disk. Reopens it, or creates it again, if it was removed or truncated.
    fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data()?;
        if self.is_there() {
            return Ok(());
        }
        (self.warn)(&format!("{}: removed or truncated during the run; lines are missing", self.path.display()));
        self.file = OpenOptions::new().append(true).create(true).open(&self.path)?;
        self.length = self.file.metadata()?.len();
        Ok(())
    }

    /// Whether the file still exists at its path with all lines.
    fn is_there(&self) -> bool {
        let (Ok(own), Ok(there)) = (self.file.metadata(), fs::metadata(&self.path)) else { return false };
        #[cfg(unix)]
        let is_same = {
            use std::os::unix::fs::MetadataExt;
            (own.dev(), own.ino()) == (there.dev(), there.ino())
        };
        #[cfg(not(unix))]
        let is_same = own.len() == there.len();
        is_same && there.len() >= self.length
    }
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Metrics").field("path", &self.path).finish_non_exhaustive()
    }
}

/// Returns the event type of a line, if the line is complete and belongs to the first `resumed`
/// steps. (Settings changed after the last of them are logged again.)
fn read(line: &[u8], resumed: u64) -> Option<String> {
    let line: Value = serde_json::from_slice(line.strip_suffix(b"\n")?).ok()?;
    let (event, step) = (line["event"].as_str()?, line["step"].as_u64()?);
    let is_kept = if event == "changed" { step < resumed } else { step <= resumed };
    is_kept.then(|| event.to_string())
}

impl Observer for Metrics {
    fn observe(&mut self, event: &Event<'_>) -> std::result::Result<Verdict, SourceError> {
        let (mut line, metrics): (_, &[(&str, f64)]) = match *event {
            Event::Step { step, epoch, metrics, .. } => {
                (json!({"event": "step", "step": step, "epoch": epoch}), metrics)
            }
            Event::Skipped { step, value, images } => {
                (json!({"event": "skipped", "step": step, "what": value, "images": images}), &[])
            }
            Event::Epoch { epoch, step, metrics } => (json!({"event": "epoch", "step": step, "epoch": epoch}), metrics),
            Event::Health { epoch, step, verdict, metrics, reasons } => {
                let line =
                    json!({"event": "health", "step": step, "epoch": epoch, "verdict": verdict, "reasons": reasons});
                (line, metrics)
            }
            Event::Changed { step, setting, from, to } => {
                (json!({"event": "changed", "step": step, "setting": setting, "from": from, "to": to}), &[])
            }
            Event::Saving { .. } => {
                self.sync().map_err(|error| Error::File { path: self.path.clone(), error })?;
                return Ok(Verdict::Continue);
            }
            _ => return Ok(Verdict::Continue),
        };
        let metrics: Map<String, Value> = metrics.iter().map(|(name, value)| ((*name).into(), json!(value))).collect();
        line.as_object_mut().expect("made as an object").extend(metrics);
        self.write(&line).map_err(|error| Error::File { path: self.path.clone(), error })?;
        Ok(Verdict::Continue)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quiet() -> Warn {
        Box::new(|text| panic!("{text}"))
    }

    fn step(step: u64) -> Event<'static> {
        Event::Step { step, steps: 9, epoch: 0, metrics: &[("loss", 0.5)] }
    }

    #[test]
    fn health_is_recorded() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let reasons = ["all alike".to_string()];
        let metrics = &[("effective_rank", 1.0)];
        let health = Event::Health { epoch: 2, step: 9, verdict: "collapsed", metrics, reasons: &reasons };
        Metrics::create(&path, 0, quiet()).unwrap().observe(&health).unwrap();
        let line: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        let expected = json!({
            "event": "health", "epoch": 2, "step": 9, "verdict": "collapsed", "effective_rank": 1.0, "reasons": ["all alike"],
        });
        assert_eq!(line, expected);
    }

    #[test]
    fn resumed_file_repeats_no_step() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let mut metrics = Metrics::create(&path, 0, quiet()).unwrap();
        for done in 1..=5 {
            metrics.observe(&step(done)).unwrap();
        }
        metrics.observe(&Event::Epoch { epoch: 0, step: 5, metrics: &[] }).unwrap();
        drop(metrics);
        let mut metrics = Metrics::create(&path, 3, quiet()).unwrap();
        metrics.observe(&step(4)).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let steps: Vec<_> =
            text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["step"].as_u64().unwrap()).collect();
        assert_eq!(steps, [1, 2, 3, 4]);
        assert!(text.lines().next().unwrap().contains("\"loss\":0.5"));
        drop(Metrics::create(&path, 0, quiet()).unwrap());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "");
    }
    #[test]
    fn lost_lines_are_detected() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let (sender, warnings) = std::sync::mpsc::channel::<String>();
        let warn = || {
            let sender = sender.clone();
            Box::new(move |text: &str| sender.send(text.into()).unwrap()) as Warn
        };
        let mut metrics = Metrics::create(&path, 0, warn()).unwrap();
        (1..=4).for_each(|done| _ = metrics.observe(&step(done)).unwrap());
        metrics.observe(&Event::Saving { step: 4 }).unwrap();
        assert!(warnings.try_recv().is_err());
        // The file is first removed, then truncated.
        fs::remove_file(&path).unwrap();
        metrics.observe(&Event::Saving { step: 4 }).unwrap();
        assert!(warnings.try_recv().unwrap().contains("metrics.jsonl: removed or truncated"));
        metrics.observe(&step(5)).unwrap();
        metrics.observe(&Event::Skipped { step: 6, value: "the loss", images: &[7] }).unwrap();
        fs::write(&path, "").unwrap();
        metrics.observe(&Event::Saving { step: 6 }).unwrap();
        assert!(warnings.try_recv().unwrap().contains("lines are missing"));
        metrics.observe(&step(7)).unwrap();
        metrics.observe(&Event::Skipped { step: 8, value: "the loss", images: &[7] }).unwrap();
        // An incomplete line.
        OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"event\":\"st\xff").unwrap();
        drop(Metrics::create(&path, 8, warn()).unwrap());
        assert!(warnings.try_recv().unwrap().ends_with("metrics.jsonl: lines of 6 of 8 steps are missing"));
        assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 2);
        fs::remove_file(&path).unwrap();
        drop(Metrics::create(&path, 9, warn()).unwrap());
        assert!(warnings.try_recv().unwrap().contains("of 9 of 9 steps"));
    }

    #[test]
    fn changed_settings_are_written_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let changed = Event::Changed { step: 1, setting: "optimizer.learning_rate", from: "0.1", to: "0.05" };
        let mut metrics = Metrics::create(&path, 0, quiet()).unwrap();
        metrics.observe(&step(1)).unwrap();
        for resumed in [1, 1, 2] {
            let mut metrics = Metrics::create(&path, resumed, quiet()).unwrap();
            if resumed == 1 {
                metrics.observe(&changed).unwrap();
                metrics.observe(&step(2)).unwrap();
            }
        }
        let text = fs::read_to_string(&path).unwrap();
        let line = "{\"event\":\"changed\",\"from\":\"0.1\",\"setting\":\"optimizer.learning_rate\",\"step\":1,\"to\":\"0.05\"}";
        assert_eq!((text.lines().count(), text.lines().nth(1)), (3, Some(line)));
    }
}
