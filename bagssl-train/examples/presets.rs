//! The recipes, and what a run of each needs: `cargo run --example presets`, or `-- NAME` for the settings of one.

use std::error::Error;

use bagssl_train::memory::MemoryEstimate;
use bagssl_train::preset::{PRESETS, Preset, names, preset};

fn main() -> Result<(), Box<dyn Error>> {
    match std::env::args().nth(1) {
        Some(name) => {
            let found = preset(&name).ok_or_else(|| format!("expected one of {}, got {name:?}", names()))?;
            println!("{}", found.toml);
        }
        None => PRESETS.iter().try_for_each(describe)?,
    }
    Ok(())
}

/// A line on a recipe, and one on what it takes.
fn describe(preset: &Preset) -> Result<(), Box<dyn Error>> {
    let config = preset.config();
    let (batch, epochs) = (config.batch, config.schedule.epochs);
    let bytes = MemoryEstimate::new(&config.check()?, 4).bytes((batch.images * batch.micro_batch()) as u64);
    println!("{:<16} {}", preset.name, preset.about);
    println!(
        "{:16} {} images of {} patches a step, {epochs} epochs, {} MiB",
        "",
        batch.images,
        batch.patches,
        bytes >> 20
    );
    Ok(())
}
