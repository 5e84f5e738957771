//! Profiles work on the GPU, if a recorder is set: a pair of events around each job.

use std::collections::VecDeque;
use std::ptr::null_mut;
use std::sync::OnceLock;

use bagssl_core::profile::{Lane, Recorder};
use cudarc::driver::sys::{self, CUevent, CUresult};

use super::driver::{Outcome, Stream, checked};
use crate::libraries::why;

/// Converts the GPU's time to a recorder's clock. Each thread that owns a GPU has its own.
#[derive(Debug, Default)]
pub(crate) struct Clock {
    /// An event, and the recorder's time when the GPU reached it.
    origin: Option<(CUevent, u64)>,
    running: VecDeque<Running>,
    /// Events for reuse.
    spare: Vec<CUevent>,
}

#[derive(Debug)]
struct Running {
    name: &'static str,
    begin: CUevent,
    end: CUevent,
}

impl Clock {
    /// Marks the beginning of work on a stream.
    pub(crate) fn begin(&mut self, stream: &Stream, recorder: &dyn Recorder) -> Outcome<CUevent> {
        if self.origin.is_none() {
            let origin = self.mark(stream)?;
            stream.synchronize()?;
            self.origin = Some((origin, recorder.now()));
        }
        self.mark(stream)
    }

    /// Marks the end of the work that began at an event.
    pub(crate) fn end(&mut self, name: &'static str, begin: CUevent, stream: &Stream) -> Outcome {
        let end = self.mark(stream)?;
        self.running.push_back(Running { name, begin, end });
        Ok(())
    }

    /// Reports completed work.
    pub(crate) fn tell(&mut self, recorder: &dyn Recorder) -> Outcome {
        let Some((origin, at)) = self.origin else { return Ok(()) };
        while let Some(first) = self.running.front() {
            // SAFETY: the events belong to this clock, and are alive and recorded.
            match unsafe { sys::cuEventQuery(first.end) } {
                CUresult::CUDA_ERROR_NOT_READY => break,
                other => checked(other, "cuEventQuery")?,
            }
            let begin = at + elapsed(origin, first.begin)?;
            recorder.span(Lane::Device, first.name, begin, begin + elapsed(first.begin, first.end)?);
            self.spare.extend([first.begin, first.end]);
            self.running.pop_front();
        }
        Ok(())
    }

    fn mark(&mut self, stream: &Stream) -> Outcome<CUevent> {
        let event = match self.spare.pop() {
            Some(event) => event,
            None => {
                let mut event = null_mut();
                // SAFETY: the call writes one handle. The flags enable timing.
                checked(unsafe { sys::cuEventCreate(&mut event, 0) }, "event")?;
                event
            }
        };
        // SAFETY: the event and the stream are alive and belong to the calling thread's context.
        checked(unsafe { sys::cuEventRecord(event, stream.raw()) }, "cuEventRecord")?;
        Ok(event)
    }
}

/// Returns the nanoseconds between two events. The resolution is about half a microsecond, or a
/// 10^7th of the result if that is more.
fn elapsed(from: CUevent, to: CUevent) -> Outcome<u64> {
    type Call = unsafe extern "C" fn(*mut f32, CUevent, CUevent) -> CUresult;
    // Uses the function's original name, which CUDA 12 drivers have too.
    static CALL: OnceLock<Result<Call, String>> = OnceLock::new();
    let call = CALL.get_or_init(|| {
        // SAFETY: the driver is already loaded, and the function has had this signature since CUDA
        // 2.
        let function = unsafe {
            libloading::Library::new("libcuda.so.1")
                .and_then(|library| library.get::<Call>(b"cuEventElapsedTime\0").map(|function| *function))
        };
        function.map_err(|error| format!("cuEventElapsedTime: {}", why(&error)))
    });
    let mut milliseconds = 0_f32;
    // SAFETY: the stream has passed both events, and they have timing enabled.
    checked(unsafe { call.clone()?(&mut milliseconds, from, to) }, "cuEventElapsedTime")?;
    Ok((f64::from(milliseconds) * 1e6).max(0.0) as u64)
}
