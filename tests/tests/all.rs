//! All tests across crates, as one program.

mod golden;
mod anytime;
mod cooccurrence;
mod resume;
