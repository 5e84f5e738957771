//! Protocols: all that an accuracy depends on besides the features, under a name and a hash.

use std::hash::Hasher as _;

use fnv::FnvHasher;
use serde::{Deserialize, Serialize};

use bagssl_core::embed::FeatureLayer;

use crate::classify::knn::Knn;
use crate::classify::probe::{Linear, Logistic, Sgd, choose};
use crate::error::{Error, Result};
use crate::features::samples::{Samples, Score};

/// A way to measure: a feature, a neighbor classifier, a linear probe, and how its learning rate is found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Protocol {
    /// The name; see [`Protocol::preset`].
    pub name: &'static str,
    /// The neighbor classifier.
    pub knn: Knn,
    /// The linear probe.
    pub linear: Linear,
    /// Factors of the probe's learning rate that are tried on a tenth of the training samples, which is held out meanwhile;
    /// the best one then trains on all of them. Without factors the rate is as it stands. The test samples play no part.
    pub factors: &'static [f64],
    /// The feature that it is about.
    pub tap: FeatureLayer,
    /// Random patches that stand for an image, where it says how many.
    pub patches: Option<u32>,
}

/// Learning rates around a recipe's own, as factors.
const AROUND: [f64; 5] = [0.1, 0.3, 1.0, 3.0, 10.0];
/// The share of the training samples that chooses the learning rate.
const HELD_OUT: f64 = 0.1;

impl Protocol {
    /// The names that [`Protocol::preset`] knows, the default first.
    const NAMES: [&str; 5] = ["bagssl", "solo", "lightly", "emp-ssl", "vicreg"];

    /// A protocol by its name.
    ///
    /// | name | neighbors, temperature | linear probe |
    /// |---|---|---|
    /// | `bagssl`, `solo` | 20, 0.07 | logistic regression to its optimum |
    /// | `lightly` | 200, 0.1 | logistic regression to its optimum |
    /// | `emp-ssl` | 20, 0.07 | SGD as in EMP-SSL: rate 0.03, batch 100, 100 epochs |
    /// | `vicreg` | 20, 0.07 | SGD as in VICReg: batch 256, 100 epochs; rate 0.02 times the best factor |
    ///
    /// `emp-ssl` is about the projector's first layer ("pre_feature") of 128 random patches, the others about the embedding. It differs
    /// from its code in what that does wrong: the last epoch counts, not the best on the test images, and test images are not
    /// jittered.
    ///
    /// # Errors
    /// [`Error::Setting`] if there is no such protocol.
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
        let (tap, patches) =
            if name == "emp-ssl" { (FeatureLayer::FirstLayer, Some(128)) } else { (FeatureLayer::Embedding, None) };
        Ok(Protocol { name, knn, linear, factors, tap, patches })
    }

    /// Two lines on the protocol, for a report: the neighbors and the probe.
    pub fn describe(&self) -> [String; 2] {
        let how = match self.factors {
            [] => String::new(),
            factors => {
                format!("; the rate times {factors:?}, whichever does best on a held-out tenth of the training images")
            }
        };
        [self.knn.describe(), self.linear.describe() + &how]
    }

    /// The accuracies of features by both classifiers. `seed` draws the part that is held out.
    ///
    /// # Errors
    /// Those of [`Knn::evaluate`], [`choose`] and [`Linear::evaluate`].
    pub fn evaluate(&self, train: &Samples, test: &Samples, seed: u64) -> Result<[Score; 2]> {
        let knn = self.knn.evaluate(train, test)?;
        Ok([knn, self.probe(train, seed)?.evaluate(train, test)?])
    }

    /// The linear probe with the learning rate that suits the training samples.
    ///
    /// # Errors
    /// Those of [`choose`].
    pub fn probe(&self, train: &Samples, seed: u64) -> Result<Linear> {
        match self.linear {
            Linear::Sgd(sgd) if !self.factors.is_empty() => {
                let with = |factor: &f64| Linear::Sgd(Sgd { rate: sgd.rate * factor, ..sgd });
                let candidates: Vec<Linear> = self.factors.iter().map(with).collect();
                choose(&candidates, train, HELD_OUT, seed)
            }
            linear => Ok(linear),
        }
    }

    /// A hash of all settings, 16 hexadecimal digits: equal where they are, whatever the name.
    pub fn hash(&self) -> String {
        let Protocol { name: _, knn, linear, factors, tap, patches } = self;
        let of = match (tap, patches) {
            (FeatureLayer::Embedding, None) => String::new(),
            of => format!(" {of:?}"),
        };
        // The texts of the first version, so that its hashes hold.
        let Knn { neighbors, temperature } = knn;
        let knn = format!("Knn {{ neighbours: {neighbors:?}, temperature: {temperature:?} }}");
        fnv1a(format!("{knn} {linear:?} {factors:?} {HELD_OUT}{of}").as_bytes())
    }
}

/// FNV-1a of some bytes, 64 bits, as 16 hexadecimal digits: tells files and settings apart, and is no signature.
pub fn fnv1a(bytes: &[u8]) -> String {
    let mut hash = FnvHasher::default();
    hash.write(bytes);
    format!("{:016x}", hash.finish())
}

/// What a number depends on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The protocol's name.
    pub protocol: String,
    /// Its hash.
    pub protocol_hash: String,
    /// The hash of the checkpoint's bytes.
    pub checkpoint_hash: String,
    /// The fingerprints of the training and the test images.
    pub data: [String; 2],
    /// The seed of what the protocol draws.
    pub seed: u64,
}

impl Origin {
    /// In one line.
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
    fn presets_are_what_is_in_use() {
        let of = |name| Protocol::preset(name).unwrap();
        assert_eq!((of("solo").knn.neighbors, of("solo").knn.temperature), (20, 0.07));
        assert_eq!((of("lightly").knn.neighbors, of("lightly").knn.temperature), (200, 0.1));
        let Linear::Sgd(sgd) = of("emp-ssl").linear else { panic!("SGD") };
        assert_eq!((sgd.rate, sgd.momentum, sgd.decay, sgd.batch, sgd.epochs), (0.03, 0.9, 5e-5, 100, 100));
        let Linear::Sgd(sgd) = of("vicreg").linear else { panic!("SGD") };
        assert_eq!((sgd.rate, sgd.momentum, sgd.decay, sgd.batch, sgd.epochs), (0.02, 0.9, 1e-6, 256, 100));
        assert!(Protocol::preset("Solo").is_err());
    }

    #[test]
    fn a_hash_is_of_the_settings() {
        let solo = Protocol::preset("solo").unwrap();
        assert_eq!(solo.hash(), Protocol::preset("bagssl").unwrap().hash());
        let other = Protocol { knn: Knn { neighbors: 21, ..solo.knn }, ..solo };
        assert_ne!(solo.hash(), other.hash());
        assert_ne!(Protocol { factors: &[1.0], ..solo }.hash(), solo.hash());
        // The published test vectors of FNV-1a.
        assert_eq!((fnv1a(b"").as_str(), fnv1a(b"foobar").as_str()), ("cbf29ce484222325", "85944171f73967e8"));
    }

    /// 120 samples of class 0 at 0, 80 of class 1 so far from there.
    fn two_points(gap: f32) -> Samples {
        let labels: Vec<u32> = (0..200).map(|i| u32::from(i % 5 < 2)).collect();
        let values = labels.iter().map(|&label| gap * label as f32).collect();
        Samples::new(Rows { values, dim: 1 }, labels).unwrap()
    }

    /// Two classes at two points. The nearer these are, the greater the rate that it takes to tell them apart; a lower one
    /// says the more frequent class of all samples. The first that does best on the held-out samples is chosen.
    #[test]
    fn the_rate_is_chosen_on_the_training_samples() {
        let protocol = Protocol::preset("vicreg").unwrap();
        let with = |factor| Linear::Sgd(Sgd { rate: 0.02 * factor, ..Sgd::VICREG });
        for (gap, best) in [(0.5, 1.0), (0.3, 3.0), (0.2, 10.0)] {
            let train = two_points(gap);
            let (kept, out) = train.hold_out(HELD_OUT, 1).unwrap();
            let learns = AROUND.map(|factor| with(factor).evaluate(&kept, &out).unwrap().accuracy == 100.0);
            assert_eq!(learns, AROUND.map(|factor| factor >= best), "{gap}");
            assert_eq!(protocol.probe(&train, 1).unwrap(), with(best), "{gap}");
        }
        let train = two_points(0.2);
        assert_eq!(Protocol { factors: &[], ..protocol }.probe(&train, 1).unwrap(), protocol.linear);
        let of_emp_ssl = Protocol::preset("emp-ssl").unwrap();
        assert_eq!(of_emp_ssl.probe(&train, 1).unwrap(), of_emp_ssl.linear);
    }
}
