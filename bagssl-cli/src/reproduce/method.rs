//! The choice of methods to train.

use anyhow::{Result, bail};
use bagssl_eval::report::Method;
use clap::ValueEnum;

/// A method, by the name of its preset, or all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum MethodChoice {
    /// Single-scale patches, coding rate loss
    Bagssl,
    /// Multi-scale crops, coding rate loss
    MultiScale,
    /// Single-scale patches, VICReg loss
    BagsslVicreg,
    /// Multi-scale crops, VICReg loss
    Vicreg,
    /// Multi-scale crops, SimCLR loss
    Simclr,
    /// All five
    All,
}

/// Returns the chosen methods, each once, in the order of reports.
pub(super) fn chosen(methods: &[MethodChoice]) -> Result<Vec<Method>> {
    let is_chosen = |model: &Method| {
        methods.iter().any(|method| match method {
            MethodChoice::Bagssl => *model == Method::Bagssl,
            MethodChoice::MultiScale => *model == Method::MultiScale,
            MethodChoice::BagsslVicreg => *model == Method::BagsslVicreg,
            MethodChoice::Vicreg => *model == Method::Vicreg,
            MethodChoice::Simclr => *model == Method::Simclr,
            MethodChoice::All => true,
        })
    };
    let models: Vec<Method> = Method::TRAINED.into_iter().filter(is_chosen).collect();
    if !models.contains(&Method::Bagssl) {
        let names: Vec<&str> = models.iter().map(|model| model.name()).collect();
        bail!("--methods: expected bagssl among the methods, since it is the reference, got {}", names.join(","));
    }
    Ok(models)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_have_the_names_of_their_presets() {
        let of = |text: &str| -> Vec<MethodChoice> {
            text.split(',').map(|name| MethodChoice::from_str(name, false).unwrap()).collect()
        };
        for model in Method::TRAINED {
            let chosen = chosen(&[MethodChoice::Bagssl, of(model.name())[0]]).unwrap();
            assert_eq!(*chosen.last().unwrap(), model);
            assert!(bagssl_train::preset::preset(model.name()).is_some(), "{}", model.name());
        }
        assert_eq!(chosen(&of("simclr,bagssl,simclr")).unwrap(), [Method::Bagssl, Method::Simclr]);
        assert_eq!(chosen(&of("all")).unwrap(), Method::TRAINED);
        let error = chosen(&of("vicreg,multi-scale")).unwrap_err().to_string();
        assert_eq!(
            error,
            "--methods: expected bagssl among the methods, since it is the reference, got multi-scale,vicreg"
        );
    }
}
