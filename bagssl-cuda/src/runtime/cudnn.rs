//! cuDNN's graph API: descriptors whose attributes are set one by one, then finalized.

use std::ffi::{CStr, c_char, c_void};
use std::ptr::null_mut;

use bagssl_core::profile::count;
use cudarc::cudnn::sys::{
    self, cudnnBackendAttributeName_t as Name, cudnnBackendAttributeType_t as Type, cudnnBackendDescriptor_t as Raw,
    cudnnBackendDescriptorType_t as Kind, cudnnDataType_t as Data, cudnnHandle_t, cudnnStatus_t,
};

use super::driver::{Outcome, Stream};

/// cuDNN on one GPU.
#[derive(Debug)]
pub(crate) struct Library {
    handle: cudnnHandle_t,
    version: usize,
}

impl Library {
    /// Loads cuDNN for the calling thread's context.
    pub(crate) fn new() -> Outcome<Self> {
        let mut handle = null_mut();
        // SAFETY: the library is loaded before it is called, and the call writes one handle.
        unsafe {
            if !sys::is_culib_present() {
                return Err("libcudnn.so.9 not found; `bagssl doctor` lists the searched paths".into());
            }
            checked(sys::cudnnCreate(&mut handle), "cudnnCreate")?;
            Ok(Library { handle, version: sys::cudnnGetVersion() })
        }
    }

    /// Returns the version as `10000 * major + 100 * minor + patch`.
    pub(crate) fn version(&self) -> usize {
        self.version
    }

    pub(crate) fn handle(&self) -> cudnnHandle_t {
        self.handle
    }

    /// Runs subsequent plans on this stream.
    pub(crate) fn use_stream(&self, stream: &Stream) -> Outcome {
        // SAFETY: the handle and the stream are alive and belong to the same context.
        checked(unsafe { sys::cudnnSetStream(self.handle, stream.raw().cast()) }, "cudnnSetStream")
    }

    /// Runs a plan on the tensors with these unique ids.
    ///
    /// # Safety
    /// The pointers must be to tensors of the plan's shapes and types, and to a workspace of its
    /// size, until the stream has run the plan.
    pub(crate) unsafe fn execute<const N: usize>(
        &self,
        plan: &Descriptor,
        pointers: [u64; N],
        identities: [i64; N],
        workspace: u64,
    ) -> Outcome {
        let pack = Descriptor::new(Kind::CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR)?
            .set(Name::CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, Type::CUDNN_TYPE_VOID_PTR, &pointers)?
            .set(Name::CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, Type::CUDNN_TYPE_INT64, &identities)?
            .set(Name::CUDNN_ATTR_VARIANT_PACK_WORKSPACE, Type::CUDNN_TYPE_VOID_PTR, &[workspace])?
            .finalise()?;
        count("operations of cuDNN", 1);
        // SAFETY: guaranteed by the caller. Both descriptors are finalized.
        checked(unsafe { sys::cudnnBackendExecute(self.handle, plan.raw, pack.raw) }, "cudnnBackendExecute")
    }
}

/// A descriptor of the graph API.
#[derive(Debug)]
pub(crate) struct Descriptor {
    raw: Raw,
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        // SAFETY: the descriptor was created and is destroyed only here. The error is of no use.
        unsafe {
            sys::cudnnBackendDestroyDescriptor(self.raw);
        }
    }
}

impl Descriptor {
    pub(crate) fn new(kind: Kind) -> Outcome<Self> {
        let mut raw = null_mut();
        // SAFETY: the call writes one handle.
        checked(unsafe { sys::cudnnBackendCreateDescriptor(kind, &mut raw) }, &format!("{kind:?}"))?;
        Ok(Descriptor { raw })
    }

    /// Sets an attribute. `kind` must match the type of the values.
    pub(crate) fn set<T: Value>(self, name: Name, kind: Type, values: &[T]) -> Outcome<Self> {
        let (count, at) = (values.len() as i64, values.as_ptr().cast::<c_void>());
        // SAFETY: `at` points to `count` values, which the call copies.
        checked(unsafe { sys::cudnnBackendSetAttribute(self.raw, name, kind, count, at) }, &format!("{name:?}"))?;
        Ok(self)
    }

    /// Sets an attribute to other descriptors, which must outlive the use of this one.
    pub(crate) fn link(self, name: Name, others: &[&Descriptor]) -> Outcome<Self> {
        let raw: Vec<Raw> = others.iter().map(|other| other.raw).collect();
        self.set(name, Type::CUDNN_TYPE_BACKEND_DESCRIPTOR, &raw)
    }

    pub(crate) fn finalise(self) -> Outcome<Self> {
        // SAFETY: the descriptor is alive.
        checked(unsafe { sys::cudnnBackendFinalize(self.raw) }, "cudnnBackendFinalize")?;
        Ok(self)
    }

    /// Reads at most `values.len()` values of an attribute. Returns the number read.
    pub(crate) fn get<T: Value>(&self, name: Name, kind: Type, values: &mut [T]) -> Outcome<usize> {
        let (room, at) = (values.len() as i64, values.as_mut_ptr().cast::<c_void>());
        let mut count = 0;
        // SAFETY: `at` points to `room` values, and no more are written. Any bit pattern is valid
        // for these types.
        let status = unsafe { sys::cudnnBackendGetAttribute(self.raw, name, kind, room, &mut count, at) };
        checked(status, &format!("{name:?}"))?;
        Ok(count.clamp(0, room) as usize)
    }

    /// Fills empty descriptors from an attribute. Returns the number filled.
    pub(crate) fn fill(&self, name: Name, others: &[Descriptor]) -> Outcome<usize> {
        let mut raw: Vec<Raw> = others.iter().map(|other| other.raw).collect();
        self.get(name, Type::CUDNN_TYPE_BACKEND_DESCRIPTOR, &mut raw)
    }
}

/// A type that the graph API copies, for which any bit pattern is valid.
///
/// # Safety
/// Any bit pattern must be a valid value if the type is read. Enumerations are only set.
pub(crate) unsafe trait Value: Copy {}
// SAFETY: any bit pattern is a valid integer, float or pointer. Pointers are not dereferenced here.
unsafe impl Value for i64 {}
// SAFETY: as above.
unsafe impl Value for u64 {}
// SAFETY: as above.
unsafe impl Value for u32 {}
// SAFETY: as above.
unsafe impl Value for f32 {}
// SAFETY: as above.
unsafe impl Value for Raw {}
// SAFETY: as above.
unsafe impl Value for cudnnHandle_t {}

/// Creates the descriptor of a channels-last tensor `[images, channels, height, width]`.
pub(crate) fn tensor(identity: i64, [n, c, h, w]: [i64; 4], data: Data) -> Outcome<Descriptor> {
    Descriptor::new(Kind::CUDNN_BACKEND_TENSOR_DESCRIPTOR)?
        .set(Name::CUDNN_ATTR_TENSOR_DATA_TYPE, Type::CUDNN_TYPE_DATA_TYPE, &[data as u32])?
        .set(Name::CUDNN_ATTR_TENSOR_DIMENSIONS, Type::CUDNN_TYPE_INT64, &[n, c, h, w])?
        .set(Name::CUDNN_ATTR_TENSOR_STRIDES, Type::CUDNN_TYPE_INT64, &[h * w * c, 1, w * c, c])?
        .set(Name::CUDNN_ATTR_TENSOR_UNIQUE_ID, Type::CUDNN_TYPE_INT64, &[identity])?
        .set(Name::CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, Type::CUDNN_TYPE_INT64, &[16_i64])?
        .finalise()
}

/// Converts the status of a call, with cuDNN's message.
fn checked(status: cudnnStatus_t, what: &str) -> Outcome {
    if status == cudnnStatus_t::CUDNN_STATUS_SUCCESS {
        return Ok(());
    }
    let mut text = [0 as c_char; 512];
    // SAFETY: the call writes at most the given number of bytes, including a final zero.
    let words = unsafe {
        sys::cudnnGetLastErrorString(text.as_mut_ptr(), text.len());
        text[text.len() - 1] = 0;
        CStr::from_ptr(text.as_ptr())
    };
    Err(format!("{what}: {status:?} {}", words.to_string_lossy()))
}
