//! The choice of methods to train.

use anyhow::{Result, bail};
use bagssl_eval::report::Method;
use bagssl_train::preset::preset;
use clap::builder::{PossibleValue, PossibleValuesParser};

/// The name that stands for all methods.
const ALL: &str = "all";

/// Returns the parser of a method's name, which is that of its preset.
pub(super) fn parser() -> PossibleValuesParser {
    let value = |method: Method| {
        let about = preset(method.name()).map(|preset| preset.about);
        PossibleValue::new(method.name()).help(about.unwrap_or_default())
    };
    let all = PossibleValue::new(ALL).help("all of these");
    Method::TRAINED.map(value).into_iter().chain([all]).collect::<Vec<_>>().into()
}

/// Returns the chosen methods, each once, in the order of reports. `names` has passed the parser.
pub(super) fn chosen(names: &[String]) -> Result<Vec<Method>> {
    let is_chosen = |method: &Method| names.iter().any(|name| name == method.name() || name == ALL);
    let methods: Vec<Method> = Method::TRAINED.into_iter().filter(is_chosen).collect();
    if !methods.contains(&Method::Bagssl) {
        let names: Vec<&str> = methods.iter().map(|method| method.name()).collect();
        bail!("--methods: expected bagssl among the methods, since it is the reference, got {}", names.join(","));
    }
    Ok(methods)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_trained_method_has_a_preset() {
        for method in Method::TRAINED {
            assert!(preset(method.name()).is_some_and(|preset| !preset.about.is_empty()), "{}", method.name());
        }
    }

    #[test]
    fn methods_are_chosen_once_in_the_order_of_reports() {
        let of = |text: &str| chosen(&text.split(',').map(String::from).collect::<Vec<_>>());
        assert_eq!(of("simclr,bagssl,simclr").unwrap(), [Method::Bagssl, Method::Simclr]);
        assert_eq!(of("all").unwrap(), Method::TRAINED);
        let error = of("vicreg,multi-scale").unwrap_err().to_string();
        assert_eq!(
            error,
            "--methods: expected bagssl among the methods, since it is the reference, got multi-scale,vicreg"
        );
    }
}
