//! The choice of what is trained.

use anyhow::{Result, bail};
use bagssl_eval::report::Model;
use clap::ValueEnum;

/// A training, by the name of its preset; or all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Method {
    /// Patches of one scale, coding rate
    Bagssl,
    /// Crops of many scales, coding rate
    MultiScale,
    /// Patches of one scale, VICReg's loss
    BagsslVicreg,
    /// Crops of many scales, VICReg's loss
    Vicreg,
    /// Crops of many scales, SimCLR's loss
    Simclr,
    /// These five
    All,
}

/// The trainings that are named, each once, in the order of reports.
pub(super) fn chosen(methods: &[Method]) -> Result<Vec<Model>> {
    let is_chosen = |model: &Model| {
        methods.iter().any(|method| match method {
            Method::Bagssl => *model == Model::Bagssl,
            Method::MultiScale => *model == Model::MultiScale,
            Method::BagsslVicreg => *model == Model::BagsslVicreg,
            Method::Vicreg => *model == Model::Vicreg,
            Method::Simclr => *model == Model::Simclr,
            Method::All => true,
        })
    };
    let models: Vec<Model> = Model::TRAINED.into_iter().filter(is_chosen).collect();
    if !models.contains(&Model::Bagssl) {
        let names: Vec<&str> = models.iter().map(|model| model.name()).collect();
        bail!("--methods: expected bagssl among them, as the others are compared with it, got {}", names.join(","));
    }
    Ok(models)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_have_the_names_of_their_presets() {
        let of = |text: &str| -> Vec<Method> {
            text.split(',').map(|name| Method::from_str(name, false).unwrap()).collect()
        };
        for model in Model::TRAINED {
            let chosen = chosen(&[Method::Bagssl, of(model.name())[0]]).unwrap();
            assert_eq!(*chosen.last().unwrap(), model);
            assert!(bagssl_train::preset::preset(model.name()).is_some(), "{}", model.name());
        }
        assert_eq!(chosen(&of("simclr,bagssl,simclr")).unwrap(), [Model::Bagssl, Model::Simclr]);
        assert_eq!(chosen(&of("all")).unwrap(), Model::TRAINED);
        let error = chosen(&of("vicreg,multi-scale")).unwrap_err().to_string();
        assert_eq!(
            error,
            "--methods: expected bagssl among them, as the others are compared with it, got multi-scale,vicreg"
        );
    }
}
