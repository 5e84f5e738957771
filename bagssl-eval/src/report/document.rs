//! The report as a document: sections of text, tables, figures and pictures, and their rendering to
//! HTML and Markdown.

use std::borrow::Cow;
use std::fmt::Write;

use crate::report::markup::escape::{escape, escape_markdown};

/// A section of the report.
pub(super) struct Section {
    /// The title.
    pub(super) title: Cow<'static, str>,
    /// The paragraphs before the parts.
    pub(super) text: Vec<String>,
    /// The contents.
    pub(super) parts: Vec<Part>,
}

/// The contents of a section.
pub(super) enum Part {
    /// A subheading.
    Heading(String),
    /// Paragraphs.
    Text(Vec<String>),
    /// A table.
    Table(Table),
    /// Plots, side by side if there is room. Omitted in Markdown.
    Figures(Vec<Figure>),
    /// Pictures as rendered HTML. Omitted in Markdown.
    Pictures(String),
    /// Lines of text, one below the other.
    LinePlot(Vec<String>),
}

/// A table.
pub(super) struct Table {
    /// A caption that explains the table.
    pub(super) caption: String,
    /// The column headers.
    pub(super) head: Vec<String>,
    /// The cells. Each row has as many as the header.
    pub(super) rows: Vec<Vec<String>>,
    /// The number of text columns, from the left. The other columns are numeric.
    pub(super) text_columns: usize,
}

/// A plot with its title and caption.
pub(super) struct Figure {
    /// The title.
    pub(super) title: String,
    /// The plot and its legend as rendered HTML.
    pub(super) plot: String,
    /// A caption that explains the plot.
    pub(super) caption: String,
}

impl Section {
    /// Returns whether the section has no contents.
    pub(super) fn is_empty(&self) -> bool {
        self.text.is_empty() && self.parts.is_empty()
    }

    /// Renders the section to HTML. `number` is its index on the page.
    fn html(&self, number: usize) -> String {
        let mut html = format!("<section id=\"s{number}\">\n<h2>{}</h2>\n", escape(&self.title));
        for paragraph in &self.text {
            let _ = writeln!(html, "<p>{}</p>", prose(paragraph));
        }
        self.parts.iter().for_each(|part| html.push_str(&part.html()));
        html + "</section>\n"
    }

    /// Renders the section to Markdown. The result is empty if the section has only pictures.
    pub(super) fn markdown(&self) -> String {
        let text = self.text.iter().map(|paragraph| format!("{}\n\n", escape_markdown(paragraph)));
        let parts = self.parts.iter().filter_map(Part::markdown);
        let body: String = text.chain(parts).collect();
        if body.is_empty() { body } else { format!("## {}\n\n{body}", escape_markdown(&self.title)) }
    }
}

impl Part {
    pub(super) fn html(&self) -> String {
        match self {
            Part::Heading(title) => format!("<h3 class=\"part\">{}</h3>\n", escape(title)),
            Part::Text(paragraphs) => paragraphs.iter().map(|text| format!("<p>{}</p>\n", prose(text))).collect(),
            Part::Table(table) => table.html(),
            Part::Figures(figures) => {
                format!("<div class=\"figures\">\n{}</div>\n", figures.iter().map(Figure::html).collect::<String>())
            }
            Part::Pictures(html) => html.clone(),
            Part::LinePlot(lines) => {
                lines.iter().map(|line| format!("<p class=\"line\">{}</p>\n", prose(line))).collect()
            }
        }
    }

    pub(super) fn markdown(&self) -> Option<String> {
        let paragraphs = |lines: &[String]| lines.iter().map(|line| escape_markdown(line) + "\n\n").collect();
        match self {
            Part::Heading(title) => Some(format!("### {}\n\n", escape_markdown(title))),
            Part::Table(table) => Some(table.markdown()),
            Part::LinePlot(lines) | Part::Text(lines) => Some(paragraphs(lines)),
            Part::Figures(_) | Part::Pictures(_) => None,
        }
    }
}

impl Table {
    pub(super) fn html(&self) -> String {
        let class = |column: usize| if column < self.text_columns { "" } else { " class=\"number\"" };
        let row = |cells: &[String], tag: &str| {
            let cell = |(column, cell): (usize, &String)| format!("<{tag}{}>{}</{tag}>", class(column), escape(cell));
            format!("<tr>{}</tr>\n", cells.iter().enumerate().map(cell).collect::<String>())
        };
        let rows: String = self.rows.iter().map(|cells| row(cells, "td")).collect();
        let (caption, head) = (prose(&self.caption), row(&self.head, "th"));
        let table = format!("<table>\n<thead>{head}</thead>\n<tbody>{rows}</tbody>\n</table>");
        let table = format!("<div class=\"table\">{table}</div>\n<p class=\"caption\">{caption}</p>\n");
        match self.rows.len() {
            0..=LONG_TABLE => table,
            rows => format!("<details>\n<summary>Table of {rows} rows</summary>\n{table}</details>\n"),
        }
    }

    pub(super) fn markdown(&self) -> String {
        let row = |cells: &[String]| {
            let cells: Vec<String> = cells.iter().map(|cell| escape_markdown(cell)).collect();
            format!("| {} |\n", cells.join(" | "))
        };
        let rule = |column: usize| if column < self.text_columns { "---" } else { "---:" };
        let rules: Vec<&str> = (0..self.head.len()).map(rule).collect();
        let rows: String = self.rows.iter().map(|cells| row(cells)).collect();
        format!("{}| {} |\n{rows}\n{}\n\n", row(&self.head), rules.join(" | "), escape_markdown(&self.caption))
    }
}

impl Figure {
    pub(super) fn html(&self) -> String {
        let (title, caption) = (escape(&self.title), prose(&self.caption));
        format!("<figure>\n<h3>{title}</h3>\n{}\n<figcaption>{caption}</figcaption>\n</figure>\n", self.plot)
    }
}

/// A table with more rows than this is folded.
const LONG_TABLE: usize = 8;

/// A page with more sections than this gets a table of contents.
const AT_A_GLANCE: usize = 4;

/// Renders a self-contained HTML page: its title, the lead paragraphs, and the sections.
pub(super) fn page(title: &str, lead: &[String], sections: &[Section]) -> String {
    let contents = if sections.len() > AT_A_GLANCE { contents(sections) } else { String::new() };
    let sections: String = sections.iter().enumerate().map(|(number, section)| section.html(number)).collect();
    let (title, style) = (escape(title), include_str!("style.css"));
    let lead: String = lead.iter().map(|sentence| format!("<p>{}</p>\n", prose(sentence))).collect();
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" \
         content=\"width=device-width, initial-scale=1\">\n<title>{title}</title>\n<style>\n{style}</style>\n</head>\n\
         <body>\n<h1>{title}</h1>\n<div class=\"lead\">\n{lead}</div>\n{contents}{sections}</body>\n</html>\n"
    )
}

fn contents(sections: &[Section]) -> String {
    let entry = |(number, section): (usize, &Section)| {
        format!("<li><a href=\"#s{number}\">{}</a></li>\n", escape(&section.title))
    };
    let entries: String = sections.iter().enumerate().map(entry).collect();
    format!("<nav aria-label=\"sections\">\n<ul>\n{entries}</ul>\n</nav>\n")
}

/// Escapes text for HTML. A percent sign stays on the same line as its number.
pub(super) fn prose(text: &str) -> String {
    escape(text).replace(" %", "\u{a0}%")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let cells = |cells: [&str; 2]| cells.map(String::from).to_vec();
        Table {
            caption: "x > y".into(),
            head: cells(["class", "n"]),
            rows: vec![cells(["<b>|", "3"])],
            text_columns: 1,
        }
    }

    #[test]
    fn tables_in_both_forms() {
        assert_eq!(table().markdown(), "| class | n |\n| --- | ---: |\n| \\<b\\>\\| | 3 |\n\nx \\> y\n\n");
        assert!(table().html().contains("<tr><td>&lt;b&gt;|</td><td class=\"number\">3</td></tr>"));
    }

    #[test]
    fn long_tables_are_folded() {
        let with = |rows: usize| Table { rows: vec![vec!["a".into(), "1".into()]; rows], ..table() }.html();
        assert!(!with(LONG_TABLE).contains("<details>"));
        let long = with(LONG_TABLE + 1);
        assert!(long.starts_with("<details>\n<summary>Table of 9 rows</summary>\n<div class=\"table\"><table>"));
        assert!(long.ends_with("</p>\n</details>\n"));
    }

    #[test]
    fn a_long_page_has_a_list_that_leads_to_each_section() {
        let sections = |count: usize| -> Vec<Section> {
            (0..count).map(|at| Section { title: format!("a < {at}").into(), text: vec![], parts: vec![] }).collect()
        };
        let long = page("t", &[], &sections(5));
        assert_eq!(long.matches("<li><a href=\"#s").count(), 5);
        assert!(
            long.contains("<a href=\"#s3\">a &lt; 3</a>") && long.contains("<section id=\"s3\">\n<h2>a &lt; 3</h2>")
        );
        assert!(!page("t", &[], &sections(4)).contains("<nav"));
    }

    #[test]
    fn pictures_alone_make_no_markdown() {
        let section = |parts| Section { title: "t".into(), text: vec![], parts };
        assert_eq!(section(vec![Part::Pictures("<img>".into())]).markdown(), "");
        assert!(section(vec![Part::Table(table())]).markdown().starts_with("## t\n\n| class"));
        assert!(section(vec![]).is_empty());
    }
}
