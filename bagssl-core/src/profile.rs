//! Where the time goes: kernels and trainer say what they are at, to whoever records it.
//!
//! A [`Recorder`] is set once for the whole program. Without one, a span costs one look at an atomic; without the feature
//! `std` there is never one. This crate reads no clock, so the recorder does.
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

/// Who did the work of a span.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// The thread that the span was told on.
    Host,
    /// The device, in its own time.
    Device,
}

/// Who records what the program is at. Times are nanoseconds since the recorder's origin.
pub trait Recorder: Sync {
    /// Whether it wants to hear of what begins now.
    fn is_on(&self) -> bool;

    /// The time.
    fn now(&self) -> u64;

    /// Something has been done.
    fn span(&self, lane: Lane, name: &'static str, begin: u64, end: u64);

    /// Adds to a count, for instance of bytes copied or kernels launched.
    fn count(&self, name: &'static str, more: u64);

    /// Something that was decided, for instance which plan computes a convolution.
    fn note(&self, name: &'static str, text: String);
}

#[cfg(feature = "std")]
static RECORDER: std::sync::OnceLock<&'static dyn Recorder> = std::sync::OnceLock::new();

/// Lets `recorder` hear of all that begins from now on. The first one stays: whether this one is it.
pub fn record(recorder: &'static dyn Recorder) -> bool {
    #[cfg(feature = "std")]
    return RECORDER.set(recorder).is_ok();
    #[cfg(not(feature = "std"))]
    {
        let _ = recorder;
        false
    }
}

/// The recorder, if there is one that wants to hear.
pub fn recorder() -> Option<&'static dyn Recorder> {
    #[cfg(feature = "std")]
    return RECORDER.get().copied().filter(|recorder| recorder.is_on());
    #[cfg(not(feature = "std"))]
    None
}

/// The recorder, if there is one, also while [`Recorder::is_on`] is false: for what was begun while it was true.
pub fn any_recorder() -> Option<&'static dyn Recorder> {
    #[cfg(feature = "std")]
    return RECORDER.get().copied();
    #[cfg(not(feature = "std"))]
    None
}

/// Something that is being done until this is dropped.
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

/// Adds to a count.
pub fn count(name: &'static str, more: u64) {
    if let Some(recorder) = recorder() {
        recorder.count(name, more);
    }
}

/// Something that was decided. It is told even while [`Recorder::is_on`] is false.
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
