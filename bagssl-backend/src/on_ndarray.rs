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

/// Options of the CPU kernels for embedding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CpuOptions {
    /// The instruction set of the kernels. It must be available on this machine.
    pub set: InstructionSet,
    /// Whether to use only direct convolutions, without Winograd: slower, with about half the
    /// rounding error.
    pub exact: bool,
}

impl Default for CpuOptions {
    /// Returns the fastest options in f32.
    fn default() -> Self {
        CpuOptions { set: InstructionSet::best(), exact: false }
    }
}

/// Returns the CPU backend with this project's kernels. Training runs through Burn's ndarray
/// backend, embedding does not use Burn.
pub fn ndarray(options: CpuOptions) -> Box<dyn Backend> {
    Box::new(OnNdarray(options))
}

#[derive(Debug)]
struct OnNdarray(CpuOptions);

/// The number of patches that the kernels process at a time.
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

    fn trained(&self, checkpoint: &Checkpoint<'_>, layers: &[FeatureLayer]) -> Result<Box<dyn Embed>> {
        checkpoint.check_values()?;
        let options = self.options(checkpoint.spec().patch.input());
        Ok(Box::new(Embedder::new(checkpoint, layers, options)?))
    }

    fn random(&self, plan: &ModelPlan, seed: u64, side: u32, layers: &[FeatureLayer]) -> Result<Box<dyn Embed>> {
        let tensors = plan.init_weights(seed);
        let mut source = |name: &str| {
            let (.., values) =
                tensors.iter().find(|(known, ..)| known == name).expect("a plan names all its parameters");
            Ok(values.into())
        };
        Ok(Box::new(Embedder::from_source(plan, &mut source, layers, self.options(side))?))
    }
}
