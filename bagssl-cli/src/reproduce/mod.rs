//! `bagssl reproduce`: train, measure, report.

mod profile;
mod method;
mod stamp;
mod output_folder;
mod stage;
mod claim;
mod queue;
mod estimate;
mod assemble;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Result, bail};
use bagssl::{EvalOptions, Event, Groups, Splits, Thumbnails};
use bagssl_core::color::Color;
use bagssl_core::observe::Observer;
use bagssl_data::OnBadImage;
use bagssl_eval::report::{Method, Report};
use bagssl_train::run_state::CONFIG;

use crate::backend::Name;
use crate::input::bag::BagArgs;
use crate::input::features::FeatureArgs;
use crate::input::source::DataArgs;
use crate::input::{files, splits};
use crate::memory::ImageMemoryArgs;
use crate::terminal::output::say;
use crate::terminal::progress::{Several, Steps};
use crate::{claims, events, parallelism};
use claim::ClaimStage;
use profile::Profile;
use stage::{Shared, Stage};

/// Train single-scale and multi-scale models, measure both, check each claim of the paper, and
/// write a report
///
/// With no options, trains on the photographs included in the program, on the CPU, with three
/// seeds. Writes report.html (for a browser, with a section for each claim of the paper),
/// report.md, report.json and the runs. Called again, skips finished stages, resumes interrupted
/// ones, and repeats those with changed settings.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Data and network to train and measure
    #[arg(long, value_enum, default_value_t)]
    profile: Profile,
    /// Methods to train, by preset: a list that includes bagssl, or all
    ///
    /// All methods use the same network, patches and batches. The main comparison is between bagssl
    /// and multi-scale.
    #[arg(long, value_name = "LIST", value_parser = method::parser(), value_delimiter = ',', default_value = "bagssl,multi-scale")]
    methods: Vec<String>,
    /// Path of the images, instead of the profile's
    #[arg(long, value_name = "PATH")]
    data: Option<PathBuf>,
    /// Folder to write to [default: runs/PROFILE]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// First seed; the others follow it
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Number of seeds
    #[arg(long, value_name = "N", default_value_t = 3)]
    seeds: u64,
    /// Epochs of each training, instead of the profile's
    #[arg(long, value_name = "N")]
    epochs: Option<u32>,
    /// Number of jobs to run in parallel [default: one per core on the CPU, one on a GPU]
    #[arg(long, value_name = "N")]
    jobs: Option<usize>,
    /// Backend to run the networks on
    #[arg(long, value_enum, default_value_t)]
    backend: Name,
    #[command(flatten)]
    features: FeatureArgs,
    #[command(flatten)]
    memory: ImageMemoryArgs,
    /// Print the plan only: stages, data, steps, disk space, and time (from a short timed warm-up)
    #[arg(long)]
    dry_run: bool,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let started = Instant::now();
    let methods = method::chosen(&args.methods)?;
    // Compare takes all checkpoints at once.
    let most = (claims::MAX_CHECKPOINTS / methods.len()) as u64;
    if !(1..=most).contains(&args.seeds) {
        bail!("--seeds: expected 1 to {most} for {} methods, got {}", methods.len(), args.seeds);
    }
    // The largest seed has the same limit as that of `train`.
    let mut last = args.profile.run(Method::Bagssl, args.epochs)?;
    last.train.seed = args.seed.saturating_add(args.seeds - 1);
    last.train.check()?;
    args.features.check()?;
    // Report a missing backend before the work begins.
    args.backend.open()?;
    let (path, memory) = (args.profile.data(args.data.as_ref())?, args.memory.clone());
    let data = DataArgs { data: path, memory, ..DataArgs::default() };
    let splits = splits::open(&data)?;
    if splits.tested_classes() < 2 {
        bail!(
            "{}: expected at least 2 classes with images in both splits, got {}",
            data.name(),
            splits.tested_classes()
        );
    }
    let base = args.profile.run(Method::Bagssl, args.epochs)?;
    let on_cpu = !args.backend.is_gpu();
    let jobs = args.jobs.unwrap_or(if on_cpu { parallelism::cores() } else { 1 }).max(1);
    let bag = args.profile.bag(base.train.patch);
    let options = EvalOptions {
        patches: Some(BagArgs::like(bag).patches()?),
        groups: Groups::Auto,
        seed: args.seed,
        on_bad_image: OnBadImage::Fail,
        threads: if on_cpu { 1 } else { 0 },
        feature_cache: args.features.folder(),
        ..EvalOptions::default()
    };
    let out = args.out.clone().unwrap_or_else(|| PathBuf::from("runs").join(args.profile.name()));
    let mut stages = Vec::new();
    for seed in args.seed..args.seed + args.seeds {
        for &model in methods.iter().chain(&[Method::Random]) {
            let of = if model == Method::Random { Method::Bagssl } else { model };
            let mut config = args.profile.run(of, args.epochs)?;
            config.train.seed = seed;
            let folder = out.join(format!("{}-seed{seed}", model.name()));
            stages.push(Stage { model, seed, folder, config });
        }
    }
    // Long stages first, so that no long stage runs alone at the end.
    stages.sort_by_key(|stage| !stage.is_trained());
    let folder = out.join("baselines");
    stages.push(Stage { model: Method::Pixels, seed: args.seed, folder, config: base.clone() });

    let shared = Shared { splits: &splits, bag, options, backend: args.backend, features: &args.features };
    let claims = claim::stages(args.profile, &stages, &data, &shared, &out);
    let reproduction =
        Reproduction { args, out: &out, data: &data, stages: &stages, claims: &claims, shared: &shared, jobs };
    reproduction.check_output()?;
    reproduction.describe()?;
    if args.dry_run {
        estimate::print(&reproduction)?;
        return Ok(ExitCode::SUCCESS);
    }
    output_folder::begin(&out)?;
    let before = reproduction.earlier_seconds()?;
    reproduction.run()?;
    let seconds = before + started.elapsed().as_secs_f64();
    let report = assemble::report(&reproduction, seconds)?;
    let written = report.write(&out)?;
    files::write(&out.join(CONFIG), base.to_toml()?.as_bytes())?;
    say!("{}", assemble::table(&report));
    say!("{seconds:.0} s in total; wrote");
    written.iter().for_each(|path| say!("  {}", path.display()));
    Ok(ExitCode::SUCCESS)
}

/// The plan of a reproduction.
pub(crate) struct Reproduction<'a> {
    args: &'a Args,
    out: &'a std::path::Path,
    data: &'a DataArgs,
    stages: &'a [Stage],
    claims: &'a [ClaimStage],
    shared: &'a Shared<'a>,
    jobs: usize,
}

impl Reproduction<'_> {
    /// Checks that no files from another source would be overwritten.
    fn check_output(&self) -> Result<()> {
        // Older versions wrote no mark; their report came after all stages had stamps.
        let is_own = self.claims.iter().any(ClaimStage::is_stamped);
        output_folder::check(self.out, &[&Report::FILES[..], &[CONFIG]].concat(), is_own)?;
        self.stages.iter().try_for_each(Stage::check_output)?;
        self.claims.iter().try_for_each(ClaimStage::check_output)
    }

    /// Prints the plan.
    fn describe(&self) -> Result<()> {
        let Splits { train, test, .. } = self.shared.splits;
        say!(
            "profile {}: {}, {} training and {} test images of {} classes; backend {}, {} at a time",
            self.args.profile.name(),
            self.data.name(),
            train.len(),
            test.len(),
            self.shared.splits.tested_classes(),
            self.args.backend.text(),
            self.jobs
        );
        let state = |done: Option<f64>, outdated: Option<String>| match (done, outdated) {
            (Some(seconds), _) => format!("done before ({seconds:.0} s)"),
            (None, Some(why)) => format!("to be redone: {why}"),
            (None, None) => "to be done".into(),
        };
        let mut number = 0;
        let mut tell = |label: String, state: String| {
            number += 1;
            say!("  stage {number:>2}  {label}: {state}");
        };
        for stage in self.stages {
            let verb = if stage.is_trained() { "train and evaluate" } else { "evaluate" };
            let state = state(stage.done(self.shared)?, stage.outdated(self.shared)?);
            tell(format!("{verb} {}", stage.label()), state);
        }
        for claim in self.claims {
            let state = match &claim.skipped {
                Some(why) => format!("skipped: {why}"),
                None => state(claim.done(self.shared)?, claim.outdated(self.shared)?),
            };
            tell(claim.label(), state);
        }
        Ok(())
    }

    /// Returns the seconds that earlier calls spent on finished stages and trainings, divided by
    /// the number of jobs.
    fn earlier_seconds(&self) -> Result<f64> {
        let mut seconds = 0.0;
        for stage in self.stages {
            seconds += match stage.done(self.shared)? {
                Some(seconds) => seconds,
                None => stage.trained(self.shared)?.unwrap_or(0.0),
            };
        }
        for claim in self.claims {
            seconds += claim.done(self.shared)?.unwrap_or(0.0);
        }
        Ok(seconds / self.jobs as f64)
    }

    /// Returns the number of patches per image.
    fn patches(&self) -> Result<usize> {
        let (bag, seed) = (self.shared.bag, self.shared.options.seed);
        Ok(Thumbnails::new(self.shared.splits.test.clone(), bag, seed, Color::Rgb)?.patches())
    }

    /// Returns the unfinished stages.
    fn pending_stages(&self) -> Result<Vec<&Stage>> {
        let mut left = Vec::new();
        for stage in self.stages {
            if stage.done(self.shared)?.is_none() {
                left.push(stage);
            }
        }
        Ok(left)
    }

    /// Returns the unfinished claims.
    fn pending_claims(&self) -> Result<Vec<&ClaimStage>> {
        let mut left = Vec::new();
        for claim in self.claims.iter().filter(|claim| claim.skipped.is_none()) {
            if claim.done(self.shared)?.is_none() {
                left.push(claim);
            }
        }
        Ok(left)
    }

    /// Runs all unfinished stages in parallel, then the claims, which need the trained checkpoints.
    fn run(&self) -> Result<()> {
        queue::all(
            &self.pending_stages()?,
            self.jobs,
            |stage| stage.label(),
            |stage, bars| self.run_stage(stage, bars),
        )?;
        queue::all(&self.pending_claims()?, self.jobs, |claim| claim.label(), |claim, bars| self.analyze(claim, bars))
    }

    fn run_stage(&self, stage: &Stage, bars: &Several) -> Result<()> {
        let observer: Box<dyn Observer + Send> =
            Box::new(Steps(bars.add(&format!("train {}", stage.label()), 0, "steps")));
        let images = self.shared.splits.images_to_evaluate();
        let measuring = bars.add(&format!("evaluate {}", stage.label()), images, "images");
        let on_event = |event: Event<'_>| match event {
            // The bar was made for all of them.
            Event::Planned(_) => {}
            event => events::show(event, &measuring),
        };
        let result = self.on_threads(|| stage.run(self.shared, observer, &on_event));
        measuring.finish();
        result
    }

    fn analyze(&self, claim: &ClaimStage, bars: &Several) -> Result<()> {
        let bar = |name: &str| bars.add(&format!("{} {name}", claim.label()), 0, "images");
        self.on_threads(|| claim.run(self.shared, &bar))
    }

    /// Runs work on one thread on the CPU, where one job runs per core.
    fn on_threads(&self, work: impl FnOnce() -> Result<()> + Send) -> Result<()> {
        if self.args.backend.is_gpu() { work() } else { parallelism::on_one_thread(work)? }
    }
}
