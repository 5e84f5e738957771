//! Profiling: kernels and the trainer report spans, counts and notes to a recorder.
//!
//! A [`Recorder`] is set once per program. Without one, a span costs one atomic load. Without the
//! feature `std`, no recorder can be set. This crate has no clock; the recorder supplies the time.
//!
//! ```
//! use bagssl_core::profile::{Lane, Recorder, record, span};
//! use std::sync::Mutex;
//!
//! struct Names(Mutex<Vec<&'static str>>);
//! impl Recorder for Names {
//!     fn is_on(&self) -> bool {
//!         true
//!     }
//!     fn now(&self) -> u64 {
//!         0
//!     }
//!     fn span(&self, _: Lane, name: &'static str, _begin: u64, _end: u64) {
//!         self.0.lock().unwrap().push(name);
//!     }
//!     fn count(&self, _: &'static str, _: u64) {}
//!     fn note(&self, _: &'static str, _: String) {}
//! }
//!
//! static NAMES: Names = Names(Mutex::new(Vec::new()));
//! record(&NAMES);
//! {
//!     let _span = span("convolution");
//! }
//! # #[cfg(feature = "std")]
//! assert_eq!(*NAMES.0.lock().unwrap(), ["convolution"]);
//! ```

use std::prelude::v1::*;

/// The executor of a span's work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// The thread that reported the span.
    Host,
    /// The device, on its own clock.
    Device,
}

/// Records spans, counts and notes. Times are nanoseconds since the recorder's origin.
pub trait Recorder: Sync {
    /// Returns whether spans and counts that begin now should be recorded.
    fn is_on(&self) -> bool;

    /// Returns the current time.
    fn now(&self) -> u64;

    /// Records a completed span.
    fn span(&self, lane: Lane, name: &'static str, begin: u64, end: u64);

    /// Adds `more` to a counter, for instance of bytes copied or kernels launched.
    fn count(&self, name: &'static str, more: u64);

    /// Records a decision, for instance the plan chosen for a convolution.
    fn note(&self, name: &'static str, text: String);
}

#[cfg(feature = "std")]
static RECORDER: std::sync::OnceLock<&'static dyn Recorder> = std::sync::OnceLock::new();

/// Sets the program's recorder. Returns `false` if one is already set (the first one stays), or
/// without the feature `std`.
pub fn record(recorder: &'static dyn Recorder) -> bool {
    #[cfg(feature = "std")]
    return RECORDER.set(recorder).is_ok();
    #[cfg(not(feature = "std"))]
    {
        let _ = recorder;
        false
    }
}

/// Returns the recorder if one is set and [`Recorder::is_on`].
pub fn recorder() -> Option<&'static dyn Recorder> {
    #[cfg(feature = "std")]
    return RECORDER.get().copied().filter(|recorder| recorder.is_on());
    #[cfg(not(feature = "std"))]
    None
}

/// Returns the recorder if one is set, even while [`Recorder::is_on`] is false. Use it to end spans
/// that began earlier.
pub fn any_recorder() -> Option<&'static dyn Recorder> {
    #[cfg(feature = "std")]
    return RECORDER.get().copied();
    #[cfg(not(feature = "std"))]
    None
}

/// A guard that reports a span when it is dropped.
#[must_use = "a span ends when it is dropped"]
pub struct Span(Option<(&'static dyn Recorder, &'static str, u64)>);

/// Begins a span on the calling thread.
pub fn span(name: &'static str) -> Span {
    Span(recorder().map(|recorder| (recorder, name, recorder.now())))
}

impl Drop for Span {
    fn drop(&mut self) {
        if let Some((recorder, name, begin)) = self.0 {
            recorder.span(Lane::Host, name, begin, recorder.now());
        }
    }
}

/// Adds `more` to a counter.
pub fn count(name: &'static str, more: u64) {
    if let Some(recorder) = recorder() {
        recorder.count(name, more);
    }
}

/// Records a decision, even while [`Recorder::is_on`] is false.
pub fn note(name: &'static str, text: impl FnOnce() -> String) {
    #[cfg(feature = "std")]
    if let Some(recorder) = RECORDER.get() {
        recorder.note(name, text());
    }
    #[cfg(not(feature = "std"))]
    let _ = (name, text);
}

impl core::fmt::Debug for Span {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_tuple("Span").field(&self.0.map(|(_, name, _)| name)).finish()
    }
}
