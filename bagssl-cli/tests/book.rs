//! The commands of the book in `docs/book` and of this crate's README, run as a reader runs them: in order, chapter by chapter, each in an empty folder.
//!
//! In a block ```` ```console ```` a line `$ ..` is a command, lines `> ..` after it belong to it, and what follows is what it prints (both
//! streams). There `...` stands for any text, alone on a line for any lines. A command of which nothing is shown may print
//! anything; every command has to succeed. Rust blocks are doc tests of `tests/src/lib.rs`.
#![cfg(unix)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use regex::Regex;

/// Blocks of commands that are not run, and why.
const NOT_RUN: [(&str, &str); 2] = [
    ("console,build", "builds the program in release mode; the tests have built it already"),
    ("console,pytorch", "needs PyTorch, and weights from the network"),
];
/// Blocks that hold no commands.
const NO_COMMANDS: [&str; 3] = ["rust", "toml", "python"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().into()
}

/// The chapters that SUMMARY.md lists: their names and texts.
fn chapters() -> Vec<(String, String)> {
    let folder = root().join("docs/book/src");
    let summary = fs::read_to_string(folder.join("SUMMARY.md")).unwrap();
    let link = Regex::new(r"\]\(([^)]+)\)").unwrap();
    let names = link.captures_iter(&summary).map(|link| link[1].to_string());
    names.map(|name| (name.clone(), fs::read_to_string(folder.join(&name)).unwrap())).collect()
}

/// A fenced block, with the number of its first line in the chapter, counted from 1.
#[derive(Debug, PartialEq)]
struct Block<'a> {
    info: &'a str,
    line: usize,
    lines: Vec<&'a str>,
}

/// A command, the line where it stands, and what it is to print.
#[derive(Debug, PartialEq)]
struct Step {
    line: usize,
    command: String,
    output: Vec<String>,
}

fn blocks<'a>(name: &str, text: &'a str) -> Result<Vec<Block<'a>>, String> {
    let (mut blocks, mut open) = (Vec::new(), None::<Block<'a>>);
    for (number, line) in (1..).zip(text.lines()) {
        let fence = line.trim_start().strip_prefix("```");
        match (&mut open, fence) {
            (None, Some(info)) => open = Some(Block { info, line: number + 1, lines: Vec::new() }),
            (None, None) if line.starts_with("    ") || line.starts_with('\t') => {
                return Err(format!("{name}:{number}: an indented block, expected one between fences"));
            }
            (None, None) => {}
            (Some(_), Some("")) => blocks.extend(open.take()),
            (Some(block), _) => block.lines.push(line),
        }
    }
    match open {
        Some(block) => Err(format!("{name}:{}: a block without an end", block.line - 1)),
        None => Ok(blocks),
    }
}

/// The commands of a block; none of one that is not to be run.
fn steps(name: &str, block: &Block<'_>) -> Result<Vec<Step>, String> {
    if NO_COMMANDS.contains(&block.info) {
        return Ok(Vec::new());
    }
    if let Some((info, why)) = NOT_RUN.iter().find(|(info, _)| *info == block.info) {
        println!("{name}:{}: {info} is not run: {why}", block.line);
        return Ok(Vec::new());
    }
    if block.info != "console" {
        return Err(format!("{name}:{}: a block of {:?}, which is none of the known", block.line - 1, block.info));
    }
    let mut steps: Vec<Step> = Vec::new();
    for (line, text) in (block.line..).zip(&block.lines) {
        match (text.strip_prefix("$ "), text.strip_prefix("> "), steps.last_mut()) {
            (Some(command), ..) => steps.push(Step { line, command: command.into(), output: Vec::new() }),
            (None, Some(more), Some(step)) if step.output.is_empty() => {
                step.command = format!("{}\n{more}", step.command);
            }
            (None, _, Some(step)) => step.output.push((*text).to_string()),
            (None, _, None) => return Err(format!("{name}:{line}: expected a command after \"$ \", got {text:?}")),
        }
    }
    match steps.is_empty() {
        true => Err(format!("{name}:{}: a block without a command", block.line - 1)),
        false => Ok(steps),
    }
}

/// Whether a command printed what the book shows.
fn is_shown(shown: &[String], printed: &str) -> bool {
    let line = |line: &String| match line.as_str() {
        "..." => "(?:.*\n)*?".to_string(),
        _ => format!("{}\n", line.split("...").map(regex::escape).collect::<Vec<_>>().join(".*")),
    };
    let pattern = format!("^{}$", shown.iter().map(line).collect::<String>());
    shown.is_empty() || Regex::new(&pattern).unwrap().is_match(printed)
}

/// Runs the commands of a chapter in an empty folder. `BAGSSL` is the repository.
fn run(name: &str, text: &str) -> Result<usize, String> {
    let folder = tempfile::tempdir().unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_bagssl")).parent().unwrap();
    let path = std::env::join_paths(
        std::iter::once(program.into()).chain(std::env::split_paths(&std::env::var_os("PATH").unwrap())),
    );
    let mut count = 0;
    for block in blocks(name, text)? {
        for Step { line, command, output } in steps(name, &block)? {
            let mut shell = Command::new("sh");
            shell.args(["-c", &format!("exec 2>&1\n{command}")]).current_dir(folder.path());
            let done = shell.env("PATH", path.as_ref().unwrap()).env("BAGSSL", root()).output().unwrap();
            let printed = String::from_utf8_lossy(&done.stdout);
            if !done.status.success() {
                return Err(format!("{name}:{line}: {command}: {}, having printed\n{printed}", done.status));
            }
            if !is_shown(&output, &printed) {
                let shown = output.join("\n");
                return Err(format!("{name}:{line}: {command}: the book shows\n{shown}\nbut it printed\n{printed}"));
            }
            count += 1;
        }
    }
    Ok(count)
}

#[test]
fn every_command_of_the_book_does_what_it_shows() {
    let mut failed = Vec::new();
    for (name, text) in chapters() {
        match run(&name, &text) {
            Ok(0) => failed.push(format!("{name}: no command")),
            Ok(count) => println!("{name}: {count} commands"),
            Err(error) => failed.push(error),
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n\n"));
}

#[test]
fn every_command_of_the_readme_does_what_it_shows() {
    let text = fs::read_to_string(root().join("bagssl-cli/README.md")).unwrap();
    assert_eq!(run("README.md", &text).unwrap_or_else(|error| panic!("{error}")), 5);
}

/// What is in no list is read by nobody and run by no test.
#[test]
fn every_chapter_is_listed_and_its_rust_is_tested() {
    let chapters = chapters();
    let files = fs::read_dir(root().join("docs/book/src")).unwrap().map(|entry| entry.unwrap().file_name());
    let mut files: Vec<String> = files.map(|name| name.into_string().unwrap()).collect();
    files.retain(|name| name != "SUMMARY.md");
    files.sort();
    let mut listed: Vec<_> = chapters.iter().map(|(name, _)| name.clone()).collect();
    listed.sort();
    assert_eq!(files, listed);
    let tested = fs::read_to_string(root().join("tests/src/lib.rs")).unwrap();
    for (name, text) in &chapters {
        if blocks(name, text).unwrap().iter().any(|block| block.info == "rust") {
            assert!(tested.contains(&format!("docs/book/src/{name}\")")), "{name}: its Rust is no doc test");
        }
    }
    // Links from chapter to chapter lead somewhere.
    let link = Regex::new(r"\]\(([^):]+\.md)[^)]*\)").unwrap();
    for (name, text) in &chapters {
        let broken = link.captures_iter(text).find(|link| !listed.contains(&link[1].to_string()));
        assert!(broken.is_none(), "{name}: {:?}", broken.map(|link| link[1].to_string()));
    }
}

#[test]
fn a_book_that_is_wrong_is_noticed() {
    let console = |text: &str| run("bad.md", &format!("# Bad\n\n```console\n{text}\n```\n"));
    for (text, words) in [
        ("$ true\n$ exit 1\n$ true", &["bad.md:5", "exit 1", "exit status: 1"][..]),
        ("$ bagssl train --no-such-option", &["bad.md:4", "--no-such-option", "exit status: 2"]),
        ("$ echo one\ntwo", &["bad.md:4", "the book shows\ntwo\nbut it printed\none"]),
        ("$ printf 'one\\ntwo\\n'\none", &["bad.md:4", "but it printed"]),
        ("$ echo 12 images\n... image", &["bad.md:4", "but it printed"]),
        ("$ echo one\none\n...\ntwo", &["bad.md:4", "but it printed"]),
        ("bagssl --version", &["bad.md:4", "expected a command"]),
    ] {
        let error = console(text).expect_err(text);
        assert!(words.iter().all(|word| error.contains(word)), "{text:?}: {error}");
    }
    for (text, words) in [
        ("```sh\n$ true\n```\n", &["bad.md:1", "\"sh\""][..]),
        ("```console,slow\n$ true\n```\n", &["bad.md:1", "console,slow"]),
        ("```\ntrue\n```\n", &["bad.md:1"]),
        ("```console\n```\n", &["bad.md:1", "without a command"]),
        ("\n```console\n$ true\n", &["bad.md:2", "without an end"]),
        ("\n    bagssl train\n", &["bad.md:2", "indented"]),
    ] {
        let error = run("bad.md", text).expect_err(text);
        assert!(words.iter().all(|word| error.contains(word)), "{text:?}: {error}");
    }
    assert_eq!(
        console("$ for n in 1 2; do\n>   echo line $n\n> done\nline 1\n... 2\n$ printf 'a\\nb\\nc\\n'\na\n..."),
        Ok(2)
    );
    assert_eq!(console("$ touch here\n$ ls\nhere\n$ bagssl --version\nbagssl ..."), Ok(3));
}

/// All files of Rust code in a folder, as paths from the root.
fn rust_files(folder: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let (path, name) = (entry.path(), entry.file_name().into_string().unwrap());
        if entry.file_type().unwrap().is_dir() {
            if name != "target" && !name.starts_with('.') {
                rust_files(&path, found);
            }
        } else if name.ends_with(".rs") {
            found.push(path.strip_prefix(root()).unwrap().to_str().unwrap().into());
        }
    }
}

/// Paths that the book and ARCHITECTURE.md name: whole, without `bagssl-`, or the end of one that was named before.
#[test]
fn files_that_are_named_exist() {
    let mut files = Vec::new();
    rust_files(&root(), &mut files);
    let is_file = |path: &str| {
        let end = format!("/{path}");
        files.iter().any(|file| file == path || file.strip_prefix("bagssl-") == Some(path) || file.ends_with(&end))
    };
    let is_folder = |path: &str| ["", "bagssl-"].iter().any(|start| root().join(format!("{start}{path}")).is_dir());
    let code = Regex::new("`([a-z0-9_./-]+)`").unwrap();
    let architecture = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let texts = chapters().into_iter().chain([("ARCHITECTURE.md".to_string(), architecture)]);
    let (mut count, mut dead) = (0, Vec::new());
    for (name, text) in texts {
        for path in code.captures_iter(&text).map(|code| code.get(1).unwrap().as_str()) {
            let is_there = match () {
                () if path.ends_with(".rs") => is_file(path),
                () if path.contains("/src") || path.contains("/tests") => is_folder(path) || root().join(path).exists(),
                () => continue,
            };
            count += 1;
            if !is_there {
                dead.push(format!("{name}: {path}"));
            }
        }
    }
    assert!(dead.is_empty() && count > 50, "of {count}: {dead:?}");
}
