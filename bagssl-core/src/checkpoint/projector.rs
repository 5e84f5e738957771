//! Detects whether a model has a projector.

use std::prelude::v1::*;

use super::Checkpoint;
use crate::plan::Op;

/// The tolerance for a weight of the identity: the rounding error of int8.
const IDENTITY_TOLERANCE: f32 = 1e-3;

impl Checkpoint<'_> {
    /// Returns whether the projector differs from the identity. Importing a model without a
    /// projector adds the identity; the projector's first layer and the projection then repeat the
    /// embedding.
    pub fn has_projector(&self) -> bool {
        let [layer] = self.spec.model.projector().layers() else { return true };
        let Op::Linear { name, inputs, bias: false, norm: None, relu: false, .. } = &layer.op else { return true };
        let Ok(weights) = self.values(&format!("projector.{name}.weight")) else { return true };
        // Compare with the identity, which has `inputs * inputs` values.
        let identity_value = |index: usize| if index % inputs == index / inputs { 1.0 } else { 0.0 };
        weights.len() != inputs * inputs
            || weights
                .iter()
                .enumerate()
                .any(|(index, weight)| (weight - identity_value(index)).abs() > IDENTITY_TOLERANCE)
    }
}

#[cfg(test)]
mod tests {
    use crate::bag::Views;
    use crate::embed::FeatureLayer;
    use crate::normalize::Normalization;
    use crate::patch::{Filter, PatchSpec};
    use crate::plan::{Kind, Plan};
    use std::prelude::v1::*;

    use super::super::*;
    use crate::architecture::{Architecture, mlp};
    use crate::patch::PatchSide;
    use crate::plan::{Layer, Op};

    fn linear(outputs: usize, bias: bool, relu: bool) -> Plan {
        let op = Op::Linear { name: "0".into(), inputs: 64, outputs, bias, norm: None, relu };
        Plan::new(Kind::Rows(64), vec![Layer { input: 0, op }]).unwrap()
    }

    /// A checkpoint whose projector weight at `[row, column]` is `of(row, column)`.
    fn bytes(projector: Plan, of: impl Fn(usize, usize) -> f32) -> Vec<u8> {
        let patch = PatchSpec::new(PatchSide::Pixels(32), 16).unwrap();
        let spec = Spec {
            format_version: FORMAT_VERSION,
            model: ModelPlan::new(Architecture::ResNetSmall.plan(), projector).unwrap(),
            patch,
            filter: Filter::Bilinear,
            normalization: Normalization::HALF,
            layer: FeatureLayer::Embedding,
            views: Views::FixedScale(patch),
            provenance: Provenance::default(),
            training: None,
        };
        let fill = |parameter: Parameter| {
            let value = |index| if parameter.name == "projector.0.weight" { of(index / 64, index % 64) } else { 0.25 };
            let values = (0..parameter.len()).map(value).collect();
            (parameter.name, parameter.shape, values)
        };
        let tensors: Vec<NamedTensor> = spec.model.parameters().into_iter().map(fill).collect();
        to_bytes(&spec, &tensors).unwrap()
    }

    fn has_projector(bytes: &[u8]) -> bool {
        Checkpoint::from_bytes(bytes).unwrap().has_projector()
    }

    #[test]
    fn identity_projector_in_every_storage_type() {
        let identity = bytes(linear(64, false, false), |row, column| f32::from(row == column));
        assert!(!has_projector(&identity));
        for weights in [WeightType::Bf16, WeightType::Int8] {
            assert!(!has_projector(&convert(&Checkpoint::from_bytes(&identity).unwrap(), weights).unwrap()));
        }
    }

    #[test]
    fn any_other_projector_is_not_identity() {
        let identity = |row, column| f32::from(row == column);
        let turned = |row, column| f32::from((row + 1) % 64 == column);
        let touched = |row, column| if (row, column) == (3, 5) { 0.5 } else { f32::from(row == column) };
        for (plan, of) in [
            (linear(64, true, false), &identity as &dyn Fn(usize, usize) -> f32),
            (linear(64, false, true), &identity),
            (linear(32, false, false), &identity),
            (linear(64, false, false), &turned),
            (linear(64, false, false), &touched),
            (mlp(64, &[64, 64]).unwrap(), &identity),
        ] {
            let layers = format!("{:?}", plan.layers());
            assert!(has_projector(&bytes(plan, of)), "{layers}");
        }
    }
}
