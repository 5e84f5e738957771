//! The choice of a backend.

use std::sync::Arc;

use anyhow::{Result, bail};
use bagssl_core::checkpoint::{Checkpoint, ModelPlan};
use bagssl_core::cpu::{self, EmbedderOptions, InstructionSet, Options};
use bagssl_core::embed::{Embed, Tap};
use bagssl_core::model::{CpuFast, Differentiable, Embedder, Kernels, Model, Stock};
use bagssl_core::plan::Op;
#[cfg(feature = "cuda")]
use bagssl_train::backend::CudaDevice;
#[cfg(feature = "cuda")]
use bagssl_train::cuda::{Bf16, Cudnn, F32, FusedStep, Nccl, Precision, Tf32, memory as gpu_memory};
use bagssl_train::loss::Algebra;
use bagssl_train::trainer::Trainer;
use bagssl_train::workers::{Exchange, Synchronised, Threads};
use burn::backend::Autodiff;
use burn::tensor::backend::Backend;
use clap::ValueEnum;

use crate::memory;

/// The backends by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Name {
    /// The CPU, with this project's kernels: they train behind Burn's ndarray backend and embed without Burn
    #[default]
    Ndarray,
    /// The CPU, with Burn's candle backend: slower, and independent of the other
    Candle,
    /// NVIDIA's GPUs (only in a program built with the feature `cuda`): maps in bf16, weights, statistics and losses in f32
    Cuda,
    /// The same, with maps in f32 and products in TF32
    CudaTf32,
    /// The same, all in f32
    CudaF32,
}

impl Name {
    pub(crate) fn text(self) -> &'static str {
        match self {
            Name::Candle => "candle",
            Name::Ndarray => "ndarray",
            Name::Cuda => "cuda",
            Name::CudaTf32 => "cuda-tf32",
            Name::CudaF32 => "cuda-f32",
        }
    }

    /// Whether it runs on a GPU.
    pub(crate) fn is_gpu(self) -> bool {
        matches!(self, Name::Cuda | Name::CudaTf32 | Name::CudaF32)
    }
}

/// How the CPU's kernels compute.
#[derive(Debug, Clone, Copy, Default, clap::Args)]
pub(crate) struct CpuArgs {
    /// CPU: only plain sums of products, no Winograd (slower; rounding errors are about half)
    #[arg(long)]
    pub(crate) exact: bool,
    /// CPU: products in bf16, where the CPU has them (faster; embeddings to 2 or 3 digits)
    #[arg(long, conflicts_with = "exact")]
    pub(crate) bf16: bool,
}

impl CpuArgs {
    fn set(self) -> Result<InstructionSet> {
        match self.bf16 {
            true if !InstructionSet::Avx512Bf16.is_available() => {
                bail!("--bf16: expected a CPU with AVX512_BF16, got another")
            }
            true => Ok(InstructionSet::Avx512Bf16),
            false => Ok(InstructionSet::best()),
        }
    }

    /// What an executor is told, for so many inputs of such a size at a time.
    pub(crate) fn options(self, batch: usize, size: [usize; 2]) -> Result<Options> {
        Ok(Options { set: self.set()?, exact: self.exact, batch, size })
    }
}

/// Patches that a network looks at together.
const ROWS: usize = 512;

/// What a name stands for: a backend to train on, its kernels, and what embeds.
pub(crate) trait Target {
    /// Where training runs.
    type Backend: Backend;
    /// The operations of the network.
    type Kernels: Kernels<Self::Backend>;
    /// These with gradients.
    type Training: Kernels<Autodiff<Self::Backend>> + Algebra<Self::Backend>;

    /// Lets a run's steps be made as the target makes them best.
    fn prepare(_: &mut Trainer<Autodiff<Self::Backend>, Self::Training>) {}

    /// Bytes of a value of a map in training.
    const MAP_VALUE: u64 = 4;

    /// Bytes of memory that a step could take on each of so many devices, where that is known.
    fn free_memory(devices: usize) -> Option<u64> {
        Some(memory::available()? / devices as u64)
    }

    /// Devices for workers that share each batch: GPUs, or threads of the one CPU.
    fn workers(count: usize) -> Result<Vec<Worker<Self>>> {
        let ends = Threads::<Self::Backend>::new(count).into_iter();
        Ok(ends.map(|end| Worker { device: Default::default(), exchange: Arc::new(end) }).collect())
    }

    /// The most memory that has been held, or is held where what is held is not given back.
    fn memory_held() -> Option<u64> {
        memory::held().ok().map(|(_, most)| most)
    }

    /// Refuses a plan that the backend cannot run.
    fn check_plan(_: &ModelPlan) -> Result<()> {
        Ok(())
    }

    /// A network with a checkpoint's weights, for features at some taps.
    fn trained(
        checkpoint: &Checkpoint<'_>,
        _taps: &[Tap],
        cpu: CpuArgs,
        device: &Device<Self>,
    ) -> Result<Box<dyn Embed>> {
        if cpu.exact || cpu.bf16 {
            bail!("--exact, --bf16: expected --backend ndarray, got another");
        }
        Self::check_plan(&checkpoint.spec().model)?;
        checkpoint.check_values()?;
        let model = Model::<Self::Backend>::load(checkpoint, device)?;
        Ok(Box::new(Embedder::<_, Self::Kernels>::new(model, device.clone(), ROWS)))
    }

    /// A network with random weights.
    fn random(
        plan: &ModelPlan,
        seed: u64,
        _input: u32,
        _taps: &[Tap],
        device: &Device<Self>,
    ) -> Result<Box<dyn Embed>> {
        let model = Model::<Self::Backend>::init(plan, seed, device);
        Ok(Box::new(Embedder::<_, Self::Kernels>::new(model, device.clone(), ROWS)))
    }
}

/// A device, and its end of what it shares with others.
pub(crate) struct Worker<T: Target + ?Sized> {
    pub(crate) device: Device<T>,
    pub(crate) exchange: Arc<dyn Exchange<T::Backend>>,
}

/// The device of a target's backend.
pub(crate) type Device<T> = <<T as Target>::Backend as burn::tensor::backend::BackendTypes>::Device;

struct OnCandle;

impl Target for OnCandle {
    type Backend = bagssl_train::backend::Candle;
    type Kernels = Stock;
    type Training = Differentiable<Synchronised<Stock>>;

    /// Candle's convolutions have one stride and one padding for both directions.
    fn check_plan(plan: &ModelPlan) -> Result<()> {
        for layer in plan.encoder().layers() {
            if let Op::ConvNorm { conv, window, .. } = &layer.op
                && (window.stride[0] != window.stride[1] || window.padding[0] != window.padding[1])
            {
                bail!(
                    "--backend candle: expected one stride and padding for both directions, got {window:?} in {conv}"
                );
            }
        }
        Ok(())
    }
}

struct OnNdarray;

/// Patches that the CPU's kernels take together.
const CPU_ROWS: usize = 64;

fn cpu_options(input: u32, cpu: CpuArgs) -> Result<EmbedderOptions> {
    let set = cpu.set()?;
    Ok(EmbedderOptions { set, exact: cpu.exact, rows: CPU_ROWS, side: input as usize })
}

impl Target for OnNdarray {
    type Backend = bagssl_train::backend::NdArray;
    type Kernels = CpuFast;
    type Training = Differentiable<Synchronised<CpuFast>>;

    fn trained(checkpoint: &Checkpoint<'_>, taps: &[Tap], cpu: CpuArgs, _: &Device<Self>) -> Result<Box<dyn Embed>> {
        checkpoint.check_values()?;
        let options = cpu_options(checkpoint.spec().patch.input(), cpu)?;
        Ok(Box::new(cpu::Embedder::new(checkpoint, taps, options)?))
    }

    fn random(plan: &ModelPlan, seed: u64, input: u32, taps: &[Tap], _: &Device<Self>) -> Result<Box<dyn Embed>> {
        let tensors = plan.first_weights(seed);
        let mut source = |name: &str| {
            let (.., values) =
                tensors.iter().find(|(known, ..)| known == name).expect("a plan names all its parameters");
            Ok(values.into())
        };
        Ok(Box::new(cpu::Embedder::from_source(plan, &mut source, taps, cpu_options(input, CpuArgs::default())?)?))
    }
}

#[cfg(feature = "cuda")]
struct OnCuda<P>(std::marker::PhantomData<P>);

#[cfg(feature = "cuda")]
impl<P: Precision> Target for OnCuda<P> {
    type Backend = bagssl_train::backend::Cuda;
    type Kernels = Cudnn<P>;
    type Training = Cudnn<P>;

    const MAP_VALUE: u64 = if P::MAPS.is_some() { 2 } else { 4 };

    fn free_memory(devices: usize) -> Option<u64> {
        (0..devices).filter_map(|gpu| gpu_memory(gpu).ok()).map(|memory| memory.free).min()
    }

    fn memory_held() -> Option<u64> {
        gpu_memory(0).ok().map(|memory| memory.used())
    }

    fn workers(count: usize) -> Result<Vec<Worker<Self>>> {
        let ends = Nccl::new(&(0..count).collect::<Vec<_>>())?.into_iter().enumerate();
        let worker = |(gpu, end)| Worker { device: CudaDevice::new(gpu), exchange: Arc::new(end) as Arc<_> };
        Ok(ends.map(worker).collect())
    }

    fn prepare(trainer: &mut Trainer<Autodiff<Self::Backend>, Cudnn<P>>) {
        trainer.set_together(Box::new(FusedStep));
    }
}

/// Work that runs on any backend.
pub(crate) trait Job {
    /// What comes of it.
    type Output;

    /// Does it on a device.
    fn run<T: Target>(self, device: Device<T>) -> Result<Self::Output>;
}

/// Does a job on the backend of that name.
pub(crate) fn on<J: Job>(name: Name, job: J) -> Result<J::Output> {
    match name {
        Name::Candle => job.run::<OnCandle>(Default::default()),
        Name::Ndarray => job.run::<OnNdarray>(Default::default()),
        gpu => on_gpu(gpu, job),
    }
}

#[cfg(feature = "cuda")]
fn on_gpu<J: Job>(name: Name, job: J) -> Result<J::Output> {
    // cubecl panics where something is missing, so that has to be known before its first use.
    bagssl_train::cuda::probe::require()?;
    match name {
        Name::CudaF32 => job.run::<OnCuda<F32>>(Default::default()),
        Name::CudaTf32 => job.run::<OnCuda<Tf32>>(Default::default()),
        _ => job.run::<OnCuda<Bf16>>(Default::default()),
    }
}

#[cfg(not(feature = "cuda"))]
fn on_gpu<J: Job>(name: Name, _: J) -> Result<J::Output> {
    bail!(
        "--backend {}: this program was built without it; build it with `cargo build --release -p bagssl-cli --features cuda`",
        name.text()
    )
}
