//! A block of a page: tables, plots, maps and sheets of patches under a heading.

use bagssl_core::text::escaped;
use std::fmt::Write;

use super::document::{Figure, Part, Table};
use super::gallery::{pictures, sheet_of};
use crate::error::Result;
use crate::report::markup::picture::SheetRow;
use crate::report::markup::scatter::Scatter;
use crate::report::markup::svg::{LineChart, Series};

/// Tables, plots, maps and sheets under a heading.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Block {
    /// The heading.
    pub title: String,
    /// Paragraphs of text.
    pub text: Vec<String>,
    /// Tables.
    pub tables: Vec<TextTable>,
    /// Plots. Markdown and terminal output omit them.
    pub plots: Vec<LinePlot>,
    /// Maps. Markdown and terminal output omit them.
    pub maps: Vec<Scatter>,
    /// Sheets of patches. Markdown and terminal output omit them.
    pub sheets: Vec<PatchSheet>,
}

/// Query patches and their nearest patches.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PatchSheet {
    /// The title.
    pub title: String,
    /// The rows, one per query.
    pub rows: Vec<SheetRow>,
}

/// A table.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TextTable {
    /// A caption that explains the table.
    pub caption: String,
    /// The column headers.
    pub head: Vec<String>,
    /// The cells. Each row has as many as the header.
    pub rows: Vec<Vec<String>>,
    /// The number of text columns, from the left. The other columns are numeric.
    pub text_columns: usize,
}

/// A line plot. The first six lines have distinct colors; further lines are dashed.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LinePlot {
    /// The title.
    pub title: String,
    /// A caption that explains the plot.
    pub caption: String,
    /// The label of the horizontal axis.
    pub x_label: String,
    /// The label of the vertical axis.
    pub y_label: String,
    /// Whether the horizontal axis is logarithmic.
    pub logarithmic: bool,
    /// The lines.
    pub lines: Vec<PlotLine>,
}

/// A line: its name, and for each point x, y and half the height of the band.
pub type PlotLine = (String, Vec<(f64, f64, f64)>);

impl Block {
    /// Returns the contents below the heading.
    pub(super) fn parts(&self) -> Result<Vec<Part>> {
        let mut parts = vec![Part::Text(self.text.clone())];
        let figures: Vec<Figure> = self.plots.iter().filter_map(LinePlot::figure).collect();
        if !figures.is_empty() {
            parts.push(Part::Figures(figures));
        }
        for map in &self.maps {
            parts.push(Part::Pictures(map.html()?));
        }
        parts.extend(self.tables.iter().map(|grid| Part::Table(grid.table())));
        let sheets = self.sheets.iter().map(|sheet| sheet_of(&sheet.title, &sheet.rows));
        parts.extend(pictures(&sheets.collect::<Result<String>>()?));
        Ok(parts)
    }
}

impl TextTable {
    pub(super) fn markdown(&self) -> String {
        self.table().markdown()
    }

    fn table(&self) -> Table {
        let TextTable { caption, head, rows, text_columns } = self.clone();
        Table { caption, head, rows, text_columns }
    }

    /// Formats the table as plain text: text columns left-aligned, numeric columns right-aligned.
    pub(super) fn text(&self) -> String {
        let rows = std::iter::once(&self.head).chain(&self.rows);
        let rows: Vec<Vec<String>> = rows.map(|row| row.iter().map(|cell| escaped(cell)).collect()).collect();
        let width = |column: usize| {
            let cells = rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.head.len()).map(width).collect();
        let mut text = String::new();
        for row in &rows {
            let cell = |(column, cell): (usize, &String)| match column < self.text_columns {
                true => format!("{cell:<0$}", widths[column]),
                false => format!("{cell:>0$}", widths[column]),
            };
            let cells: Vec<String> = row.iter().enumerate().map(cell).collect();
            let _ = writeln!(text, "{}", cells.join("  ").trim_end());
        }
        text
    }
}

impl LinePlot {
    fn figure(&self) -> Option<Figure> {
        let series = |(number, (name, points)): (usize, &PlotLine)| Series {
            name: name.clone(),
            color: number % 6,
            dashed: number >= 6,
            points: points.clone(),
        };
        let chart = LineChart {
            x_label: self.x_label.clone(),
            y_label: self.y_label.clone(),
            logarithmic: self.logarithmic,
            series: self.lines.iter().enumerate().map(series).collect(),
        };
        let plot = chart.render(&self.title)?;
        Some(Figure { title: self.title.clone(), plot, caption: self.caption.clone() })
    }
}
