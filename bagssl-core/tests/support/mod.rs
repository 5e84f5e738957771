//! Helpers for tests against PyTorch's values, which `reference/*.py` generate. The workspace's
//! crate `tests` also uses them, for models on Burn.
#![allow(dead_code, reason = "each test uses some of these")]

use bagssl_core::architecture::Architecture;
use bagssl_core::plan::{Parameter, Plan, Role};
use serde_json::Value;

pub(crate) fn read(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

pub(crate) fn numbers(value: &Value) -> Vec<f32> {
    value["data"].as_array().unwrap().iter().map(|number| number.as_f64().unwrap() as f32).collect()
}

pub(crate) fn pair(value: &Value) -> [usize; 2] {
    [0, 1].map(|axis| value[axis].as_u64().unwrap() as usize)
}

#[track_caller]
pub(crate) fn close(what: &str, got: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(got.len(), expected.len(), "{what}");
    let largest = expected.iter().fold(1e-3_f32, |largest, value| largest.max(value.abs()));
    let error = got.iter().zip(expected).fold(0_f32, |error, (a, b)| error.max((a - b).abs()));
    assert!(error <= tolerance * largest, "{what}: error {error} of {largest}");
}

/// The weights of `reference/resnet.py`: sines of the index in the tensor and of the tensor's index
/// in the network.
pub(crate) fn formula(index: usize, quadratic: bool, parameter: &Parameter) -> Vec<f32> {
    let place = |i: usize| if quadratic { (i * i) % 1009 } else { i };
    let sine = |i: usize| (0.1 * place(i) as f64 + 1.0 + 0.37 * index as f64).sin();
    let fan_in: usize = parameter.shape[1..].iter().product();
    let value = |i| match parameter.role {
        Role::Weight => (2.0 / fan_in as f64).sqrt() * sine(i),
        Role::NormScale => 1.0 + 0.1 * sine(i),
        Role::NormShift | Role::RunningMean | Role::Bias => 0.1 * sine(i),
        Role::RunningVariance => 1.0 + 0.5 * sine(i).powi(2),
    };
    (0..parameter.len()).map(|i| value(i) as f32).collect()
}

/// Returns torchvision's parameter names in the order of its state dict, which determines the
/// formula's index. BagSSL's plans list a block's shortcut before its last convolution; torchvision
/// lists it after the block's norms.
pub(crate) fn torchvision_names(arch: Architecture) -> Vec<String> {
    let file = match arch {
        Architecture::ResNet50 => "resnet50",
        _ => "resnet18",
    };
    let names = read(include_str!("../reference/resnet_names.json"));
    let names = names[file].as_array().unwrap().iter().map(|entry| entry["name"].as_str().unwrap().to_string());
    names.filter(|name| !name.starts_with("fc.") && !name.ends_with("num_batches_tracked")).collect()
}

/// Runs a network. Receives its plan, its parameters and an input `[row, channel, height, width]`
/// of the given size, and returns the last value.
pub(crate) type Runner<'a> = &'a dyn Fn(&Plan, &dyn Fn(&Parameter) -> Vec<f32>, Vec<f32>, [usize; 4]) -> Vec<f32>;

pub(crate) fn resnets(archs: &[&str], phases: &[&str], tolerance: f32, run: Runner<'_>) {
    for case in read(include_str!("../reference/resnet.json"))["cases"].as_array().unwrap() {
        let name = case["arch"].as_str().unwrap();
        let phase = case["phase"].as_str().unwrap();
        if !archs.contains(&name) || !phases.contains(&phase) {
            continue;
        }
        let arch: Architecture = name.parse().unwrap();
        let order = torchvision_names(arch);
        let index = |name: &str| order.iter().position(|known| known == name).unwrap();
        let fill = |parameter: &Parameter| formula(index(&parameter.name), phase == "quadratic", parameter);
        let dims: Vec<usize> =
            case["input_shape"].as_array().unwrap().iter().map(|length| length.as_u64().unwrap() as usize).collect();
        let dims: [usize; 4] = dims.try_into().unwrap();
        let input: Vec<f32> = (0..dims.iter().product()).map(|i| (0.01 * i as f64).sin() as f32).collect();
        let output = run(&arch.plan(), &fill, input, dims);
        let columns = case["embedding"]["shape"][1].as_u64().unwrap() as usize;
        let output: Vec<f32> =
            output.chunks(arch.plan().output_dim()).flat_map(|row| &row[..columns]).copied().collect();
        close(&format!("{name}, {phase}"), &output, &numbers(&case["embedding"]), tolerance);
    }
}
