//! Selection of the backend.

use anyhow::{Result, bail};
use bagssl_backend::{Backend, CpuOptions};
use bagssl_core::cpu::{ExecutorOptions, InstructionSet};
use clap::ValueEnum;

/// The backends, by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Name {
    /// CPU, with this project's kernels. They train behind Burn's ndarray backend and embed without
    /// Burn
    #[default]
    Ndarray,
    /// CPU, with Burn's own operations on ndarray. The slowest (requires the build feature
    /// `candle`)
    NdarrayStock,
    /// CPU, with Burn's candle backend. Slower, and independent of ndarray (requires the build
    /// feature `candle`)
    Candle,
    /// NVIDIA GPU: feature maps in bf16; weights, statistics and losses in f32 (requires the build
    /// feature `cuda`)
    Cuda,
    /// NVIDIA GPU: feature maps in f32, matrix products in TF32 (requires the build feature `cuda`)
    CudaTf32,
    /// NVIDIA GPU: everything in f32 (requires the build feature `cuda`)
    CudaF32,
}

impl Name {
    pub(crate) fn text(self) -> &'static str {
        match self {
            Name::Ndarray => "ndarray",
            Name::NdarrayStock => "ndarray-stock",
            Name::Candle => "candle",
            Name::Cuda => "cuda",
            Name::CudaTf32 => "cuda-tf32",
            Name::CudaF32 => "cuda-f32",
        }
    }

    /// Returns the name with the CPU kernel options that change what is computed.
    pub(crate) fn text_with(self, cpu: CpuArgs) -> String {
        let kernels = match cpu {
            CpuArgs { exact: true, .. } => " exact",
            CpuArgs { bf16: true, .. } => " bf16",
            CpuArgs { .. } => "",
        };
        format!("{}{kernels}", self.text())
    }

    /// Returns whether the backend runs on a GPU.
    pub(crate) fn is_gpu(self) -> bool {
        matches!(self, Name::Cuda | Name::CudaTf32 | Name::CudaF32)
    }

    /// Returns the CPU backends that this build includes.
    pub(crate) fn cpu_backends() -> &'static [Name] {
        match cfg!(feature = "candle") {
            true => &[Name::Ndarray, Name::NdarrayStock, Name::Candle],
            false => &[Name::Ndarray],
        }
    }

    /// Opens the backend with the default kernel options.
    pub(crate) fn open(self) -> Result<Box<dyn Backend>> {
        self.open_with(CpuArgs::default())
    }

    /// Opens the backend with the given CPU kernel options.
    pub(crate) fn open_with(self, cpu: CpuArgs) -> Result<Box<dyn Backend>> {
        if self == Name::Ndarray {
            return Ok(bagssl_backend::ndarray(CpuOptions { set: cpu.set()?, exact: cpu.exact }));
        }
        if cpu.exact || cpu.bf16 {
            bail!("--exact, --bf16: expected --backend ndarray, got {}", self.text());
        }
        if self.is_gpu() { self.gpu() } else { self.open_stock() }
    }

    #[cfg(feature = "candle")]
    fn open_stock(self) -> Result<Box<dyn Backend>> {
        Ok(if self == Name::Candle { bagssl_backend::candle() } else { bagssl_backend::ndarray_stock() })
    }

    #[cfg(not(feature = "candle"))]
    fn open_stock(self) -> Result<Box<dyn Backend>> {
        self.not_built("candle")
    }

    #[cfg(feature = "cuda")]
    fn gpu(self) -> Result<Box<dyn Backend>> {
        use bagssl_backend::Precision;
        show_warnings();
        let precision = match self {
            Name::CudaF32 => Precision::F32,
            Name::CudaTf32 => Precision::Tf32,
            _ => Precision::Bf16,
        };
        Ok(bagssl_backend::cuda(precision)?)
    }

    #[cfg(not(feature = "cuda"))]
    fn gpu(self) -> Result<Box<dyn Backend>> {
        self.not_built("cuda")
    }

    #[cfg(not(all(feature = "candle", feature = "cuda")))]
    fn not_built(self, feature: &str) -> Result<Box<dyn Backend>> {
        bail!(
            "--backend {}: not built in; rebuild with `cargo build --release -p bagssl-cli --features {feature}`",
            self.text()
        )
    }
}

/// Prints the warnings of Burn's CUDA backend from now on.
#[cfg(feature = "cuda")]
pub(crate) fn show_warnings() {
    bagssl_cuda::warnings::hear(|warning| crate::terminal::output::note!("warning: {warning}"));
}

/// Runs `work` and converts a panic of Burn's backend, for instance after a GPU failure, to an
/// error.
#[cfg(feature = "cuda")]
pub(crate) fn or_panic<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    bagssl_cuda::panics::or_panic(work).map_err(anyhow::Error::from).flatten()
}

#[cfg(not(feature = "cuda"))]
pub(crate) fn or_panic<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    work()
}

/// Options of the CPU kernels.
#[derive(Debug, Clone, Copy, Default, clap::Args)]
pub(crate) struct CpuArgs {
    /// CPU: compute plain sums of products, no Winograd (slower; about half the rounding error)
    #[arg(long)]
    pub(crate) exact: bool,
    /// CPU: compute products in bf16; requires a CPU with AVX512_BF16 (faster; embeddings are
    /// accurate to 2 or 3 digits)
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

    /// Returns the executor's options for `batch` inputs of `size` at a time.
    pub(crate) fn options(self, batch: usize, size: [usize; 2]) -> Result<ExecutorOptions> {
        Ok(ExecutorOptions { set: self.set()?, exact: self.exact, batch, size })
    }
}
