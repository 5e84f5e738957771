//! The choice of a backend.

use anyhow::{Result, bail};
use burn::tensor::backend::Backend;
use clap::ValueEnum;

/// The backends by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Name {
    /// Burn's candle backend, on the CPU: the fastest of the two for now
    #[default]
    Candle,
    /// Burn's ndarray backend, on the CPU
    Ndarray,
    /// NVIDIA GPUs (only in a program built with the feature `cuda`)
    Cuda,
}

impl Name {
    pub(crate) fn text(self) -> &'static str {
        match self {
            Name::Candle => "candle",
            Name::Ndarray => "ndarray",
            Name::Cuda => "cuda",
        }
    }
}

/// Work that runs on any backend.
pub(crate) trait Job {
    /// What comes of it.
    type Output;

    /// Does it on a device.
    fn run<B: Backend>(self, device: B::Device) -> Result<Self::Output>;
}

/// Does a job on the backend of that name.
pub(crate) fn on<J: Job>(name: Name, job: J) -> Result<J::Output> {
    match name {
        Name::Candle => job.run::<bagssl_train::backend::Candle>(Default::default()),
        Name::Ndarray => job.run::<bagssl_train::backend::NdArray>(Default::default()),
        Name::Cuda => on_cuda(job),
    }
}

#[cfg(feature = "cuda")]
fn on_cuda<J: Job>(job: J) -> Result<J::Output> {
    // cubecl loads the driver at first use and panics where there is none.
    let default_hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let found = std::panic::catch_unwind(|| {
        let device = Default::default();
        <bagssl_train::backend::Cuda as Backend>::sync(&device).is_ok()
    });
    std::panic::set_hook(default_hook);
    if !matches!(found, Ok(true)) {
        bail!("--backend cuda: expected an NVIDIA GPU with its driver and the CUDA toolkit's headers, found none");
    }
    job.run::<bagssl_train::backend::Cuda>(Default::default())
}

#[cfg(not(feature = "cuda"))]
fn on_cuda<J: Job>(_: J) -> Result<J::Output> {
    bail!(
        "--backend cuda: this program was built without it; build it with `cargo build --release -p bagssl-cli --features cuda`"
    )
}
