//! Tests networks without Burn against torchvision.
#![cfg(all(feature = "cpu", feature = "std"))]

use bagssl_core::architecture::Architecture;
use bagssl_core::cpu::{Executor, ExecutorOptions, InstructionSet, Pool};
use bagssl_core::plan::{Parameter, Plan};

use crate::support::{read, resnets};

#[test]
fn embeddings_match_torchvision_without_burn() {
    for set in InstructionSet::ALL.into_iter().filter(|set| set.is_available()) {
        for exact in [false, true] {
            let run = |plan: &Plan, fill: &dyn Fn(&Parameter) -> Vec<f32>, input: Vec<f32>, dims: [usize; 4]| {
                let parameters = plan.parameters();
                let mut source = |name: &str| {
                    let parameter = parameters.iter().find(|parameter| parameter.name == name).unwrap();
                    Ok(fill(parameter).into())
                };
                // A large nominal batch selects Winograd wherever it is supported.
                let options = ExecutorOptions { set, exact, ..ExecutorOptions::new(1000, [dims[2], dims[3]]) };
                let executor = Executor::new(plan, &mut source, options).unwrap();
                let mut workspace = executor.workspace(dims[0], [dims[2], dims[3]], Pool::global()).unwrap();
                executor.run(&mut workspace, &input, Pool::global()).unwrap()
            };
            let tolerance = if set.is_bf16() { 3e-2 } else { 2e-5 };
            let archs = ["resnet18", "resnet18-cifar", "resnet50"];
            // The filters of the linear phase are waves whose sums nearly cancel, so only plain
            // sums in f32 are accurate enough.
            let phases: &[&str] = if exact && !set.is_bf16() { &["linear", "quadratic"] } else { &["quadratic"] };
            resnets(&archs, phases, tolerance, &run);
        }
    }
}

/// Each architecture has torchvision's names and shapes, in any order.
#[test]
fn names_and_shapes_match_torchvision() {
    let all = read(include_str!("reference/resnet_names.json"));
    for (name, arch) in [
        ("resnet18", Architecture::ResNet18),
        ("resnet34", Architecture::ResNet34),
        ("resnet50", Architecture::ResNet50),
    ] {
        let mut theirs: Vec<(String, Vec<usize>)> = all[name]
            .as_array()
            .unwrap()
            .iter()
            .map(|entry| {
                let shape = entry["shape"].as_array().unwrap().iter().map(|length| length.as_u64().unwrap() as usize);
                (entry["name"].as_str().unwrap().to_string(), shape.collect())
            })
            .filter(|(name, _)| !name.starts_with("fc.") && !name.ends_with("num_batches_tracked"))
            .collect();
        let mut ours: Vec<_> = arch.plan().parameters().into_iter().map(|p| (p.name, p.shape)).collect();
        theirs.sort();
        ours.sort();
        assert_eq!(ours, theirs, "{name}");
    }
}
