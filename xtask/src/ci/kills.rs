//! Checks that a training run that is killed at random moments ends with the same result as an
//! uninterrupted one.

use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::{metadata, run};

/// The minimum number of kills.
const KILLS: u32 = 100;
/// The files to compare.
const FILES: [&str; 3] = ["checkpoint.safetensors", "metrics.jsonl", "config.toml"];

pub(crate) fn kills() -> Result<()> {
    run::run_checked(&mut run::cargo(&["build", "--release", "-p", "bagssl-cli", "--locked"]))?;
    let target = metadata::target_folder()?;
    let (program, out) = (target.join("release/bagssl"), target.join("kills"));
    if out.exists() {
        std::fs::remove_dir_all(&out).with_context(|| out.display().to_string())?;
    }
    let command = |name: &str| {
        let mut command = Command::new(&program);
        command.args(["train", "--epochs", "40", "--images", "60", "--patches", "2", "--save-every", "2", "--out"]);
        command.arg(out.join(name)).stdout(Stdio::null());
        command
    };
    run::run_checked(&mut command("whole"))?;
    let (mut kills, mut random) = (0, 1_u64);
    while kills < KILLS {
        // Kills before, during and after resuming, at pseudorandom times (Knuth, MMIX).
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let mut child = command("killed").stderr(Stdio::piped()).spawn()?;
        sleep(Duration::from_millis(random >> 32 & 0x1ff));
        if child.try_wait()?.is_none() {
            child.kill()?;
            kills += 1;
        }
        let output = child.wait_with_output()?;
        ensure!(output.status.code().is_none_or(|code| code == 0), "{}", String::from_utf8_lossy(&output.stderr));
        if output.status.success() {
            ensure!(kills > 0, "it finished before it was killed");
            same(&out)?;
            std::fs::remove_dir_all(out.join("killed"))?;
        }
    }
    run::run_checked(&mut command("killed"))?;
    same(&out)?;
    println!("  killed {kills} times");
    Ok(())
}

fn same(out: &Path) -> Result<()> {
    for name in FILES {
        let read = |run: &str| std::fs::read(out.join(run).join(name)).with_context(|| name.to_string());
        if read("whole")? != read("killed")? {
            bail!("{name}: expected the file of the uninterrupted run, got another");
        }
    }
    Ok(())
}
