//! The state of the thread that owns a GPU.

use std::cell::RefCell;
use std::ffi::c_void;

use cudarc::driver::sys as driver;
use cudarc::nvrtc::{CompileOptions, compile_ptx_with_opts};

use bagssl_core::profile::{Recorder, recorder, span};

use super::clock::Clock;
use super::driver::{Grid, Module, Ordering, Outcome, Stream, Workspace, checked};
use crate::ops::convolution::Plans;
use crate::ops::gemm::Blas;
use crate::probe;

/// The concatenated source of the kernels.
pub(crate) const SOURCE: &str = concat!(
    include_str!("../source/common.cu"),
    include_str!("../source/layout.cu"),
    include_str!("../source/columns.cu"),
    include_str!("../source/norm.cu"),
    include_str!("../source/pool.cu"),
    include_str!("../source/rows.cu"),
    include_str!("../source/step.cu"),
    include_str!("../source/vectors.cu"),
    include_str!("../source/cholesky.cu"),
);

/// The names of the kernels.
pub(crate) const KERNELS: [&str; 55] = [
    "pack_bf16_bf16",
    "pack_f32_bf16",
    "pack_bf16_f32",
    "pack_f32_f32",
    "unpack_bf16_bf16",
    "unpack_f32_bf16",
    "unpack_bf16_f32",
    "unpack_f32_f32",
    "columns_f32",
    "columns_gradient_f32",
    "norm_statistics_bf16_8",
    "norm_statistics_bf16_1",
    "norm_statistics_f32_4",
    "norm_statistics_f32_1",
    "norm_apply_bf16_8",
    "norm_apply_bf16_1",
    "norm_apply_f32_4",
    "norm_apply_f32_1",
    "norm_sums_bf16_8",
    "norm_sums_bf16_1",
    "norm_sums_f32_4",
    "norm_sums_f32_1",
    "norm_gradient_bf16_8",
    "norm_gradient_bf16_1",
    "norm_gradient_f32_4",
    "norm_gradient_f32_1",
    "norm_merge",
    "norm_sums_merge",
    "finish_bf16_8",
    "finish_bf16_1",
    "finish_f32_4",
    "finish_f32_1",
    "max_pool_bf16",
    "max_pool_f32",
    "max_pool_gradient_bf16",
    "max_pool_gradient_f32",
    "global_mean_bf16",
    "global_mean_f32",
    "global_mean_gradient_bf16",
    "global_mean_gradient_f32",
    "sum_columns",
    "step_sgd",
    "step_adamw",
    "step_norms",
    "step_lars",
    "vectors_squares",
    "vectors_squares_merge",
    "vectors_join",
    "vectors_running",
    "similarity_lengths",
    "similarity_columns",
    "similarity_mean",
    "cholesky_subtract",
    "cholesky_scale",
    "cholesky_logarithms",
];

/// The state of one GPU, owned by its thread.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) stream: Stream,
    pub(crate) workspace: Workspace,
    pub(crate) plans: Plans,
    pub(crate) blas: Blas,
    clock: Clock,
    module: Module,
}

thread_local! {
    /// Created at the first operation. An error is cached, since another attempt would fail in the
    /// same way.
    static CONTEXT: RefCell<Option<Outcome<Context>>> = const { RefCell::new(None) };
}

/// Runs work on the calling thread's context, between entering and leaving the ordering. The
/// ordering is left even if the work fails, since some of it may have been enqueued.
pub(crate) fn with_context(
    name: &'static str,
    ordering: Ordering,
    work: impl FnOnce(&mut Context) -> Outcome,
) -> Outcome {
    CONTEXT.with_borrow_mut(|context| {
        let context = context.get_or_insert_with(Context::new).as_mut().map_err(|error| error.clone())?;
        context.stream.enter(ordering)?;
        let begin = recorder().map(|recorder| context.clock.begin(&context.stream, recorder)).transpose();
        let done = {
            let _span = span("queueing on the GPU's thread");
            work(context)
        };
        let end = match begin {
            Ok(Some(begin)) => context.clock.end(name, begin, &context.stream),
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        };
        let left = context.stream.leave(ordering);
        done.and(end).and(left)
    })
}

/// Reports the calling thread's completed GPU work to a recorder.
pub(crate) fn tell(recorder: &dyn Recorder) -> Outcome {
    CONTEXT.with_borrow_mut(|context| match context {
        Some(Ok(context)) => context.clock.tell(recorder),
        _ => Ok(()),
    })
}

impl Context {
    fn new() -> Outcome<Self> {
        let mut device = 0;
        // SAFETY: writes one integer. The backend has made its context current on this thread.
        checked(unsafe { driver::cuCtxGetDevice(&mut device) }, "device")?;
        let gpu = probe::gpu(device).ok_or_else(|| format!("GPU {device} cannot be queried"))?;
        let (major, minor) = gpu.capability;
        let ptx = compile(10 * major + minor)?;
        let module = Module::load(&ptx, &KERNELS)?;
        let plans = Plans::new(&gpu.name)?;
        Ok(Context {
            stream: Stream::new()?,
            workspace: Workspace::default(),
            plans,
            blas: Blas::default(),
            clock: Clock::default(),
            module,
        })
    }

    /// Enqueues a kernel on this context's stream.
    ///
    /// # Safety
    /// As [`Module::launch`].
    pub(crate) unsafe fn launch(
        &self,
        name: &'static str,
        shape: (Grid, u32),
        arguments: &mut [*mut c_void],
    ) -> Outcome {
        // SAFETY: guaranteed by the caller.
        unsafe { self.module.launch(name, shape, &self.stream, arguments) }
    }
}

/// Compiles the kernels for a compute capability, or for the newest older one that this NVRTC
/// supports.
pub(crate) fn compile(capability: i32) -> Outcome<String> {
    let mut last = String::new();
    for capability in [capability, 90, 80, 75].into_iter().filter(|&older| older <= capability) {
        let options = vec![format!("--gpu-architecture=compute_{capability}"), "--std=c++17".into()];
        match compile_ptx_with_opts(SOURCE, CompileOptions { options, ..Default::default() }) {
            Ok(ptx) => return Ok(ptx.to_src()),
            Err(error) => last = error.to_string(),
        }
    }
    Err(format!("kernels: {last}"))
}
