//! An encoder that is ready to embed images, and to be evaluated.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bagssl_core::aggregate::RunningMean;
use bagssl_core::batch::{BatchShape, PatchBatch};
use bagssl_core::checkpoint::{Checkpoint, Spec};
use bagssl_core::cpu::{Embedder, EmbedderOptions, InstructionSet};
use bagssl_core::embed::{Embed, FeatureLayer};
use bagssl_core::random::Address;
use bagssl_data::{Cutter, Dataset, Image};
use bagssl_eval::fnv1a;

use crate::embed::{EmbedOptions, Embeddings, Patches, embed};
use crate::error::{Error, Result};
use crate::eval_options::EvalOptions;
use crate::evaluation::{Evaluation, evaluate};
use crate::model::Model;
use crate::splits::Splits;

/// Patches that the CPU embeds at a time.
const ROWS: usize = 64;

/// An encoder with the weights of a checkpoint, on the CPU. Calls use all cores; calls from several threads take turns.
///
/// Other devices and backends: make a network with `bagssl-backend`, and call [`embed`].
#[derive(Debug)]
pub struct Encoder {
    spec: Spec,
    network: Embedder,
    /// The layers that were asked for. The network can read these, the embedding and the checkpoint's own.
    layers: Vec<FeatureLayer>,
    has_projector: bool,
    checkpoint_hash: String,
}

impl Encoder {
    /// Loads a checkpoint that `bagssl train`, `convert` or `import` has written.
    ///
    /// # Errors
    /// [`Error::Read`] if the file cannot be read, [`Error::Checkpoint`] if it is no checkpoint, is damaged, or has weights that
    /// are not finite.
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let bytes = read(path)?;
        Self::from_bytes(&bytes).map_err(|error| error.in_checkpoint(path))
    }

    /// Loads a checkpoint with the weights for these layers, to evaluate them. [`Encoder::load`] loads those of the checkpoint's
    /// own layer, which is usually the embedding.
    ///
    /// # Errors
    /// Those of [`Encoder::load`].
    pub fn load_layers(path: impl AsRef<Path>, layers: &[FeatureLayer]) -> Result<Self> {
        let path = path.as_ref();
        let bytes = read(path)?;
        let checkpoint = Checkpoint::from_bytes(&bytes).map_err(|error| Error::from(error).in_checkpoint(path))?;
        Self::new(&checkpoint, &bytes, layers).map_err(|error| error.in_checkpoint(path))
    }

    /// Reads a checkpoint from memory.
    ///
    /// # Errors
    /// [`Error::Core`] if it is no checkpoint, is damaged, or has weights that are not finite.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let checkpoint = Checkpoint::from_bytes(bytes)?;
        Self::new(&checkpoint, bytes, &[checkpoint.spec().layer])
    }

    fn new(checkpoint: &Checkpoint<'_>, bytes: &[u8], layers: &[FeatureLayer]) -> Result<Self> {
        checkpoint.check_values()?;
        let spec = checkpoint.spec().clone();
        let (set, side) = (InstructionSet::best(), spec.patch.input() as usize);
        let options = EmbedderOptions { set, exact: false, rows: ROWS, side };
        let needed = [layers, &[spec.layer]].concat();
        Ok(Encoder {
            network: Embedder::new(checkpoint, &needed, options)?,
            spec,
            layers: layers.to_vec(),
            has_projector: checkpoint.has_projector(),
            checkpoint_hash: fnv1a(bytes),
        })
    }

    /// What the checkpoint says of itself: its networks, and how images are cut and normalized for them.
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// The length of an embedding.
    pub fn dim(&self) -> usize {
        self.spec.model.dim(self.spec.layer)
    }

    /// Embeds an image: the mean of the embeddings of all patches of a grid, each a quarter of a patch from the next.
    ///
    /// # Errors
    /// [`Error::Core`] if the image is smaller than a patch, [`Error::Network`] if the network fails, [`Error::NotFinite`] if the
    /// embedding is not finite.
    pub fn embed(&self, image: &Image) -> Result<Vec<f32>> {
        let (spec, side) = (&self.spec, self.spec.patch.input() as usize);
        let crops = Patches::default().bag(&spec.patch, image.size())?.crops(image.size(), Address::default())?;
        let mut cutter = Cutter::new(spec.patch.input(), spec.filter, spec.normalization);
        let mut mean = RunningMean::new(self.dim());
        for part in crops.chunks(ROWS) {
            let mut values = Vec::new();
            part.iter().for_each(|&crop| cutter.cut(image, crop, &mut values));
            let shape = BatchShape { images: 1, patches: part.len(), channels: 3, height: side, width: side };
            let batch = PatchBatch::new(shape, values, vec![0], vec![0])?;
            let rows = self.network.embed(&batch, &[spec.layer]).map_err(Error::Network)?;
            rows[0].values.chunks(self.dim()).try_for_each(|row| mean.push(row))?;
        }
        let mean = mean.mean().expect("a grid has a patch");
        match mean.iter().find(|value| !value.is_finite()) {
            Some(&value) => Err(Error::NotFinite { name: "image".into(), value }),
            None => Ok(mean),
        }
    }

    /// Embeds image files on several threads, in the given order. They may have any size that holds a patch; smaller ones are an
    /// error, or skipped ([`EmbedOptions::on_bad_image`]).
    ///
    /// # Errors
    /// Those of [`embed`], and [`Error::Data`] if a file is missing or there is none.
    pub fn embed_files<P: AsRef<Path>>(&self, files: &[P], options: &EmbedOptions<'_>) -> Result<Embeddings> {
        let files: Vec<PathBuf> = files.iter().map(|file| file.as_ref().into()).collect();
        self.embed_dataset(&Arc::new(Dataset::from_files(&files)?), options)
    }

    /// Embeds all images of a data set.
    ///
    /// # Errors
    /// Those of [`embed`]; [`Error::Setting`] if [`EmbedOptions::feature`] was not loaded. The embedding always is, and the
    /// checkpoint's own layer.
    pub fn embed_dataset(&self, dataset: &Arc<Dataset>, options: &EmbedOptions<'_>) -> Result<Embeddings> {
        let loaded = [&self.layers[..], &[FeatureLayer::Embedding, self.spec.layer]].concat();
        if let Some(other) = options.feature.filter(|feature| !loaded.contains(feature)) {
            let loaded: Vec<&str> = loaded.iter().map(|layer| layer.name()).collect();
            let expected = format!("a layer that was loaded ({})", loaded.join(", "));
            return Err(Error::Setting { name: "feature", expected, got: other.name().into() });
        }
        embed(dataset, &self.spec, &self.network, options)
    }

    /// Returns the encoder as a model to be evaluated, with a name for reports.
    pub fn model(&self, name: impl Into<String>) -> Model<'_> {
        Model {
            name: name.into(),
            network: &self.network,
            spec: &self.spec,
            has_projector: self.has_projector,
            checkpoint_hash: self.checkpoint_hash.clone(),
            cache_name: format!("checkpoint {}, bagssl::Encoder", self.checkpoint_hash),
        }
    }

    /// Evaluates the layers that were loaded on the two splits of a data set, as [`evaluate`] describes. If the projector is not
    /// the model's own, this is the embedding.
    ///
    /// # Errors
    /// Those of [`evaluate`].
    pub fn evaluate(&self, splits: &Splits, options: &EvalOptions<'_>) -> Result<Evaluation> {
        let model = self.model("encoder");
        let mut layers = model.layers(&self.layers);
        if layers.is_empty() {
            layers.push(FeatureLayer::Embedding);
        }
        evaluate(&model, splits, &layers, options)
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|error| Error::Read { path: path.into(), error })
}
