//! All tests across crates, as one program.

mod kernels;
mod pytorch;
mod step;
mod golden;
mod anytime;
mod cooccurrence;
mod resume;
