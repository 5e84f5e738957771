//! The three passes of a convolution through cuDNN. For each shape, the fastest of cuDNN's
//! suggested plans is found once. The module `columns` handles passes without a plan of the
//! required precision.

pub(crate) mod columns;
mod key;
pub(crate) mod plan_file;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::runtime::cudnn::{Descriptor, Library, tensor};
use crate::runtime::driver::{Outcome, Stream, Workspace};
use bagssl_core::profile;
use cudarc::cudnn::sys::{
    cudnnBackendAttributeName_t as Name, cudnnBackendAttributeType_t as Type, cudnnBackendDescriptorType_t as Kind,
    cudnnBackendHeurMode_t as Mode, cudnnBackendNumericalNote_t as Note, cudnnConvolutionMode_t,
    cudnnDataType_t as Data,
};
pub(crate) use key::{Key, MOST_WORKSPACE, Pass};
use plan_file::{Choice, PlanFile, cache_folder};

/// The maximum number of plans to time.
const TIMED: usize = 8;

/// The maximum number of suggestions per mode.
const SUGGESTIONS: usize = 32;

/// The modes in which cuDNN suggests plans, tried in order until one yields plans: rule-based
/// heuristics, model-based heuristics, and the fallback that always works.
const MODES: [Mode; 3] = [Mode::CUDNN_HEUR_MODE_A, Mode::CUDNN_HEUR_MODE_B, Mode::CUDNN_HEUR_MODE_FALLBACK];

/// The minimum workspace in bytes. Plans without a workspace get it too, so that the pointer is
/// never null.
const LEAST_WORKSPACE: usize = 1 << 20;

/// The unique ids of the tensors in a plan.
const INPUT: i64 = 1;
const WEIGHT: i64 = 2;
const OUTPUT: i64 = 3;

/// The outcome of a pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ran {
    /// The pass is enqueued.
    Done,
    /// cuDNN has no plan of the required precision, for this reason.
    NoPlan(String),
}

/// An executable plan.
#[derive(Debug)]
struct Plan {
    plan: Descriptor,
    _config: Descriptor,
    workspace: usize,
    choice: Choice,
}

/// The plans of one GPU.
#[derive(Debug)]
pub(crate) struct Plans {
    library: Library,
    file: PlanFile,
    /// The plan for each key, or the reason why cuDNN has none.
    plans: HashMap<Key, Result<Plan, String>>,
    workspace: usize,
}

impl Plans {
    /// Creates an empty cache that uses the choices stored on disk.
    pub(crate) fn new(gpu: &str) -> Outcome<Self> {
        let library = Library::new()?;
        let file = PlanFile::open(cache_folder().as_deref(), gpu, library.version());
        Ok(Plans { library, file, plans: HashMap::new(), workspace: 0 })
    }

    /// Runs a pass, or returns the reason why there is no plan. Takes all three tensors; the pass
    /// writes one and reads two.
    ///
    /// # Safety
    /// The pointers must be to channels-last maps of the key's sizes and type, until the stream has
    /// run the pass.
    pub(crate) unsafe fn run(
        &mut self,
        key: Key,
        [input, weight, output]: [u64; 3],
        stream: &Stream,
        workspace: &mut Workspace,
    ) -> Outcome<Ran> {
        self.library.use_stream(stream)?;
        let pointers = [input, weight, output];
        if !self.plans.contains_key(&key) {
            // SAFETY: guaranteed by the caller.
            let plan = unsafe { self.find(&key, pointers, stream, workspace)? };
            self.workspace = self.workspace.max(plan.as_ref().map_or(0, |plan| plan.workspace));
            profile::note("plan of a convolution", || match &plan {
                Ok(plan) => {
                    let Choice { index, engine } = plan.choice;
                    format!(
                        "{}: suggestion {index}, engine {engine}, {} bytes of workspace",
                        key.text(),
                        plan.workspace
                    )
                }
                Err(_) => format!("{}: products of matrices", key.text()),
            });
            self.plans.insert(key, plan);
        }
        let plan = match &self.plans[&key] {
            Ok(plan) => &plan.plan,
            Err(why) => return Ok(Ran::NoPlan(why.clone())),
        };
        let at = workspace.reserve(self.workspace.max(LEAST_WORKSPACE))?;
        // SAFETY: guaranteed by the caller. The workspace is as large as the largest plan needs.
        unsafe { self.library.execute(plan, pointers, [INPUT, WEIGHT, OUTPUT], at)? };
        Ok(Ran::Done)
    }

    /// Returns the plan stored on disk, or the fastest plan of the first mode with an executable
    /// plan, or the reason why there is none.
    ///
    /// # Safety
    /// As [`Plans::run`].
    unsafe fn find(
        &mut self,
        key: &Key,
        pointers: [u64; 3],
        stream: &Stream,
        workspace: &mut Workspace,
    ) -> Outcome<Result<Plan, String>> {
        let no_plan = |why: String| format!("cuDNN: no plan for {}: {why}", key.text());
        let graph = match Graph::new(&self.library, key) {
            Ok(graph) => graph,
            Err(why) => return Ok(Err(no_plan(why))),
        };
        if let Some(choice) = self.file.get(key)
            && let Some(plan) = graph.chosen(&self.library, key, choice)
        {
            return Ok(Ok(plan));
        }
        let found = first(|mode| {
            let mut plans = graph.plans(&self.library, key, mode)?;
            let at = fit(&mut plans, workspace)?;
            // SAFETY: guaranteed by the caller. The workspace fits all these plans.
            unsafe { self.fastest(plans, pointers, stream, at) }
        });
        // Frees the workspace of the rejected plans. `run` reserves what the chosen plans need.
        workspace.release()?;
        if let Ok(plan) = &found {
            self.file.insert(*key, plan.choice);
        }
        Ok(found.map_err(no_plan))
    }

    /// Returns the fastest plan.
    ///
    /// # Safety
    /// As [`Plans::run`]. The workspace at `at` must be large enough for every plan.
    unsafe fn fastest(&self, plans: Vec<Plan>, pointers: [u64; 3], stream: &Stream, at: u64) -> Outcome<Plan> {
        let mut best: Option<(Duration, Plan)> = None;
        let (only, mut last) = (plans.len() == 1, "none suggested".to_string());
        for plan in plans {
            let run = || {
                // SAFETY: guaranteed by the caller.
                unsafe { self.library.execute(&plan.plan, pointers, [INPUT, WEIGHT, OUTPUT], at) }
            };
            match if only { run().map(|()| Duration::ZERO) } else { timed(run, stream) } {
                Ok(time) if best.as_ref().is_none_or(|(least, _)| time < *least) => best = Some((time, plan)),
                Ok(_) => {}
                // A suggested plan that fails to run is skipped.
                Err(error) => last = error,
            }
        }
        best.map(|(_, plan)| plan).ok_or(last)
    }
}

/// Returns the result of the first mode that succeeds, or the errors of all modes.
fn first<T>(mut of: impl FnMut(Mode) -> Outcome<T>) -> Outcome<T> {
    let mut errors = Vec::new();
    for mode in MODES {
        match of(mode) {
            Ok(found) => return Ok(found),
            Err(error) => errors.push(format!("{mode:?}: {error}")),
        }
    }
    Err(errors.join("; "))
}

/// Reserves a workspace for the plans, dropping those for which memory is insufficient.
fn fit(plans: &mut Vec<Plan>, workspace: &mut Workspace) -> Outcome<u64> {
    loop {
        let most = plans.iter().map(|plan| plan.workspace).max().unwrap_or(0);
        match workspace.reserve(most.max(LEAST_WORKSPACE)) {
            Ok(at) => return Ok(at),
            Err(error) => {
                plans.retain(|plan| plan.workspace < most);
                if plans.is_empty() {
                    return Err(error);
                }
            }
        }
    }
}

/// Returns the mean run time of some work on a stream, after a warm-up run.
fn timed(work: impl Fn() -> Outcome, stream: &Stream) -> Outcome<Duration> {
    const TIMES: u32 = 5;
    work()?;
    stream.synchronize()?;
    let start = Instant::now();
    (0..TIMES).try_for_each(|_| work())?;
    stream.synchronize()?;
    Ok(start.elapsed() / TIMES)
}

/// A graph of a single operation, with the descriptors that it references.
struct Graph {
    graph: Descriptor,
    _parts: Vec<Descriptor>,
}

impl Graph {
    fn new(library: &Library, key: &Key) -> Outcome<Self> {
        let data = if key.bf16 { Data::CUDNN_DATA_BFLOAT16 } else { Data::CUDNN_DATA_FLOAT };
        let input = tensor(INPUT, key.input, data)?;
        let weight = tensor(WEIGHT, key.weight(), data)?;
        let output = tensor(OUTPUT, key.output(), data)?;
        let convolution = convolution(key)?;
        let operation = operation(key.pass, [&input, &weight, &output], &convolution)?;
        let graph = Descriptor::new(Kind::CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR)?
            .link(Name::CUDNN_ATTR_OPERATIONGRAPH_OPS, &[&operation])?
            .set(Name::CUDNN_ATTR_OPERATIONGRAPH_HANDLE, Type::CUDNN_TYPE_HANDLE, &[library.handle()])?
            .finalise()?;
        Ok(Graph { graph, _parts: vec![input, weight, output, convolution, operation] })
    }

    /// Returns the first plans of a mode that have the required precision.
    fn plans(&self, library: &Library, key: &Key, mode: Mode) -> Outcome<Vec<Plan>> {
        let configs = self.suggestions(mode)?;
        let engines = configs.iter().map(Engine::from_config).collect::<Outcome<Vec<_>>>()?;
        let allowed = allowed(key, &engines);
        if allowed.is_empty() {
            return Err(format!("none of the {} suggested engines is allowed", engines.len()));
        }
        let mut configs: Vec<_> = configs.into_iter().map(Some).collect();
        let (mut plans, mut last) = (Vec::new(), String::new());
        for index in allowed {
            let Some(config) = configs[index].take() else { continue };
            let choice = Choice { index: place(mode, index), engine: engines[index].number };
            match plan(library, config, choice) {
                Ok(plan) if plan.workspace <= MOST_WORKSPACE => plans.push(plan),
                Ok(plan) => last = format!("engine {} needs {} bytes", choice.engine, plan.workspace),
                Err(error) => last = error,
            }
            if plans.len() == TIMED {
                break;
            }
        }
        if plans.is_empty() { Err(last) } else { Ok(plans) }
    }

    /// Returns the plan of a stored choice, if cuDNN's suggestions are still the same.
    fn chosen(&self, library: &Library, key: &Key, choice: Choice) -> Option<Plan> {
        let (mode, index) = (*MODES.get(choice.index / SUGGESTIONS)?, choice.index % SUGGESTIONS);
        let config = self.suggestions(mode).ok()?.into_iter().nth(index)?;
        let engine = Engine::from_config(&config).ok()?;
        let same = engine.number == choice.engine && is_allowed(key, &engine);
        let plan = same.then(|| plan(library, config, choice).ok()).flatten();
        plan.filter(|plan| plan.workspace <= MOST_WORKSPACE)
    }

    fn suggestions(&self, mode: Mode) -> Outcome<Vec<Descriptor>> {
        let heuristics = Descriptor::new(Kind::CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR)?
            .link(Name::CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, &[&self.graph])?
            .set(Name::CUDNN_ATTR_ENGINEHEUR_MODE, Type::CUDNN_TYPE_HEUR_MODE, &[mode as u32])?
            .finalise()?;
        let empty = |_| Descriptor::new(Kind::CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
        let mut configs = (0..SUGGESTIONS).map(empty).collect::<Outcome<Vec<_>>>()?;
        let count = heuristics.fill(Name::CUDNN_ATTR_ENGINEHEUR_RESULTS, &configs)?;
        configs.truncate(count);
        Ok(configs)
    }
}

/// Returns the index of a suggestion among those of all modes.
fn place(mode: Mode, index: usize) -> usize {
    MODES.iter().position(|&other| other == mode).unwrap_or(MODES.len()) * SUGGESTIONS + index
}

fn convolution(key: &Key) -> Outcome<Descriptor> {
    let integers = Type::CUDNN_TYPE_INT64;
    Descriptor::new(Kind::CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR)?
        .set(Name::CUDNN_ATTR_CONVOLUTION_COMP_TYPE, Type::CUDNN_TYPE_DATA_TYPE, &[Data::CUDNN_DATA_FLOAT as u32])?
        .set(
            Name::CUDNN_ATTR_CONVOLUTION_CONV_MODE,
            Type::CUDNN_TYPE_CONVOLUTION_MODE,
            &[cudnnConvolutionMode_t::CUDNN_CROSS_CORRELATION as u32],
        )?
        .set(Name::CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, integers, &[2_i64])?
        .set(Name::CUDNN_ATTR_CONVOLUTION_DILATIONS, integers, &[1_i64, 1])?
        .set(Name::CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, integers, &key.stride)?
        .set(Name::CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, integers, &key.padding)?
        .set(Name::CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, integers, &key.padding)?
        .finalise()
}

/// Creates the operation of a pass. `names` are the attributes of input, weight, output,
/// convolution, alpha and beta.
fn operation(pass: Pass, tensors: [&Descriptor; 3], convolution: &Descriptor) -> Outcome<Descriptor> {
    let (kind, names) = match pass {
        Pass::Forward => (
            Kind::CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR,
            [
                Name::CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X,
                Name::CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W,
                Name::CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y,
                Name::CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC,
                Name::CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA,
                Name::CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA,
            ],
        ),
        Pass::InputGradient => (
            Kind::CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR,
            [
                Name::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX,
                Name::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W,
                Name::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY,
                Name::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC,
                Name::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA,
                Name::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA,
            ],
        ),
        Pass::WeightGradient => (
            Kind::CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR,
            [
                Name::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X,
                Name::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW,
                Name::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY,
                Name::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC,
                Name::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA,
                Name::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA,
            ],
        ),
    };
    let [input, weight, output] = tensors;
    Descriptor::new(kind)?
        .link(names[0], &[input])?
        .link(names[1], &[weight])?
        .link(names[2], &[output])?
        .link(names[3], &[convolution])?
        .set(names[4], Type::CUDNN_TYPE_FLOAT, &[1_f32])?
        .set(names[5], Type::CUDNN_TYPE_FLOAT, &[0_f32])?
        .finalise()
}

/// Creates the plan of a suggestion.
fn plan(library: &Library, config: Descriptor, choice: Choice) -> Outcome<Plan> {
    let plan = Descriptor::new(Kind::CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR)?
        .set(Name::CUDNN_ATTR_EXECUTION_PLAN_HANDLE, Type::CUDNN_TYPE_HANDLE, &[library.handle()])?
        .link(Name::CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, &[&config])?
        .finalise()?;
    let mut workspace = [0_i64];
    plan.get(Name::CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, Type::CUDNN_TYPE_INT64, &mut workspace)?;
    Ok(Plan { plan, _config: config, workspace: workspace[0].max(0) as usize, choice })
}

/// The engine of a suggestion, as described by cuDNN.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Engine {
    number: i64,
    /// The numerical notes, which describe its precision.
    notes: Vec<u32>,
}

impl Engine {
    fn from_config(config: &Descriptor) -> Outcome<Self> {
        let engine = Descriptor::new(Kind::CUDNN_BACKEND_ENGINE_DESCRIPTOR)?;
        config.fill(Name::CUDNN_ATTR_ENGINECFG_ENGINE, std::slice::from_ref(&engine))?;
        let (mut number, mut notes) = ([0_i64], [0_u32; 32]);
        engine.get(Name::CUDNN_ATTR_ENGINE_GLOBAL_INDEX, Type::CUDNN_TYPE_INT64, &mut number)?;
        let count = engine.get(Name::CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, Type::CUDNN_TYPE_NUMERICAL_NOTE, &mut notes)?;
        Ok(Engine { number: number[0], notes: notes[..count].to_vec() })
    }
}

/// Returns the indices of the suggestions with the required precision, in order.
fn allowed(key: &Key, engines: &[Engine]) -> Vec<usize> {
    (0..engines.len()).filter(|&index| is_allowed(key, &engines[index])).collect()
}

/// Whether an engine computes in the key's precision. Exact f32 requires that factors are not
/// rounded (tensor cores round them to TF32) and that sums are in f32. Winograd and FFT algorithms
/// are accurate enough for f32, except for Winograd tiles of 13 x 13, whose transforms lose too
/// many digits.
fn is_allowed(key: &Key, engine: &Engine) -> bool {
    let inexact = [
        Note::CUDNN_NUMERICAL_NOTE_TENSOR_CORE,
        Note::CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS,
        Note::CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION,
        Note::CUDNN_NUMERICAL_NOTE_WINOGRAD_TILE_13x13,
    ];
    !key.must_be_exact() || !inexact.iter().any(|&note| engine.notes.contains(&(note as u32)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::form::Math;
    use bagssl_core::plan::Window;

    #[test]
    fn a_key_knows_the_sizes_of_its_tensors() {
        let window = Window { kernel: [3, 2], stride: [2, 1], padding: [1, 0] };
        let key = |bf16, math| Key::new(Pass::Forward, bf16, math, [4, 8, 9, 7], 16, window);
        assert_eq!(key(true, Math::Exact).output(), [4, 16, 5, 6]);
        assert_eq!(key(true, Math::Exact).weight(), [16, 8, 3, 2]);
        assert_eq!(key(true, Math::Exact), key(true, Math::Tf32));
        assert_ne!(key(false, Math::Exact), key(false, Math::Tf32));
    }

    #[test]
    fn f32_is_not_rounded_unless_it_may_be() {
        let window = Window::square(3, 1, 1);
        let key = |bf16, math| Key::new(Pass::Forward, bf16, math, [4, 8, 9, 7], 16, window);
        assert!(key(false, Math::Exact).must_be_exact());
        assert!(!key(false, Math::Tf32).must_be_exact() && !key(true, Math::Exact).must_be_exact());
    }

    /// The engines suggested for an f32 convolution, with notes numbered as in cuDNN's enumeration.
    #[test]
    fn exact_f32_takes_engines_that_round_nothing_and_others_take_all() {
        let window = Window::square(3, 1, 1);
        let engine = |number, notes: &[u32]| Engine { number, notes: notes.to_vec() };
        let engines = [
            engine(1001, &[0]),    // tensor cores
            engine(14, &[]),       // none
            engine(5, &[1]),       // inputs are rounded
            engine(0, &[4]),       // sums in any order
            engine(1002, &[0, 4]), // tensor cores
            engine(7, &[2]),       // sums with less than f32 precision
            engine(4, &[3]),       // FFT
            engine(6, &[5, 6]),    // Winograd, tiles of 4 x 4
            engine(8, &[5, 8]),    // Winograd, tiles of 13 x 13
        ];
        let key = |bf16, math| Key::new(Pass::Forward, bf16, math, [4, 8, 9, 7], 16, window);
        assert_eq!(allowed(&key(false, Math::Exact), &engines), [1, 3, 6, 7]);
        assert_eq!(allowed(&key(false, Math::Tf32), &engines), (0..9).collect::<Vec<_>>());
        assert_eq!(allowed(&key(true, Math::Exact), &engines), (0..9).collect::<Vec<_>>());
        assert!(allowed(&key(false, Math::Exact), &engines[..1]).is_empty());
    }

    #[test]
    fn modes_are_asked_until_one_gives_plans() {
        let [a, b, fallback] = MODES;
        assert_eq!([a, b, fallback].map(|mode| mode as u32), [3, 1, 2], "as cuDNN numbers A, B and FALLBACK");
        for (gives, asked) in [(a, 1), (b, 2), (fallback, 3)] {
            let mut modes = Vec::new();
            let found = first(|mode| {
                modes.push(mode);
                if mode == gives { Ok(mode) } else { Err("none of the 3 suggested engines is allowed".into()) }
            });
            assert_eq!((found, &modes[..]), (Ok(gives), &MODES[..asked]));
        }
        let error = first::<()>(|mode| Err(format!("nothing from {}", mode as u32))).unwrap_err();
        assert_eq!(error.matches("nothing from").count(), 3);
    }

    /// cuDNN accepts descriptors without a GPU, up to the graph, which needs one.
    #[test]
    fn cudnn_takes_the_operations_of_all_passes() {
        // SAFETY: this only tries to load libraries.
        if !unsafe { cudarc::cudnn::sys::is_culib_present() && cudarc::driver::sys::is_culib_present() } {
            eprintln!("skipped: libcudnn or libcuda not found");
            return;
        }
        let window = Window { kernel: [3, 2], stride: [2, 1], padding: [1, 0] };
        for (pass, bf16) in
            [(Pass::Forward, true), (Pass::InputGradient, true), (Pass::WeightGradient, true), (Pass::Forward, false)]
        {
            let key = Key::new(pass, bf16, Math::Exact, [4, 8, 9, 7], 16, window);
            let data = if bf16 { Data::CUDNN_DATA_BFLOAT16 } else { Data::CUDNN_DATA_FLOAT };
            let [input, weight, output] = [(INPUT, key.input), (WEIGHT, key.weight()), (OUTPUT, key.output())]
                .map(|(identity, dims)| tensor(identity, dims, data).unwrap());
            let convolution = convolution(&key).unwrap();
            operation(pass, [&input, &weight, &output], &convolution).unwrap();
            // cuDNN checks the sizes: an output that is too wide is rejected.
            let [n, c, h, w] = key.output();
            let wide = tensor(OUTPUT, [n, c, h, w + 1], data).unwrap();
            assert!(operation(pass, [&input, &weight, &wide], &convolution).is_err());
        }
    }

    #[test]
    fn suggestions_of_all_modes_have_places_of_their_own() {
        let places = MODES.map(|mode| [place(mode, 0), place(mode, SUGGESTIONS - 1)]);
        assert_eq!(places, [[0, 31], [32, 63], [64, 95]]);
        assert!(places.iter().zip(MODES).all(|(at, mode)| at.iter().all(|at| MODES[at / SUGGESTIONS] == mode)));
    }
}
