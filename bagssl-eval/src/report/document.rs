//! The report as a document: sections of text, tables, figures and pictures, and how they look in HTML and Markdown.

use std::borrow::Cow;
use std::fmt::Write;

use crate::report::markup::escape::{escape, escape_markdown};

/// A part of the report under one title.
pub(super) struct Section {
    /// The title.
    pub(super) title: Cow<'static, str>,
    /// Paragraphs before the parts.
    pub(super) text: Vec<String>,
    /// What it shows.
    pub(super) parts: Vec<Part>,
}

/// What a section may show.
pub(super) enum Part {
    /// A title within the section.
    Heading(String),
    /// Paragraphs.
    Text(Vec<String>),
    /// A table.
    Table(Table),
    /// Plots, side by side where there is room. Markdown leaves them out.
    Figures(Vec<Figure>),
    /// Pictures, as finished HTML. Markdown leaves them out.
    Pictures(String),
    /// Lines of text, one below the other.
    Lines(Vec<String>),
}

/// Rows under a head.
pub(super) struct Table {
    /// What to look at.
    pub(super) caption: String,
    /// Names of the columns.
    pub(super) head: Vec<String>,
    /// Cells; a row has as many as the head.
    pub(super) rows: Vec<Vec<String>>,
    /// Columns of words from the left; the others hold numbers.
    pub(super) words: usize,
}

/// A plot with its title, and a sentence on what to look at.
pub(super) struct Figure {
    /// The title.
    pub(super) title: String,
    /// The plot and its legend, as finished HTML.
    pub(super) plot: String,
    /// What to look at.
    pub(super) caption: String,
}

impl Section {
    /// Whether there is nothing to show.
    pub(super) fn is_empty(&self) -> bool {
        self.text.is_empty() && self.parts.is_empty()
    }

    /// `number` is its place on the page.
    fn html(&self, number: usize) -> String {
        let mut html = format!("<section id=\"s{number}\">\n<h2>{}</h2>\n", escape(&self.title));
        for paragraph in &self.text {
            let _ = writeln!(html, "<p>{}</p>", prose(paragraph));
        }
        self.parts.iter().for_each(|part| html.push_str(&part.html()));
        html + "</section>\n"
    }

    /// Nothing, if all there is are pictures.
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
            Part::Lines(lines) => lines.iter().map(|line| format!("<p class=\"line\">{}</p>\n", prose(line))).collect(),
        }
    }

    pub(super) fn markdown(&self) -> Option<String> {
        let paragraphs = |lines: &[String]| lines.iter().map(|line| escape_markdown(line) + "\n\n").collect();
        match self {
            Part::Heading(title) => Some(format!("### {}\n\n", escape_markdown(title))),
            Part::Table(table) => Some(table.markdown()),
            Part::Lines(lines) | Part::Text(lines) => Some(paragraphs(lines)),
            Part::Figures(_) | Part::Pictures(_) => None,
        }
    }
}

impl Table {
    pub(super) fn html(&self) -> String {
        let class = |column: usize| if column < self.words { "" } else { " class=\"number\"" };
        let row = |cells: &[String], tag: &str| {
            let cell = |(column, cell): (usize, &String)| format!("<{tag}{}>{}</{tag}>", class(column), escape(cell));
            format!("<tr>{}</tr>\n", cells.iter().enumerate().map(cell).collect::<String>())
        };
        let rows: String = self.rows.iter().map(|cells| row(cells, "td")).collect();
        let (caption, head) = (prose(&self.caption), row(&self.head, "th"));
        let table = format!("<table>\n<thead>{head}</thead>\n<tbody>{rows}</tbody>\n</table>");
        format!("<div class=\"table\">{table}</div>\n<p class=\"caption\">{caption}</p>\n")
    }

    pub(super) fn markdown(&self) -> String {
        let row = |cells: &[String]| {
            let cells: Vec<String> = cells.iter().map(|cell| escape_markdown(cell)).collect();
            format!("| {} |\n", cells.join(" | "))
        };
        let rule = |column: usize| if column < self.words { "---" } else { "---:" };
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

/// So many sections are to be seen at a glance; where there are more, a list of them leads to each.
const AT_A_GLANCE: usize = 4;

/// One HTML file that needs nothing else: its title, the first paragraphs, and the sections.
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

/// Text in HTML; a number stays beside its percent sign.
pub(super) fn prose(text: &str) -> String {
    escape(text).replace(" %", "\u{a0}%")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let cells = |cells: [&str; 2]| cells.map(String::from).to_vec();
        Table { caption: "x > y".into(), head: cells(["class", "n"]), rows: vec![cells(["<b>|", "3"])], words: 1 }
    }

    #[test]
    fn tables_in_both_forms() {
        assert_eq!(table().markdown(), "| class | n |\n| --- | ---: |\n| \\<b\\>\\| | 3 |\n\nx \\> y\n\n");
        assert!(table().html().contains("<tr><td>&lt;b&gt;|</td><td class=\"number\">3</td></tr>"));
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
