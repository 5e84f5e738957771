//! Layers, networks and a whole step on Burn against PyTorch's values, on each CPU backend.

#[path = "../../bagssl-core/tests/support/mod.rs"]
mod support;

use bagssl_core::model::{BatchNormInputs, CpuFast, Differentiable, FoldedNetwork, Kernels, Network, Stock};
use bagssl_core::plan::{Kind, Layer, Op, Parameter, Plan, Window};
#[cfg(feature = "candle")]
use bagssl_train::backend::Candle;
use bagssl_train::backend::NdArray;
use burn::backend::Autodiff;
use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};
use serde_json::Value;
use support::{close, numbers, pair, read, resnets};

fn tensor<B: Backend, const D: usize>(value: &Value) -> Tensor<B, D> {
    let shape: Vec<usize> =
        value["shape"].as_array().unwrap().iter().map(|length| length.as_u64().unwrap() as usize).collect();
    Tensor::from_data(TensorData::new(numbers(value), shape), &Default::default())
}

fn values<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> Vec<f32> {
    tensor.into_data().convert::<f32>().into_vec().unwrap()
}

fn layers<B: Backend, I: Kernels<B>>(odd_windows: bool)
where
    Differentiable<I>: Kernels<Autodiff<B>>,
{
    let all = read(include_str!("../../bagssl-core/tests/reference/layers.json"));
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
        let inputs = BatchNormInputs { input: input.clone(), scale: scale.clone(), shift: shift.clone() };
        let normed = <Differentiable<I> as Kernels<Autodiff<B>>>::batch_norm(
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
fn layers_match_pytorch_on_ndarray() {
    layers::<NdArray, Stock>(true);
}

#[test]
fn layers_match_pytorch_with_own_kernels() {
    layers::<NdArray, CpuFast>(true);
}

#[cfg(feature = "candle")]
#[test]
fn layers_match_pytorch_on_candle() {
    layers::<Candle, Stock>(false);
}

fn burn_runner<B: Backend, K: Kernels<B>>(
    plan: &Plan,
    fill: &dyn Fn(&Parameter) -> Vec<f32>,
    input: Vec<f32>,
    dims: [usize; 4],
) -> Vec<f32> {
    let network = Network::<B>::build(plan, |parameter| Ok(fill(parameter)), &Default::default()).unwrap();
    let input = Tensor::from_data(TensorData::new(input, dims), &Default::default());
    values(FoldedNetwork::new(&network).forward_map::<K>(input, &[plan.layers().len()]).remove(0))
}

#[cfg(feature = "candle")]
#[test]
fn embeddings_match_torchvision_on_candle() {
    let archs = ["resnet18", "resnet18-cifar", "resnet50"];
    resnets(&archs, &["linear", "quadratic"], 2e-5, &burn_runner::<Candle, Stock>);
}

#[test]
fn embeddings_match_torchvision_on_ndarray() {
    resnets(&["resnet18"], &["quadratic"], 1e-4, &burn_runner::<NdArray, Stock>);
}

#[test]
fn embeddings_match_torchvision_with_own_kernels() {
    let archs = ["resnet18", "resnet18-cifar", "resnet50"];
    resnets(&archs, &["quadratic"], 2e-5, &burn_runner::<NdArray, CpuFast>);
}

fn conv(number: usize, inputs: usize, outputs: usize, stride: usize) -> Layer {
    let (conv, norm) = (format!("conv{number}"), format!("bn{number}"));
    let window = Window::square(3, stride, 1);
    Layer { input: number - 1, op: Op::ConvNorm { conv, norm, inputs, outputs, window, residual: None, relu: true } }
}

/// Forward, all gradients, running statistics and evaluation mode of a small network.
fn step<B: Backend, I: Kernels<B>>() {
    let case = read(include_str!("../../bagssl-core/tests/reference/step.json"));
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
    let embedding = FoldedNetwork::new(&encoder).forward_map::<Differentiable<I>>(tensor(&case["x"]), &[3]).remove(0);
    let projection =
        FoldedNetwork::new(&projector).forward_rows::<Differentiable<I>>(embedding.clone(), &[2]).remove(0);
    close("embedding", &values(embedding), &numbers(&case["eval"]["embedding"]), 1e-5);
    close("projection", &values(projection), &numbers(&case["eval"]["projection"]), 1e-4);
}

#[test]
fn step_matches_pytorch_on_ndarray() {
    step::<NdArray, Stock>();
}

#[cfg(feature = "candle")]
#[test]
fn step_matches_pytorch_on_candle() {
    step::<Candle, Stock>();
}

#[test]
fn step_matches_pytorch_with_own_kernels() {
    step::<NdArray, CpuFast>();
}
