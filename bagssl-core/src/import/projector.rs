//! Reads a projector from the modules of a PyTorch `Sequential`.

use std::prelude::v1::*;

use std::collections::{BTreeMap, BTreeSet};

use super::{Foreign, values};
use crate::error::Result;
use crate::plan::{Kind, Layer, NamedTensor, Op, Plan};

/// The file's names by section, module and tensor.
type Modules = BTreeMap<(usize, usize, String), String>;
/// The result of parsing, or one line with the reason for failure.
type Parsed<T> = core::result::Result<T, String>;
/// The position of a module: its section, and its number in it.
type Position = (usize, usize);

/// The identity projector: the projection equals the embedding.
pub(super) fn identity(dim: usize) -> Result<(Plan, Vec<NamedTensor>)> {
    let op = Op::Linear { name: "0".into(), inputs: dim, outputs: dim, bias: false, norm: None, relu: false };
    let plan = Plan::new(Kind::Rows(dim), vec![Layer { input: 0, op }])?;
    let mut weight = vec![0.0; dim * dim];
    weight.iter_mut().step_by(dim + 1).for_each(|diagonal| *diagonal = 1.0);
    Ok((plan, vec![("projector.0.weight".into(), vec![dim, dim], weight)]))
}

/// Parses linear layers with optional batch norm, in the order of their numbers. One module without
/// tensors between two others is assumed to be a ReLU. Several are rejected, because their types
/// are unknown. Modules after the last tensors are assumed to be absent.
///
/// # Errors
/// One line with the reason if the modules are not such a projector.
pub(super) fn read(foreign: &Foreign<'_>, modules: &Modules, dim: usize) -> Parsed<(Plan, Vec<NamedTensor>)> {
    let positions: BTreeSet<Position> = modules.keys().map(|(stretch, module, _)| (*stretch, *module)).collect();
    let mut positions = positions.into_iter().peekable();
    match positions.peek() {
        None => return Err("the file contains no projector".into()),
        Some((_, 0)) => {}
        Some((_, first)) => {
            return Err(format!("expected a linear layer as module 0, got module {first} as the first with tensors"));
        }
    }
    let shape = |position: Position| {
        let name = modules.get(&(position.0, position.1, "weight".into()))?;
        Some(foreign.get(name)?.shape().to_vec())
    };
    let has = |position: Position, tensor: &str| modules.contains_key(&(position.0, position.1, tensor.into()));
    let (mut layers, mut sources, mut rows) = (Vec::new(), BTreeMap::new(), dim);
    while let Some(position) = positions.next() {
        let outputs = match shape(position).as_deref() {
            Some(&[outputs, inputs]) if inputs == rows => outputs,
            other => {
                return Err(format!(
                    "module {}: expected a linear layer with {rows} inputs, got weight shape {other:?}",
                    position.1
                ));
            }
        };
        let name = format!("{}", layers.len() * 3);
        let bias = has(position, "bias");
        sources.insert(name.clone(), position);
        let mut last = position;
        let norm =
            positions.next_if(|&next| next.0 == position.0 && next.1 == position.1 + 1 && has(next, "running_mean"));
        let norm = norm.map(|norm| {
            let name = format!("{}", layers.len() * 3 + 1);
            sources.insert(name.clone(), norm);
            last = norm;
            name
        });
        let relu = positions.peek().map_or(Ok(false), |&next| relu_between(last, next))?;
        layers.push(Layer { input: layers.len(), op: Op::Linear { name, inputs: rows, outputs, bias, norm, relu } });
        rows = outputs;
    }
    let plan = Plan::new(Kind::Rows(dim), layers).map_err(|error| error.to_string())?;
    if let Some(name) = left_over(&plan, modules, &sources) {
        return Err(format!("tensor {name:?}: expected a tensor of a linear layer or batch norm, got another"));
    }
    let tensors = tensors(foreign, modules, &plan, &sources)?;
    Ok((plan, tensors))
}

/// Whether there is a ReLU between two consecutive modules with tensors.
fn relu_between(last: Position, next: Position) -> Parsed<bool> {
    // A section ends with a ReLU if another section follows, as in EMP-SSL's `pre_feature`.
    let without_tensors = if last.0 == next.0 { next.1 - last.1 - 1 } else { next.1 + 1 };
    match without_tensors {
        0 => Ok(false),
        1 => Ok(true),
        more => {
            let (last, next) = (last.1, next.1);
            Err(format!(
                "expected at most a ReLU between modules {last} and {next}, got {more} modules without tensors"
            ))
        }
    }
}

/// Returns a tensor of the file that is not in the plan.
fn left_over(plan: &Plan, modules: &Modules, sources: &BTreeMap<String, Position>) -> Option<String> {
    let parameters = plan.parameters();
    let used: BTreeSet<(usize, usize, &str)> = parameters
        .iter()
        .filter_map(|parameter| parameter.name.split_once('.'))
        .filter_map(|(module, tensor)| sources.get(module).map(|&(stretch, module)| (stretch, module, tensor)))
        .collect();
    let left =
        modules.iter().find(|((stretch, module, tensor), _)| !used.contains(&(*stretch, *module, tensor.as_str())));
    left.map(|(_, name)| name.clone())
}

fn tensors(
    foreign: &Foreign<'_>,
    modules: &Modules,
    plan: &Plan,
    sources: &BTreeMap<String, Position>,
) -> Parsed<Vec<NamedTensor>> {
    let mut all = Vec::new();
    for parameter in plan.parameters() {
        let source = parameter.name.split_once('.').and_then(|(module, tensor)| {
            let &(stretch, module) = sources.get(module)?;
            modules.get(&(stretch, module, tensor.to_string()))
        });
        let source = source.ok_or_else(|| format!("expected tensor {:?}, got none", parameter.name))?;
        let values = values(foreign, source, &parameter.shape).map_err(|error| error.to_string())?;
        all.push((format!("projector.{}", parameter.name), parameter.shape, values));
    }
    Ok(all)
}
