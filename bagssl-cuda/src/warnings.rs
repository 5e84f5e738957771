//! Forwards warnings of Burn's backend, which would otherwise be lost.

use std::sync::OnceLock;

use log::{Level, LevelFilter, Log, Metadata, Record};

use super::panics::one_line;

struct Logger(fn(&str));

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let of = metadata.target();
        metadata.level() <= Level::Warn && ["burn", "cubecl", "cubek"].iter().any(|name| of.starts_with(name))
    }

    fn log(&self, record: &Record<'_>) {
        let text = one_line(&record.args().to_string());
        // If a task fails, the run ends with the reason anyway.
        if self.enabled(record.metadata()) && !text.starts_with("Task failed") {
            (self.0)(&text);
        }
    }

    fn flush(&self) {}
}

/// Calls `tell` with each warning and error of Burn's backend, as one line. An existing logger
/// stays in place.
pub fn hear(tell: fn(&str)) {
    static LOGGER: OnceLock<Logger> = OnceLock::new();
    if log::set_logger(LOGGER.get_or_init(|| Logger(tell))).is_ok() {
        log::set_max_level(LevelFilter::Warn);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn warnings_of_burn_are_heard_and_nothing_else() {
        let logger = Logger(|_| ());
        let of = |target, level| logger.enabled(&Metadata::builder().target(target).level(level).build());
        assert!(of("cubecl_cuda::compute", Level::Warn) && of("burn_fusion", Level::Error));
        assert!(!of("cubecl_cuda::compute", Level::Info) && !of("indicatif", Level::Error));
    }

    #[test]
    fn a_warning_is_told_in_one_line_and_a_failed_task_is_not() {
        static TOLD: Mutex<Vec<String>> = Mutex::new(Vec::new());
        let logger = Logger(|text| TOLD.lock().unwrap().push(text.into()));
        for (target, level, said) in [
            ("cubecl_cuda::compute", Level::Warn, "no tensor cores:\n  slower\n\nBacktrace:\nNo backtrace available\n"),
            ("cubecl_cuda::compute", Level::Info, "compiled"),
            ("indicatif", Level::Error, "no terminal"),
            ("cubecl_runtime::server", Level::Error, "\n Task failed: out of memory"),
            ("burn_fusion", Level::Error, "a stream is gone"),
        ] {
            logger.log(&Record::builder().target(target).level(level).args(format_args!("{said}")).build());
        }
        assert_eq!(*TOLD.lock().unwrap(), ["no tensor cores: slower", "a stream is gone"]);
    }
}
