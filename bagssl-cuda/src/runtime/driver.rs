//! Objects of the CUDA driver that one thread owns: a stream, events, a module of kernels, memory.

use std::collections::HashMap;
use std::ffi::{CString, c_void};
use std::ptr::null_mut;

use bagssl_core::profile::count;
use cudarc::driver::sys::{self, CUcontext, CUdeviceptr, CUevent, CUfunction, CUresult, CUstream};

/// A result with a one-line error.
pub(crate) type Outcome<T = ()> = Result<T, String>;

/// Converts the result of a driver call.
pub(crate) fn checked(result: CUresult, what: &str) -> Outcome {
    if result == CUresult::CUDA_SUCCESS { Ok(()) } else { Err(format!("{what}: {result:?}")) }
}

/// A non-blocking stream: it does not synchronize implicitly with other streams.
#[derive(Debug)]
pub(crate) struct Stream {
    raw: CUstream,
    context: CUcontext,
    before: CUevent,
    after: CUevent,
}

/// The method that orders work on our stream with work on Burn's streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ordering {
    /// Context-wide events.
    Events,
    /// Host synchronization before and after: slow, and the reference for the other methods.
    Host,
    /// No ordering: the negative control in the test of the ordering.
    #[doc(hidden)]
    None,
}

impl Stream {
    /// Creates a stream and its events in the calling thread's context.
    pub(crate) fn new() -> Outcome<Self> {
        let (mut context, mut raw) = (null_mut(), null_mut());
        let (mut before, mut after) = (null_mut(), null_mut());
        // SAFETY: each call writes one handle. The flags create a non-blocking stream and events
        // without timing.
        unsafe {
            checked(sys::cuCtxGetCurrent(&mut context), "context")?;
            if context.is_null() {
                return Err("context: expected a current context on the backend's thread, got none".into());
            }
            checked(sys::cuStreamCreate(&mut raw, 1), "stream")?;
            checked(sys::cuEventCreate(&mut before, 2), "event")?;
            checked(sys::cuEventCreate(&mut after, 2), "event")?;
        }
        Ok(Stream { raw, context, before, after })
    }

    pub(crate) fn raw(&self) -> CUstream {
        self.raw
    }

    /// Makes later work on this stream wait for all work submitted to the context so far.
    pub(crate) fn enter(&self, ordering: Ordering) -> Outcome {
        // SAFETY: context, stream and event were created by `new` and live as long as `self`.
        unsafe {
            match ordering {
                Ordering::Events => {
                    checked(sys::cuCtxRecordEvent(self.context, self.before), "cuCtxRecordEvent")?;
                    checked(sys::cuStreamWaitEvent(self.raw, self.before, 0), "cuStreamWaitEvent")
                }
                Ordering::Host => checked(sys::cuCtxSynchronize(), "cuCtxSynchronize"),
                Ordering::None => Ok(()),
            }
        }
    }

    /// Makes later work in the context wait for this stream.
    pub(crate) fn leave(&self, ordering: Ordering) -> Outcome {
        // SAFETY: as in `enter`.
        unsafe {
            match ordering {
                Ordering::Events => {
                    checked(sys::cuEventRecord(self.after, self.raw), "cuEventRecord")?;
                    checked(sys::cuCtxWaitEvent(self.context, self.after), "cuCtxWaitEvent")
                }
                Ordering::Host => self.synchronize(),
                Ordering::None => Ok(()),
            }
        }
    }

    /// Blocks the host until this stream is done.
    pub(crate) fn synchronize(&self) -> Outcome {
        // SAFETY: the stream is alive.
        checked(unsafe { sys::cuStreamSynchronize(self.raw) }, "cuStreamSynchronize")
    }
}

/// Loaded kernels.
#[derive(Debug, Default)]
pub(crate) struct Module(HashMap<&'static str, CUfunction>);

impl Module {
    /// Loads PTX and looks up the kernels with these names.
    pub(crate) fn load(ptx: &str, names: &[&'static str]) -> Outcome<Self> {
        let source = CString::new(ptx).map_err(|_| "kernels: the PTX contains a NUL byte")?;
        let mut module = null_mut();
        let mut functions = HashMap::new();
        // SAFETY: the source ends with a zero, and each call writes one handle. The module is never
        // unloaded.
        unsafe {
            checked(sys::cuModuleLoadData(&mut module, source.as_ptr().cast()), "kernels")?;
            for &name in names {
                let text = CString::new(name).map_err(|_| "kernels: a name contains a NUL byte")?;
                let mut function = null_mut();
                checked(sys::cuModuleGetFunction(&mut function, module, text.as_ptr()), name)?;
                functions.insert(name, function);
            }
        }
        Ok(Module(functions))
    }

    /// Enqueues a kernel.
    ///
    /// # Safety
    /// `arguments` must point to values of the kernel's parameter types, in order. The device
    /// memory that they reference must be as large as the kernel accesses, until the stream has run
    /// it.
    pub(crate) unsafe fn launch(
        &self,
        name: &'static str,
        (grid, block): (Grid, u32),
        stream: &Stream,
        arguments: &mut [*mut c_void],
    ) -> Outcome {
        let function = *self.0.get(name).ok_or_else(|| format!("kernel {name}: not loaded"))?;
        let [x, y] = grid;
        count("launches of this program's kernels", 1);
        let (none, list) = (null_mut(), arguments.as_mut_ptr());
        // SAFETY: guaranteed by the caller. The function was loaded in this context.
        checked(unsafe { sys::cuLaunchKernel(function, x, y, 1, block, 1, 1, 0, stream.raw, list, none) }, name)
    }
}

/// The number of blocks in x and y.
pub(crate) type Grid = [u32; 2];

/// A growing buffer for the scratch space of libraries.
#[derive(Debug, Default)]
pub(crate) struct Workspace {
    at: CUdeviceptr,
    length: usize,
}

impl Workspace {
    /// Returns a buffer of at least `length` bytes. Growing discards its contents.
    pub(crate) fn reserve(&mut self, length: usize) -> Outcome<CUdeviceptr> {
        if length > self.length {
            // SAFETY: the context is synchronized first, so no work uses the freed memory. The
            // pointer is our own.
            unsafe {
                checked(sys::cuCtxSynchronize(), "workspace")?;
                if self.at != 0 {
                    let old = std::mem::take(self);
                    checked(sys::cuMemFree_v2(old.at), "workspace")?;
                }
                let mut at = 0;
                checked(sys::cuMemAlloc_v2(&mut at, length), &format!("workspace of {length} bytes"))?;
                *self = Workspace { at, length };
            }
        }
        Ok(self.at)
    }

    /// Frees the buffer.
    pub(crate) fn release(&mut self) -> Outcome {
        let old = std::mem::take(self);
        if old.at == 0 {
            return Ok(());
        }
        // SAFETY: as in `reserve`.
        unsafe {
            checked(sys::cuCtxSynchronize(), "workspace")?;
            checked(sys::cuMemFree_v2(old.at), "workspace")
        }
    }
}
