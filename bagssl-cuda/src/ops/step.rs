//! An optimizer step over all parameters in a few launches.

use burn::tensor::DType;

use super::form::{Form, same};
use super::map::arguments;
use crate::runtime::context::Context;
use crate::runtime::driver::Outcome;
use crate::runtime::job::{Cube, Job, Slot};
use bagssl_train::optimizer::{OptimizerConfig, Trust};

/// An optimizer step: the update rule and the parameters.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct StepRule {
    pub(crate) rule: UpdateRule,
    pub(crate) items: Vec<StepItem>,
}

/// An optimizer's update rule, with the constants of one step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum UpdateRule {
    Descend { descent: Descent, lars: Option<Lars> },
    AdamW(AdamW),
}

/// The settings that differ between parameters.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct StepItem {
    /// Whether the parameter has states yet. Missing states count as 0.
    pub(crate) has_states: bool,
    /// The weight decay. For AdamW, the factor on the parameter's value.
    pub(crate) decay: f32,
    /// Whether LARS adapts the learning rate.
    pub(crate) adapt: bool,
}

/// Has the layout of the struct in `source/step.cu`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Descent {
    rate: f32,
    momentum: f32,
    nesterov: i32,
}

/// Has the layout of the struct in `source/step.cu`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Lars {
    eta: f32,
    rate: f32,
    plain: i32,
}

/// Has the layout of the struct in `source/step.cu`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct AdamW {
    first: f32,
    second: f32,
    one_less_first: f32,
    one_less_second: f32,
    over_second: f32,
    epsilon: f32,
    rate_over_first: f32,
}

/// Has the layout of the struct in `source/step.cu`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
struct Item {
    value: u64,
    gradient: u64,
    states: [u64; 2],
    new_value: u64,
    new_states: [u64; 2],
    count: i64,
    decay: f32,
    adapt: i32,
}

/// The maximum number of parameters that fit in the arguments of a launch.
const ITEMS: usize = 40;

/// The number of blocks per parameter.
const BLOCKS: u32 = 128;

impl UpdateRule {
    /// Creates the rule of a config for a learning rate. `steps` is the number of the step, counted
    /// from 1.
    pub(crate) fn new(config: OptimizerConfig, rate: f64, steps: u64) -> Self {
        match config {
            OptimizerConfig::Sgd { momentum, nesterov, .. } => UpdateRule::sgd(rate, momentum, nesterov),
            OptimizerConfig::Lars { momentum, nesterov, eta, trust, .. } => {
                let plain = i32::from(trust == Trust::Plain);
                let lars = Some(Lars { eta: eta as f32, rate: rate as f32, plain });
                UpdateRule::Descend { descent: Descent::new(rate, momentum, nesterov), lars }
            }
            OptimizerConfig::AdamW { betas, epsilon, .. } => {
                let corrected = |beta: f64| 1.0 - beta.powf(steps as f64);
                UpdateRule::AdamW(AdamW {
                    first: betas.0 as f32,
                    second: betas.1 as f32,
                    one_less_first: (1.0 - betas.0) as f32,
                    one_less_second: (1.0 - betas.1) as f32,
                    over_second: (1.0 / corrected(betas.1)) as f32,
                    epsilon: epsilon as f32,
                    rate_over_first: (rate / corrected(betas.0)) as f32,
                })
            }
        }
    }

    pub(crate) fn sgd(rate: f64, momentum: f64, nesterov: bool) -> Self {
        UpdateRule::Descend { descent: Descent::new(rate, momentum, nesterov), lars: None }
    }

    /// Returns the number of states per parameter.
    pub(crate) fn states(self) -> usize {
        match self {
            UpdateRule::Descend { descent, .. } => usize::from(descent.momentum != 0.0),
            UpdateRule::AdamW(_) => 2,
        }
    }
}

impl Descent {
    fn new(rate: f64, momentum: f64, nesterov: bool) -> Self {
        Descent { rate: rate as f32, momentum: momentum as f32, nesterov: i32::from(nesterov) }
    }
}

impl StepItem {
    /// Returns the settings of a config for one parameter.
    pub(crate) fn new(config: OptimizerConfig, rate: f64, is_vector: bool, has_states: bool) -> Self {
        let (decay, adapt) = match config {
            OptimizerConfig::Sgd { weight_decay: decay, decay_norm_and_bias: decay_vectors, .. } => {
                (if is_vector && !decay_vectors { 0.0 } else { decay }, false)
            }
            OptimizerConfig::Lars { weight_decay: decay, .. } => (if is_vector { 0.0 } else { decay }, !is_vector),
            OptimizerConfig::AdamW { weight_decay: decay, decay_norm_and_bias: decay_vectors, .. } => {
                (1.0 - rate * if is_vector && !decay_vectors { 0.0 } else { decay }, false)
            }
        };
        StepItem { has_states, decay: decay as f32, adapt }
    }
}

impl StepRule {
    /// Returns the number of input tensors of an item.
    fn reads(&self, item: &StepItem) -> usize {
        2 + if item.has_states { self.rule.states() } else { 0 }
    }

    /// Returns for each parameter its new value and its new states.
    ///
    /// # Errors
    /// A one-line message if the number of inputs is wrong, or a parameter's inputs are not flat
    /// tensors of one length.
    pub(crate) fn outputs(&self, inputs: &[Form]) -> Result<Vec<Form>, String> {
        same("inputs", self.items.iter().map(|item| self.reads(item)).sum::<usize>(), inputs.len())?;
        let (mut rest, mut outputs) = (inputs, Vec::new());
        for item in &self.items {
            let (own, others) = rest.split_at(self.reads(item));
            let [length] = own[0].dims()?;
            let form = Form::new([length], DType::F32);
            own.iter().try_for_each(|other| same("parameter", &form, other))?;
            outputs.extend(std::iter::repeat_n(form, 1 + self.rule.states()));
            rest = others;
        }
        Ok(outputs)
    }
}

/// The slots of a parameter's tensors in a job.
struct Place {
    item: StepItem,
    value: Slot,
    gradient: Slot,
    states: Vec<Slot>,
    new: Vec<Slot>,
    count: i64,
}

/// Queues a step.
pub(crate) fn run(step: StepRule, inputs: Vec<Cube>) -> Vec<Cube> {
    let Some(first) = inputs.first() else { return Vec::new() };
    let mut job = Job::new("optimizer", first);
    let (mut places, mut outputs) = (Vec::new(), Vec::new());
    let mut inputs = inputs.into_iter();
    for &item in &step.items {
        let mut read = Vec::new();
        let mut length = 0;
        for tensor in inputs.by_ref().take(step.reads(&item)) {
            length = tensor.meta.num_elements();
            read.push(job.read_contiguous(tensor));
        }
        let new: Vec<_> = (0..=step.rule.states()).map(|_| job.write(&[length], DType::F32)).collect();
        let (slots, tensors): (Vec<_>, Vec<_>) = new.into_iter().unzip();
        outputs.extend(tensors);
        let count = length as i64;
        places.push(Place { item, value: read[0], gradient: read[1], states: read.split_off(2), new: slots, count });
    }
    for chunk in chunks(places) {
        let norms = matches!(step.rule, UpdateRule::Descend { lars: Some(_), .. })
            .then(|| job.write(&[chunk.len() * BLOCKS as usize * 2], DType::F32).0);
        let rule = step.rule;
        job.then(move |context, at| {
            let mut items = [Item::default(); ITEMS];
            for (item, place) in items.iter_mut().zip(&chunk) {
                let any = |slots: &[Slot], index: usize| at.of_any(slots.get(index).copied());
                *item = Item {
                    value: at.of(place.value),
                    gradient: at.of(place.gradient),
                    states: [any(&place.states, 0), any(&place.states, 1)],
                    new_value: at.of(place.new[0]),
                    new_states: [any(&place.new, 1), any(&place.new, 2)],
                    count: place.count,
                    decay: place.item.decay,
                    adapt: i32::from(place.item.adapt),
                };
            }
            // SAFETY: the pointers of each item are to `count` f32 values. Pointers of missing
            // states are null.
            unsafe { launch(context, rule, items, chunk.len(), at.of_any(norms)) }
        });
    }
    job.submit();
    outputs
}

fn chunks(places: Vec<Place>) -> Vec<Vec<Place>> {
    let mut chunks: Vec<Vec<Place>> = Vec::new();
    for place in places {
        match chunks.last_mut() {
            Some(last) if last.len() < ITEMS => last.push(place),
            _ => chunks.push(vec![place]),
        }
    }
    chunks
}

/// # Safety
/// The first `count` items must describe memory on the device. `norms` must have room for two
/// values per block.
unsafe fn launch(context: &Context, rule: UpdateRule, items: [Item; ITEMS], count: usize, norms: u64) -> Outcome {
    let shape = ([BLOCKS, count as u32], 256);
    // SAFETY: guaranteed by the caller. The types are those of the kernels' parameters.
    unsafe {
        match rule {
            UpdateRule::Descend { descent, lars: None } => {
                context.launch("step_sgd", shape, arguments![items, descent])
            }
            UpdateRule::Descend { descent, lars: Some(lars) } => {
                context.launch("step_norms", shape, arguments![items, norms, lars.plain])?;
                context.launch("step_lars", shape, arguments![items, descent, lars, norms, BLOCKS as i32])
            }
            UpdateRule::AdamW(adamw) => context.launch("step_adamw", shape, arguments![items, adamw]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADAMW: OptimizerConfig = OptimizerConfig::AdamW {
        learning_rate: 0.1,
        betas: (0.5, 0.75),
        epsilon: 1e-8,
        weight_decay: 0.25,
        decay_norm_and_bias: false,
    };

    #[test]
    fn the_numbers_of_a_step_are_those_of_the_optimizer() {
        // After two steps the bias corrections are 1 - 0.5^2 and 1 - 0.75^2.
        let UpdateRule::AdamW(rule) = UpdateRule::new(ADAMW, 0.1, 2) else { panic!("AdamW's rule") };
        assert_eq!((rule.one_less_first, rule.one_less_second), (0.5, 0.25));
        assert_eq!(rule.over_second, (1.0 / 0.4375) as f32);
        assert_eq!(rule.rate_over_first, (0.1 / 0.75) as f32);
        assert_eq!(StepItem::new(ADAMW, 0.1, false, true).decay, 0.975);
        assert_eq!(StepItem::new(ADAMW, 0.1, true, true).decay, 1.0);

        let trust = Trust::Plain;
        let lars = OptimizerConfig::Lars {
            learning_rate: 1.0,
            momentum: 0.9,
            nesterov: true,
            weight_decay: 0.01,
            eta: 0.005,
            trust,
        };
        let UpdateRule::Descend { descent, lars: Some(rule) } = UpdateRule::new(lars, 0.5, 1) else {
            panic!("LARS's rule")
        };
        assert_eq!((descent.rate, descent.nesterov, rule.rate, rule.plain), (0.5, 1, 0.5, 1));
        let matrix = StepItem::new(lars, 0.5, false, false);
        assert_eq!(matrix, StepItem { has_states: false, decay: 0.01, adapt: true });
        assert_eq!(StepItem::new(lars, 0.5, true, false), StepItem { has_states: false, decay: 0.0, adapt: false });
    }

    #[test]
    fn a_step_gives_a_value_and_states_for_each_parameter() {
        let item = |has_states| StepItem { has_states, decay: 0.0, adapt: false };
        let form = |length: usize| Form::new([length], DType::F32);
        let step = StepRule { rule: UpdateRule::sgd(0.1, 0.9, false), items: vec![item(false), item(true)] };
        let inputs = [form(3), form(3), form(5), form(5), form(5)];
        assert_eq!(step.outputs(&inputs).unwrap(), [form(3), form(3), form(5), form(5)]);
        assert!(step.outputs(&inputs[..4]).is_err());
        assert!(step.outputs(&[form(3), form(4), form(5), form(5), form(5)]).is_err());
        let plain = StepRule { rule: UpdateRule::sgd(0.1, 0.0, false), items: vec![item(true)] };
        assert_eq!(plain.outputs(&inputs[..2]).unwrap(), [form(3)]);
        let adamw = StepRule { rule: UpdateRule::new(ADAMW, 0.1, 1), items: vec![item(true)] };
        assert_eq!(adamw.outputs(&[form(2), form(2), form(2), form(2)]).unwrap(), vec![form(2); 3]);
    }

    #[test]
    fn the_arguments_of_a_launch_fit() {
        // 4096 bytes is CUDA's limit for all arguments of a kernel.
        let others = size_of::<Descent>() + size_of::<Lars>() + 16;
        assert!(ITEMS * size_of::<Item>() + others <= 4096);
        assert_eq!(size_of::<Item>(), 72);
    }
}
