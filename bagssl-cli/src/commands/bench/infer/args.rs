//! The arguments of `bagssl bench infer`.

use std::path::PathBuf;

use bagssl_core::architecture::Architecture;
use bagssl_core::cpu::InstructionSet;
use clap::ValueEnum;

use crate::backend::Name;

/// Measure how fast an encoder embeds patches
///
/// Prints the median of several runs.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Backend to embed on
    ///
    /// ndarray runs this project's kernels without Burn. The other backends run Burn.
    #[arg(long, value_enum, default_value = "ndarray")]
    pub(super) backend: Name,
    /// Encoder architecture, with random weights
    #[arg(long, value_parser = crate::commands::bench::architecture, default_value = "resnet18-cifar")]
    pub(super) arch: Architecture,
    /// Use the encoder of this checkpoint instead
    #[arg(long, value_name = "FILE", conflicts_with = "arch")]
    pub(super) checkpoint: Option<PathBuf>,
    /// Side of a patch in pixels
    #[arg(long, value_name = "PIXELS", default_value_t = 32)]
    pub(super) size: usize,
    /// Number of patches per batch
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub(super) batch: usize,
    /// Number of threads [default: one per core]
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    pub(super) threads: usize,
    /// Instruction set [default: the fastest one in f32 on this machine]
    #[arg(long, value_enum)]
    pub(super) set: Option<Set>,
    /// Use plain sums of products only, without Winograd convolution
    #[arg(long)]
    pub(super) exact: bool,
    /// Embed all patches of an image of side --size in one pass (encoders without padding)
    #[arg(long)]
    pub(super) dense: bool,
    /// Number of timed runs, after two untimed ones
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
