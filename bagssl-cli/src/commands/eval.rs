//! `bagssl eval`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use bagssl::claims::NO_PROJECTOR;
use bagssl::{
    AccuracyDetails, BOOTSTRAP_DRAWS, EvalOptions, Evaluation, Event, Model, Splits, ViewAccuracy, evaluate,
    evaluated_layers,
};
use bagssl_core::checkpoint::Checkpoint;
use bagssl_core::color::Color;
use bagssl_core::embed::FeatureLayer;
use bagssl_eval::Linear;
use bagssl_eval::Protocol;
use bagssl_eval::report::{Space, View};

use crate::backend::{CpuArgs, Name};
use crate::claims::{self, Claim};
use crate::embedding::by_flag;
use crate::events;
use crate::input::bag::BagArgs;
use crate::input::features::FeatureArgs;
use crate::input::files;
use crate::input::groups::GroupsChoice;
use crate::input::source::{BadImageArgs, DataArgs, fingerprint};
use crate::input::splits;
use crate::terminal::output::{escaped, say};
use crate::terminal::progress::Progress;

/// Evaluate a checkpoint by its nearest-neighbor and linear accuracy on validation images
///
/// Each image is represented by the mean of its patch features, in color and in grey, and by the
/// features of the whole image as a single input. Classifiers are fitted to the training split and
/// tested on the validation split. Only classes with images in both splits are tested.
///
/// Each command below checks one claim of the paper, on any checkpoints. For a checkpoint file with
/// the name of a command, write ./NAME.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    claim: Option<Claim>,
    /// Checkpoint file
    #[arg(required = true)]
    checkpoint: Option<PathBuf>,
    #[command(flatten)]
    data: DataArgs,
    #[command(flatten)]
    bad: BadImageArgs,
    #[command(flatten)]
    bag: BagArgs,
    /// Evaluation protocol: bagssl, solo, lightly, emp-ssl or vicreg
    ///
    /// bagssl and solo use kNN with k = 20 and T = 0.07, and logistic regression by L-BFGS. lightly
    /// uses kNN with k = 200 and T = 0.1. emp-ssl and vicreg use their SGD recipes. emp-ssl also
    /// evaluates the projector's first layer, and by default embeds 128 random patches per image.
    #[arg(long, value_name = "NAME", default_value = "bagssl")]
    protocol: String,
    /// Number of neighbors that vote [default: the protocol's]
    #[arg(long, alias = "neighbours", value_name = "N")]
    neighbors: Option<usize>,
    /// Temperature of the votes [default: the protocol's]
    #[arg(long, value_name = "T")]
    temperature: Option<f64>,
    /// Linear probe: logistic, emp-ssl or vicreg [default: the protocol's]
    ///
    /// logistic uses L-BFGS and needs no tuning. emp-ssl and vicreg use their SGD recipes.
    #[arg(long, value_name = "NAME")]
    probe: Option<String>,
    /// Seed of random bags, held-out subsets and bootstrap draws
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Groups of images that the bootstrap of a confidence interval draws as a unit
    #[arg(long, value_enum, default_value_t)]
    groups: GroupsChoice,
    /// Backend that runs the network
    #[arg(long, value_enum, default_value_t)]
    backend: Name,
    #[command(flatten)]
    cpu: CpuArgs,
    #[command(flatten)]
    features: FeatureArgs,
    /// Print the result as JSON, without progress
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let path = match (&args.claim, &args.checkpoint) {
        (Some(claim), _) => return claims::run(claim),
        (None, Some(path)) => path,
        (None, None) => bail!("expected a checkpoint, got none"),
    };
    args.features.check()?;
    let bytes = files::read_checkpoint(path)?;
    let name = path.display().to_string();
    let checkpoint = Checkpoint::from_bytes(&bytes).context(name.clone())?;
    let protocol = args.protocol()?;
    let splits = splits::open(&args.data)?;
    let options = args.options(protocol)?;
    let bag = options.bag(&checkpoint.spec().patch, &splits.train).map_err(by_flag)?;
    // Shows the progress of reading the images.
    let fingerprints = [&splits.train, &splits.test].map(|split| fingerprint(split));
    let layers = match checkpoint.has_projector() {
        true => evaluated_layers(checkpoint.spec().layer, &protocol),
        false => vec![FeatureLayer::Embedding],
    };
    let network = args.backend.open_with(args.cpu)?.trained(&checkpoint, &layers).with_context(|| name.clone())?;
    let model = Model::new(name.clone(), &checkpoint, &bytes, &*network, &args.backend.text_with(args.cpu));
    let origin = model.origin(&protocol, &splits, args.seed);
    let note = (!model.has_projector).then(|| format!("projection: {NO_PROJECTOR}"));
    let bar = Progress::images("embed", 0, args.json);
    let show = |event: Event<'_>| events::show(event, &bar);
    let evaluation = evaluate(&model, &splits, &layers, &EvalOptions { on_event: Some(&show), ..options });
    bar.finish();
    let evaluation = evaluation.map_err(by_flag)?;
    if args.json {
        let spec = checkpoint.spec();
        let [knn, linear] = protocol.describe();
        let [train, test] = fingerprints;
        let all = serde_json::json!({
            "checkpoint": name,
            "data": args.data.name(),
            "fingerprint": {"train": train, "test": test},
            "origin": origin,
            "groups": options.groups.group_ids(&splits.test).map_err(by_flag)?.1,
            "protocol": {"name": protocol.name, "bag": bag, "knn": knn, "linear": linear},
            "preset": spec.provenance.preset,
            "results": evaluation.accuracies,
            "convergence": evaluation.convergence,
            "health": evaluation.health,
            "note": note,
        });
        say!("{}", serde_json::to_string_pretty(&all)?);
    } else {
        print(&evaluation, &splits, &options, args)?;
        if let Some(note) = note {
            say!("{note}");
        }
        say!("\n{}", origin.line());
    }
    Ok(ExitCode::SUCCESS)
}

impl Args {
    /// Returns the options of the evaluation, without a listener.
    fn options(&self, protocol: Protocol) -> Result<EvalOptions<'_>> {
        let patches = if self.bag.is_unset() { None } else { Some(self.bag.patches()?) };
        Ok(EvalOptions {
            patches,
            protocol,
            groups: self.groups.into(),
            seed: self.seed,
            on_bad_image: self.bad.on_bad_image.into(),
            threads: self.data.threads,
            feature_cache: self.features.folder(),
            on_event: None,
        })
    }

    /// Returns the protocol with the overrides of the command line.
    fn protocol(&self) -> Result<Protocol> {
        let mut protocol = Protocol::preset(&self.protocol)?;
        if let Some(neighbors) = self.neighbors {
            protocol.knn.neighbors = neighbors;
        }
        if let Some(temperature) = self.temperature {
            protocol.knn.temperature = temperature;
        }
        if let Some(probe) = &self.probe {
            protocol.linear = Linear::preset(probe)?;
            // A recipe also sets the learning rate factors that it tries.
            protocol.factors = Protocol::preset(probe).map_or(&[], |recipe| recipe.factors);
        }
        if protocol.knn.neighbors == 0 {
            bail!("--neighbors: expected at least 1, got 0");
        }
        if protocol.knn.temperature.is_nan() || protocol.knn.temperature <= 0.0 {
            bail!("--temperature: expected more than 0, got {}", protocol.knn.temperature);
        }
        Ok(protocol)
    }
}

fn print(evaluation: &Evaluation, splits: &Splits, options: &EvalOptions<'_>, args: &Args) -> Result<()> {
    let classes = splits.tested_classes();
    say!(
        "{}: {} training and {} test images of {classes} classes (chance {:.1} %)",
        args.data.name(),
        splits.train.len(),
        splits.test.len(),
        splits.chance()
    );
    let [knn, linear] = options.protocol.describe();
    let (groups, what) = options.groups.group_ids(&splits.test).map_err(by_flag)?;
    let count = groups.iter().collect::<std::collections::BTreeSet<_>>().len();
    say!("kNN       {knn}\nlinear    {linear}");
    say!("interval  95 %, from {} bootstrap draws of {count} {what}\n", BOOTSTRAP_DRAWS);
    say!(
        "{:<12} {:<6} {:<12} {:>6} {:>13} {:>6} {:>9} {:>13} {:>6}",
        "feature",
        "color",
        "of",
        "kNN %",
        "interval",
        "top 5",
        "linear %",
        "interval",
        "top 5"
    );
    for scored in &evaluation.accuracies {
        let view = match scored.view {
            View::Whole => "whole image".into(),
            View::Patches if scored.patches == 1 => "1 patch".into(),
            View::Patches => format!("{} patches", scored.patches),
        };
        let (space, color) = (scored.space.name(), scored.color.name());
        let Some([knn, linear]) = &scored.details else { continue };
        let interval = |detail: &AccuracyDetails| match detail.interval {
            Some(interval) => format!("{:.1} to {:.1}", interval.low, interval.high),
            None => "-".into(),
        };
        say!(
            "{space:<12} {color:<6} {view:<12} {:>6.1} {:>13} {:>6.1} {:>9.1} {:>13} {:>6.1}",
            scored.knn,
            interval(knn),
            knn.top5,
            scored.linear,
            interval(linear),
            linear.top5
        );
        if let Some(fit) = linear.fit.filter(|fit| !fit.converged) {
            say!("{:<12} the regression did not converge within {} iterations", "", fit.iterations);
        }
    }
    print_classes(evaluation, splits, options.protocol.layer.into());
    say!("");
    for (space, health) in &evaluation.health {
        let rank = format!("effective rank {:.1} of {}", health.effective_rank, health.rank_limit);
        let rate = format!("coding rate {:.0} % of its bound", 100.0 * health.coding_rate_share);
        let uniformity = health.uniformity.map_or(String::new(), |value| format!(", uniformity {value:.2}"));
        say!("{:<12} {}: {rank}, {rate}{uniformity}", space.name(), health.verdict.name());
        health.reasons.iter().for_each(|reason| say!("             {reason}"));
    }
    Ok(())
}

/// Prints the classes with the most errors and the classes they are mistaken for, by kNN on all
/// patches in color. Uses the features of `main`, or the embedding if there are none. The JSON
/// output has the complete confusion matrix.
fn print_classes(evaluation: &Evaluation, splits: &Splits, main: Space) {
    const SHOWN: usize = 5;
    let patches = evaluation.accuracies.iter().filter(|it| (it.view, it.color) == (View::Patches, Color::Rgb));
    let rank = |it: &&ViewAccuracy| (it.space == main, it.space == Space::Embedding, it.patches);
    let Some(scored) = patches.max_by_key(rank) else { return };
    let Some([knn, _]) = &scored.details else { return };
    let class = |class: u32| splits.test.classes().get(class as usize);
    let name = |number: u32| class(number).map_or_else(|| "another class".into(), |class| escaped(class));
    let worst = knn.confusion.worst(SHOWN);
    if !worst.is_empty() {
        let pairs = worst.iter().map(|&(class, said, times)| format!("{} for {} ({times})", name(class), name(said)));
        say!("\nmost frequent confusions (kNN): {}", pairs.collect::<Vec<_>>().join(", "));
    }
}
