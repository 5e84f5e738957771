//! A map as SVG: points in the colors of their groups, and thumbnails where there is room.

use std::fmt::Write;

use super::escape::escape;
use super::picture::Thumbnail;
use crate::error::Result;

/// A scatter plot of grouped points.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Scatter {
    /// The title.
    pub title: String,
    /// A caption that explains the map.
    pub caption: String,
    /// The names of the groups.
    pub groups: Vec<String>,
    /// The points.
    pub points: Vec<Point>,
}

/// A point of a map.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Point {
    /// The coordinates, to the right and upwards, in the same unit.
    pub position: [f64; 2],
    /// The index of the group.
    pub group: usize,
    /// The name of the point.
    pub name: String,
    /// A thumbnail to show instead of a dot.
    pub thumbnail: Option<Thumbnail>,
}

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 720.0;
/// The longer side of a thumbnail, and the margin around the points.
const SIDE: f64 = 40.0;
const MARGIN: f64 = 28.0;
/// The maximum number of groups in the legend.
const NAMED: usize = 40;

/// Returns a map from the coordinates of points to those of the drawing, with the same scale in
/// both directions.
fn scale(points: &[[f64; 2]]) -> impl Fn([f64; 2]) -> [f64; 2] + use<> {
    let bounds = |axis: usize| {
        let values = points.iter().map(|point| point[axis]).filter(|value| value.is_finite());
        values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)))
    };
    let ((left, right), (bottom, top)) = (bounds(0), bounds(1));
    let factor = ((WIDTH - 2.0 * MARGIN) / (right - left)).min((HEIGHT - 2.0 * MARGIN) / (top - bottom));
    let factor = if factor.is_finite() { factor } else { 1.0 };
    let center = [(left + right) / 2.0, (bottom + top) / 2.0];
    move |[x, y]| [WIDTH / 2.0 + factor * (x - center[0]), HEIGHT / 2.0 - factor * (y - center[1])]
}

impl Scatter {
    /// Returns the indices of the points whose thumbnails do not overlap those of the points chosen
    /// before them.
    pub fn without_overlap(points: &[[f64; 2]]) -> Vec<usize> {
        let scale = scale(points);
        let mut taken: Vec<[f64; 2]> = Vec::new();
        let mut chosen = Vec::new();
        for (number, &point) in points.iter().enumerate() {
            let [x, y] = scale(point);
            if taken.iter().all(|[a, b]| (x - a).abs() > SIDE + 2.0 || (y - b).abs() > SIDE + 2.0) {
                taken.push([x, y]);
                chosen.push(number);
            }
        }
        chosen
    }

    /// Renders the map as an HTML figure.
    ///
    /// # Errors
    /// [`Error::Thumbnail`](crate::Error::Thumbnail) if a thumbnail cannot be encoded.
    pub(crate) fn html(&self) -> Result<String> {
        let scale = scale(&self.points.iter().map(|point| point.position).collect::<Vec<_>>());
        let (title, mut svg) = (escape(&self.title), String::new());
        let (mut dots, mut pictures) = (String::new(), String::new());
        for Point { position, group, name, thumbnail } in &self.points {
            let ([x, y], hue) = (scale(*position), self.hue(*group));
            let words = match self.groups.get(*group) {
                Some(group) => escape(&format!("{name} ({group})")),
                None => escape(name),
            };
            match thumbnail {
                None => {
                    let _ = write!(
                        dots,
                        r#"<circle style="--hue:{hue}" cx="{x:.1}" cy="{y:.1}" r="4"><title>{words}</title></circle>"#
                    );
                }
                Some(thumbnail) => {
                    let (uri, [width, height]) = (thumbnail.data_uri()?, thumbnail.within(SIDE));
                    let (left, top) = (x - width / 2.0, y - height / 2.0);
                    let _ = write!(
                        pictures,
                        r#"<g style="--hue:{hue}"><image x="{left:.1}" y="{top:.1}" width="{width:.1}" height="{height:.1}" href="{uri}"><title>{words}</title></image><rect x="{left:.1}" y="{top:.1}" width="{width:.1}" height="{height:.1}"/></g>"#
                    );
                }
            }
        }
        let _ = write!(
            svg,
            r#"<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{title}"><title>{title}</title>{pictures}{dots}</svg>"#
        );
        let caption = escape(&self.caption);
        Ok(format!("<figure class=\"map\">\n{svg}\n{}<figcaption>{caption}</figcaption>\n</figure>\n", self.legend()))
    }

    /// Returns the hue of a group. Hues are evenly spaced.
    fn hue(&self, group: usize) -> usize {
        360 * group / self.groups.len().max(1)
    }

    fn legend(&self) -> String {
        let mut html = String::from("<ul class=\"legend\">\n");
        for (group, name) in self.groups.iter().enumerate().take(NAMED) {
            let _ = writeln!(
                html,
                "<li style=\"--hue:{}\"><span class=\"spot\"></span>{}</li>",
                self.hue(group),
                escape(name)
            );
        }
        if self.groups.len() > NAMED {
            let _ = writeln!(html, "<li>and {} more</li>", self.groups.len() - NAMED);
        }
        html + "</ul>\n"
    }

    /// Returns the cells of each point: the title, group, x, y, an empty band and the name.
    pub(crate) fn cells(&self) -> impl Iterator<Item = [String; 6]> {
        self.points.iter().map(|Point { position: [x, y], group, name, .. }| {
            let group = self.groups.get(*group).cloned().unwrap_or_default();
            [self.title.clone(), group, x.to_string(), y.to_string(), String::new(), name.clone()]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::markup::cells::join;

    /// A map 8 wide and 2 high. Its width fills the drawing, and both directions have the same
    /// scale.
    #[test]
    fn positions_by_hand() {
        let points = [[1.0, 5.0], [9.0, 7.0], [5.0, 6.0]];
        let scale = scale(&points);
        assert_eq!(points.map(&scale), [[28.0, 473.0], [932.0, 247.0], [480.0, 360.0]]);
        let all = super::scale(&[[3.0, 3.0]]);
        assert_eq!(all([3.0, 3.0]), [480.0, 360.0]);
    }

    #[test]
    fn thumbnails_do_not_overlap() {
        // One unit is 113 pixels: the second thumbnail overlaps the first, the fourth is beside it.
        let points = [[0.0, 0.0], [0.3, 0.1], [8.0, 0.0], [0.5, 0.0]];
        assert_eq!(Scatter::without_overlap(&points), [0, 2, 3]);
    }

    #[test]
    fn group_names_are_escaped() {
        let point =
            |group, thumbnail| Point { position: [group as f64, 1.0], group, name: "a<b>.png".into(), thumbnail };
        let picture = Thumbnail::new(2, 4, vec![7; 24]).unwrap();
        let map = Scatter {
            title: "A & B".into(),
            caption: "look".into(),
            groups: vec!["cat, or dog".into(), "x".into()],
            points: vec![point(0, None), point(1, Some(picture))],
        };
        let html = map.html().unwrap();
        assert!(html.contains("a&lt;b&gt;.png (cat, or dog)") && html.contains("data:image/png;base64,"), "{html}");
        assert!(html.contains(r#"width="40.0" height="20.0""#) && html.contains("--hue:180"));
        assert_eq!(join(map.cells().map(Vec::from)), "A & B,\"cat, or dog\",0,1,,a<b>.png\nA & B,x,1,1,,a<b>.png\n");
    }
}
