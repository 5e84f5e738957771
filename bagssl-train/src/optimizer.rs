//! Optimizers: SGD, AdamW and LARS on flattened parameters. Their state is stored by parameter
//! name.
//!
//! Vectors (biases, and the scale and shift of norm layers) get neither weight decay nor the
//! layer-wise rate of LARS. SGD and AdamW with `decay_norm_and_bias` do decay vectors, which
//! matches PyTorch's defaults.

use std::collections::BTreeMap;

use bagssl_core::checkpoint::{NamedTensor, OPTIMIZER_PREFIX};
use bagssl_core::model::Change;
use bagssl_core::plan::Parameter;
use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// An optimizer and its settings, as in a config file.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum OptimizerConfig {
    /// Stochastic gradient descent, as `torch.optim.SGD`.
    Sgd {
        /// The peak learning rate.
        #[serde(alias = "rate")]
        learning_rate: f64,
        /// The momentum, in `[0, 1)`.
        momentum: f64,
        /// Whether to use Nesterov momentum.
        nesterov: bool,
        /// The weight decay, added to the gradient.
        #[serde(alias = "decay")]
        weight_decay: f64,
        /// Whether weight decay applies to vectors too.
        #[serde(alias = "decay_vectors")]
        decay_norm_and_bias: bool,
    },
    /// Adam with decoupled weight decay (Loshchilov, Hutter 2019), as `torch.optim.AdamW`.
    #[serde(rename = "adamw")]
    AdamW {
        /// The peak learning rate.
        #[serde(alias = "rate")]
        learning_rate: f64,
        /// The decay rates of the first and second moment, each in `[0, 1)`.
        betas: (f64, f64),
        /// Added to the square root of the second moment.
        epsilon: f64,
        /// The weight decay, multiplied by the learning rate.
        #[serde(alias = "decay")]
        weight_decay: f64,
        /// Whether weight decay applies to vectors too.
        #[serde(alias = "decay_vectors")]
        decay_norm_and_bias: bool,
    },
    /// LARS: layer-wise adaptive rates (You, Gitman, Ginsburg, arXiv:1708.03888) on top of SGD.
    Lars {
        /// The peak learning rate.
        #[serde(alias = "rate")]
        learning_rate: f64,
        /// The momentum, in `[0, 1)`.
        momentum: f64,
        /// Whether to use Nesterov momentum.
        nesterov: bool,
        /// The weight decay, added to the gradients of matrices only.
        #[serde(alias = "decay")]
        weight_decay: f64,
        /// The trust coefficient.
        eta: f64,
        /// The formula of the trust ratio.
        trust: Trust,
    },
}

/// The formula by which LARS computes a matrix's trust ratio from the norms of its value and
/// gradient.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trust {
    /// `min(eta |p| / (|g| + decay |p| + 1e-8) / rate, 1)` (EMP-SSL's code).
    Clipped,
    /// `eta |p| / |g + decay p|` (VICReg's code).
    Plain,
}

impl OptimizerConfig {
    /// Returns the peak learning rate.
    pub fn learning_rate(self) -> f64 {
        match self {
            Self::Sgd { learning_rate: rate, .. }
            | Self::AdamW { learning_rate: rate, .. }
            | Self::Lars { learning_rate: rate, .. } => rate,
        }
    }

    /// Returns the same config with another peak learning rate.
    pub fn with_learning_rate(mut self, new: f64) -> Self {
        match &mut self {
            Self::Sgd { learning_rate: rate, .. }
            | Self::AdamW { learning_rate: rate, .. }
            | Self::Lars { learning_rate: rate, .. } => *rate = new,
        }
        self
    }

    /// Returns the names of the state tensors that each parameter has after its first update.
    pub fn states(self) -> &'static [&'static str] {
        match self {
            Self::AdamW { .. } => &["first", "second"],
            Self::Sgd { momentum, .. } | Self::Lars { momentum, .. } if momentum > 0.0 => &["velocity"],
            Self::Sgd { .. } | Self::Lars { .. } => &[],
        }
    }

    /// Checks the settings.
    ///
    /// # Errors
    /// [`Error::Setting`] names the first setting that is out of range.
    pub fn check(self) -> Result<()> {
        let refuse = |name, expected: &str, got: f64| {
            Err(Error::Setting { name, expected: expected.into(), got: got.to_string() })
        };
        let positive = |name, value: f64| {
            if value.is_finite() && value > 0.0 { Ok(()) } else { refuse(name, "a positive number", value) }
        };
        let not_negative = |name, value: f64| {
            if value.is_finite() && value >= 0.0 { Ok(()) } else { refuse(name, "at least 0", value) }
        };
        let share = |name, value: f64| {
            if (0.0..1.0).contains(&value) { Ok(()) } else { refuse(name, "a fraction in [0, 1)", value) }
        };
        positive("optimizer.learning_rate", self.learning_rate())?;
        match self {
            Self::Sgd { momentum, nesterov, weight_decay: decay, .. } => {
                share("optimizer.sgd.momentum", momentum)?;
                not_negative("optimizer.sgd.weight_decay", decay)?;
                check_nesterov("optimizer.sgd.nesterov", nesterov, momentum)
            }
            Self::AdamW { betas, epsilon, weight_decay: decay, .. } => {
                share("optimizer.adamw.betas", betas.0)?;
                share("optimizer.adamw.betas", betas.1)?;
                positive("optimizer.adamw.epsilon", epsilon)?;
                not_negative("optimizer.adamw.weight_decay", decay)
            }
            Self::Lars { momentum, nesterov, weight_decay: decay, eta, .. } => {
                share("optimizer.lars.momentum", momentum)?;
                not_negative("optimizer.lars.weight_decay", decay)?;
                positive("optimizer.lars.eta", eta)?;
                check_nesterov("optimizer.lars.nesterov", nesterov, momentum)
            }
        }
    }
}

fn check_nesterov(name: &'static str, nesterov: bool, momentum: f64) -> Result<()> {
    if !nesterov || momentum > 0.0 {
        return Ok(());
    }
    Err(Error::Setting { name, expected: "a positive momentum for it".into(), got: momentum.to_string() })
}

/// Updates all parameters in one call, with the same arithmetic as [`Optimizer::update`].
pub trait FusedOptimizer<B: Backend>: core::fmt::Debug {
    /// Returns for each parameter its new value, followed by its new state tensors. Each parameter
    /// comes with its current state tensors: as many as [`OptimizerConfig::states`] names, or none
    /// before its first update. `rate` is the learning rate of this step. `steps` is its number,
    /// counted from 1.
    fn step(
        &self,
        config: OptimizerConfig,
        rate: f64,
        steps: u64,
        items: Vec<(Change<B>, Vec<Tensor<B, 1>>)>,
    ) -> Vec<Vec<Tensor<B, 1>>>;
}

/// An optimizer and its state.
#[derive(Debug)]
pub struct Optimizer<B: Backend> {
    config: OptimizerConfig,
    state: BTreeMap<String, Tensor<B, 1>>,
    steps: u64,
    fused: Option<Box<dyn FusedOptimizer<B>>>,
}

impl<B: Backend> Optimizer<B> {
    /// Creates an optimizer with empty state.
    ///
    /// # Errors
    /// [`Error::Setting`] if a setting is out of range.
    pub fn new(config: OptimizerConfig) -> Result<Self> {
        config.check()?;
        Ok(Optimizer { config, state: BTreeMap::new(), steps: 0, fused: None })
    }

    /// Makes [`Optimizer::update_all`] use the fused implementation `fused`.
    pub fn set_fused(&mut self, fused: Box<dyn FusedOptimizer<B>>) {
        self.fused = Some(fused);
    }

    /// Returns the new values of all parameters, in the order of `changes`. `factor` is the
    /// schedule's factor on the peak learning rate.
    pub fn update_all(&mut self, changes: Vec<Change<B>>, factor: f64) -> Vec<Tensor<B, 1>> {
        let Some(fused) = self.fused.take() else {
            let each = |change: Change<B>| self.update(&change.parameter, change.value, change.gradient, factor);
            return changes.into_iter().map(each).collect();
        };
        let key = |kind: &str, name: &str| format!("{kind}.{name}");
        let kinds = self.config.states();
        let names: Vec<String> = changes.iter().map(|change| change.parameter.name.clone()).collect();
        let items = changes.into_iter().map(|change| {
            let states = kinds.iter().filter_map(|kind| self.state.remove(&key(kind, &change.parameter.name)));
            let states = states.collect();
            (change, states)
        });
        let items = items.collect();
        let updated = fused.step(self.config, self.config.learning_rate() * factor, self.steps, items);
        self.fused = Some(fused);
        let mut values = Vec::with_capacity(names.len());
        for (name, updated) in names.iter().zip(updated) {
            let mut updated = updated.into_iter();
            values.extend(updated.next());
            self.state.extend(kinds.iter().map(|kind| key(kind, name)).zip(updated));
        }
        values
    }

    /// Begins a step. Each parameter must then be updated exactly once.
    pub fn begin_step(&mut self) {
        self.steps += 1;
    }

    /// Returns a parameter's new value. `factor` is the schedule's factor on the peak learning
    /// rate.
    pub fn update(
        &mut self,
        parameter: &Parameter,
        value: Tensor<B, 1>,
        gradient: Tensor<B, 1>,
        factor: f64,
    ) -> Tensor<B, 1> {
        let is_vector = parameter.shape.len() < 2;
        let rate = self.config.learning_rate() * factor;
        match self.config {
            OptimizerConfig::Sgd {
                momentum,
                nesterov,
                weight_decay: decay,
                decay_norm_and_bias: decay_vectors,
                ..
            } => {
                let decay = if is_vector && !decay_vectors { 0.0 } else { decay };
                let gradient = gradient + value.clone() * decay;
                self.descend(&parameter.name, value, gradient, rate, (momentum, nesterov))
            }
            OptimizerConfig::Lars { momentum, nesterov, weight_decay: decay, eta, trust, .. } => {
                let gradient = if is_vector { gradient } else { adapt(&value, gradient, decay, eta, trust, rate) };
                self.descend(&parameter.name, value, gradient, rate, (momentum, nesterov))
            }
            OptimizerConfig::AdamW {
                betas, epsilon, weight_decay: decay, decay_norm_and_bias: decay_vectors, ..
            } => {
                let decay = if is_vector && !decay_vectors { 0.0 } else { decay };
                let value = value * (1.0 - rate * decay);
                let square = gradient.clone() * gradient.clone();
                let first = self.moment("first", &parameter.name, gradient, betas.0);
                let second = self.moment("second", &parameter.name, square, betas.1);
                let corrected = |beta: f64| 1.0 - beta.powf(self.steps as f64);
                let root = (second * (1.0 / corrected(betas.1))).sqrt() + epsilon;
                value - first / root * (rate / corrected(betas.0))
            }
        }
    }

    /// Performs one step of SGD with momentum as PyTorch defines it: the first gradient initializes
    /// the velocity.
    fn descend(
        &mut self,
        name: &str,
        value: Tensor<B, 1>,
        gradient: Tensor<B, 1>,
        rate: f64,
        (momentum, nesterov): (f64, bool),
    ) -> Tensor<B, 1> {
        if momentum == 0.0 {
            return value - gradient * rate;
        }
        let key = format!("velocity.{name}");
        let velocity = match self.state.remove(&key) {
            Some(velocity) => velocity * momentum + gradient.clone(),
            None => gradient.clone(),
        };
        self.state.insert(key, velocity.clone());
        let direction = if nesterov { gradient + velocity * momentum } else { velocity };
        value - direction * rate
    }

    /// Updates the exponential moving average of `now`, which starts at 0.
    fn moment(&mut self, kind: &str, name: &str, now: Tensor<B, 1>, beta: f64) -> Tensor<B, 1> {
        let key = format!("{kind}.{name}");
        let now = now * (1.0 - beta);
        let moment = match self.state.remove(&key) {
            Some(moment) => moment * beta + now,
            None => now,
        };
        self.state.insert(key, moment.clone());
        moment
    }

    /// Returns the state, with the tensor names of a checkpoint.
    pub fn tensors(&self) -> Vec<NamedTensor> {
        let named = |(name, tensor): (&String, &Tensor<B, 1>)| {
            let values = tensor.to_data().convert::<f32>().into_vec::<f32>().expect("converted to f32");
            (format!("{OPTIMIZER_PREFIX}{name}"), vec![values.len()], values)
        };
        self.state.iter().map(named).collect()
    }

    /// Restores the state that [`Optimizer::tensors`] returned after `steps` steps.
    ///
    /// # Errors
    /// [`Error::Core`] if a name does not belong to this optimizer's state for these parameters, a
    /// length does not match, or a tensor is missing.
    pub fn restore(
        &mut self,
        steps: u64,
        parameters: &[Parameter],
        tensors: Vec<(String, Vec<f32>)>,
        device: &B::Device,
    ) -> Result<()> {
        let refuse = |why: String| Err(bagssl_core::Error::Checkpoint(why).into());
        let kinds = self.config.states();
        let trained = parameters.iter().filter(|parameter| parameter.role.is_trained());
        let mut lengths: BTreeMap<String, usize> = trained
            .flat_map(|parameter| kinds.iter().map(move |kind| (format!("{kind}.{}", parameter.name), parameter.len())))
            .collect();
        let mut state = BTreeMap::new();
        for (name, values) in tensors {
            let key = name.strip_prefix(OPTIMIZER_PREFIX).unwrap_or(&name);
            match lengths.remove(key) {
                Some(length) if length == values.len() => {}
                Some(length) => {
                    return refuse(format!("tensor {name:?}: expected {length} values, got {}", values.len()));
                }
                None => return refuse(format!("tensor {name:?} is not part of this optimizer's state")),
            }
            let length = values.len();
            state.insert(key.into(), Tensor::from_data(TensorData::new(values, [length]), device));
        }
        if let (true, Some(missing)) = (steps > 0, lengths.keys().next()) {
            return refuse(format!("expected tensor {OPTIMIZER_PREFIX}{missing}, got none"));
        }
        (self.state, self.steps) = (state, steps);
        Ok(())
    }
}

/// Returns the LARS gradient: the gradient with weight decay, times the trust ratio. If a norm is
/// 0, the gradient is returned unscaled (with weight decay for [`Trust::Plain`]), as in the
/// reference implementations.
fn adapt<B: Backend>(
    value: &Tensor<B, 1>,
    gradient: Tensor<B, 1>,
    decay: f64,
    eta: f64,
    trust: Trust,
    rate: f64,
) -> Tensor<B, 1> {
    let norm = |tensor: &Tensor<B, 1>| (tensor.clone() * tensor.clone()).sum().sqrt();
    let decayed = gradient.clone() + value.clone() * decay;
    let value_norm = norm(value);
    let gradient_norm = match trust {
        Trust::Clipped => norm(&gradient),
        Trust::Plain => norm(&decayed),
    };
    let zero = value_norm.clone().equal_elem(0.0).bool_or(gradient_norm.clone().equal_elem(0.0));
    match trust {
        Trust::Clipped => {
            // At a rate of 0 (the first step of a warm-up) the ratio is clipped to 1.
            let ratio = match rate > 0.0 {
                true => value_norm.clone() / (gradient_norm + value_norm * decay + 1e-8) * (eta / rate),
                false => value_norm.ones_like(),
            };
            let adapted = decayed * ratio.clamp_max(1.0);
            let [length] = gradient.dims();
            adapted.mask_where(zero.expand([length]), gradient)
        }
        Trust::Plain => decayed * (value_norm * eta / gradient_norm).mask_fill(zero, 1.0),
    }
}
