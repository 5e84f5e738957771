//! Layers, networks and a whole step against PyTorch's values (`reference/*.py` made them), on both CPU backends.
#![cfg(all(feature = "ndarray", feature = "std"))]
#![allow(deprecated, reason = "Burn 0.21 is the last release with the candle backend")]

use bagssl_core::architecture::Architecture;
use bagssl_core::cpu::{Executor, InstructionSet, Options, Pool};
use bagssl_core::model::{CpuFast, Differentiable, Kernels, Network, NormedInputs, Stock};
use bagssl_core::plan::{Kind, Layer, Op, Parameter, Plan, Role, Window};
use burn::backend::Autodiff;
use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};
use serde_json::Value;

type NdArray = burn_ndarray::NdArray<f32>;
type Candle = burn_candle::Candle<f32, i64>;

fn read(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

fn numbers(value: &Value) -> Vec<f32> {
    value["data"].as_array().unwrap().iter().map(|number| number.as_f64().unwrap() as f32).collect()
}

fn pair(value: &Value) -> [usize; 2] {
    [0, 1].map(|axis| value[axis].as_u64().unwrap() as usize)
}

fn tensor<B: Backend, const D: usize>(value: &Value) -> Tensor<B, D> {
    let shape: Vec<usize> =
        value["shape"].as_array().unwrap().iter().map(|length| length.as_u64().unwrap() as usize).collect();
    Tensor::from_data(TensorData::new(numbers(value), shape), &Default::default())
}

fn values<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> Vec<f32> {
    tensor.into_data().convert::<f32>().into_vec().unwrap()
}

#[track_caller]
fn close(what: &str, got: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(got.len(), expected.len(), "{what}");
    let largest = expected.iter().fold(1e-3_f32, |largest, value| largest.max(value.abs()));
    let error = got.iter().zip(expected).fold(0_f32, |error, (a, b)| error.max((a - b).abs()));
    assert!(error <= tolerance * largest, "{what}: error {error} of {largest}");
}

fn layers<B: Backend, I: Kernels<B>>(odd_windows: bool)
where
    Differentiable<I>: Kernels<Autodiff<B>>,
{
    let all = read(include_str!("reference/layers.json"));
    for case in all["conv2d"].as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        let window =
            Window { kernel: pair(&case["kernel"]), stride: pair(&case["stride"]), padding: pair(&case["padding"]) };
        let square = window.stride[0] == window.stride[1] && window.padding[0] == window.padding[1];
        if !square && !odd_windows {
            continue;
        }
        let input = tensor::<Autodiff<B>, 4>(&case["x"]).require_grad();
        let weight = tensor::<Autodiff<B>, 4>(&case["weight"]).require_grad();
        let output = <Differentiable<I> as Kernels<Autodiff<B>>>::conv2d(input.clone(), weight.clone(), window);
        let gradients = (output.clone() * tensor(&case["output_grad"])).sum().backward();
        close(name, &values(output), &numbers(&case["output"]), 1e-5);
        close(name, &values(input.grad(&gradients).unwrap()), &numbers(&case["x_grad"]), 1e-5);
        close(name, &values(weight.grad(&gradients).unwrap()), &numbers(&case["weight_grad"]), 1e-5);
    }
    for case in all["batch_norm_maps"].as_array().unwrap() {
        let (name, train) = (case["name"].as_str().unwrap(), &case["train"]);
        let input = tensor::<Autodiff<B>, 4>(&case["x"]).require_grad();
        let scale = tensor::<Autodiff<B>, 1>(&case["weight"]).require_grad();
        let shift = tensor::<Autodiff<B>, 1>(&case["bias"]).require_grad();
        let residual = case.get("residual").map(|residual| tensor::<Autodiff<B>, 4>(residual).require_grad());
        let inputs = NormedInputs { input: input.clone(), scale: scale.clone(), shift: shift.clone() };
        let normed = <Differentiable<I> as Kernels<Autodiff<B>>>::norm(
            inputs,
            residual.clone(),
            case["relu"].as_bool().unwrap(),
        );
        let gradients = (normed.output.clone() * tensor(&case["output_grad"])).sum().backward();
        close(name, &values(normed.output), &numbers(&train["output"]), 1e-5);
        close(name, &values(normed.mean), &numbers(&train["batch_mean"]), 1e-5);
        close(name, &values(normed.variance), &numbers(&train["batch_var"]), 1e-5);
        close(name, &values(input.grad(&gradients).unwrap()), &numbers(&train["x_grad"]), 1e-4);
        close(name, &values(scale.grad(&gradients).unwrap()), &numbers(&train["weight_grad"]), 1e-5);
        close(name, &values(shift.grad(&gradients).unwrap()), &numbers(&train["bias_grad"]), 1e-5);
        if let Some(residual) = residual {
            close(name, &values(residual.grad(&gradients).unwrap()), &numbers(&train["residual_grad"]), 1e-5);
        }
    }
    for case in all["max_pool"].as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        let window =
            Window { kernel: pair(&case["kernel"]), stride: pair(&case["stride"]), padding: pair(&case["padding"]) };
        let input = tensor::<Autodiff<B>, 4>(&case["x"]).require_grad();
        let output = <Differentiable<I> as Kernels<Autodiff<B>>>::max_pool2d(input.clone(), window);
        let gradients = (output.clone() * tensor(&case["output_grad"])).sum().backward();
        close(name, &values(output), &numbers(&case["output"]), 1e-6);
        close(name, &values(input.grad(&gradients).unwrap()), &numbers(&case["x_grad"]), 1e-6);
    }
    for case in all["global_mean"].as_array().unwrap() {
        let output: Tensor<B, 2> = I::global_mean(tensor(&case["x"]));
        close("global mean", &values(output), &numbers(&case["output"]), 1e-5);
    }
    for case in all["linear"].as_array().unwrap() {
        let bias = case.get("bias").map(tensor);
        let output: Tensor<B, 2> = I::linear(tensor(&case["x"]), tensor(&case["weight"]), bias);
        close("linear", &values(output), &numbers(&case["output"]), 1e-5);
    }
}

#[test]
fn layers_are_those_of_pytorch_on_ndarray() {
    layers::<NdArray, Stock>(true);
}

#[test]
fn layers_are_those_of_pytorch_with_own_kernels() {
    layers::<NdArray, CpuFast>(true);
}

#[test]
fn layers_are_those_of_pytorch_on_candle() {
    layers::<Candle, Stock>(false);
}

/// The weights of `reference/resnet.py`: sines of the place in the tensor and of the tensor's place in the network.
fn formula(index: usize, quadratic: bool, parameter: &Parameter) -> Vec<f32> {
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

/// Our plans run a block's shortcut before its last convolution, torchvision lists it after the block's norms: the order
/// of its state dict decides the formula's index.
fn torchvision_names(arch: Architecture) -> Vec<String> {
    let file = match arch {
        Architecture::ResNet50 => "resnet50",
        _ => "resnet18",
    };
    let names = read(include_str!("reference/resnet_names.json"));
    let names = names[file].as_array().unwrap().iter().map(|entry| entry["name"].as_str().unwrap().to_string());
    names.filter(|name| !name.starts_with("fc.") && !name.ends_with("num_batches_tracked")).collect()
}

/// What runs a network: its plan, its parameters and an input `[row, channel, height, width]` of some size to its last
/// value.
type Runner<'a> = &'a dyn Fn(&Plan, &dyn Fn(&Parameter) -> Vec<f32>, Vec<f32>, [usize; 4]) -> Vec<f32>;

fn resnets(archs: &[&str], phases: &[&str], tolerance: f32, run: Runner<'_>) {
    for case in read(include_str!("reference/resnet.json"))["cases"].as_array().unwrap() {
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

fn burn_runner<B: Backend, K: Kernels<B>>(
    plan: &Plan,
    fill: &dyn Fn(&Parameter) -> Vec<f32>,
    input: Vec<f32>,
    dims: [usize; 4],
) -> Vec<f32> {
    let network = Network::<B>::build(plan, |parameter| Ok(fill(parameter)), &Default::default()).unwrap();
    let input = Tensor::from_data(TensorData::new(input, dims), &Default::default());
    values(network.forward_map::<K>(input, &[plan.layers().len()]).remove(0))
}

#[test]
fn embeddings_are_those_of_torchvision_on_candle() {
    let archs = ["resnet18", "resnet18-cifar", "resnet50"];
    resnets(&archs, &["linear", "quadratic"], 2e-5, &burn_runner::<Candle, Stock>);
}

#[test]
fn embeddings_are_those_of_torchvision_on_ndarray() {
    resnets(&["resnet18"], &["quadratic"], 1e-4, &burn_runner::<NdArray, Stock>);
}

#[test]
fn embeddings_are_those_of_torchvision_with_own_kernels() {
    let archs = ["resnet18", "resnet18-cifar", "resnet50"];
    resnets(&archs, &["quadratic"], 2e-5, &burn_runner::<NdArray, CpuFast>);
}

#[test]
fn embeddings_are_those_of_torchvision_without_burn() {
    for set in InstructionSet::ALL.into_iter().filter(|set| set.is_available()) {
        for exact in [false, true] {
            let run = |plan: &Plan, fill: &dyn Fn(&Parameter) -> Vec<f32>, input: Vec<f32>, dims: [usize; 4]| {
                let parameters = plan.parameters();
                let mut source = |name: &str| {
                    let parameter = parameters.iter().find(|parameter| parameter.name == name).unwrap();
                    Ok(fill(parameter).into())
                };
                // A large nominal batch selects Winograd wherever it is known.
                let options = Options { set, exact, ..Options::new(1000, [dims[2], dims[3]]) };
                let executor = Executor::new(plan, &mut source, options).unwrap();
                let mut workspace = executor.workspace(dims[0], [dims[2], dims[3]], Pool::global()).unwrap();
                executor.run(&mut workspace, &input, Pool::global()).unwrap()
            };
            let tolerance = if set.is_bf16() { 3e-2 } else { 2e-5 };
            let archs = ["resnet18", "resnet18-cifar", "resnet50"];
            // The filters of the linear phase are waves whose sums nearly cancel: only plain sums in f32 bear that.
            let phases: &[&str] = if exact && !set.is_bf16() { &["linear", "quadratic"] } else { &["quadratic"] };
            resnets(&archs, phases, tolerance, &run);
        }
    }
}

/// Each architecture has torchvision's names and shapes, in any order.
#[test]
fn names_and_shapes_are_those_of_torchvision() {
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

fn conv(number: usize, inputs: usize, outputs: usize, stride: usize) -> Layer {
    let (conv, norm) = (format!("conv{number}"), format!("bn{number}"));
    let window = Window::square(3, stride, 1);
    Layer { input: number - 1, op: Op::ConvNorm { conv, norm, inputs, outputs, window, residual: None, relu: true } }
}

/// Forward, all gradients, running statistics and evaluation mode of a small network.
fn step<B: Backend, I: Kernels<B>>() {
    let case = read(include_str!("reference/step.json"));
    let encoder =
        Plan::new(Kind::Map(3), vec![conv(1, 3, 4, 1), conv(2, 4, 6, 2), Layer { input: 2, op: Op::GlobalMean }]);
    let projector = bagssl_core::architecture::mlp(6, &[5, 4]);
    let device = Default::default();
    let build = |plan: &Plan, part: &str| {
        let stored = &case["parameters"][part];
        let fill = |parameter: &Parameter| Ok(numbers(&stored[&parameter.name]));
        Network::<Autodiff<B>>::build(plan, fill, &device).unwrap()
    };
    let (mut encoder, mut projector) = (build(&encoder.unwrap(), "encoder"), build(&projector.unwrap(), "projector"));

    let (embedding, encoder_statistics) = encoder.forward_train_map::<Differentiable<I>>(tensor(&case["x"]));
    let (projection, projector_statistics) = projector.forward_train_rows::<Differentiable<I>>(embedding.clone());
    close("embedding", &values(embedding), &numbers(&case["embedding"]), 1e-5);
    close("projection", &values(projection.clone()), &numbers(&case["projection"]), 1e-4);

    let gradients = (projection * tensor(&case["output_grad"])).sum().backward();
    for (network, part) in [(&mut encoder, "encoder"), (&mut projector, "projector")] {
        let mut seen = 0;
        let gradients = network.gradients(&gradients);
        network.update(gradients, &mut |parameter, value, gradient| {
            seen += 1;
            let expected = numbers(&case["gradients"][part][&parameter.name]);
            close(&format!("{part} {}", parameter.name), &values(gradient), &expected, 1e-4);
            value
        });
        assert_eq!(seen, case["gradients"][part].as_object().unwrap().len());
    }
    encoder.update_running(encoder_statistics);
    projector.update_running(projector_statistics);
    for (network, part) in [(&encoder, "encoder"), (&projector, "projector")] {
        let running = case["running_after"][part].as_object().unwrap();
        let tensors = network.tensors();
        for (name, expected) in running {
            let (_, _, got) = tensors.iter().find(|(known, ..)| known == name).unwrap();
            close(name, got, &numbers(expected), 1e-5);
        }
    }
    let embedding = encoder.forward_map::<Differentiable<I>>(tensor(&case["x"]), &[3]).remove(0);
    let projection = projector.forward_rows::<Differentiable<I>>(embedding.clone(), &[2]).remove(0);
    close("embedding", &values(embedding), &numbers(&case["eval"]["embedding"]), 1e-5);
    close("projection", &values(projection), &numbers(&case["eval"]["projection"]), 1e-4);
}

#[test]
fn a_step_is_that_of_pytorch_on_ndarray() {
    step::<NdArray, Stock>();
}

#[test]
fn a_step_is_that_of_pytorch_on_candle() {
    step::<Candle, Stock>();
}

#[test]
fn a_step_is_that_of_pytorch_with_own_kernels() {
    step::<NdArray, CpuFast>();
}
