//! Panics of Burn's backend. If the GPU fails, Burn panics on its own threads, then on the threads
//! that wait for them.

use std::panic::{PanicHookInfo, catch_unwind, resume_unwind, set_hook, take_hook};
use std::sync::{Mutex, OnceLock, PoisonError};

use bagssl_train::error::{Error, Result};

use crate::runtime::job;

/// The message of the first panic of Burn's backend.
static FIRST: Mutex<Option<String>> = Mutex::new(None);

/// Suppresses the output of panics of Burn's backend from now on. [`or_panic`] returns the first
/// one as an error.
pub fn keep_quiet() {
    static HOOK: OnceLock<()> = OnceLock::new();
    HOOK.get_or_init(|| {
        let others = take_hook();
        set_hook(Box::new(move |info| {
            if is_burns(info) {
                let said = info.payload_as_str().unwrap_or("a panic without a message");
                FIRST.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| in_words(said));
            } else {
                others(info);
            }
        }));
    });
}

/// Runs `work` and converts a panic that Burn's backend caused to an error.
///
/// # Errors
/// [`Error::Cuda`] with the first failure.
pub fn or_panic<T>(work: impl FnOnce() -> T) -> Result<T> {
    catch_unwind(std::panic::AssertUnwindSafe(work)).or_else(|panic| {
        let own = job::check().err();
        let burns = FIRST.lock().unwrap_or_else(PoisonError::into_inner).take().map(Error::Cuda);
        // A failed allocation is the cause of any other failure.
        match (burns, own) {
            (Some(error), _) | (None, Some(error)) => Err(error),
            (None, None) => resume_unwind(panic),
        }
    })
}

fn is_burns(info: &PanicHookInfo<'_>) -> bool {
    info.location().is_some_and(|location| {
        let file = location.file();
        ["burn-", "cubecl-", "cubek-"].iter().any(|name| file.split(['/', '\\']).any(|part| part.starts_with(name)))
    })
}

/// Formats a panic's message as one line. If memory has run out, adds advice.
fn in_words(said: &str) -> String {
    const NO_ROOM: &str = "can't allocate buffer of size: ";
    if let Some((_, rest)) = said.split_once(NO_ROOM) {
        let bytes: String = rest.chars().take_while(char::is_ascii_digit).collect();
        let mib = bytes.parse::<u64>().map_or(0, |bytes| bytes.div_ceil(1 << 20));
        return format!(
            "out of memory: the GPU cannot allocate {mib} MiB; reduce the batch, or use --micro-batch for training"
        );
    }
    one_line(said)
}

/// Joins the informative lines of a text.
pub(super) fn one_line(text: &str) -> String {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && *line != "Backtrace:");
    lines.map(|line| line.replace("No backtrace available", "")).collect::<Vec<_>>().join(" ").trim().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_burn_says_is_one_line() {
        let said = "called `Result::unwrap()` on an `Err` value: can't allocate buffer of size: 3276800\nNo backtrace \
                    available";
        assert!(in_words(said).starts_with("out of memory: the GPU cannot allocate 4 MiB"), "{}", in_words(said));
        assert_eq!(
            one_line("An error\nCaused by:\n  another\n\nBacktrace:\nNo backtrace available\n"),
            "An error Caused by: another"
        );
    }

    #[test]
    fn other_panics_go_on() {
        let panic = catch_unwind(|| or_panic(|| panic!("mine"))).unwrap_err();
        assert_eq!(panic.downcast_ref::<&str>(), Some(&"mine"));
        assert_eq!(or_panic(|| 3).unwrap(), 3);
    }
}
