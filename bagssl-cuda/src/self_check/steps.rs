//! Checks the optimizer steps.

use bagssl_core::model::Change;
use bagssl_core::plan::{Parameter, Role};
use burn::tensor::Tensor;

use super::report::{Checks, Figure};
use super::values::{difference, flat, random, tensor};
use crate::ops::fused_optimizer::FusedStep;
use crate::ops::run::OnCuda;
use bagssl_train::error::Result;
use bagssl_train::optimizer::{Optimizer, OptimizerConfig, Trust};

/// Compares the fused step of all parameters with Burn's operations per parameter, over several
/// steps.
pub(super) fn steps<B: OnCuda>(checks: &mut Checks<'_>) {
    let (rate, momentum, decay) = (0.1, 0.9, 1e-2);
    let lars = |trust, nesterov| OptimizerConfig::Lars {
        learning_rate: rate,
        momentum,
        nesterov,
        weight_decay: decay,
        eta: 0.02,
        trust,
    };
    let sgd = |momentum, nesterov| OptimizerConfig::Sgd {
        learning_rate: rate,
        momentum,
        nesterov,
        weight_decay: decay,
        decay_norm_and_bias: false,
    };
    let betas = (0.9, 0.99);
    let configs = [
        ("sgd", sgd(0.0, false)),
        ("sgd, momentum", sgd(momentum, false)),
        ("sgd, nesterov", sgd(momentum, true)),
        (
            "adamw",
            OptimizerConfig::AdamW {
                learning_rate: 0.01,
                betas,
                epsilon: 1e-8,
                weight_decay: decay,
                decay_norm_and_bias: false,
            },
        ),
        ("lars, clipped", lars(Trust::Clipped, true)),
        ("lars, plain", lars(Trust::Plain, false)),
    ];
    for (name, config) in configs {
        checks.check("f32", &format!("{name}, 43 parameters of 1 to 70001 values, 3 steps"), || {
            match steps_differ::<B>(config) {
                Ok(error) => vec![Figure::new(name, error, 1e-5)],
                Err(error) => vec![Figure { note: error.to_string(), ..Figure::new(name, f64::INFINITY, 1e-5) }],
            }
        });
    }
}

fn steps_differ<B: OnCuda>(config: OptimizerConfig) -> Result<f64> {
    let device = B::Device::default();
    let (mut each, mut together) = (Optimizer::<B>::new(config)?, Optimizer::<B>::new(config)?);
    together.set_fused(Box::new(FusedStep));
    // More parameters than one launch takes: matrices and vectors, one of them all zeros.
    let length = |index: usize| if index == 7 { 70001 } else { 1 + 37 * index };
    let parameter = |index: usize| {
        let shape = if index.is_multiple_of(3) { vec![length(index)] } else { vec![length(index), 1] };
        Parameter { name: format!("p{index}"), shape, role: Role::Weight }
    };
    let first = |index: usize| {
        let values = random(index as u64 + 1, length(index));
        if index == 4 { vec![0.0; values.len()] } else { values }
    };
    let mut now: Vec<Tensor<B, 1>> = (0..43).map(|index| tensor(&first(index), [length(index)], &device)).collect();
    let mut worst = 0.0_f64;
    for step in 0..3 {
        let changes = || -> Vec<Change<B>> {
            let change = |(index, value): (usize, &Tensor<B, 1>)| {
                let gradient =
                    tensor(&random(100 * (step + 1) + index as u64, length(index)), [length(index)], &device);
                Change { parameter: parameter(index), value: value.clone(), gradient }
            };
            now.iter().enumerate().map(change).collect()
        };
        each.begin_step();
        together.begin_step();
        let expected = each.update_all(changes(), 0.5);
        let got = together.update_all(changes(), 0.5);
        for (got, expected) in got.into_iter().zip(&expected) {
            let expected: Vec<f64> = flat(expected.clone()).into_iter().map(f64::from).collect();
            worst = worst.max(difference(&flat(got), &expected));
        }
        now = expected;
    }
    Ok(worst)
}
