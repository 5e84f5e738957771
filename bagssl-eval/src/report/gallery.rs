//! The sections with pictures: the data, bags of patches, and nearest neighbors.

use std::fmt::Write;

use super::Report;
use super::document::{Part, Section};
use crate::error::Result;
use crate::report::markup::escape::escape;
use crate::report::markup::picture::{SheetRow, Tile};

pub(super) fn data(report: &Report) -> Result<Section> {
    let mut text = vec![format!(
        "{}: {} training and {} test images of {} classes.",
        report.data.name,
        report.data.train_images,
        report.data.test_images,
        report.data.classes.len(),
    )];
    let mut html = String::new();
    for class in &report.data.classes {
        let tiles: Vec<&Tile> = report.tiles.iter().filter(|tile| &tile.class == class).collect();
        if !tiles.is_empty() {
            let _ = write!(html, "<div class=\"row\"><span class=\"name\">{}</span>", escape(class));
            tiles.iter().try_for_each(|tile| picture(&mut html, tile, "", None))?;
            html.push_str("</div>\n");
        }
    }
    if !html.is_empty() {
        text.push("Example training images of each class:".into());
    }
    Ok(Section { title: "The data".into(), text, parts: pictures(&html) })
}

pub(super) fn bags(report: &Report) -> Result<Section> {
    let mut html = String::new();
    for bag in &report.bags {
        let _ = write!(html, "<h3>{}</h3>\n<div class=\"row\">", escape(&bag.title));
        picture(&mut html, &bag.image, "query", Some("image"))?;
        bag.patches.iter().try_for_each(|tile| picture(&mut html, tile, "", None))?;
        html.push_str("</div>\n");
    }
    let text = "A framed image and the patches that represent it. The network encodes each patch separately, and the \
                mean of the features represents the image.";
    let text = if html.is_empty() { vec![] } else { vec![text.into()] };
    Ok(Section { title: "Bags of patches".into(), text, parts: pictures(&html) })
}

pub(super) fn neighbors(report: &Report) -> Result<Section> {
    let mut html = String::new();
    for sheet in &report.sheets {
        let title = format!("{}, {}", sheet.model.title(), sheet.space.name());
        html.push_str(&sheet_of(&title, &sheet.rows)?);
    }
    let text = "A framed query patch and its nearest neighbors in other images, with class and cosine similarity. A \
                filled mark means the same class. The embedding should preserve what is in the patch and where \
                (position, orientation). The projection, to which the loss applies, should depend less on that and \
                more on what occurs in the same images.";
    let text = if html.is_empty() { vec![] } else { vec![text.into()] };
    Ok(Section { title: "Nearest neighbors of single patches".into(), text, parts: pictures(&html) })
}

/// Renders a title and a row for each query patch.
pub(super) fn sheet_of(title: &str, rows: &[SheetRow]) -> Result<String> {
    let mut html = format!("<h3>{}</h3>\n", escape(title));
    rows.iter().try_for_each(|row| neighbor_row(&mut html, row))?;
    Ok(html)
}

fn neighbor_row(html: &mut String, row: &SheetRow) -> Result<()> {
    html.push_str("<div class=\"row\">");
    picture(html, &row.query, "query", Some("query"))?;
    for (tile, similarity) in &row.neighbors {
        let class = if tile.class == row.query.class { "same" } else { "other" };
        picture(html, tile, class, Some(&format!("{similarity:.2}")))?;
    }
    html.push_str("</div>\n");
    Ok(())
}

/// Renders a picture. If there is a note, the class and the note are shown below the picture.
fn picture(html: &mut String, tile: &Tile, class: &str, note: Option<&str>) -> Result<()> {
    let (name, uri) = (escape(&tile.class), tile.thumbnail.data_uri()?);
    let patch = tile.patch.map_or(String::new(), |patch| format!(", patch {patch}"));
    let hint = format!("{name}, image {}{patch}", tile.image);
    let _ = write!(html, "<span class=\"tile {class}\"><img src=\"{uri}\" alt=\"{hint}\" title=\"{hint}\">");
    if let Some(note) = note {
        let _ = write!(html, "<b>{}</b><small title=\"{name}\">{name}</small>", escape(note));
    }
    html.push_str("</span>");
    Ok(())
}

/// Wraps pictures in a frame. Returns no part if there are no pictures.
pub(super) fn pictures(html: &str) -> Vec<Part> {
    if html.is_empty() { vec![] } else { vec![Part::Pictures(format!("<div class=\"pictures\">\n{html}</div>\n"))] }
}
