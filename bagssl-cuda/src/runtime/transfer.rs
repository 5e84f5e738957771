//! Transfers to and from the device through cubecl's pinned memory. The host only waits when it
//! needs the values.
//!
//! `Tensor::from_data` would copy a batch twice, the second time from pageable memory
//! (cubecl-runtime 0.10, `ComputeClient::do_create`). For such a copy, the driver blocks the host
//! until earlier work is done. Here the device reads directly from the buffer that `staging`
//! returns. The buffer is reserved until an event after the copy (`PendingDropQueue`), and then
//! reused. If pinned memory is unavailable, `staging` returns pageable memory: slower, but no
//! error.
//!
//! `Tensor::into_data` queues its copy only when the host waits for it, after all work queued in
//! between. Here the copy is queued at once. It ends with its own event (cubecl-cuda 0.10,
//! `Command::read_async`), and the host waits for that event.

use std::sync::mpsc;

use bagssl_core::model::Reading;
use bagssl_core::profile;
use burn::tensor::{Bytes, DType, Shape};
use burn_backend::StreamId;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use cubecl::Runtime;
use cubecl::cuda::{CudaDevice, CudaRuntime};
use cubecl::server::{ComputeServer, CopyDescriptor};
use cubecl_common::reader::read_sync;

use super::job::{Cube, Server, device_handle};
use crate::panics::one_line;

/// Uploads values to a contiguous tensor.
///
/// # Panics
/// If the number of values does not match `dims`.
pub(crate) fn upload(values: Vec<f32>, dims: [usize; 4], device: &CudaDevice) -> Cube {
    let count: usize = dims.iter().product();
    assert_eq!(values.len(), count, "values of a batch {dims:?}");
    let client = CudaRuntime::client(device);
    let mut bytes = Bytes::from_elems(values);
    client.staging([&mut bytes].into_iter(), false);
    profile::count("bytes to the device", 4 * count as u64);
    let tensor = empty_device_contiguous_dtype(client, device.clone(), Shape::from(dims), DType::F32);
    let to = flat(&tensor, count);
    device_handle(device).submit(move |server: &mut Server| server.write(vec![(to, bytes)], StreamId::current()));
    tensor
}

/// Reads f32 values in the order of the tensor's dimensions. The copy is queued after all work
/// submitted to the tensor's device so far.
pub(crate) fn read_later(tensor: Cube) -> Reading {
    let tensor = into_contiguous(tensor);
    let from = flat(&tensor, tensor.meta.num_elements());
    profile::count("bytes to the host", 4 * tensor.meta.num_elements() as u64);
    let (sender, receiver) = mpsc::channel();
    let device = device_handle(&tensor.device);
    device.submit(move |server: &mut Server| {
        // The receiver may be gone if training has stopped.
        let _ = sender.send(server.read(vec![from], StreamId::current()));
    });
    device.flush_queue();
    Reading::new(move || {
        let copy = receiver.recv().map_err(|_| "reading: the device's thread did not respond".to_string())?;
        let read = read_sync(copy).map_err(|error| format!("reading: {}", one_line(&error.to_string())))?;
        let bytes = read.first().ok_or("reading: expected one tensor, got none")?;
        Ok(bytes.chunks_exact(4).map(|four| f32::from_ne_bytes([four[0], four[1], four[2], four[3]])).collect())
    })
}

/// Describes a contiguous tensor as a single row: otherwise each row would be copied separately.
fn flat(tensor: &Cube, count: usize) -> CopyDescriptor {
    CopyDescriptor::new(tensor.handle.clone().binding(), [count].into(), [1].into(), 4)
}
