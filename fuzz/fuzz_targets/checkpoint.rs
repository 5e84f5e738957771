#![no_main]
//! A checkpoint or a state of a run that is accepted holds all tensors of its plan. What is written of it is read as the same, and written
//! again as the same bytes. The digest is left out at first: hardly any change would pass it.

use bagssl_core::checkpoint::{Checkpoint, FORMAT_VERSION, NamedTensor, OPTIMIZER_PREFIX, Spec, to_bytes};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(checkpoint) = Checkpoint::from_bytes_unverified(bytes) else { return };
    let _ = checkpoint.verify();
    let spec = Spec { format_version: FORMAT_VERSION, ..checkpoint.spec().clone() };
    let written = to_bytes(&spec, &tensors(&checkpoint)).unwrap();
    let again = Checkpoint::from_bytes(&written).unwrap();
    assert_eq!(again.spec(), &spec);
    assert_eq!(to_bytes(again.spec(), &tensors(&again)).unwrap(), written);
});

/// The tensors of the plan, and the optimizer's as vectors.
fn tensors(checkpoint: &Checkpoint<'_>) -> Vec<NamedTensor> {
    let values = |name: &str| checkpoint.values(name).unwrap();
    let of_plan = checkpoint.spec().model.parameters().into_iter().map(|parameter| {
        let values = values(&parameter.name);
        assert_eq!(values.len(), parameter.len());
        (parameter.name, parameter.shape, values)
    });
    let names = checkpoint.names().into_iter().filter(|name| name.starts_with(OPTIMIZER_PREFIX));
    let of_optimizer = names.map(|name| (name.to_string(), vec![values(name).len()], values(name)));
    of_plan.chain(of_optimizer).collect()
}
