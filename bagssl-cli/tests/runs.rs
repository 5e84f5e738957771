//! Runs that are killed, stopped, started twice, replaced and gone back to: the program as a user calls it.
#![cfg(unix)]

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use bagssl_core::checkpoint::Checkpoint;

use crate::support::{bagssl, json, names, prints, refused};

/// Two epochs of 18 steps each.
const RUN: [&str; 9] = ["train", "--images", "50", "--patches", "2", "--epochs", "2", "--threads", "1"];

fn begin(folder: &Path, more: &[&str]) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bagssl"));
    command.args(RUN).args(more).current_dir(folder).stdout(Stdio::null()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

/// Lines of the run's metrics.
fn lines(run: &Path) -> usize {
    fs::read(run.join("metrics.jsonl")).map_or(0, |text| text.iter().filter(|&&byte| byte == b'\n').count())
}

/// Waits until something is so, or the run has ended.
fn until(child: &mut Child, is_so: impl Fn() -> bool) {
    while !is_so() && child.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Waits until a run has so many lines of metrics, or has ended.
fn after(child: &mut Child, run: &Path, count: usize) {
    until(child, || lines(run) >= count);
}

fn signal(child: &Child, name: &str) {
    let sent = Command::new("kill").args([name, &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
}

/// Whether SIGHUP is ignored, as `nohup` has it for whatever it starts.
fn ignores_hangup() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 == 1)
}

fn end(child: Child) -> (ExitStatus, String) {
    let output = child.wait_with_output().unwrap();
    (output.status, String::from_utf8(output.stderr).unwrap())
}

#[test]
fn killed_and_stopped_it_ends_with_the_same_bits() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    prints(here, &[&RUN[..], &["--out", "whole"]].concat());
    let (arguments, run) = (["--out", "run", "--save-every", "4"], here.join("run"));
    for lines in [3, 6, 9, 15] {
        let mut child = begin(here, &arguments);
        after(&mut child, &run, lines);
        child.kill().unwrap();
        assert_eq!(end(child).0.signal(), Some(9), "at line {lines}");
    }
    // A signal that can be caught loses no step.
    for (name, code, lines) in [("-TERM", 143, 18), ("-INT", 130, 22), ("-HUP", 129, 26)] {
        if name == "-HUP" && ignores_hangup() {
            continue;
        }
        let mut child = begin(here, &arguments);
        after(&mut child, &run, lines);
        signal(&child, name);
        let (status, stderr) = end(child);
        assert_eq!(status.code(), Some(code), "{stderr}");
        let last = names(&run.join("states")).pop().unwrap();
        let step = last.trim_start_matches("step-").trim_end_matches(".safetensors").parse::<u64>().unwrap();
        assert!(
            stderr.contains(&format!("stopped by SIG{} after step {step}, which is saved", &name[1..])),
            "{stderr}"
        );
    }
    let done = json(here, &[&RUN[..], &arguments].concat());
    assert!(done["resumed_at_step"].as_u64().unwrap() > 18 && done["steps"] == 36, "{done}");
    for name in ["checkpoint.safetensors", "metrics.jsonl", "config.toml", "states/step-00000036.safetensors"] {
        let [whole, killed] = ["whole", "run"].map(|run| fs::read(here.join(run).join(name)).unwrap());
        assert!(whole == killed, "another {name}");
    }
}

/// Who decodes and cuts which image changes no bit.
#[test]
fn the_number_of_threads_changes_no_bit() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let train = ["train", "--images", "50", "--patches", "3", "--epochs", "1"];
    let left = ["1", "3"].map(|threads| {
        prints(here, &[&train[..], &["--threads", threads, "--out", threads]].concat());
        ["checkpoint.safetensors", "metrics.jsonl"].map(|name| fs::read(here.join(threads).join(name)).unwrap())
    });
    assert!(left[0] == left[1], "with one thread, and with three");
}

#[test]
fn second_run_in_a_folder_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (here, run) = (folder.path(), folder.path().join("run"));
    let mut first = begin(here, &["--out", "run", "--save-every", "2"]);
    after(&mut first, &run, 4);
    let holder = format!("process {}", first.id());
    refused(here, &[&RUN[..], &["--out", "run"]].concat(), &["run: expected no other process to train there", &holder]);
    refused(here, &[&RUN[..], &["--out", "run", "--force", "--seed", "1"]].concat(), &["no other process", &holder]);
    signal(&first, "-TERM");
    assert_eq!(end(first).0.code(), Some(143));
    let config = fs::read(run.join("config.toml")).unwrap();

    // What cannot begin removes nothing.
    let other = [&RUN[..], &["--out", "run", "--seed", "1"]].concat();
    refused(here, &other, &["run/states/step-", "--force"]);
    refused(here, &[&other[..], &["--force", "--data", "missing"]].concat(), &["missing"]);
    assert_eq!(fs::read(run.join("config.toml")).unwrap(), config);
    fs::write(run.join("notes.txt"), "mine").unwrap();
    let mut second = begin(here, &["--out", "run", "--seed", "1", "--force", "--save-every", "100"]);
    until(&mut second, || fs::read(run.join("config.toml")).is_ok_and(|new| new != config));
    after(&mut second, &run, 3);
    second.kill().unwrap();
    end(second);
    // Killed before its first save: the new run's settings, and nothing of the old one.
    assert!(fs::read_to_string(run.join("config.toml")).unwrap().contains("seed = 1"));
    assert_eq!(names(&run), ["config.toml", "lock", "metrics.jsonl", "notes.txt"]);
}

#[test]
fn a_run_is_gone_back_to_with_other_settings() {
    let folder = tempfile::tempdir().unwrap();
    let (here, run) = (folder.path(), folder.path().join("run"));
    let with = |epochs: &'static str, more: &[&'static str]| {
        [&RUN[..5], &["--out", "run", "--save-every", "6", "--keep", "9", "--epochs", epochs], more].concat()
    };
    json(here, &with("1", &["--milestones", "1"]));
    let state = |step: &str| format!("step-000000{step}.safetensors");
    assert_eq!(names(&run.join("states")), [state("06"), state("12"), state("18-milestone")]);
    refused(here, &with("2", &[]), &["18-milestone", "schedule.epochs 1", "schedule.epochs 2", "--resume-from"]);
    refused(here, &with("2", &["--resume-from", "7"]), &["expected a state of step 7", "steps 6, 12, 18"]);
    let [_, stderr] = prints(here, &with("2", &["--resume-from", "12", "--lr", "0.01", "--devices", "2"]));
    assert!(stderr.contains("after step 12: schedule.epochs is 2, was 1"), "{stderr}");
    let metrics = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let changed: Vec<&str> = metrics.lines().filter(|line| line.contains("\"changed\"")).collect();
    assert_eq!(changed.len(), 3, "{changed:?}");
    assert!(metrics.lines().position(|line| line.contains("\"changed\"")) == Some(12), "{metrics}");
    let bytes = fs::read(run.join("checkpoint.safetensors")).unwrap();
    let checkpoint = Checkpoint::from_bytes(&bytes).unwrap();
    let changes = &checkpoint.spec().provenance.changes;
    let changes: Vec<_> = changes.iter().map(|change| (change.step, change.setting.as_str())).collect();
    assert_eq!(changes, [(12, "optimizer.learning_rate"), (12, "schedule.epochs")]);

    // A damaged state falls back, and the metrics that it counted on are missed.
    let last = run.join("states").join(state("36"));
    let mut bytes = fs::read(&last).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    fs::write(&last, bytes).unwrap();
    fs::remove_file(run.join("metrics.jsonl")).unwrap();
    let again = with("2", &["--lr", "0.01", "--devices", "2"]);
    let [_, stderr] = prints(here, &again);
    assert!(stderr.contains("step-00000036.safetensors: ") && stderr.contains("resuming from step 30"), "{stderr}");
    assert!(stderr.contains("metrics.jsonl: lines of 30 of 30 steps are missing"), "{stderr}");
    assert!(names(&run.join("states")).contains(&"step-00000036.damaged".to_string()));
    fs::remove_dir_all(run.join("states")).unwrap();
    refused(here, &again, &["run/states: expected the states that belong to checkpoint.safetensors", "--force"]);
}

/// All files of a run but its lock, with their contents.
fn contents(run: &Path) -> Vec<(String, Vec<u8>)> {
    let mut all = Vec::new();
    for folder in [run.to_path_buf(), run.join("states")] {
        for name in names(&folder).into_iter().filter(|name| name != "lock" && name != "states") {
            let bytes = fs::read(folder.join(&name)).unwrap();
            all.push((name, bytes));
        }
    }
    all
}

/// What is refused leaves settings, states and metrics, so that the run goes on as if it had not been tried.
#[test]
fn a_refused_resume_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (here, run) = (folder.path(), folder.path().join("run"));
    let with = |epochs: &'static str, more: &[&'static str]| {
        [&RUN[..5], &["--out", "run", "--save-every", "6", "--keep", "9", "--epochs", epochs], more].concat()
    };
    json(here, &with("2", &[]));
    let before = contents(&run);
    assert_eq!(names(&run.join("states")).len(), 6);
    let few = "schedule.epochs: expected at least 2 (the epochs already started), got 1";
    for state in ["last", "24"] {
        refused(here, &with("1", &["--resume-from", state]), &[few]);
        refused(here, &with("1", &["--resume-from", state, "--devices", "2"]), &[few]);
        refused(here, &with("2", &["--resume-from", state, "--lr=-1"]), &["learning_rate"]);
        refused(here, &with("2", &["--resume-from", state, "--seed", "5"]), &["seed"]);
        assert!(contents(&run) == before, "from {state}");
    }
    // A pipe in place of the metrics is refused before, too.
    fs::rename(run.join("metrics.jsonl"), here.join("metrics.jsonl")).unwrap();
    fs::create_dir(run.join("metrics.jsonl")).unwrap();
    let words = ["metrics.jsonl: expected a regular file"];
    refused(here, &with("2", &["--resume-from", "24", "--lr", "0.01"]), &words);
    refused(here, &with("2", &["--force", "--seed", "1"]), &words);
    fs::remove_dir(run.join("metrics.jsonl")).unwrap();
    fs::rename(here.join("metrics.jsonl"), run.join("metrics.jsonl")).unwrap();
    assert!(contents(&run) == before);
    assert_eq!(json(here, &with("2", &[]))["resumed_at_step"], 36);

    fs::create_dir(here.join("other")).unwrap();
    fs::write(here.join("other/states"), "a file").unwrap();
    refused(here, &[&RUN[..], &["--out", "other"]].concat(), &["other/states: expected a folder, got a file"]);
}

/// Weights that leave the numbers there are: no checkpoint, and the state before is kept.
#[test]
fn a_run_that_diverges_is_not_finished() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let text =
        prints(here, &["train", "--print-config", "--images", "50", "--patches", "2", "--epochs", "1"])[0].clone();
    let begin = text.find("[optimizer").unwrap();
    let rest = text[begin + 1..].find("\n[").map_or("", |end| &text[begin + 1 + end..]);
    let sgd = "[optimizer.sgd]\nlearning_rate = 1e30\nmomentum = 0.0\nnesterov = false\nweight_decay = \
               1e30\ndecay_norm_and_bias = true\n";
    fs::write(here.join("wild.toml"), format!("{}{sgd}{rest}", &text[..begin])).unwrap();
    for policy in ["stop", "skip"] {
        let output = bagssl(here, &["train", "--config", "wild.toml", "--out", policy, "--on-not-finite", policy]);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert!(!here.join(policy).join("checkpoint.safetensors").exists());
        assert!(stderr.contains("finite") && stderr.contains("a lower --lr"), "{stderr}");
        assert_eq!(stderr.contains("--on-not-finite skip may help"), policy == "stop", "{stderr}");
    }
    // Weights that are finite, of which features are not. That most steps changed nothing is said in any case.
    let huge = ["train", "--preset", "bagssl-vicreg", "--images", "50", "--patches", "2", "--epochs", "1"];
    let output =
        bagssl(here, &[&huge[..], &["--lr", "1e12", "--on-not-finite", "skip", "--out", "huge", "--json"]].concat());
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("skipped step") && stderr.contains("the model is unusable"), "{stderr}");
    assert!(!here.join("huge/checkpoint.safetensors").exists());
}
