//! A standalone page, rendered to HTML, Markdown, CSV and plain text.

use std::fmt::Write;

use bagssl_core::text::escaped;

use super::block::Block;
use super::document::{self, Part, Section};
use crate::error::Result;
use crate::report::markup::cells::{head, join};
use crate::report::markup::escape::escape_markdown;

/// Blocks under a title.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Page {
    /// The title.
    pub title: String,
    /// The first paragraphs: the question and the answer.
    pub lead: Vec<String>,
    /// The contents after the lead.
    pub blocks: Vec<Block>,
    /// The provenance of the numbers, one line each.
    pub origins: Vec<String>,
}

impl Page {
    /// Renders a self-contained HTML file.
    ///
    /// # Errors
    /// [`Error::Thumbnail`](crate::Error::Thumbnail) if a picture cannot be encoded.
    pub fn html(&self) -> Result<String> {
        let mut sections = Vec::new();
        for block in &self.blocks {
            sections.push(Section { title: block.title.clone().into(), text: vec![], parts: block.parts()? });
        }
        if !self.origins.is_empty() {
            let parts = vec![Part::LinePlot(self.origins.clone())];
            sections.push(Section { title: "Where the numbers come from".into(), text: vec![], parts });
        }
        Ok(document::page(&self.title, &self.lead, &sections))
    }

    /// Renders Markdown, without plots.
    pub fn markdown(&self) -> String {
        let paragraphs = |text: &[String]| -> String {
            text.iter().map(|paragraph| format!("{}\n\n", escape_markdown(paragraph))).collect()
        };
        let mut text = format!("# {}\n\n{}", escape_markdown(&self.title), paragraphs(&self.lead));
        for block in &self.blocks {
            let _ = write!(text, "## {}\n\n{}", escape_markdown(&block.title), paragraphs(&block.text));
            block.tables.iter().for_each(|grid| text += &grid.markdown());
        }
        if !self.origins.is_empty() {
            text += "## Where the numbers come from\n\n";
            self.origins.iter().for_each(|line| {
                let _ = writeln!(text, "- {}", escape_markdown(line));
            });
        }
        text.trim_end().to_string() + "\n"
    }

    /// Returns the page as a section of a report: its lead, the given lines, its blocks, and its
    /// origins.
    pub(super) fn section(&self, title: &str, lines: &[String]) -> Result<Section> {
        let mut parts = vec![];
        for block in &self.blocks {
            parts.push(Part::Heading(block.title.clone()));
            parts.extend(block.parts()?);
        }
        if !self.origins.is_empty() {
            parts.push(Part::LinePlot(self.origins.clone()));
        }
        Ok(Section { title: title.to_string().into(), text: [&self.lead, lines].concat(), parts })
    }

    /// Returns the data of the plots as CSV with the columns `plot,line,x,y,band,name`. For a map,
    /// the line is a group, and points have names and no band.
    pub fn csv(&self) -> String {
        join(head(["plot", "line", "x", "y", "band", "name"]).chain(self.points().map(Vec::from)))
    }

    /// Returns the cells of the lines of [`Page::csv`], without the header.
    pub(super) fn points(&self) -> impl Iterator<Item = [String; 6]> {
        let plots = self.blocks.iter().flat_map(|block| &block.plots).flat_map(|plot| {
            plot.lines.iter().flat_map(|(line, points)| {
                points.iter().map(|(x, y, band)| {
                    let [x, y, band] = [x, y, band].map(f64::to_string);
                    [plot.title.clone(), line.clone(), x, y, band, String::new()]
                })
            })
        });
        plots.chain(self.blocks.iter().flat_map(|block| &block.maps).flat_map(|map| map.cells()))
    }

    /// Renders plain text for a terminal, without plots.
    pub fn text(&self) -> String {
        let mut text = format!("{}\n\n", escaped(&self.title));
        self.lead.iter().for_each(|line| {
            let _ = writeln!(text, "{}", escaped(line));
        });
        for block in &self.blocks {
            let _ = write!(text, "\n{}\n", escaped(&block.title));
            block.text.iter().for_each(|line| {
                let _ = writeln!(text, "{}", escaped(line));
            });
            block.tables.iter().for_each(|grid| text += &grid.text());
        }
        text.push('\n');
        self.origins.iter().for_each(|line| {
            let _ = writeln!(text, "{}", escaped(line));
        });
        text
    }
}

#[cfg(test)]
mod tests {
    use super::super::block::{LinePlot, TextTable};
    use super::*;

    fn page() -> Page {
        let cells = |cells: [&str; 2]| cells.map(String::from).to_vec();
        Page {
            title: "A <b>".into(),
            lead: vec!["Answer: 3 %.".into()],
            blocks: vec![Block {
                title: "Rows".into(),
                text: vec![],
                tables: vec![TextTable {
                    caption: "look".into(),
                    head: cells(["model", "%"]),
                    rows: vec![cells(["long name", "7.1"])],
                    text_columns: 1,
                }],
                plots: vec![LinePlot {
                    title: "curve, one".into(),
                    lines: vec![("a".into(), vec![(1.0, 2.0, 0.5), (2.0, 3.0, 0.0)])],
                    ..LinePlot::default()
                }],
                ..Block::default()
            }],
            origins: vec!["seed 0".into()],
        }
    }

    #[test]
    fn one_page_in_all_forms() {
        let page = page();
        let html = page.html().unwrap();
        assert!(html.contains("<title>A &lt;b&gt;</title>") && html.contains("<svg") && html.contains("seed 0"));
        assert!(
            page.markdown().contains("| long name | 7.1 |") && page.markdown().starts_with("# A \\<b\\>\n\nAnswer")
        );
        assert_eq!(page.csv(), "plot,line,x,y,band,name\n\"curve, one\",a,1,2,0.5,\n\"curve, one\",a,2,3,0,\n");
        assert!(page.text().contains("model        %\nlong name  7.1\n"), "{}", page.text());
    }

    #[test]
    fn empty_plots_are_omitted() {
        let mut page = page();
        page.blocks[0].plots[0].lines.clear();
        assert!(!page.html().unwrap().contains("<svg"));
    }
}
