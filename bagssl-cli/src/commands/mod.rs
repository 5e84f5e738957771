//! The commands of the program, one module per command.

pub(crate) mod train;
pub(crate) mod eval;
pub(crate) mod report;
pub(crate) mod embed;
pub(crate) mod nearest;
pub(crate) mod map;
pub(crate) mod explain;
pub(crate) mod classify;
pub(crate) mod inspect;
pub(crate) mod convert;
pub(crate) mod import;
pub(crate) mod data;
pub(crate) mod bench;
pub(crate) mod doctor;
