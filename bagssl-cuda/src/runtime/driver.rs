//! The CUDA driver's objects that one thread owns: a stream, events, a module of kernels, memory.

use std::collections::HashMap;
use std::ffi::{CString, c_void};
use std::ptr::null_mut;

use bagssl_core::profile::count;
use cudarc::driver::sys::{self, CUcontext, CUdeviceptr, CUevent, CUfunction, CUresult, CUstream};

/// What went wrong, as one line.
pub(crate) type Outcome<T = ()> = Result<T, String>;

/// The error of a driver's call.
pub(crate) fn checked(result: CUresult, what: &str) -> Outcome {
    if result == CUresult::CUDA_SUCCESS { Ok(()) } else { Err(format!("{what}: {result:?}")) }
}

/// A stream that waits for nothing of its own accord.
#[derive(Debug)]
pub(crate) struct Stream {
    raw: CUstream,
    context: CUcontext,
    before: CUevent,
    after: CUevent,
}

/// How work on the own stream is ordered with that of Burn's streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ordering {
    /// By events that span the whole context.
    Events,
    /// By waiting on the host, before and after: slow, and what the others are compared with.
    Host,
    /// Not at all: the negative control of the test of the ordering.
    #[doc(hidden)]
    None,
}

impl Stream {
    /// A stream and its events in the calling thread's context.
    pub(crate) fn new() -> Outcome<Self> {
        let (mut context, mut raw) = (null_mut(), null_mut());
        let (mut before, mut after) = (null_mut(), null_mut());
        // SAFETY: each call writes one handle; the flags say that the stream does not block and the events keep no time.
        unsafe {
            checked(sys::cuCtxGetCurrent(&mut context), "context")?;
            if context.is_null() {
                return Err("context: none is current on the backend's thread".into());
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

    /// Makes what follows on this stream wait for all that the context was given so far.
    pub(crate) fn enter(&self, ordering: Ordering) -> Outcome {
        // SAFETY: context, stream and event are those of `new`, alive as long as `self`.
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

    /// Makes what the context is given from now on wait for this stream.
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

    /// Waits on the host until this stream is done.
    pub(crate) fn synchronize(&self) -> Outcome {
        // SAFETY: the stream is alive.
        checked(unsafe { sys::cuStreamSynchronize(self.raw) }, "cuStreamSynchronize")
    }
}

/// Kernels that were loaded.
#[derive(Debug, Default)]
pub(crate) struct Module(HashMap<&'static str, CUfunction>);

impl Module {
    /// Loads the PTX that NVRTC made, and finds the kernels of these names in it.
    pub(crate) fn load(ptx: &str, names: &[&'static str]) -> Outcome<Self> {
        let source = CString::new(ptx).map_err(|_| "kernels: PTX with a zero in it")?;
        let mut module = null_mut();
        let mut functions = HashMap::new();
        // SAFETY: the source ends with a zero, and each call writes one handle. The module is never unloaded.
        unsafe {
            checked(sys::cuModuleLoadData(&mut module, source.as_ptr().cast()), "kernels")?;
            for &name in names {
                let text = CString::new(name).map_err(|_| "kernels: a name with a zero in it")?;
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
    /// `arguments` must point to values of the kernel's parameter types, in their order, and what they point to on the
    /// device must be as large as the kernel reads and writes, until the stream has run it.
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
        // SAFETY: the caller's promise; the function was loaded in this context.
        checked(unsafe { sys::cuLaunchKernel(function, x, y, 1, block, 1, 1, 0, stream.raw, list, none) }, name)
    }
}

/// Blocks in two directions.
pub(crate) type Grid = [u32; 2];

/// Memory for the scratch values of libraries, which grows.
#[derive(Debug, Default)]
pub(crate) struct Workspace {
    at: CUdeviceptr,
    length: usize,
}

impl Workspace {
    /// Memory of at least `length` bytes. What was there before is gone when it grows.
    pub(crate) fn reserve(&mut self, length: usize) -> Outcome<CUdeviceptr> {
        if length > self.length {
            // SAFETY: nothing runs on the memory that is freed, since the context is waited for; the pointer is our own.
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

    /// Gives the memory back.
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
