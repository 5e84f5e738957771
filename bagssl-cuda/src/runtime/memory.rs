//! The memory of a GPU.

use std::ptr::null_mut;

use cudarc::driver::sys;

use super::driver::{Outcome, checked};
use crate::probe;
use bagssl_train::error::{Error, Result};

/// The memory of a GPU in bytes, as reported by the driver for all processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// The free memory.
    pub free: u64,
    /// The total memory.
    pub all: u64,
}

impl Memory {
    /// Returns the memory in use.
    pub fn used(self) -> u64 {
        self.all - self.free
    }
}

/// Returns the memory of the GPU with this index.
///
/// # Errors
/// [`Error::Cuda`] if a CUDA component is missing, or the driver cannot be queried.
pub fn memory(gpu: usize) -> Result<Memory> {
    probe::require()?;
    ask(gpu).map_err(Error::Cuda)
}

fn ask(gpu: usize) -> Outcome<Memory> {
    let (mut device, mut context, mut popped) = (0, null_mut(), null_mut());
    let (mut free, mut all) = (0_usize, 0_usize);
    // SAFETY: each call only writes to the given places. The retained context is the device's
    // primary one, which Burn uses, and is released again.
    unsafe {
        checked(sys::cuInit(0), "cuInit")?;
        checked(sys::cuDeviceGet(&mut device, gpu as i32), "cuDeviceGet")?;
        checked(sys::cuDevicePrimaryCtxRetain(&mut context, device), "cuDevicePrimaryCtxRetain")?;
        let asked = checked(sys::cuCtxPushCurrent_v2(context), "cuCtxPushCurrent").and_then(|()| {
            let asked = checked(sys::cuMemGetInfo_v2(&mut free, &mut all), "cuMemGetInfo");
            asked.and(checked(sys::cuCtxPopCurrent_v2(&mut popped), "cuCtxPopCurrent"))
        });
        asked.and(checked(sys::cuDevicePrimaryCtxRelease_v2(device), "cuDevicePrimaryCtxRelease"))?;
    }
    Ok(Memory { free: free as u64, all: all as u64 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_known_where_a_gpu_is_and_an_error_elsewhere() {
        match memory(0) {
            Ok(memory) => assert!(memory.free <= memory.all && memory.all > 0),
            Err(error) => assert!(error.to_string().starts_with("cuda: "), "{error}"),
        }
    }
}
