//! Rendering of text, tables and drawings to HTML, Markdown, CSV and SVG.

pub(crate) mod escape;
pub(crate) mod cells;
pub(crate) mod csv;
pub(crate) mod svg;
pub(crate) mod scatter;
pub(crate) mod picture;
