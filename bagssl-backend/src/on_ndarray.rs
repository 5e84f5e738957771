//! The CPU, with this project's kernels.

use bagssl_core::checkpoint::{Checkpoint, ModelPlan};
use bagssl_core::cpu::{Embedder, EmbedderOptions, InstructionSet};
use bagssl_core::embed::{Embed, FeatureLayer};
use bagssl_core::model::{CpuFast, Differentiable};
use bagssl_train::backend::NdArray;
use bagssl_train::distributed::SyncBatchNorm;

use crate::backend::Backend;
use crate::error::Result;
use crate::target::Target;

/// How the CPU's kernels embed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CpuOptions {
    /// What the kernels are compiled for. It must be available on this machine.
    pub set: InstructionSet,
    /// Only plain sums of products, no Winograd: slower, with about half the rounding error.
    pub exact: bool,
}

impl Default for CpuOptions {
    /// The fastest in f32.
    fn default() -> Self {
        CpuOptions { set: InstructionSet::best(), exact: false }
    }
}

/// The CPU, with this project's kernels: they train behind Burn's ndarray backend, and embed without Burn.
pub fn ndarray(options: CpuOptions) -> Box<dyn Backend> {
    Box::new(OnNdarray(options))
}

#[derive(Debug)]
struct OnNdarray(CpuOptions);

/// Patches that the kernels take together.
const ROWS: usize = 64;

impl OnNdarray {
    fn options(&self, side: u32) -> EmbedderOptions {
        let CpuOptions { set, exact } = self.0;
        EmbedderOptions { set, exact, rows: ROWS, side: side as usize }
    }
}

impl Target for OnNdarray {
    type Burn = NdArray;
    type Kernels = CpuFast;
    type Training = Differentiable<SyncBatchNorm<CpuFast>>;

    fn trained(&self, checkpoint: &Checkpoint<'_>, taps: &[FeatureLayer]) -> Result<Box<dyn Embed>> {
        checkpoint.check_values()?;
        let options = self.options(checkpoint.spec().patch.input());
        Ok(Box::new(Embedder::new(checkpoint, taps, options)?))
    }

    fn random(&self, plan: &ModelPlan, seed: u64, side: u32, taps: &[FeatureLayer]) -> Result<Box<dyn Embed>> {
        let tensors = plan.init_weights(seed);
        let mut source = |name: &str| {
            let (.., values) =
                tensors.iter().find(|(known, ..)| known == name).expect("a plan names all its parameters");
            Ok(values.into())
        };
        Ok(Box::new(Embedder::from_source(plan, &mut source, taps, self.options(side))?))
    }
}
