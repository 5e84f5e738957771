//! The program's output on standard output and standard error.

use std::collections::BTreeSet;
use std::fmt::Arguments;
use std::io::Write;
use std::process::exit;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Mutex, PoisonError};

pub(crate) use bagssl_core::text::escaped;
use bagssl_core::text::is_interpreted;

/// Prints a line on standard output, like `println!`. If the line cannot be written, for instance
/// because of `| head`, the program reports why and exits with code 2.
macro_rules! say {
    ($($argument:tt)*) => { $crate::output::write(format_args!("{}\n", format_args!($($argument)*))) };
}
pub(crate) use say;

/// Prints a line on standard error, like `eprintln!`. If the line cannot be written, the program
/// exits with code 2.
macro_rules! tell {
    ($($argument:tt)*) => { $crate::output::write_error(format_args!("{}\n", format_args!($($argument)*))) };
}
pub(crate) use tell;

/// Prints a line on standard error while work continues. If the line cannot be written, the work
/// still completes, and the program then exits with code 2.
macro_rules! note {
    ($($argument:tt)*) => { $crate::output::write_note(format_args!("{}\n", format_args!($($argument)*))) };
}
pub(crate) use note;

/// The exit code of a command that failed.
pub(crate) const NOT_DONE: u8 = 2;

pub(crate) fn write(text: Arguments<'_>) {
    let mut output = std::io::stdout().lock();
    if let Err(error) = output.write_all(escape_controls(text).as_bytes()).and_then(|()| output.flush()) {
        tell!("error: standard output: {error}");
        exit(NOT_DONE.into());
    }
}

pub(crate) fn write_error(text: Arguments<'_>) {
    // The reason cannot be printed anywhere. Files are complete at any time, so finished work is
    // not lost.
    if !print_error(text) {
        exit(NOT_DONE.into());
    }
}

/// Whether a note could not be written.
static NOTES_LOST: AtomicBool = AtomicBool::new(false);

pub(crate) fn write_note(text: Arguments<'_>) {
    if !print_error(text) {
        NOTES_LOST.store(true, Relaxed);
    }
}

/// Prints a note about the data at most once per process, however often the data set is opened.
pub(crate) fn note_once(line: &str) {
    static PRINTED_NOTES: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    if PRINTED_NOTES.lock().unwrap_or_else(PoisonError::into_inner).insert(line.into()) {
        note!("{line}");
    }
}

pub(crate) fn lost_notes() -> bool {
    NOTES_LOST.load(Relaxed)
}

/// Writes the text to standard error in one call, so that lines of several threads do not mix.
/// Returns whether that succeeded.
fn print_error(text: Arguments<'_>) -> bool {
    std::io::stderr().write_all(escape_controls(text).as_bytes()).is_ok()
}

/// Escapes all characters that a terminal would interpret, except line ends and tabs, because parts
/// of the text may come from outside the program. The escapes are valid in JSON.
fn escape_controls(text: Arguments<'_>) -> String {
    let text = text.to_string();
    let is_shown = |letter: char| is_interpreted(letter) && !matches!(letter, '\n' | '\t');
    if !text.contains(is_shown) {
        return text;
    }
    let mut escape_controls = String::with_capacity(text.len());
    for letter in text.chars() {
        match is_shown(letter) {
            true => escape_controls.push_str(&format!("\\u{:04x}", u32::from(letter))),
            false => escape_controls.push(letter),
        }
    }
    escape_controls
}

/// Returns the text as one line, with characters that a terminal would interpret escaped, cut off
/// after about 600 bytes.
pub(crate) fn one_line(text: &str) -> String {
    const LONGEST: usize = 600;
    let mut line = String::new();
    for character in text.chars() {
        match character {
            '\n' => line.push(' '),
            character if is_interpreted(character) => line.extend(character.escape_default()),
            character => line.push(character),
        }
        if line.len() > LONGEST {
            line.push_str("..");
            break;
        }
    }
    line
}

/// Returns a name for a field of a tab-separated file or a line of output. A backslash, a tab, a
/// line end and other characters that a terminal would interpret are written as `\\`, `\t`, `\n`
/// and `\u{..}`.
pub(crate) fn field(name: &str) -> String {
    escaped(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_shown_not_obeyed() {
        assert_eq!(one_line("a\nb\u{1b}[31m"), "a b\\u{1b}[31m");
        assert!(one_line(&"x".repeat(10_000)).len() < 700);
        assert_eq!(field("new\nline\tand \\n"), "new\\nline\\tand \\\\n");
        assert_eq!(field("grün 1.png"), "grün 1.png");
        assert_eq!(field("a\u{202e}gpj"), "a\\u{202e}gpj");
        let all = escape_controls(format_args!("{{\"a\": \"\u{202e}\u{9b}\"}}\t\u{1b}[2J\r\n"));
        assert_eq!(all, "{\"a\": \"\\u202e\\u009b\"}\t\\u001b[2J\\u000d\n");
    }
}
