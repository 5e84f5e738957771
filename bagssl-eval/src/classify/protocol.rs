//! Protocols: named and hashed settings that determine an accuracy, given the features.

use std::hash::Hasher as _;

use fnv::FnvHasher;
use serde::{Deserialize, Serialize};

use bagssl_core::embed::FeatureLayer;

use crate::classify::knn::Knn;
use crate::classify::probe::{Linear, Logistic, Sgd, choose};
use crate::error::{Error, Result};
use crate::features::samples::{Samples, Score};

/// An evaluation protocol: the features, a nearest-neighbor classifier, a linear probe, and the
/// search for its learning rate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Protocol {
    /// The name; see [`Protocol::preset`].
    pub name: &'static str,
    /// The nearest-neighbor classifier.
    pub knn: Knn,
    /// The linear probe.
    pub linear: Linear,
    /// The factors of the probe's learning rate to try. A tenth of the training samples is held out
    /// to choose the best factor, which is then used to train on all training samples. If empty,
    /// the learning rate is used unchanged. The test samples are not used.
    pub factors: &'static [f64],
    /// The layer whose features are used.
    pub layer: FeatureLayer,
    /// The number of random patches per image, if the protocol specifies it.
    pub patches: Option<u32>,
}

/// Factors of a recipe's learning rate to try.
const AROUND: [f64; 5] = [0.1, 0.3, 1.0, 3.0, 10.0];
/// The held-out share of the training samples for choosing the learning rate.
const HELD_OUT: f64 = 0.1;

impl Default for Protocol {
    /// The protocol `bagssl`.
    fn default() -> Self {
        Protocol::preset(Protocol::NAMES[0]).expect("its own name")
    }
}

impl Protocol {
    /// The names of the presets, the default first.
    const NAMES: [&str; 5] = ["bagssl", "solo", "lightly", "emp-ssl", "vicreg"];

    /// Returns a protocol by name.
    ///
    /// | name | neighbors, temperature | linear probe |
    /// |---|---|---|
    /// | `bagssl`, `solo` | 20, 0.07 | logistic regression to its optimum |
    /// | `lightly` | 200, 0.1 | logistic regression to its optimum |
    /// | `emp-ssl` | 20, 0.07 | SGD as in EMP-SSL: rate 0.03, batch 100, 100 epochs |
    /// | `vicreg` | 20, 0.07 | SGD as in VICReg: batch 256, 100 epochs; rate 0.02 times the best factor |
    ///
    /// `emp-ssl` uses the projector's first layer ("pre_feature") with 128 random patches; the
    /// others use the embedding. It corrects two mistakes of the original code: it uses the last
    /// epoch instead of the best one on the test images, and does not jitter test images.
    ///
    /// # Errors
    /// [`Error::Setting`] if the name is unknown.
    pub fn preset(name: &str) -> Result<Self> {
        let Some(name) = Self::NAMES.into_iter().find(|known| *known == name) else {
            return Err(Error::Setting { name: "protocol", expected: Self::NAMES.join(", "), got: name.into() });
        };
        let knn = if name == "lightly" { Knn { neighbors: 200, temperature: 0.1 } } else { Knn::default() };
        let linear = match name {
            "emp-ssl" => Linear::Sgd(Sgd::EMP_SSL),
            "vicreg" => Linear::Sgd(Sgd::VICREG),
            _ => Linear::Logistic(Logistic::default()),
        };
        let factors: &[f64] = if name == "vicreg" { &AROUND } else { &[] };
        let (layer, patches) =
            if name == "emp-ssl" { (FeatureLayer::FirstLayer, Some(128)) } else { (FeatureLayer::Embedding, None) };
        Ok(Protocol { name, knn, linear, factors, layer, patches })
    }

    /// Describes the neighbors and the probe in a line each, for a report.
    pub fn describe(&self) -> [String; 2] {
        let search = match self.factors {
            [] => String::new(),
            factors => {
                format!(
                    "; learning rate times the factor of {factors:?} that is best on a held-out tenth of the training \
                     images"
                )
            }
        };
        [self.knn.describe(), self.linear.describe() + &search]
    }

    /// Evaluates both classifiers. `seed` determines the held-out samples.
    ///
    /// # Errors
    /// The errors of [`Knn::evaluate`], [`Protocol::probe`] and [`Linear::evaluate`].
    pub fn evaluate(&self, train: &Samples, test: &Samples, seed: u64) -> Result<[Score; 2]> {
        let knn = self.knn.evaluate(train, test)?;
        Ok([knn, self.probe(train, seed)?.evaluate(train, test)?])
    }

    /// Returns the linear probe with the best learning rate for the training samples.
    ///
    /// # Errors
    /// [`Error::Setting`] if there are too few samples to hold some out. [`Error::Diverged`] if the
    /// weights diverge with every learning rate, and the other errors of [`Linear::evaluate`].
    pub fn probe(&self, train: &Samples, seed: u64) -> Result<Linear> {
        match self.linear {
            Linear::Sgd(sgd) if !self.factors.is_empty() => {
                let with = |factor: &f64| Linear::Sgd(Sgd { learning_rate: sgd.learning_rate * factor, ..sgd });
                let candidates: Vec<Linear> = self.factors.iter().map(with).collect();
                choose(&candidates, train, HELD_OUT, seed)
            }
            linear => Ok(linear),
        }
    }

    /// Returns a hash of all settings except the name, as 16 hexadecimal digits.
    pub fn hash(&self) -> String {
        let Protocol { name: _, knn, linear, factors, layer, patches } = self;
        let other = match (layer, patches) {
            (FeatureLayer::Embedding, None) => String::new(),
            other => format!(" {other:?}"),
        };
        // Keep the spelling of the first version, so that its hashes stay valid.
        let Knn { neighbors, temperature } = knn;
        let knn = format!("Knn {{ neighbours: {neighbors:?}, temperature: {temperature:?} }}");
        let linear = match linear {
            Linear::Sgd(Sgd { learning_rate, momentum, weight_decay, batch, epochs, seed }) => format!(
                "Sgd(Sgd {{ rate: {learning_rate:?}, momentum: {momentum:?}, decay: {weight_decay:?}, batch: \
                 {batch:?}, epochs: {epochs:?}, seed: {seed:?} }})"
            ),
            logistic => format!("{logistic:?}"),
        };
        fnv1a(format!("{knn} {linear} {factors:?} {HELD_OUT}{other}").as_bytes())
    }
}

/// Returns the 64-bit FNV-1a hash of `bytes` as 16 hexadecimal digits. It identifies files and
/// settings, and is not cryptographic.
pub fn fnv1a(bytes: &[u8]) -> String {
    let mut hash = FnvHasher::default();
    hash.write(bytes);
    format!("{:016x}", hash.finish())
}

/// The inputs that an accuracy depends on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The protocol's name.
    pub protocol: String,
    /// The protocol's hash.
    pub protocol_hash: String,
    /// The hash of the checkpoint's bytes.
    pub checkpoint_hash: String,
    /// The fingerprints of the training and the test images.
    pub data: [String; 2],
    /// The seed of the protocol's random choices.
    pub seed: u64,
}

impl Origin {
    /// Describes the origin in one line.
    pub fn line(&self) -> String {
        let Origin { protocol, protocol_hash, checkpoint_hash, data: [train, test], seed } = self;
        format!(
            "protocol {protocol} {protocol_hash}, checkpoint {checkpoint_hash}, data {train} and {test}, seed {seed}"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bagssl_core::embed::Rows;

    #[test]
    fn preset_settings() {
        let of = |name| Protocol::preset(name).unwrap();
        assert_eq!((of("solo").knn.neighbors, of("solo").knn.temperature), (20, 0.07));
        assert_eq!((of("lightly").knn.neighbors, of("lightly").knn.temperature), (200, 0.1));
        let Linear::Sgd(sgd) = of("emp-ssl").linear else { panic!("SGD") };
        assert_eq!(
            (sgd.learning_rate, sgd.momentum, sgd.weight_decay, sgd.batch, sgd.epochs),
            (0.03, 0.9, 5e-5, 100, 100)
        );
        let Linear::Sgd(sgd) = of("vicreg").linear else { panic!("SGD") };
        assert_eq!(
            (sgd.learning_rate, sgd.momentum, sgd.weight_decay, sgd.batch, sgd.epochs),
            (0.02, 0.9, 1e-6, 256, 100)
        );
        assert!(Protocol::preset("Solo").is_err());
        assert_eq!(Protocol::default(), of("bagssl"));
    }

    #[test]
    fn hash_covers_the_settings() {
        let solo = Protocol::preset("solo").unwrap();
        assert_eq!(solo.hash(), Protocol::preset("bagssl").unwrap().hash());
        let other = Protocol { knn: Knn { neighbors: 21, ..solo.knn }, ..solo };
        assert_ne!(solo.hash(), other.hash());
        assert_ne!(Protocol { factors: &[1.0], ..solo }.hash(), solo.hash());
        // Hashes are stored in reports and compared with those of earlier versions.
        let hash = |name| Protocol::preset(name).unwrap().hash();
        assert_eq!([hash("emp-ssl"), hash("vicreg")], ["8221fc3666998328", "08e6c5c9db0b14c1"]);
        // The published test vectors of FNV-1a.
        assert_eq!((fnv1a(b"").as_str(), fnv1a(b"foobar").as_str()), ("cbf29ce484222325", "85944171f73967e8"));
    }

    /// 120 samples of class 0 at 0, and 80 of class 1 at `gap`.
    fn two_points(gap: f32) -> Samples {
        let labels: Vec<u32> = (0..200).map(|i| u32::from(i % 5 < 2)).collect();
        let values = labels.iter().map(|&label| gap * label as f32).collect();
        Samples::new(Rows { values, dim: 1 }, labels).unwrap()
    }

    /// Two classes at two points. The closer they are, the higher the learning rate that separates
    /// them; with a lower one, all samples are predicted as the more frequent class. The first rate
    /// that is best on the held-out samples is chosen.
    #[test]
    fn learning_rate_is_chosen_on_training_samples() {
        let protocol = Protocol::preset("vicreg").unwrap();
        let with = |factor| Linear::Sgd(Sgd { learning_rate: 0.02 * factor, ..Sgd::VICREG });
        for (gap, best) in [(0.5, 1.0), (0.3, 3.0), (0.2, 10.0)] {
            let train = two_points(gap);
            let (fitted, held_out) = train.hold_out(HELD_OUT, 1).unwrap();
            let learns = AROUND.map(|factor| with(factor).evaluate(&fitted, &held_out).unwrap().accuracy == 100.0);
            assert_eq!(learns, AROUND.map(|factor| factor >= best), "{gap}");
            assert_eq!(protocol.probe(&train, 1).unwrap(), with(best), "{gap}");
        }
        let train = two_points(0.2);
        assert_eq!(Protocol { factors: &[], ..protocol }.probe(&train, 1).unwrap(), protocol.linear);
        let of_emp_ssl = Protocol::preset("emp-ssl").unwrap();
        assert_eq!(of_emp_ssl.probe(&train, 1).unwrap(), of_emp_ssl.linear);
    }
}
