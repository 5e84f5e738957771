//! The arguments of `bagssl bench infer`.

use std::path::PathBuf;

use bagssl_core::architecture::Architecture;
use bagssl_core::cpu::InstructionSet;
use clap::ValueEnum;

use crate::backend::Name;

/// How fast an encoder embeds patches: the median of several runs
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Where to embed: on ndarray without Burn, elsewhere with it
    #[arg(long, value_enum, default_value = "ndarray")]
    pub(super) backend: Name,
    /// Encoder, with random weights
    #[arg(long, value_parser = crate::commands::bench::architecture, default_value = "resnet18-cifar")]
    pub(super) arch: Architecture,
    /// A checkpoint's encoder instead
    #[arg(long, value_name = "FILE", conflicts_with = "arch")]
    pub(super) checkpoint: Option<PathBuf>,
    /// Side of a patch in pixels
    #[arg(long, value_name = "PIXELS", default_value_t = 32)]
    pub(super) size: usize,
    /// Patches at a time
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub(super) batch: usize,
    /// Threads [default: as many as cores]
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    pub(super) threads: usize,
    /// Instruction set [default: the fastest of this machine in f32]
    #[arg(long, value_enum)]
    pub(super) set: Option<Set>,
    /// Only plain sums of products: no Winograd
    #[arg(long)]
    pub(super) exact: bool,
    /// All patches of images of this size in one pass (encoders without padding)
    #[arg(long)]
    pub(super) dense: bool,
    /// Runs that are timed, after two that are not
    #[arg(long, value_name = "N", default_value_t = 15)]
    pub(super) runs: usize,
    /// Print the result as JSON
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum Set {
    Portable,
    Avx2,
    Avx512,
    #[value(name = "avx512-bf16")]
    Avx512Bf16,
    Neon,
}

impl From<Set> for InstructionSet {
    fn from(set: Set) -> InstructionSet {
        match set {
            Set::Portable => InstructionSet::Portable,
            Set::Avx2 => InstructionSet::Avx2,
            Set::Avx512 => InstructionSet::Avx512,
            Set::Avx512Bf16 => InstructionSet::Avx512Bf16,
            Set::Neon => InstructionSet::Neon,
        }
    }
}
