//! Runs a plan without Burn.
#![allow(unsafe_code, reason = "layers write disjoint parts of shared memory")]

use std::prelude::v1::*;

use core::cell::UnsafeCell;

use super::threads::{Threads, Worker, with_threads};
use crate::cpu::kernels::conv::{Conv, Epilogue, Method, Scratch, Weights};
use crate::cpu::kernels::isa::InstructionSet;
use crate::cpu::kernels::pool;
use crate::cpu::layout::feature_map::{Buffer, CHANNELS, Form, Map};
use crate::cpu::layout::values::Values;
use crate::error::{Error, Result};
use crate::plan::{Kind, NORM_EPSILON, Op, Plan, Window};

/// The settings of an [`Executor`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExecutorOptions {
    /// The instruction set of the kernels.
    pub set: InstructionSet,
    /// Whether to use only plain sums of products. Winograd, which sums differences, has about
    /// twice the error in f32.
    pub exact: bool,
    /// The expected number of inputs per run. It determines how weights are packed.
    pub batch: usize,
    /// The expected `[height, width]` of the inputs.
    pub size: [usize; 2],
}

impl ExecutorOptions {
    /// Creates settings with the fastest f32 kernels of this machine, for `batch` inputs of this
    /// size per run.
    pub fn new(batch: usize, size: [usize; 2]) -> Self {
        ExecutorOptions { set: InstructionSet::best(), exact: false, batch, size }
    }
}

/// Returns a parameter's values by its name in the plan.
pub type WeightSource<'a> = dyn FnMut(&str) -> Result<Values<'a>> + 'a;

/// A network on plain memory: a plan with its weights. Batch norms are folded in, and the weights
/// are packed for one instruction set.
///
/// # Example
/// ```
/// use bagssl_core::architecture::Architecture;
/// use bagssl_core::cpu::{Executor, ExecutorOptions, Serial};
///
/// let plan = Architecture::ResNetSmall.plan();
/// // Any weights: here all are 0.01.
/// let shapes = plan.parameters();
/// let mut source = |name: &str| {
///     let parameter = shapes.iter().find(|parameter| parameter.name == name).expect("it is in the plan");
///     Ok(vec![0.01; parameter.len()].into())
/// };
/// let executor = Executor::new(&plan, &mut source, ExecutorOptions::new(2, [16, 16]))?;
/// let mut workspace = executor.workspace(2, [16, 16], &Serial)?;
/// let embeddings = executor.run(&mut workspace, &[0.5; 2 * 3 * 16 * 16], &Serial)?;
/// assert_eq!(embeddings.len(), 2 * 64);
/// # Ok::<(), bagssl_core::Error>(())
/// ```
pub struct Executor {
    plan: Plan,
    steps: Vec<Step>,
    options: ExecutorOptions,
    /// The layers before this index process a few images at a time.
    early: usize,
}

enum Step {
    Conv(Conv),
    MaxPool(Window),
    GlobalMean,
}

impl core::fmt::Debug for Executor {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Executor({} layers, {:?}, {} bytes)", self.steps.len(), self.options, self.bytes())
    }
}

/// The maximum size of a layer's packed weights for running on a few images at a time. Larger
/// weights would be read too often.
const EARLY_WEIGHT_BYTES: usize = 3 << 20;
/// The maximum size of the largest map, in bytes, of the images that pass through the early layers
/// at once.
const EARLY_BATCH_BYTES: usize = 5 << 18;

impl Executor {
    /// Packs a plan's weights, on the threads of [`with_threads`].
    ///
    /// # Errors
    /// [`Error::Setting`] if this machine does not support the instruction set, or the batch is 0.
    /// [`Error::Plan`] if inputs of the size in `options` are too small for the plan, the length of
    /// a parameter differs from the plan's, or a norm's values are not finite or its variance is
    /// negative. Any error of `source`.
    pub fn new(plan: &Plan, source: &mut WeightSource<'_>, options: ExecutorOptions) -> Result<Self> {
        with_threads(|threads| Self::packed(plan, source, options, threads))
    }

    fn packed(
        plan: &Plan,
        source: &mut WeightSource<'_>,
        options: ExecutorOptions,
        threads: &dyn Threads,
    ) -> Result<Self> {
        let micro = options.set.micro().ok_or_else(|| Error::Setting {
            name: "instruction set",
            expected: "one that this machine supports",
            got: options.set.name().into(),
        })?;
        let sizes = sizes(plan, options.size)?;
        if options.batch == 0 {
            return Err(Error::Setting { name: "batch", expected: "at least 1", got: "0".into() });
        }
        let mut steps = Vec::with_capacity(plan.layers().len());
        for (index, layer) in plan.layers().iter().enumerate() {
            let [height, width] = sizes[index + 1];
            let method = |window, stored| match options.exact {
                true => Method::Direct,
                false => Method::choose(window, stored, options.batch.saturating_mul(height).saturating_mul(width)),
            };
            steps.push(match &layer.op {
                Op::ConvNorm { conv, norm, inputs, outputs, window, .. } => {
                    let len = outputs * inputs * window.kernel[0] * window.kernel[1];
                    let values = parameter(source, conv, "weight", len)?;
                    let mut bias = vec![0.0; *outputs];
                    let factors = fold(source, norm, &mut bias)?;
                    let (values, factors) = (&values, Some(factors.as_slice()));
                    let weights = Weights { values, factors, inputs: *inputs, outputs: *outputs, window: *window };
                    let stored = padded_channels(plan, layer.input);
                    Step::Conv(Conv::new(threads, weights, &bias, stored, method(*window, stored), micro))
                }
                Op::Linear { name, inputs, outputs, bias: has_bias, norm, .. } => {
                    let values = parameter(source, name, "weight", outputs * inputs)?;
                    let mut bias = match has_bias {
                        true => parameter(source, name, "bias", *outputs)?.to_vec(),
                        false => vec![0.0; *outputs],
                    };
                    let factors = norm.as_ref().map(|norm| fold(source, norm, &mut bias)).transpose()?;
                    let window = Window::square(1, 1, 0);
                    let (values, factors) = (&values, factors.as_deref());
                    let weights = Weights { values, factors, inputs: *inputs, outputs: *outputs, window };
                    let stored = padded_channels(plan, layer.input);
                    Step::Conv(Conv::new(threads, weights, &bias, stored, Method::Direct, micro))
                }
                Op::MaxPool { window } => Step::MaxPool(*window),
                Op::GlobalMean => Step::GlobalMean,
            });
        }
        let early = early_layers(plan, &steps);
        Ok(Executor { plan: plan.clone(), steps, options, early })
    }

    /// Returns the plan.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Returns the settings.
    pub fn options(&self) -> ExecutorOptions {
        self.options
    }

    /// Returns the number of bytes of the packed weights.
    pub fn bytes(&self) -> usize {
        self.steps.iter().map(|step| if let Step::Conv(conv) = step { conv.bytes() } else { 0 }).sum()
    }

    /// Allocates memory for up to `batch` inputs of `[height, width]` (`[1, 1]` for plans that read
    /// rows), for use with as many threads as `threads` has.
    ///
    /// # Errors
    /// [`Error::Plan`] if the input is too small for the plan, or the maps exceed the address
    /// space. [`Error::Setting`] if the batch is 0.
    pub fn workspace(&self, batch: usize, size: [usize; 2], threads: &dyn Threads) -> Result<Workspace> {
        let sizes = sizes(&self.plan, size)?;
        if batch == 0 {
            return Err(Error::Setting { name: "batch", expected: "at least 1", got: "0".into() });
        }
        let mut forms: Vec<Form> = sizes
            .iter()
            .enumerate()
            .map(|(value, &size)| Form::new(size, padded_channels(&self.plan, value)))
            .collect();
        for ((layer, step), size) in self.plan.layers().iter().zip(&self.steps).zip(&sizes[1..]) {
            if let Step::Conv(conv) = step {
                let (before, after) = Conv::border(conv.window, conv.method, *size);
                forms[layer.input] = forms[layer.input].with_border(before, after);
            }
        }
        if forms.iter().any(|form| form.len_of(batch.max(16)).is_none()) {
            let [height, width] = sizes[0];
            return Err(Error::Plan(format!(
                "expected feature maps that fit in the address space, got {batch} inputs of {height}x{width}"
            )));
        }
        let largest = forms[..=self.early].iter().map(|form| 4 * form.len()).max().unwrap_or(1);
        let images_at_once = (EARLY_BATCH_BYTES / largest).clamp(1, 16);
        let workers = threads.count();
        let early = if batch.div_ceil(images_at_once) >= 2 * workers { self.early } else { 0 };
        let last_use = last_use(&self.plan);
        let early_slots = Slots::assign(&forms[..early], &last_use[..early]);
        let late_slots = Slots::assign(&forms[early..], &last_use[early..]);
        Ok(Workspace {
            plan: self.plan.clone(),
            methods: self.methods().collect(),
            batch,
            size: sizes[0],
            images_at_once,
            early,
            scratch: Scratch::new(workers),
            early_memory: (0..if early > 0 { workers } else { 0 })
                .map(|_| early_slots.memory(images_at_once))
                .collect(),
            late_memory: late_slots.memory(batch),
            early_slots: early_slots.of_value,
            late_slots: late_slots.of_value,
            forms,
        })
    }

    /// Computes the last value of the plan for up to as many inputs as the workspace holds.
    ///
    /// # Shapes
    /// - `input`: `[row, channel, height, width]`, or `[row, dim]` for plans that read rows
    /// - returns: `[row, dim]`, or `[row, height, width, channel]` for plans that output maps
    ///
    /// # Errors
    /// [`Error::Length`] if `input` does not hold 1 to `batch` inputs of the workspace's size.
    /// [`Error::Setting`] if there are more threads than the workspace was made for, or if it was
    /// made by an executor of a different plan or with different convolution methods.
    pub fn run(&self, workspace: &mut Workspace, input: &[f32], threads: &dyn Threads) -> Result<Vec<f32>> {
        let mut output = Vec::new();
        self.run_into(workspace, input, threads, &mut output)?;
        Ok(output)
    }

    /// Like [`Executor::run`], but appends the result to `output`.
    ///
    /// # Errors
    /// See [`Executor::run`].
    pub fn run_into(
        &self,
        workspace: &mut Workspace,
        input: &[f32],
        threads: &dyn Threads,
        output: &mut Vec<f32>,
    ) -> Result<()> {
        if workspace.plan != self.plan || !self.methods().eq(workspace.methods.iter().copied()) {
            let got = "one of another executor".into();
            return Err(Error::Setting { name: "workspace", expected: "one created by this executor", got });
        }
        let (Kind::Map(channels) | Kind::Rows(channels)) = self.plan.input();
        let one = channels * workspace.size[0] * workspace.size[1];
        let rows = input.len() / one;
        if rows == 0 || rows > workspace.batch || rows * one != input.len() {
            let expected = workspace.batch * one;
            return Err(Error::Length { name: "network inputs (at most a batch)", expected, got: input.len() });
        }
        if threads.count() > workspace.scratch.workers() {
            let got = format!("{} with a workspace for {}", threads.count(), workspace.scratch.workers());
            return Err(Error::Setting {
                name: "threads",
                expected: "at most the number that the workspace was created for",
                got,
            });
        }
        let space = &*workspace;
        let load = |to: Map, first: usize, index: usize| {
            let image = &input[(first + index) * one..][..one];
            pool::load(image, channels, to.image_on(index));
        };
        if space.early > 0 {
            threads.each(rows.div_ceil(space.images_at_once), &|job, worker| {
                let first = job * space.images_at_once;
                let count = space.images_at_once.min(rows - first);
                let map = |value: usize| match value < space.early {
                    true => space.early(value, worker),
                    false => space.late(value).image_on(first),
                };
                (0..count).for_each(|index| load(map(0), first, index));
                self.layers(0..space.early, &Worker(worker), (&space.scratch, worker), count, &map);
            });
        } else {
            threads.each(rows, &|index, _| load(space.late(0), 0, index));
        }
        self.layers(space.early..self.steps.len(), threads, (&space.scratch, 0), rows, &|value| space.late(value));
        let last = space.late(self.steps.len());
        let dim = self.plan.output_dim();
        output.reserve(rows * last.size[0] * last.size[1] * dim);
        for row in 0..rows {
            pool::unload(last.image_on(row), dim, output);
        }
        Ok(())
    }

    /// Returns the method of each convolution. The methods determine the borders of the maps.
    fn methods(&self) -> impl Iterator<Item = Option<Method>> {
        self.steps.iter().map(|step| if let Step::Conv(conv) = step { Some(conv.method) } else { None })
    }

    fn layers(
        &self,
        layers: core::ops::Range<usize>,
        threads: &dyn Threads,
        scratch: (&Scratch, usize),
        images: usize,
        map: &dyn Fn(usize) -> Map,
    ) {
        for index in layers {
            let layer = &self.plan.layers()[index];
            let (input, output) = (map(layer.input), map(index + 1));
            match &self.steps[index] {
                Step::Conv(conv) => {
                    let (residual, relu) = match layer.op {
                        Op::ConvNorm { residual, relu, .. } => (residual.map(map), relu),
                        Op::Linear { relu, .. } => (None, relu),
                        Op::MaxPool { .. } | Op::GlobalMean => (None, false),
                    };
                    conv.run(threads, scratch, images, input, output, Epilogue { residual, relu });
                }
                Step::MaxPool(window) => threads.each(images, &|image, _| {
                    pool::max(input.image_on(image), output.image_on(image), *window);
                }),
                Step::GlobalMean => threads.each(images, &|image, _| {
                    pool::mean(input.image_on(image), output.image_on(image));
                }),
            }
        }
    }
}

/// The memory of a run, reusable for further runs.
pub struct Workspace {
    /// The key of the workspace: forms and slots follow from these fields.
    plan: Plan,
    methods: Vec<Option<Method>>,
    batch: usize,
    size: [usize; 2],
    images_at_once: usize,
    early: usize,
    forms: Vec<Form>,
    scratch: Scratch,
    /// For each worker, the memory of the values before `early`.
    early_memory: Vec<Vec<Shared>>,
    early_slots: Vec<usize>,
    /// The memory of the values from `early` on.
    late_memory: Vec<Shared>,
    late_slots: Vec<usize>,
}

/// Memory that the jobs of a layer write in disjoint parts.
struct Shared(UnsafeCell<Buffer>);

// SAFETY: written only through `Map`s, by jobs that write disjoint pixels. `Threads::each` waits
// for the jobs of a layer before the next one.
unsafe impl Sync for Shared {}

impl core::fmt::Debug for Workspace {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Workspace({} inputs of {:?})", self.batch, self.size)
    }
}

impl Workspace {
    /// Returns the maximum number of inputs.
    pub fn batch(&self) -> usize {
        self.batch
    }

    /// Returns the `[height, width]` of the inputs.
    pub fn size(&self) -> [usize; 2] {
        self.size
    }

    /// Returns the maximum number of threads.
    pub(crate) fn threads(&self) -> usize {
        self.scratch.workers()
    }

    /// Returns the number of allocated bytes. Part of the memory is allocated in the first run.
    pub fn bytes(&mut self) -> usize {
        let maps = self.early_memory.iter_mut().flatten().chain(&mut self.late_memory);
        maps.map(|memory| 4 * memory.0.get_mut().len()).sum::<usize>() + self.scratch.bytes()
    }

    fn early(&self, value: usize, worker: usize) -> Map {
        self.forms[value].at(self.early_memory[worker][self.early_slots[value]].pointer())
    }

    fn late(&self, value: usize) -> Map {
        self.forms[value].at(self.late_memory[self.late_slots[value - self.early]].pointer())
    }
}

impl Shared {
    fn pointer(&self) -> *mut f32 {
        // SAFETY: the `Buffer` itself does not change while the workspace is borrowed for a run.
        unsafe { (*self.0.get()).shared_ptr() }
    }
}

/// The assignment of values to shared memory. Values share a slot if they have the same form (so
/// its border stays zero) and are not live at the same time.
struct Slots {
    of_value: Vec<usize>,
    forms: Vec<Form>,
}

impl Slots {
    /// `last_use[i]` is the layer that computes value `i` and the last layer that reads it. Layers
    /// are counted from the network's first.
    fn assign(forms: &[Form], last_use: &[(usize, usize)]) -> Self {
        let mut slots: Vec<(Form, usize)> = Vec::new();
        let mut of_value = Vec::new();
        for (form, &(made, last)) in forms.iter().zip(last_use) {
            // Layer `made` may read values whose last use it is, so their slots are not free yet.
            let free = slots.iter().position(|(other, until)| other == form && *until < made);
            let slot = free.unwrap_or_else(|| {
                slots.push((*form, 0));
                slots.len() - 1
            });
            slots[slot].1 = last;
            of_value.push(slot);
        }
        Slots { of_value, forms: slots.into_iter().map(|(form, _)| form).collect() }
    }

    fn memory(&self, images: usize) -> Vec<Shared> {
        self.forms.iter().map(|form| Shared(UnsafeCell::new(Buffer::new(images * form.len())))).collect()
    }
}

/// Returns, for each value, the layer that computes it and the last layer that reads it, counted
/// from 1 (0 for the input). The last value stays live.
fn last_use(plan: &Plan) -> Vec<(usize, usize)> {
    let mut uses: Vec<(usize, usize)> = plan.last_use().into_iter().enumerate().collect();
    if let Some(last) = uses.last_mut() {
        last.1 = usize::MAX;
    }
    uses
}

/// Returns the length of the longest prefix of layers with small weights that passes only its last
/// value on.
fn early_layers(plan: &Plan, steps: &[Step]) -> usize {
    let large = |step: &Step| matches!(step, Step::Conv(conv) if conv.bytes() > EARLY_WEIGHT_BYTES);
    let small = steps.iter().position(large).unwrap_or(steps.len());
    let uses = last_use(plan);
    let is_cut = |cut: usize| uses[..cut].iter().all(|&(_, last)| last <= cut);
    (1..=small.min(steps.len() - 1)).rev().find(|&cut| is_cut(cut)).unwrap_or(0)
}

fn sizes(plan: &Plan, size: [usize; 2]) -> Result<Vec<[usize; 2]>> {
    let size = if matches!(plan.input(), Kind::Rows(_)) { [1, 1] } else { size };
    plan.sizes(size).ok_or_else(|| {
        Error::Plan(format!("expected an input large enough for the network's kernels, got {size:?} pixels"))
    })
}

/// Returns the number of stored channels of a value. Few input channels are not padded.
fn padded_channels(plan: &Plan, value: usize) -> usize {
    match plan.kind(value) {
        Kind::Map(channels) if value == 0 && channels < CHANNELS => channels,
        Kind::Map(channels) | Kind::Rows(channels) => channels.next_multiple_of(CHANNELS),
    }
}

fn parameter<'a>(source: &mut WeightSource<'a>, name: &str, part: &str, expected: usize) -> Result<Values<'a>> {
    let values = source(&format!("{name}.{part}"))?;
    match values.len() == expected {
        true => Ok(values),
        false => {
            let got = values.len();
            Err(Error::Plan(format!("parameter {:?}: expected {expected} values, got {got}", format!("{name}.{part}"))))
        }
    }
}

/// Rejects norm values that would lead to NaN, which a ReLU would hide.
fn check_norm(norm: &str, parts: [(&str, &[f32]); 4]) -> Result<()> {
    for (name, values) in parts {
        let lower_bound = if name == "running_var" { 0.0 } else { f32::NEG_INFINITY };
        if let Some(value) = values.iter().find(|value| !value.is_finite() || **value < lower_bound) {
            let expected = if lower_bound == 0.0 { "finite values of at least 0" } else { "finite values" };
            return Err(Error::Plan(format!(
                "parameter {:?}: expected {expected}, got {value}",
                format!("{norm}.{name}")
            )));
        }
    }
    Ok(())
}

/// Folds a batch norm with running statistics: returns a factor for each output of the preceding
/// layer, and updates that layer's bias.
fn fold(source: &mut WeightSource<'_>, norm: &str, bias: &mut [f32]) -> Result<Vec<f64>> {
    let mut part = |name| Ok::<_, Error>(parameter(source, norm, name, bias.len())?.to_vec());
    let (scale, shift) = (part("weight")?, part("bias")?);
    let (mean, variance) = (part("running_mean")?, part("running_var")?);
    check_norm(norm, [("weight", &scale), ("bias", &shift), ("running_mean", &mean), ("running_var", &variance)])?;
    let mut factors = Vec::with_capacity(bias.len());
    for (output, bias) in bias.iter_mut().enumerate() {
        let factor = f64::from(scale[output]) / libm::sqrt(f64::from(variance[output]) + NORM_EPSILON);
        let centered = f64::from(*bias) - f64::from(mean[output]);
        *bias = (centered * factor + f64::from(shift[output])) as f32;
        factors.push(factor);
    }
    Ok(factors)
}
