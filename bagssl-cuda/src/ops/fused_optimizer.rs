//! The fused optimizer step of all parameters.

use bagssl_core::model::Change;
use burn::tensor::Tensor;

use super::operation::Operation;
use super::run::OnCuda;
use super::step::{StepItem, StepRule, UpdateRule};
use crate::backend::kernels::{raw, wrap};
use bagssl_train::optimizer::{FusedOptimizer, OptimizerConfig};

/// SGD, AdamW and LARS with one launch per 40 parameters (two for LARS), for
/// [`Trainer::set_fused_optimizer`](bagssl_train::trainer::Trainer::set_fused_optimizer).
#[derive(Debug, Clone, Copy, Default)]
pub struct FusedStep;

impl<B: OnCuda> FusedOptimizer<B> for FusedStep {
    fn step(
        &self,
        config: OptimizerConfig,
        rate: f64,
        steps: u64,
        items: Vec<(Change<B>, Vec<Tensor<B, 1>>)>,
    ) -> Vec<Vec<Tensor<B, 1>>> {
        let rule = UpdateRule::new(config, rate, steps);
        let each = 1 + rule.states();
        let (mut settings, mut inputs) = (Vec::with_capacity(items.len()), Vec::new());
        for (Change { parameter, value, gradient }, states) in items {
            let is_vector = parameter.shape.len() < 2;
            settings.push(StepItem::new(config, rate, is_vector, !states.is_empty()));
            inputs.extend([raw(value), raw(gradient)]);
            inputs.extend(states.into_iter().map(raw));
        }
        let outputs = B::run(Operation::Step(StepRule { rule, items: settings }), inputs);
        let mut outputs = outputs.into_iter().map(wrap).peekable();
        let mut updated = Vec::new();
        while outputs.peek().is_some() {
            updated.push(outputs.by_ref().take(each).collect());
        }
        updated
    }
}
