//! Terminal input and output: messages, progress, profiles, pictures and signals.

pub(crate) mod output;
pub(crate) mod progress;
pub(crate) mod profile;
pub(crate) mod picture;
pub(crate) mod health_monitor;
pub(crate) mod signals;
