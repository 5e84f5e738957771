//! A page of its own: what one question's answer looks like in HTML, Markdown, CSV, and on a terminal.

use std::fmt::Write;

use super::document::{Figure, Part, Table, prose};
use super::escape::{escape, escape_csv, escape_markdown};
use super::scatter::Scatter;
use super::svg::{LineChart, Series};
use crate::error::Result;

/// Sections under a title.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Page {
    /// The title.
    pub title: String,
    /// The first paragraphs: what was asked, and the answer.
    pub lead: Vec<String>,
    /// The rest.
    pub blocks: Vec<Block>,
    /// Where the numbers come from, a line each.
    pub origins: Vec<String>,
}

/// Tables and plots under a heading.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Block {
    /// The heading.
    pub title: String,
    /// Paragraphs.
    pub text: Vec<String>,
    /// Tables.
    pub grids: Vec<Cells>,
    /// Plots; Markdown and terminal leave them out.
    pub plots: Vec<Lines>,
    /// Maps; Markdown and terminal leave them out as well.
    pub maps: Vec<Scatter>,
}

/// A table.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Cells {
    /// What to look at.
    pub caption: String,
    /// Names of the columns.
    pub head: Vec<String>,
    /// Cells; a row has as many as the head.
    pub rows: Vec<Vec<String>>,
    /// Columns of words from the left; the others hold numbers.
    pub words: usize,
}

/// A plot of lines, at most five of them in colours of their own.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Lines {
    /// The title.
    pub title: String,
    /// What to look at.
    pub caption: String,
    /// Under the horizontal axis.
    pub x_label: String,
    /// Above the vertical axis.
    pub y_label: String,
    /// Whether the horizontal axis is logarithmic.
    pub logarithmic: bool,
    /// The lines.
    pub lines: Vec<Line>,
}

/// A name, and for each point its place, value, and half the height of the band around it.
pub type Line = (String, Vec<(f64, f64, f64)>);

impl Page {
    /// One HTML file that needs nothing else.
    ///
    /// # Errors
    /// [`Error::Thumbnail`](crate::Error::Thumbnail) if a picture cannot be encoded.
    pub fn html(&self) -> Result<String> {
        let title = escape(&self.title);
        let lead: String = self.lead.iter().map(|sentence| format!("<p>{}</p>\n", prose(sentence))).collect();
        let mut body = self.blocks.iter().map(Block::html).collect::<Result<String>>()?;
        if !self.origins.is_empty() {
            let lines = Part::Lines(self.origins.clone()).html();
            body = format!("{body}<section>\n<h2>Where the numbers come from</h2>\n{lines}</section>\n");
        }
        let style = include_str!("style.css");
        Ok(format!(
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" \
             content=\"width=device-width, initial-scale=1\">\n<title>{title}</title>\n<style>\n{style}</style>\n</head>\n\
             <body>\n<h1>{title}</h1>\n<div class=\"lead\">\n{lead}</div>\n{body}</body>\n</html>\n"
        ))
    }

    /// Markdown, without plots.
    pub fn markdown(&self) -> String {
        let paragraphs = |text: &[String]| -> String {
            text.iter().map(|paragraph| format!("{}\n\n", escape_markdown(paragraph))).collect()
        };
        let mut text = format!("# {}\n\n{}", escape_markdown(&self.title), paragraphs(&self.lead));
        for block in &self.blocks {
            let _ = write!(text, "## {}\n\n{}", escape_markdown(&block.title), paragraphs(&block.text));
            text.extend(block.grids.iter().filter_map(|grid| Part::Table(grid.table()).markdown()));
        }
        if !self.origins.is_empty() {
            text += "## Where the numbers come from\n\n";
            self.origins.iter().for_each(|line| {
                let _ = writeln!(text, "- {}", escape_markdown(line));
            });
        }
        text.trim_end().to_string() + "\n"
    }

    /// The data of the plots: `plot,line,x,y,band,name`; the lines of a map are its groups, its points have names and no band.
    pub fn csv(&self) -> String {
        let mut text = String::from("plot,line,x,y,band,name\n");
        for plot in self.blocks.iter().flat_map(|block| &block.plots) {
            for (line, points) in &plot.lines {
                for (x, y, band) in points {
                    let _ = writeln!(text, "{},{},{x},{y},{band},", escape_csv(&plot.title), escape_csv(line));
                }
            }
        }
        self.blocks.iter().flat_map(|block| &block.maps).for_each(|map| text += &map.csv());
        text
    }

    /// The same for a terminal, without plots.
    pub fn text(&self) -> String {
        let mut text = format!("{}\n\n", self.title);
        self.lead.iter().for_each(|line| {
            let _ = writeln!(text, "{line}");
        });
        for block in &self.blocks {
            let _ = write!(text, "\n{}\n", block.title);
            block.text.iter().for_each(|line| {
                let _ = writeln!(text, "{line}");
            });
            block.grids.iter().for_each(|grid| text += &grid.text());
        }
        text.push('\n');
        self.origins.iter().for_each(|line| {
            let _ = writeln!(text, "{line}");
        });
        text
    }
}

impl Block {
    fn html(&self) -> Result<String> {
        let mut html = format!("<section>\n<h2>{}</h2>\n", escape(&self.title));
        for paragraph in &self.text {
            let _ = writeln!(html, "<p>{}</p>", prose(paragraph));
        }
        let figures: Vec<Figure> = self.plots.iter().filter_map(Lines::figure).collect();
        if !figures.is_empty() {
            html += &Part::Figures(figures).html();
        }
        for map in &self.maps {
            html += &map.html()?;
        }
        self.grids.iter().for_each(|grid| html += &Part::Table(grid.table()).html());
        Ok(html + "</section>\n")
    }
}

impl Cells {
    fn table(&self) -> Table {
        let Cells { caption, head, rows, words } = self.clone();
        Table { caption, head, rows, words }
    }

    /// Columns one beside the other: words to the left, numbers to the right.
    fn text(&self) -> String {
        let width = |column: usize| {
            let cells = std::iter::once(&self.head).chain(&self.rows).filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.head.len()).map(width).collect();
        let mut text = String::new();
        for row in std::iter::once(&self.head).chain(&self.rows) {
            let cell = |(column, cell): (usize, &String)| match column < self.words {
                true => format!("{cell:<0$}", widths[column]),
                false => format!("{cell:>0$}", widths[column]),
            };
            let cells: Vec<String> = row.iter().enumerate().map(cell).collect();
            let _ = writeln!(text, "{}", cells.join("  ").trim_end());
        }
        text
    }
}

impl Lines {
    fn figure(&self) -> Option<Figure> {
        let series = |(number, (name, points)): (usize, &Line)| Series {
            name: name.clone(),
            colour: number % 5,
            dashed: number >= 5,
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

#[cfg(test)]
mod tests {
    use super::*;

    fn page() -> Page {
        let cells = |cells: [&str; 2]| cells.map(String::from).to_vec();
        Page {
            title: "A <b>".into(),
            lead: vec!["Answer: 3 %.".into()],
            blocks: vec![Block {
                title: "Rows".into(),
                text: vec![],
                grids: vec![Cells {
                    caption: "look".into(),
                    head: cells(["model", "%"]),
                    rows: vec![cells(["long name", "7.1"])],
                    words: 1,
                }],
                plots: vec![Lines {
                    title: "curve, one".into(),
                    lines: vec![("a".into(), vec![(1.0, 2.0, 0.5), (2.0, 3.0, 0.0)])],
                    ..Lines::default()
                }],
                maps: vec![],
            }],
            origins: vec!["seed 0".into()],
        }
    }

    #[test]
    fn one_page_in_all_forms() {
        let page = page();
        let html = page.html().unwrap();
        assert!(html.contains("<title>A &lt;b&gt;</title>") && html.contains("<svg") && html.contains("seed 0"));
        assert!(!html.contains("http://") || !html.contains("src="), "nothing is loaded");
        assert!(
            page.markdown().contains("| long name | 7.1 |") && page.markdown().starts_with("# A \\<b\\>\n\nAnswer")
        );
        assert_eq!(page.csv(), "plot,line,x,y,band,name\n\"curve, one\",a,1,2,0.5,\n\"curve, one\",a,2,3,0,\n");
        assert!(page.text().contains("model        %\nlong name  7.1\n"), "{}", page.text());
    }

    #[test]
    fn an_empty_plot_is_left_out() {
        let mut page = page();
        page.blocks[0].plots[0].lines.clear();
        assert!(!page.html().unwrap().contains("<svg"));
    }
}
