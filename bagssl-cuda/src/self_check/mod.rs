//! Compares each operation on this machine's GPU with plain loops on the CPU.

mod losses;
mod network;
mod operations;
mod ordering;
mod reference;
mod report;
mod steps;
mod values;
mod vectors;

use super::{check, probe};
use crate::ops::run::OnCuda;
use bagssl_train::error::Result;

use report::Checks;
pub use report::{Row, Summary, Told};

/// A part of the check, selectable by name.
#[derive(Debug, Clone, Copy)]
pub struct Part {
    /// The name.
    pub name: &'static str,
    /// A description of the comparisons.
    pub about: &'static str,
    topic: Topic,
    fused: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Topic {
    Pool,
    Linear,
    Convolution,
    Columns,
    Norm,
    Step,
    Vectors,
    Loss,
    Network,
    Ordering,
}

const fn plain(name: &'static str, about: &'static str, topic: Topic) -> Part {
    Part { name, about, topic, fused: false }
}

const fn fused(name: &'static str, about: &'static str, topic: Topic) -> Part {
    Part { name, about, topic, fused: true }
}

/// All parts in the order in which they run: basic operations first.
pub const PARTS: &[Part] = &[
    plain("pool", "max pool and global mean", Topic::Pool),
    plain("linear", "linear layers", Topic::Linear),
    plain("convolution", "convolution: forward, both gradients, and inference", Topic::Convolution),
    plain("columns", "the same as matrix products, without cuDNN (f32)", Topic::Columns),
    plain("norm", "batch norm, in one pass and in the two passes for several GPUs", Topic::Norm),
    plain("step", "optimizer steps", Topic::Step),
    plain(
        "vectors",
        "copies, sums of feature maps, squares, joined vectors, running statistics, similarity, inverses",
        Topic::Vectors,
    ),
    plain("loss", "loss values and gradients", Topic::Loss),
    plain("network", "whole networks: inference, training, gradients", Topic::Network),
    plain("ordering", "order of work on our stream and Burn's, with negative controls", Topic::Ordering),
    fused("fused-pool", "pool under Burn's fusion", Topic::Pool),
    fused("fused-linear", "linear under Burn's fusion", Topic::Linear),
    fused("fused-convolution", "convolution under Burn's fusion", Topic::Convolution),
    fused("fused-norm", "norm under Burn's fusion", Topic::Norm),
    fused("fused-step", "step under Burn's fusion", Topic::Step),
    fused("fused-vectors", "vectors under Burn's fusion", Topic::Vectors),
    fused("fused-loss", "loss under Burn's fusion", Topic::Loss),
    fused("fused-network", "network under Burn's fusion", Topic::Network),
];

/// Selects parts by name, in the order in which they run; all of them if `names` is empty.
///
/// # Errors
/// A one-line message for an unknown name.
pub fn parts(names: &[String]) -> std::result::Result<Vec<Part>, String> {
    if let Some(unknown) = names.iter().find(|name| PARTS.iter().all(|part| part.name != name.as_str())) {
        let known: Vec<_> = PARTS.iter().map(|part| part.name).collect();
        return Err(format!("expected some of {}, got {unknown:?}", known.join(", ")));
    }
    let chosen = |part: &&Part| names.is_empty() || names.iter().any(|name| name == part.name);
    Ok(PARTS.iter().filter(chosen).copied().collect())
}

/// Runs parts of the check: operations with unusual shapes, strides, paddings and layouts, in bf16,
/// TF32 and f32.
///
/// `tell` is called when a check begins and for each of its values when it ends. So no result is
/// lost if a later check kills the process. Checks that fail or panic do not stop the next ones.
/// `P` is Burn's backend without fusion, `F` with fusion. Callers compile this function for both,
/// which takes minutes.
///
/// # Errors
/// [`Error::Cuda`](bagssl_train::Error::Cuda) if a CUDA component is missing. Errors on the GPU are
/// reported as failed rows.
pub fn correct<P: OnCuda, F: OnCuda>(parts: &[Part], tell: &mut dyn FnMut(Told<'_>)) -> Result<Summary> {
    probe::require()?;
    // Earlier errors do not belong to these operations.
    let _ = check();
    let ask = || check().err().map(|error| error.to_string());
    let mut checks = Checks::new(tell, &ask);
    for part in parts {
        checks.part(
            part.name,
            |checks| if part.fused { run::<F>(part.topic, checks) } else { run::<P>(part.topic, checks) },
        );
    }
    Ok(checks.finish())
}

fn run<B: OnCuda>(topic: Topic, checks: &mut Checks<'_>) {
    match topic {
        Topic::Pool => operations::pools::<B>(checks),
        Topic::Linear => operations::linears::<B>(checks),
        Topic::Convolution => operations::convolutions::<B>(checks),
        Topic::Columns => operations::columns::<B>(checks),
        Topic::Norm => operations::norms::<B>(checks),
        Topic::Step => steps::steps::<B>(checks),
        Topic::Vectors => vectors::vectors::<B>(checks),
        Topic::Loss => losses::losses::<B>(checks),
        Topic::Network => network::networks::<B>(checks),
        Topic::Ordering => ordering::ordering::<B>(checks),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn parts_are_chosen_by_name_and_run_in_their_order() {
        let names = |names: &[&str]| {
            let names: Vec<_> = names.iter().map(|name| (*name).to_string()).collect();
            parts(&names).map(|parts| parts.iter().map(|part| part.name).collect::<Vec<_>>())
        };
        assert_eq!(names(&["norm", "pool"]).unwrap(), ["pool", "norm"]);
        assert_eq!(names(&[]).unwrap().len(), PARTS.len());
        assert_eq!(names(&[]).unwrap().into_iter().collect::<BTreeSet<_>>().len(), PARTS.len(), "a name twice");
        let error = names(&["norm", "norms"]).unwrap_err();
        assert!(error.contains("pool, linear") && error.ends_with("got \"norms\"") && !error.contains('\n'), "{error}");
    }

    #[test]
    fn what_runs_under_fusion_says_so() {
        for part in PARTS {
            assert_eq!(part.fused, part.name.starts_with("fused-"), "{}", part.name);
            let plain = PARTS.iter().find(|other| !other.fused && other.topic == part.topic);
            assert_eq!(plain.map(|plain| plain.name), Some(part.name.trim_start_matches("fused-")));
        }
    }
}
