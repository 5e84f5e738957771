//! The metrics of a run as a TensorBoard event file.
//!
//! The messages are written with prost and crc: the crate tboard 0.1 needs `protoc` to be compiled,
//! and tensorboard-rs 0.5 adds 19 packages, with an `image` of 2021 (2026-11-28).

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use bagssl_core::batch::SourceError;
use bagssl_core::observe::{self, Observer, Verdict};
use crc::{CRC_32_ISCSI, Crc, Table};
use prost::Message;

use crate::error::{Error, Result};

/// An event file with the metrics of each step (`step/loss` etc.), the means of each epoch
/// (`epoch/loss`) and the metrics of health reports (`health/..`).
#[derive(Debug)]
pub struct TensorBoard {
    path: PathBuf,
    file: File,
}

impl TensorBoard {
    /// Creates a file `events.out.tfevents.SECONDS.PROCESS` in a folder. Files of earlier parts of
    /// the run remain. TensorBoard discards their entries after step `resumed`, which the run will
    /// repeat.
    ///
    /// # Errors
    /// [`Error::File`] if the file cannot be written.
    pub fn create(folder: &Path, resumed: u64) -> Result<Self> {
        let now = now();
        let path = folder.join(format!("events.out.tfevents.{:010}.{}", now as u64, std::process::id()));
        let file = File::create(&path).map_err(|error| Error::File { path: path.clone(), error })?;
        let mut board = TensorBoard { path, file };
        board.write(&version(now))?;
        if resumed > 0 {
            board.write(&resumption(now, resumed + 1))?;
        }
        Ok(board)
    }

    fn write(&mut self, event: &Event) -> Result<()> {
        let written = self.file.write_all(&record(&event.encode_to_vec()));
        written.map_err(|error| Error::File { path: self.path.clone(), error })
    }
}

impl Observer for TensorBoard {
    fn observe(&mut self, event: &observe::Event<'_>) -> std::result::Result<Verdict, SourceError> {
        let (kind, step, metrics) = match event {
            observe::Event::Step { step, metrics, .. } => ("step", *step, *metrics),
            observe::Event::Epoch { step, metrics, .. } => ("epoch", *step, *metrics),
            observe::Event::Health { step, metrics, .. } => ("health", *step, *metrics),
            _ => return Ok(Verdict::Continue),
        };
        self.write(&scalars(now(), kind, step, metrics))?;
        Ok(Verdict::Continue)
    }
}

/// Returns the seconds since 1970.
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64())
}

/// Returns the first event of every file.
fn version(wall_time: f64) -> Event {
    Event { wall_time, file_version: Some("brain.Event:2".into()), ..Event::default() }
}

/// Returns an event which states that the run restarts at `step`.
fn resumption(wall_time: f64, step: u64) -> Event {
    const START: i32 = 1;
    Event { wall_time, step: step as i64, session_log: Some(SessionLog { status: START }), ..Event::default() }
}

fn scalars(wall_time: f64, kind: &str, step: u64, metrics: &[(&str, f64)]) -> Event {
    let value = |&(name, value): &(&str, f64)| Value { tag: format!("{kind}/{name}"), simple: Some(value as f32) };
    let summary = Some(Summary { values: metrics.iter().map(value).collect() });
    Event { wall_time, step: step as i64, summary, ..Event::default() }
}

/// The fields of TensorFlow's `event.proto` and `summary.proto` that are used here.
#[derive(Message)]
struct Event {
    #[prost(double, tag = "1")]
    wall_time: f64,
    #[prost(int64, tag = "2")]
    step: i64,
    #[prost(string, optional, tag = "3")]
    file_version: Option<String>,
    #[prost(message, optional, tag = "5")]
    summary: Option<Summary>,
    #[prost(message, optional, tag = "7")]
    session_log: Option<SessionLog>,
}

#[derive(Message)]
struct Summary {
    #[prost(message, repeated, tag = "1")]
    values: Vec<Value>,
}

#[derive(Message)]
struct Value {
    #[prost(string, tag = "1")]
    tag: String,
    #[prost(float, optional, tag = "2")]
    simple: Option<f32>,
}

#[derive(Message)]
struct SessionLog {
    #[prost(int32, tag = "1")]
    status: i32,
}

/// The CRC-32C algorithm.
const CRC: Crc<u32, Table<1>> = Crc::<u32, Table<1>>::new(&CRC_32_ISCSI);

/// Encodes a TFRecord: the length and the content, each followed by its masked checksum.
fn record(content: &[u8]) -> Vec<u8> {
    let masked = |bytes: &[u8]| CRC.checksum(bytes).rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes();
    let length = (content.len() as u64).to_le_bytes();
    [&length[..], &masked(&length), content, &masked(content)].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The expected records are written by tensorboardX: `tests/reference/tensorboard.py`.
    #[test]
    fn records_match_tensorboardx() {
        let text = include_str!("../../tests/reference/tensorboard.json");
        let expected: std::collections::BTreeMap<String, String> = serde_json::from_str(text).unwrap();
        let metrics = [("loss", -92.5), ("rate", 0.0)];
        for (name, event) in [
            ("version", version(1.5)),
            ("scalars", scalars(1_764_000_000.25, "step", 300, &metrics)),
            ("resumed", resumption(2.0, 8)),
        ] {
            let hex: String = record(&event.encode_to_vec()).iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(hex, expected[name], "{name}");
        }
    }

    #[test]
    fn resumed_file_states_its_step() {
        for (resumed, records) in [(0, 3), (7, 4)] {
            let folder = tempfile::tempdir().unwrap();
            let mut board = TensorBoard::create(folder.path(), resumed).unwrap();
            board
                .observe(&observe::Event::Step { step: resumed + 1, steps: 9, epoch: 0, metrics: &[("loss", 0.5)] })
                .unwrap();
            board.observe(&observe::Event::Epoch { epoch: 0, step: resumed + 1, metrics: &[("loss", 0.5)] }).unwrap();
            let mut bytes = &std::fs::read(&board.path).unwrap()[..];
            let mut events = Vec::new();
            while let Some((length, rest)) = bytes.split_first_chunk::<8>() {
                let length = u64::from_le_bytes(*length) as usize;
                events.push(Event::decode(&rest[4..4 + length]).unwrap());
                bytes = &rest[8 + length..];
            }
            assert_eq!(events.len(), records);
            assert_eq!(events[0].file_version.as_deref(), Some("brain.Event:2"));
            assert_eq!(events.iter().filter(|event| event.session_log.is_some()).count(), records - 3);
            let last = events.pop().unwrap();
            assert_eq!((last.step as u64, last.summary.unwrap().values[0].tag.as_str()), (resumed + 1, "epoch/loss"));
        }
    }
}
