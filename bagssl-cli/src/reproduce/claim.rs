//! Claims as stages: each is analyzed once on the trained checkpoints, and its results are stored.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};
use bagssl_core::bag::{Bag, Grid};
use bagssl_eval::fnv1a;
use bagssl_eval::report;
use bagssl_train::run_state::CHECKPOINT;
use serde_json::Value;

use super::output_folder;
use super::profile::Profile;
use super::stage::{Shared, Stage};
use super::stamp::{self, Settings, StageStamp};
use crate::claims::{Bars, Claim, ClaimArgs, aggregation, compare, convergence, cooccurrence, locality};
use crate::input::bag::BagArgs;
use crate::input::files;
use crate::input::source::{DataArgs, fingerprint};

/// A claim and the trainings it uses.
pub(super) struct ClaimStage {
    claim: Claim,
    title: &'static str,
    /// Describes the settings, for the reader.
    setup: Vec<String>,
    trained: Vec<Stage>,
    folder: PathBuf,
    /// The reason to skip the claim, if any.
    pub(super) skipped: Option<&'static str>,
    /// Total number of patches that pass through a network.
    patches: usize,
}

/// The file with the results.
const RESULTS_FILE: &str = "found.json";
/// The version of the results' format. Older results are computed again.
const RESULTS_FORMAT: u32 = 2;

/// Returns all claims, the longest ones first.
pub(super) fn stages(
    profile: Profile,
    stages: &[Stage],
    data: &DataArgs,
    shared: &Shared<'_>,
    out: &Path,
) -> Vec<ClaimStage> {
    let mut trained: Vec<Stage> = stages.iter().filter(|stage| stage.is_trained()).cloned().collect();
    // Sort by method: compare uses the first one as the reference.
    trained.sort_by_key(|stage| (stage.model, stage.seed));
    let first = |stage: &&Stage| stage.seed == shared.options.seed;
    let firsts: Vec<Stage> = trained.iter().filter(first).cloned().collect();
    let plan = Plan { bag: profile.claim_bag(trained[0].config.train.patch), data, shared, out };
    vec![
        plan.compare(trained),
        plan.aggregation(firsts.clone()),
        plan.convergence(firsts.clone()),
        plan.locality(firsts),
        plan.cooccurrence(),
    ]
}

/// The inputs of the claims.
struct Plan<'a> {
    bag: Bag,
    data: &'a DataArgs,
    shared: &'a Shared<'a>,
    out: &'a Path,
}

const NO_GRID: &str = "images of different sizes have no common grid of patches";
const FIRST_SEED: &str = "The first seed of each training.";

impl Plan<'_> {
    fn compare(&self, trained: Vec<Stage>) -> ClaimStage {
        let claim = self.claim(&trained);
        let setup = vec![self.images("kNN alone, no linear probes"), "All seeds of each training.".into()];
        let patches = self.per_image() + 1;
        let args = compare::Args { claim, bag: BagArgs::like(self.bag), protocol: self.protocol(), only_knn: true };
        self.stage(
            Claim::Compare(args),
            "Claims 0 and 5: comparison of methods, and the gain from averaging patches",
            trained,
        )
        .with_setup(setup, patches * self.images_of([true, true]))
    }

    fn aggregation(&self, trained: Vec<Stage>) -> ClaimStage {
        let claim = self.claim(&trained);
        let setup = vec![self.images("kNN alone, no linear probes"), FIRST_SEED.into()];
        let patches = 2 * self.per_image() + 2;
        let args = aggregation::Args { claim, stride: self.stride(), protocol: self.protocol(), only_knn: true };
        self.stage(Claim::Aggregation(args), "Claim 1: accuracy and aggregation", trained)
            .with_setup(setup, patches * self.images_of([true, true]))
            .skip_without_grid(self.bag)
    }

    fn convergence(&self, trained: Vec<Stage>) -> ClaimStage {
        let claim = self.claim(&trained);
        let setup = vec![self.images("test images alone"), FIRST_SEED.into()];
        let patches = self.per_image() + 2;
        let args = convergence::Args { claim, bag: BagArgs::like(self.bag) };
        self.stage(Claim::Convergence(args), "Claim 2: the whole image and the mean of its patches", trained)
            .with_setup(setup, patches * self.images_of([false, true]))
    }

    fn locality(&self, trained: Vec<Stage>) -> ClaimStage {
        let claim = self.claim(&trained);
        let setup = vec![self.images("pictures of six patches, one of a class"), FIRST_SEED.into()];
        let args = locality::Args { claim, bag: BagArgs::like(self.bag) };
        self.stage(Claim::Locality(args), "Claim 3: locality of patch embeddings", trained)
            .with_setup(setup, self.per_image() * self.images_of([true, true]))
            .skip_without_grid(self.bag)
    }

    fn cooccurrence(&self) -> ClaimStage {
        let args = cooccurrence::Args::with_seed(self.shared.options.seed);
        let setup = vec!["No images and no checkpoint: patches whose joint distribution is known.".into()];
        self.stage(Claim::Cooccurrence(args), "Claim 4: co-occurrence, in a fully known world", vec![])
            .with_setup(setup, 0)
    }

    fn stage(&self, claim: Claim, title: &'static str, trained: Vec<Stage>) -> ClaimStage {
        let folder = self.out.join("claims").join(claim.analysis().name());
        ClaimStage { claim, title, setup: vec![], trained, folder, skipped: None, patches: 0 }
    }

    /// Returns the arguments that the claims' commands share.
    fn claim(&self, trained: &[Stage]) -> ClaimArgs {
        let threads = self.shared.options.threads;
        ClaimArgs {
            checkpoints: trained.iter().map(|stage| stage.folder.join(CHECKPOINT)).collect(),
            data: DataArgs { threads, ..self.data.clone() },
            grey: true,
            seed: self.shared.options.seed,
            backend: self.shared.backend,
            features: self.shared.features.clone(),
            ..ClaimArgs::default()
        }
    }

    fn protocol(&self) -> String {
        self.shared.options.protocol.name.into()
    }

    fn stride(&self) -> Option<u32> {
        if let Bag::Grid { stride, .. } = self.bag { Some(stride) } else { None }
    }

    /// Returns the number of patches per image.
    fn per_image(&self) -> usize {
        match self.bag {
            Bag::Grid { spec, stride } => {
                let size = self.shared.splits.test.first_size();
                size.ok().and_then(|size| Grid::new(spec, size, stride).ok()).map_or(1, Grid::patches)
            }
            Bag::Random { patches, .. } => patches as usize,
            Bag::Whole | Bag::Center => 1,
        }
    }

    /// Returns the number of images in the selected splits, training first.
    fn images_of(&self, [train, test]: [bool; 2]) -> usize {
        let splits = self.shared.splits;
        usize::from(train) * splits.train.len() + usize::from(test) * splits.test.len()
    }

    /// Describes the images and patches in a sentence.
    fn images(&self, more: &str) -> String {
        let count = self.per_image();
        let bag = match self.bag {
            Bag::Grid { stride, .. } => format!("a grid of {count} patches, {stride} pixels from one to the next"),
            _ => format!("{count} patches at random places"),
        };
        format!("Chosen for this report: grey images, {bag}, {more}; the command has options for others.")
    }
}

impl ClaimStage {
    fn with_setup(mut self, setup: Vec<String>, patches: usize) -> Self {
        (self.setup, self.patches) = (setup, patches * self.trained.len());
        self
    }

    fn skip_without_grid(mut self, bag: Bag) -> Self {
        self.skipped = (!matches!(bag, Bag::Grid { .. })).then_some(NO_GRID);
        self
    }

    pub(super) fn label(&self) -> String {
        format!("claim {}", self.claim.analysis().name())
    }

    /// Returns the total number of patches that pass through a network.
    pub(super) fn patches(&self) -> usize {
        self.patches
    }

    /// Returns everything that the results depend on, including hashes of the checkpoints, or
    /// `None` if a checkpoint is missing.
    fn settings(&self, shared: &Shared<'_>) -> Result<Option<Settings>> {
        let Shared { splits, options, backend, .. } = shared;
        let of_claim = [
            ("program", format!("{}, form {RESULTS_FORMAT}", env!("CARGO_PKG_VERSION"))),
            ("claim", self.label()),
            ("bag", self.setup.join("; ")),
            ("training images", fingerprint(&splits.train)),
            ("test images", fingerprint(&splits.test)),
            ("protocol", options.protocol.hash()),
            ("protocol seed", options.seed.to_string()),
            ("backend", backend.text().into()),
        ];
        let mut settings: Settings = of_claim.map(|(name, value)| (name.into(), value)).into();
        for stage in &self.trained {
            let path = stage.folder.join(CHECKPOINT);
            if stage.done(shared)?.is_none() || !path.is_file() {
                return Ok(None);
            }
            settings.push((format!("checkpoint of {}", stage.label()), fnv1a(&files::read(&path)?)));
        }
        Ok(Some(settings))
    }

    /// Returns whether there is a readable stamp.
    pub(super) fn is_stamped(&self) -> bool {
        StageStamp::read(&self.folder).is_some()
    }

    /// Checks that no files from another source would be overwritten.
    pub(super) fn check_output(&self) -> Result<()> {
        output_folder::check(&self.folder, &[RESULTS_FILE], false)
    }

    /// Returns the duration in seconds, or `None` if the claim is unfinished or outdated.
    pub(super) fn done(&self, shared: &Shared<'_>) -> Result<Option<f64>> {
        let Some(stamp) = StageStamp::read(&self.folder) else { return Ok(None) };
        let is_same = self.settings(shared)?.is_some_and(|settings| stamp::hash(&settings) == stamp.hash);
        Ok((is_same && self.section().is_ok()).then_some(stamp.seconds))
    }

    /// Returns why a finished claim must be repeated: its checkpoints, images or settings changed,
    /// or its files are damaged.
    pub(super) fn outdated(&self, shared: &Shared<'_>) -> Result<Option<String>> {
        Ok(match self.done(shared)? {
            Some(_) => None,
            None => match self.settings(shared)? {
                Some(settings) => StageStamp::describe_changes(&self.folder, &settings),
                None => {
                    StageStamp::describe_changes(&self.folder, &Settings::new()).map(|_| "waiting for trainings".into())
                }
            },
        })
    }

    /// Runs the analysis and stores the results.
    pub(super) fn run(&self, shared: &Shared<'_>, bars: Bars<'_>) -> Result<()> {
        let started = Instant::now();
        output_folder::begin(&self.folder)?;
        StageStamp::remove(&self.folder)?;
        let report = self.claim.analysis().analyze(bars)?;
        files::write(&self.folder.join(RESULTS_FILE), &serde_json::to_vec(&report)?)?;
        let settings = self.settings(shared)?.context("a checkpoint has disappeared")?;
        StageStamp { hash: stamp::hash(&settings), settings, seconds: started.elapsed().as_secs_f64(), training: None }
            .write(&self.folder)
    }

    fn results(&self) -> Result<Value> {
        let path = self.folder.join(RESULTS_FILE);
        serde_json::from_slice(&files::read(&path)?).with_context(|| path.display().to_string())
    }

    /// Returns the section of the report.
    pub(super) fn section(&self) -> Result<report::ClaimSection> {
        let (name, title) = (self.claim.analysis().name().into(), self.title.into());
        if let Some(why) = self.skipped {
            let setup = vec![format!("Skipped here: {why}.")];
            return Ok(report::ClaimSection { name, title, setup, ..report::ClaimSection::default() });
        }
        let data = self.results()?;
        let page = self.claim.analysis().page(&data).with_context(|| self.label())?;
        Ok(report::ClaimSection { name, title, setup: self.setup.clone(), page, data })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bagssl::{EvalOptions, Groups, Splits};
    use bagssl_data::{Dataset, OnBadImage, Split};
    use bagssl_eval::report::Method;

    use crate::backend::Name;
    use crate::input::features::FeatureArgs;

    /// Returns the claims for two trainings with seeds 3 (the first) and 4, on the images included
    /// in the program.
    fn claims(profile: Profile) -> Vec<ClaimStage> {
        let open = |split| Dataset::embedded(split).unwrap();
        let splits = Splits::new(open(Split::Train), open(Split::Validation)).unwrap();
        let trainings = [(Method::Simclr, 4), (Method::Bagssl, 4), (Method::Simclr, 3), (Method::Bagssl, 3)];
        let stage = |(model, seed)| Stage {
            model,
            seed,
            folder: format!("{}-seed{seed}", model.name()).into(),
            config: profile.run(model, Some(1)).unwrap(),
        };
        let trained: Vec<Stage> = trainings.into_iter().map(stage).collect();
        let bag = profile.bag(trained[0].config.train.patch);
        let options = EvalOptions {
            patches: Some(BagArgs::like(bag).patches().unwrap()),
            groups: Groups::Auto,
            seed: 3,
            on_bad_image: OnBadImage::Fail,
            threads: 1,
            ..EvalOptions::default()
        };
        let features = FeatureArgs::default();
        let shared = Shared { splits: &splits, bag, options, backend: Name::Ndarray, features: &features };
        stages(profile, &trained, &DataArgs::default(), &shared, Path::new("out"))
    }

    /// 900 training and 270 test images. A claim uses 9 patches per image, the whole image, and the
    /// center.
    #[test]
    fn patch_counts_of_claims() {
        let claims = claims(Profile::Tiles);
        let of = |number: usize| -> Vec<String> { claims[number].trained.iter().map(Stage::label).collect() };
        assert_eq!(of(0), ["bagssl seed 3", "bagssl seed 4", "simclr seed 3", "simclr seed 4"]);
        for number in 1..4 {
            assert_eq!(of(number), ["bagssl seed 3", "simclr seed 3"]);
        }
        let patches: Vec<usize> = claims.iter().map(ClaimStage::patches).collect();
        assert_eq!(patches, [4 * 10 * 1170, 2 * 20 * 1170, 2 * 11 * 270, 2 * 9 * 1170, 0]);
        assert!(claims.iter().all(|claim| claim.skipped.is_none() && !claim.setup.is_empty()));
        assert!(claims[3].setup[0].contains("grey images, a grid of 9 patches, 16 pixels"), "{:?}", claims[3].setup);
    }

    #[test]
    fn claims_on_a_grid_are_skipped_for_mixed_sizes() {
        let claims = claims(Profile::Imagenet100);
        let skipped: Vec<String> =
            claims.iter().filter(|claim| claim.skipped.is_some()).map(ClaimStage::label).collect();
        assert_eq!(skipped, ["claim aggregation", "claim locality"]);
        let section = claims[3].section().unwrap();
        assert_eq!(section.title, "Claim 3: locality of patch embeddings");
        assert!(section.setup[0].contains("no common grid") && section.page.blocks.is_empty());
    }
}
