//! A job: input and output tensors, and the work between them on the thread that owns the GPU.
//!
//! Burn's CUDA backend queues its work on one thread per GPU. A job is queued on the same thread,
//! after the work that produces its inputs and before the work that reads its outputs. It resolves
//! its tensors to pointers and submits its work to a separate stream. Context-wide events order
//! that stream with Burn's streams.

use std::cell::RefCell;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::AtomicU8;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Mutex, mpsc};

use bagssl_core::profile::{Recorder, any_recorder};
use burn::tensor::{DType, Shape};
use burn_backend::StreamId;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::tensor::CubeTensor;
use cubecl::Runtime;
use cubecl::cuda::{CudaDevice, CudaRuntime};
use cubecl::server::{ComputeServer, Handle};
use cubecl_common::device::Device;
use cubecl_common::device_handle::DeviceHandle;

use super::context::{self, Context, with_context};
use super::driver::{Ordering, Outcome};
use bagssl_train::error::{Error, Result};

/// A tensor of Burn's CUDA backend.
pub(crate) type Cube = CubeTensor<CudaRuntime>;

pub(crate) type Server = <CudaRuntime as Runtime>::Server;
type Step = Box<dyn FnOnce(&mut Context, &Pointers) -> Outcome + Send>;

/// The first error since the last [`check`].
static FIRST: First = First(Mutex::new(None));

/// Stores the first error until it is taken, and ignores later ones.
struct First(Mutex<Option<String>>);

impl First {
    fn keep(&self, error: impl FnOnce() -> String) {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).get_or_insert_with(error);
    }

    fn take(&self) -> Result<()> {
        let first = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take();
        first.map_or(Ok(()), |error| Err(Error::Cuda(error)))
    }
}

thread_local! {
    /// The threads that own the GPUs, by GPU index.
    static HANDLES: RefCell<HashMap<usize, DeviceHandle<Server>>> = RefCell::new(HashMap::new());
}

/// The [`Ordering`] in use, as an integer.
static ORDERING: AtomicU8 = AtomicU8::new(0);

/// The index of a tensor in a job.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Slot(usize);

/// The device addresses of a job's tensors.
#[derive(Debug)]
pub(crate) struct Pointers(Vec<u64>);

impl Pointers {
    /// Returns the address of a tensor's first value.
    pub(crate) fn of(&self, slot: Slot) -> u64 {
        self.0[slot.0]
    }

    /// Returns the address of an optional tensor, or null.
    pub(crate) fn of_any(&self, slot: Option<Slot>) -> u64 {
        slot.map_or(0, |slot| self.of(slot))
    }
}

/// A job under construction.
pub(crate) struct Job {
    name: &'static str,
    like: Cube,
    handles: Vec<Handle>,
    steps: Vec<Step>,
}

impl Job {
    /// Creates an empty job on a tensor's device.
    pub(crate) fn new(name: &'static str, like: &Cube) -> Self {
        Job { name, like: like.clone(), handles: Vec::new(), steps: Vec::new() }
    }

    /// Adds a tensor that the work reads in its existing layout. The caller must check its strides.
    ///
    /// # Panics
    /// If the tensor is on another device.
    pub(crate) fn read(&mut self, tensor: Cube) -> Slot {
        assert_eq!(tensor.device, self.like.device, "{}: expected tensors on one device, got two", self.name);
        self.handles.push(tensor.handle);
        Slot(self.handles.len() - 1)
    }

    /// Adds a tensor that the work reads as contiguous. Copies it if necessary.
    pub(crate) fn read_contiguous(&mut self, tensor: Cube) -> Slot {
        let tensor = if is_aligned(&tensor) { into_contiguous(tensor) } else { into_contiguous(tensor.copy()) };
        self.read(tensor)
    }

    /// Allocates a contiguous tensor for the work to fill.
    pub(crate) fn write(&mut self, shape: &[usize], dtype: DType) -> (Slot, Cube) {
        let (client, device) = (self.like.client.clone(), self.like.device.clone());
        let tensor = empty_device_contiguous_dtype(client, device, Shape::from(shape.to_vec()), dtype);
        (self.read(tensor.clone()), tensor)
    }

    /// Adds work, which runs after the work added before.
    pub(crate) fn then(&mut self, step: impl FnOnce(&mut Context, &Pointers) -> Outcome + Send + 'static) {
        self.steps.push(Box::new(step));
    }

    /// Queues the work. Errors are returned by the next [`check`].
    pub(crate) fn submit(self) {
        let Job { name, like, handles, steps } = self;
        let bindings: Vec<_> = handles.into_iter().map(Handle::binding).collect();
        device_handle(&like.device).submit(move |server: &mut Server| {
            let work = AssertUnwindSafe(|| -> Outcome {
                let stream = StreamId::current();
                // These keep the memory from being reused until the work has been enqueued.
                let mut resources = Vec::with_capacity(bindings.len());
                for binding in bindings {
                    let resource = server.get_resource(binding, stream);
                    resources.push(resource.map_err(|error| format!("memory: {error:?}"))?);
                }
                let pointers = Pointers(resources.iter().map(|resource| resource.resource().ptr).collect());
                with_context(name, ordering(), |context| {
                    steps.into_iter().try_for_each(|step| step(context, &pointers))
                })
            });
            let done = catch_unwind(work).unwrap_or_else(|panic| Err(said(&*panic)));
            if let Err(error) = done {
                FIRST.keep(|| format!("{name}: {}", error.lines().collect::<Vec<_>>().join(" ")));
            }
        });
    }
}

/// Returns the first error of all work queued since the last call. If values have been read to the
/// host, all work that they depend on has been queued. So an `Ok` after the read means that the
/// values are valid.
///
/// # Errors
/// [`Error::Cuda`] with the first error.
pub fn check() -> Result<()> {
    if let Some(recorder) = any_recorder() {
        tell(recorder);
    }
    FIRST.take()
}

/// Reports completed GPU work to a recorder, for all GPUs that the calling thread has used. Blocks
/// until done.
fn tell(recorder: &'static dyn Recorder) {
    let handles: Vec<_> = HANDLES.with_borrow(|handles| handles.values().cloned().collect());
    for handle in handles {
        let (sender, receiver) = mpsc::channel();
        handle.submit(move |_: &mut Server| {
            if let Err(error) = context::tell(recorder) {
                FIRST.keep(|| error);
            }
            // The receiver always waits for this.
            let _ = sender.send(());
        });
        handle.flush_queue();
        // An error means that the thread has ended, so there is no work to report.
        let _ = receiver.recv();
    }
}

/// Runs work with another ordering. For tests of the ordering; no other work may run concurrently.
pub(crate) fn with_ordering<T>(ordering: Ordering, work: impl FnOnce() -> T) -> T {
    struct Reset;
    impl Drop for Reset {
        fn drop(&mut self) {
            ORDERING.store(Ordering::Events as u8, SeqCst);
        }
    }
    ORDERING.store(ordering as u8, SeqCst);
    // Resets the ordering even if the work panics.
    let _reset = Reset;
    work()
}

fn ordering() -> Ordering {
    [Ordering::Events, Ordering::Host, Ordering::None][usize::from(ORDERING.load(SeqCst)).min(2)]
}

/// Whether a tensor starts at an address that allows vectorized reads.
pub(crate) fn is_aligned(tensor: &Cube) -> bool {
    tensor.handle.offset_start.unwrap_or(0).is_multiple_of(16)
}

pub(crate) fn device_handle(device: &CudaDevice) -> DeviceHandle<Server> {
    HANDLES.with_borrow_mut(|handles| {
        handles.entry(device.index).or_insert_with(|| DeviceHandle::new(device.to_id())).clone()
    })
}

/// Returns the message of a panic.
pub(crate) fn said(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("a panic without a message").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_error_is_kept_until_it_is_asked_for() {
        let first = First(Mutex::new(None));
        first.keep(|| "batch norm: gone".into());
        first.keep(|| "max pool: what came of it".into());
        assert_eq!(first.take().unwrap_err().to_string(), "cuda: batch norm: gone");
        assert!(first.take().is_ok());
    }

    #[test]
    fn a_panic_is_told_in_its_words() {
        let caught = catch_unwind(|| panic!("missing {}", "symbol")).unwrap_err();
        assert_eq!(said(&*caught), "missing symbol");
        assert_eq!(said(&*catch_unwind(|| panic!("short")).unwrap_err()), "short");
        assert_eq!(said(&*catch_unwind(|| std::panic::panic_any(7)).unwrap_err()), "a panic without a message");
    }
}
