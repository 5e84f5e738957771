//! When work ran on the GPU, where somebody records it: a pair of events around each job.

use std::collections::VecDeque;
use std::ptr::null_mut;
use std::sync::OnceLock;

use bagssl_core::profile::{Lane, Recorder};
use cudarc::driver::sys::{self, CUevent, CUresult};

use super::driver::{Outcome, Stream, checked};
use crate::libraries::why;

/// The GPU's time by a recorder's clock. Each thread that owns a GPU has its own.
#[derive(Debug, Default)]
pub(crate) struct Clock {
    /// An event, and the recorder's time when the GPU came to it.
    origin: Option<(CUevent, u64)>,
    running: VecDeque<Running>,
    /// Events that may be used again.
    spare: Vec<CUevent>,
}

#[derive(Debug)]
struct Running {
    name: &'static str,
    begin: CUevent,
    end: CUevent,
}

impl Clock {
    /// Marks where work begins on a stream.
    pub(crate) fn begin(&mut self, stream: &Stream, recorder: &dyn Recorder) -> Outcome<CUevent> {
        if self.origin.is_none() {
            let origin = self.mark(stream)?;
            stream.synchronize()?;
            self.origin = Some((origin, recorder.now()));
        }
        self.mark(stream)
    }

    /// Marks where work ends that began at an event.
    pub(crate) fn end(&mut self, name: &'static str, begin: CUevent, stream: &Stream) -> Outcome {
        let end = self.mark(stream)?;
        self.running.push_back(Running { name, begin, end });
        Ok(())
    }

    /// Tells of the work that is done by now.
    pub(crate) fn tell(&mut self, recorder: &dyn Recorder) -> Outcome {
        let Some((origin, at)) = self.origin else { return Ok(()) };
        while let Some(first) = self.running.front() {
            // SAFETY: the events are this clock's, alive and recorded.
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
                // SAFETY: the call writes one handle; the flags say that the event keeps its time.
                checked(unsafe { sys::cuEventCreate(&mut event, 0) }, "event")?;
                event
            }
        };
        // SAFETY: event and stream are alive, and of the calling thread's context.
        checked(unsafe { sys::cuEventRecord(event, stream.raw()) }, "cuEventRecord")?;
        Ok(event)
    }
}

/// Nanoseconds from one event to another, in steps of about a half microsecond, or a 10^7th of it if that is more.
fn elapsed(from: CUevent, to: CUevent) -> Outcome<u64> {
    type Call = unsafe extern "C" fn(*mut f32, CUevent, CUevent) -> CUresult;
    // By its first name, which the drivers of CUDA 12 have as well.
    static CALL: OnceLock<Result<Call, String>> = OnceLock::new();
    let call = CALL.get_or_init(|| {
        // SAFETY: the driver is loaded already, and the function has had this signature since CUDA 2.
        let function = unsafe {
            libloading::Library::new("libcuda.so.1")
                .and_then(|library| library.get::<Call>(b"cuEventElapsedTime\0").map(|function| *function))
        };
        function.map_err(|error| format!("cuEventElapsedTime: {}", why(&error)))
    });
    let mut milliseconds = 0_f32;
    // SAFETY: both events have been passed by their stream, and keep their time.
    checked(unsafe { call.clone()?(&mut milliseconds, from, to) }, "cuEventElapsedTime")?;
    Ok((f64::from(milliseconds) * 1e6).max(0.0) as u64)
}
