//! Optimizers and schedule against PyTorch's values (`reference/optim.py` made them).
#![cfg(feature = "ndarray")]

use bagssl_core::model::Change;
use bagssl_core::plan::{Parameter, Role};
use bagssl_train::backend::NdArray;
use bagssl_train::optimizer::{FusedOptimizer, Optimizer, OptimizerConfig, Trust};
use bagssl_train::schedule::Schedule;
use burn::tensor::{Tensor, TensorData};
use serde_json::Value;

fn reference() -> Value {
    serde_json::from_str(include_str!("reference/optim.json")).unwrap()
}

fn numbers(value: &Value) -> Vec<f32> {
    value["data"].as_array().unwrap().iter().map(|number| number.as_f64().unwrap() as f32).collect()
}

fn tensor(values: &[f32]) -> Tensor<NdArray, 1> {
    Tensor::from_data(TensorData::new(values.to_vec(), [values.len()]), &Default::default())
}

fn config(name: &str, settings: &Value) -> OptimizerConfig {
    let number = |name: &str| settings[name].as_f64().unwrap();
    let (rate, decay) = (number("lr"), number("weight_decay"));
    let momentum = || number("momentum");
    let nesterov = settings.get("nesterov").is_some_and(|nesterov| nesterov.as_bool().unwrap());
    match name.split('_').next().unwrap() {
        "sgd" => OptimizerConfig::Sgd {
            learning_rate: rate,
            momentum: momentum(),
            nesterov,
            weight_decay: decay,
            decay_norm_and_bias: true,
        },
        "adamw" => {
            let betas = [0, 1].map(|index| settings["betas"][index].as_f64().unwrap());
            let epsilon = number("eps");
            OptimizerConfig::AdamW {
                learning_rate: rate,
                betas: betas.into(),
                epsilon,
                weight_decay: decay,
                decay_norm_and_bias: true,
            }
        }
        _ => {
            let trust = if name.starts_with("lars_clipped") { Trust::Clipped } else { Trust::Plain };
            OptimizerConfig::Lars {
                learning_rate: rate,
                momentum: momentum(),
                nesterov,
                weight_decay: decay,
                eta: number("eta"),
                trust,
            }
        }
    }
}

fn parameters() -> [Parameter; 2] {
    let parameter = |name: &str, shape: &[usize], role| Parameter { name: name.into(), shape: shape.into(), role };
    [parameter("weight", &[3, 5], Role::Weight), parameter("bias", &[4], Role::Bias)]
}

/// Every optimizer's steps; halfway its state goes through its saved form, which must change nothing.
#[test]
fn steps_match_pytorch() {
    let device = Default::default();
    let reference = reference();
    let cases = reference["optimisers"].as_array().unwrap();
    assert!(cases.len() >= 4);
    for case in cases {
        let name = case["name"].as_str().unwrap();
        let config = config(name, &case["settings"]);
        let mut optimizer = Optimizer::<NdArray>::new(config).unwrap();
        let parameters = parameters();
        let mut now = parameters.each_ref().map(|parameter| tensor(&numbers(&case[&parameter.name])));
        for (step, (gradients, after)) in
            case["gradients"].as_array().unwrap().iter().zip(case["after"].as_array().unwrap()).enumerate()
        {
            if step == 2 {
                let saved = optimizer.tensors().into_iter().map(|(name, _, values)| (name, values)).collect();
                optimizer = Optimizer::new(config).unwrap();
                optimizer.restore(2, &parameters, saved, &device).unwrap();
            }
            optimizer.begin_step();
            for (parameter, value) in parameters.iter().zip(&mut now) {
                let gradient = tensor(&numbers(&gradients[&parameter.name]));
                *value = optimizer.update(parameter, value.clone(), gradient, 1.0);
                let got = value.to_data().into_vec::<f32>().unwrap();
                for (got, expected) in got.iter().zip(numbers(&after[&parameter.name])) {
                    let error = (got - expected).abs();
                    assert!(error < 2e-6 * expected.abs().max(0.1), "{name} step {step}: {got}, expected {expected}");
                }
            }
        }
    }
}

#[test]
fn schedule_matches_its_formula() {
    let reference = reference();
    for part in ["schedule", "schedule_without_warm_up"] {
        let case = &reference[part];
        let base = case["base"].as_f64().unwrap();
        let floor = case["floor"].as_f64().unwrap() / base;
        let warm_up = case["warm_up"].as_f64().unwrap();
        // One step to an epoch.
        let schedule = Schedule { epochs: case["total"].as_u64().unwrap() as u32, warm_up, floor }.check(1).unwrap();
        for (step, rate) in case["rates"].as_array().unwrap().iter().enumerate() {
            let got = base * schedule.factor(step as u64);
            assert!((got - rate.as_f64().unwrap()).abs() < 1e-8, "{part} step {step}: {got}, expected {rate}");
        }
    }
    assert!(Schedule { epochs: 0, warm_up: 0.0, floor: 0.0 }.check(1).is_err());
    assert!(Schedule { epochs: 3, warm_up: 3.5, floor: 0.0 }.check(1).is_err());
    assert!(Schedule { epochs: 3, warm_up: 0.0, floor: 1.5 }.check(1).is_err());
}

#[test]
fn mismatched_state_is_refused() {
    let device = Default::default();
    let config = OptimizerConfig::Sgd {
        learning_rate: 0.1,
        momentum: 0.9,
        nesterov: false,
        weight_decay: 0.0,
        decay_norm_and_bias: true,
    };
    let restore = |steps, tensors: &[(&str, usize)]| {
        let tensors = tensors.iter().map(|&(name, length)| (name.to_string(), vec![0.0; length])).collect();
        let result = Optimizer::<NdArray>::new(config).unwrap().restore(steps, &parameters(), tensors, &device);
        result.map_err(|error| error.to_string())
    };
    let (weight, bias) = ("optimiser.velocity.weight", "optimiser.velocity.bias");
    assert_eq!(restore(3, &[(weight, 15), (bias, 4)]), Ok(()));
    assert_eq!(restore(0, &[]), Ok(()));
    assert!(restore(3, &[(weight, 15)]).unwrap_err().contains("expected tensor optimiser.velocity.bias, got none"));
    assert!(restore(3, &[(weight, 14), (bias, 4)]).unwrap_err().contains("expected 15 values, got 14"));
    assert!(restore(3, &[(weight, 15), ("optimiser.first.bias", 4)]).unwrap_err().contains("not part of"));
}

#[test]
fn settings_out_of_range_are_refused() {
    let sgd = |rate, momentum, nesterov, decay| OptimizerConfig::Sgd {
        learning_rate: rate,
        momentum,
        nesterov,
        weight_decay: decay,
        decay_norm_and_bias: true,
    };
    assert!(sgd(0.1, 0.9, true, 0.0).check().is_ok());
    for bad in [sgd(0.0, 0.9, true, 0.0), sgd(f64::NAN, 0.9, true, 0.0), sgd(0.1, 1.0, false, 0.0)] {
        assert!(bad.check().is_err(), "{bad:?}");
    }
    assert!(sgd(0.1, 0.0, true, 0.0).check().is_err(), "Nesterov needs a momentum");
    assert!(sgd(0.1, 0.9, true, -1.0).check().is_err());
}

/// SGD with momentum over all parameters, for what [`Optimizer::update_all`] passes on and takes back.
#[derive(Debug)]
struct Descents;

type Item = (Change<NdArray>, Vec<Tensor<NdArray, 1>>);

impl FusedOptimizer<NdArray> for Descents {
    fn step(&self, config: OptimizerConfig, rate: f64, steps: u64, items: Vec<Item>) -> Vec<Vec<Tensor<NdArray, 1>>> {
        let OptimizerConfig::Sgd { momentum, .. } = config else { panic!("the test's config is SGD") };
        let each = |(change, states): Item| {
            assert_eq!(states.len(), usize::from(steps > 1));
            let velocity = match states.into_iter().next() {
                Some(velocity) => velocity * momentum + change.gradient,
                None => change.gradient,
            };
            vec![change.value - velocity.clone() * rate, velocity]
        };
        items.into_iter().map(each).collect()
    }
}

#[test]
fn fused_step_equals_separate_steps() {
    let config = OptimizerConfig::Sgd {
        learning_rate: 0.5,
        momentum: 0.9,
        nesterov: false,
        weight_decay: 0.0,
        decay_norm_and_bias: false,
    };
    let [mut separate, mut each, mut fused] = [(); 3].map(|()| Optimizer::<NdArray>::new(config).unwrap());
    fused.set_fused(Box::new(Descents));
    let mut now = [tensor(&[1.0, -2.0, 0.5]), tensor(&[3.0])];
    for step in 1..4 {
        let gradients = [tensor(&[0.1 * step as f32, -0.2, 0.7]), tensor(&[1.5])];
        let changes = || -> Vec<Change<NdArray>> {
            let all = parameters().into_iter().zip(now.clone()).zip(gradients.clone());
            all.map(|((parameter, value), gradient)| Change { parameter, value, gradient }).collect()
        };
        [&mut separate, &mut each, &mut fused].into_iter().for_each(Optimizer::begin_step);
        let expected: Vec<_> = changes()
            .into_iter()
            .map(|change| separate.update(&change.parameter, change.value, change.gradient, 0.5).into_data())
            .collect();
        let one_by_one = each.update_all(changes(), 0.5);
        let at_once = fused.update_all(changes(), 0.5);
        assert_eq!(one_by_one.iter().map(Tensor::to_data).collect::<Vec<_>>(), expected);
        assert_eq!(at_once.iter().map(Tensor::to_data).collect::<Vec<_>>(), expected);
        now = at_once.try_into().unwrap();
    }
    assert_eq!(separate.tensors(), fused.tensors());
    assert_eq!(separate.tensors(), each.tensors());
}
