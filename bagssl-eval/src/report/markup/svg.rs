//! Plots as SVG: lines with bands, and horizontal bars. Colors are classes of the page's style
//! sheet (`c0`, `c1`, ...).
//!
//! This is our own: the crate plotters 0.3 writes colors into the elements, so that no style sheet
//! can change them (2026-11-28).

use std::fmt::Write;

use super::escape::escape;

const WIDTH: f64 = 480.0;
const HEIGHT: f64 = 300.0;
/// The left, right, top and bottom margins.
const MARGIN: (f64, f64, f64, f64) = (52.0, 14.0, 28.0, 44.0);

/// One line of a plot.
pub(crate) struct Series {
    /// The name in the legend.
    pub(crate) name: String,
    /// The index of the color in the style sheet.
    pub(crate) color: usize,
    /// Whether the line is dashed and has no markers.
    pub(crate) dashed: bool,
    /// The x and y values, and half the height of the band.
    pub(crate) points: Vec<(f64, f64, f64)>,
}

/// A line chart.
pub(crate) struct LineChart {
    /// The label of the horizontal axis.
    pub(crate) x_label: String,
    /// The label of the vertical axis.
    pub(crate) y_label: String,
    /// Whether the horizontal axis is logarithmic, with a tick at each x value that occurs.
    pub(crate) logarithmic: bool,
    /// The lines.
    pub(crate) series: Vec<Series>,
}

impl LineChart {
    /// Renders the plot and its legend, or returns `None` if there is no finite point.
    pub(crate) fn render(&self, title: &str) -> Option<String> {
        let points = || self.series.iter().flat_map(|series| &series.points).filter(|point| finite(point));
        let x_values: Vec<f64> = points().map(|point| self.x_position(point.0)).collect();
        let y_values: Vec<f64> = points().flat_map(|&(_, y, band)| [y - band, y + band]).collect();
        let y_ticks = ticks(bounds(&y_values)?);
        let y_axis = Axis::new(bounds_of(&y_ticks), (HEIGHT - MARGIN.3, MARGIN.2));
        let x_axis = Axis::new(bounds(&x_values)?, (MARGIN.0 + 8.0, WIDTH - MARGIN.1 - 8.0));
        let mut svg = open(HEIGHT, title);
        self.grid(&mut svg, &y_axis, &y_ticks);
        self.x_ticks(&mut svg, &x_axis, bounds(&x_values)?);
        for series in &self.series {
            let at = |x: f64, y: f64| format!("{:.1},{:.1}", x_axis.position(self.x_position(x)), y_axis.position(y));
            draw(&mut svg, series, at);
        }
        svg.push_str("</svg>");
        Some(svg + &self.legend())
    }

    fn x_position(&self, x: f64) -> f64 {
        if self.logarithmic { x.max(f64::MIN_POSITIVE).log2() } else { x }
    }

    fn grid(&self, svg: &mut String, axis: &Axis, ticks: &[f64]) {
        for &tick in ticks {
            let y = axis.position(tick);
            line(svg, "grid", (MARGIN.0, y), (WIDTH - MARGIN.1, y));
            text(svg, "end", MARGIN.0 - 6.0, y + 4.0, &number(tick, ticks));
        }
        text(svg, "start", 4.0, 14.0, &self.y_label);
        text(svg, "middle", (MARGIN.0 + WIDTH - MARGIN.1) / 2.0, HEIGHT - 8.0, &self.x_label);
    }

    fn x_ticks(&self, svg: &mut String, axis: &Axis, range: (f64, f64)) {
        let bottom = HEIGHT - MARGIN.3;
        line(svg, "axis", (MARGIN.0, bottom), (WIDTH - MARGIN.1, bottom));
        let mut places: Vec<f64> = if self.logarithmic {
            self.series.iter().flat_map(|series| &series.points).map(|point| point.0).collect()
        } else {
            ticks(range).into_iter().filter(|tick| (range.0..=range.1).contains(tick)).collect()
        };
        places.sort_by(f64::total_cmp);
        places.dedup();
        let mut last = f64::NEG_INFINITY;
        for &place in &places {
            let x = axis.position(self.x_position(place));
            if x - last > 26.0 {
                line(svg, "axis", (x, bottom), (x, bottom + 4.0));
                text(svg, "middle", x, bottom + 18.0, &number(place, &places));
                last = x;
            }
        }
    }

    fn legend(&self) -> String {
        let entry = |series: &Series| {
            let dashed = if series.dashed { " dashed" } else { "" };
            format!(r#"<li><i class="key c{}{dashed}"></i>{}</li>"#, series.color, escape(&series.name))
        };
        format!(r#"<ul class="legend">{}</ul>"#, self.series.iter().map(entry).collect::<String>())
    }
}

fn draw(svg: &mut String, series: &Series, at: impl Fn(f64, f64) -> String) {
    let points: Vec<&(f64, f64, f64)> = series.points.iter().filter(|point| finite(point)).collect();
    let color = series.color;
    if points.iter().any(|point| point.2 > 0.0) {
        let upper = points.iter().map(|point| at(point.0, point.1 + point.2));
        let lower = points.iter().rev().map(|point| at(point.0, point.1 - point.2));
        let outline: Vec<String> = upper.chain(lower).collect();
        let _ = write!(svg, r#"<polygon class="band c{color}" points="{}"/>"#, outline.join(" "));
    }
    let path: Vec<String> = points.iter().map(|point| at(point.0, point.1)).collect();
    let dashed = if series.dashed { " dashed" } else { "" };
    let _ = write!(svg, r#"<polyline class="line c{color}{dashed}" points="{}"/>"#, path.join(" "));
    if !series.dashed && path.len() <= 12 {
        for (place, point) in path.iter().zip(&points) {
            let (x, y) = place.split_once(',').expect("a place has two parts");
            let name = escape(&series.name);
            let hint = format!("<title>{name}: {:.4} at {}</title>", point.1, point.0);
            let _ = write!(svg, r#"<circle class="dot c{color}" cx="{x}" cy="{y}" r="3.5">{hint}</circle>"#);
        }
    }
}

/// A group of bars.
pub(crate) struct Group {
    /// The name of the group.
    pub(crate) name: String,
    /// The value and half the length of the whisker of each bar. `None` omits the bar.
    pub(crate) bars: Vec<Option<(f64, f64)>>,
}

/// A horizontal bar chart with whiskers, with groups stacked vertically.
pub(crate) struct BarChart {
    /// The label of the axis.
    pub(crate) label: String,
    /// The names of the bars in a group, for the legend.
    pub(crate) bars: Vec<String>,
    /// The groups, from top to bottom.
    pub(crate) groups: Vec<Group>,
    /// A reference line across all bars, with its name.
    pub(crate) reference: Option<(String, f64)>,
    /// The end of the axis, which starts at 0.
    pub(crate) end: f64,
}

/// The height of a bar, the gap between groups, and the width for the group names.
const BAR: (f64, f64, f64) = (13.0, 10.0, 152.0);

/// The space above the bars.
const TOP_K: f64 = 4.0;

impl BarChart {
    /// Renders the plot and its legend, or returns `None` if there are no groups.
    pub(crate) fn render(&self, title: &str) -> Option<String> {
        if self.groups.is_empty() {
            return None;
        }
        let group_height = BAR.0 * self.bars.len() as f64 + BAR.1;
        let bottom = TOP_K + group_height * self.groups.len() as f64;
        let axis = Axis::new((0.0, self.end), (BAR.2, WIDTH - 36.0));
        let mut svg = open(bottom + MARGIN.3, title);
        for tick in ticks((0.0, self.end)) {
            line(&mut svg, "grid", (axis.position(tick), TOP_K), (axis.position(tick), bottom));
            text(&mut svg, "middle", axis.position(tick), bottom + 16.0, &format!("{tick:.0}"));
        }
        text(&mut svg, "middle", (BAR.2 + WIDTH - 36.0) / 2.0, bottom + 36.0, &self.label);
        for (number, Group { name, bars }) in self.groups.iter().enumerate() {
            let top = TOP_K + group_height * number as f64 + 0.5 * BAR.1;
            text(&mut svg, "end", BAR.2 - 8.0, top + 0.5 * (group_height - BAR.1) + 4.0, name);
            for (bar, value) in bars.iter().enumerate() {
                if let Some(value) = value.filter(|value| value.0.is_finite()) {
                    draw_bar(&mut svg, &axis, bar, top + BAR.0 * bar as f64, value);
                }
            }
        }
        if let Some((_, value)) = &self.reference {
            line(&mut svg, "reference", (axis.position(*value), TOP_K), (axis.position(*value), bottom));
        }
        svg.push_str("</svg>");
        Some(svg + &self.legend())
    }

    fn legend(&self) -> String {
        let bars = self.bars.iter().enumerate();
        let mut entries: String =
            bars.map(|(bar, name)| format!(r#"<li><i class="key b{bar}"></i>{}</li>"#, escape(name))).collect();
        if let Some((name, _)) = &self.reference {
            let _ = write!(entries, r#"<li><i class="key reference"></i>{}</li>"#, escape(name));
        }
        format!(r#"<ul class="legend">{entries}</ul>"#)
    }
}

fn draw_bar(svg: &mut String, axis: &Axis, bar: usize, top: f64, (value, whisker): (f64, f64)) {
    let (start, end, middle) = (axis.position(0.0), axis.position(value), top + 0.5 * BAR.0);
    let (width, height) = ((end - start).max(0.0), BAR.0 - 2.0);
    let place = format!(r#"x="{start:.1}" y="{:.1}" width="{width:.1}" height="{height:.1}""#, top + 1.0);
    let _ = write!(svg, r#"<rect class="bar b{bar}" {place}/>"#);
    let mut edge = end;
    if whisker > 0.0 {
        edge = axis.position(value + whisker);
        line(svg, "whisker", (axis.position((value - whisker).max(0.0)), middle), (edge, middle));
    }
    text(svg, "start small", edge + 4.0, middle + 4.0, &format!("{value:.1}"));
}

/// A linear map from values to coordinates.
struct Axis {
    from: (f64, f64),
    to: (f64, f64),
}

impl Axis {
    fn new(from: (f64, f64), to: (f64, f64)) -> Self {
        Axis { from, to }
    }

    fn position(&self, value: f64) -> f64 {
        let span = self.from.1 - self.from.0;
        let share = if span > 0.0 { (value - self.from.0) / span } else { 0.5 };
        self.to.0 + share * (self.to.1 - self.to.0)
    }
}

fn finite(point: &(f64, f64, f64)) -> bool {
    point.0.is_finite() && point.1.is_finite() && point.2.is_finite()
}

fn bounds(values: &[f64]) -> Option<(f64, f64)> {
    let widen = |(low, high): (f64, f64), &value: &f64| (low.min(value), high.max(value));
    (!values.is_empty()).then(|| values.iter().fold((f64::INFINITY, f64::NEG_INFINITY), widen))
}

fn bounds_of(ticks: &[f64]) -> (f64, f64) {
    (ticks[0], ticks[ticks.len() - 1])
}

/// Returns ticks that enclose a range, with a step of 1, 2 or 5 times a power of ten. Usually there
/// are four to nine.
fn ticks((low, high): (f64, f64)) -> Vec<f64> {
    let span = if high > low { high - low } else { low.abs().max(1.0) };
    let power = 10f64.powf((span / 5.0).log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power).into_iter().find(|step| span / step <= 6.0);
    let step = step.unwrap_or(10.0 * power);
    let (first, last) = ((low / step + 1e-9).floor(), (high / step - 1e-9).ceil());
    let last = last.max(first + 1.0);
    (0..=(last - first) as usize).map(|number| (first + number as f64) * step).collect()
}

/// Returns the number of decimals that the ticks need.
fn decimals(ticks: &[f64]) -> usize {
    let exact = |decimals: &usize| {
        let scale = 10f64.powi(*decimals as i32);
        ticks.iter().all(|tick| ((tick * scale).round() - tick * scale).abs() < 1e-6 * scale.max(tick.abs() * scale))
    };
    (0..6).find(exact).unwrap_or(6)
}

/// Formats a tick label with as many decimals as the ticks need.
fn number(value: f64, ticks: &[f64]) -> String {
    let decimals = decimals(ticks);
    if decimals > 4 || value.abs() >= 1e6 { format!("{value:.1e}") } else { format!("{value:.decimals$}") }
}

fn open(height: f64, title: &str) -> String {
    let title = escape(title);
    format!(r#"<svg viewBox="0 0 {WIDTH} {height:.0}" role="img" aria-label="{title}"><title>{title}</title>"#)
}

fn line(svg: &mut String, class: &str, from: (f64, f64), to: (f64, f64)) {
    let ((x1, y1), (x2, y2)) = (from, to);
    let _ = write!(svg, r#"<line class="{class}" x1="{x1:.1}" y1="{y1:.1}" x2="{x2:.1}" y2="{y2:.1}"/>"#);
}

fn text(svg: &mut String, class: &str, x: f64, y: f64, what: &str) {
    let _ = write!(svg, r#"<text class="{class}" x="{x:.1}" y="{y:.1}">{}</text>"#, escape(what));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_enclose() {
        assert_eq!(ticks((0.0, 100.0)), [0.0, 20.0, 40.0, 60.0, 80.0, 100.0]);
        assert_eq!(ticks((33.0, 47.0)), [30.0, 35.0, 40.0, 45.0, 50.0]);
        let small = ticks((0.912, 0.948));
        assert!(small[0] <= 0.912 && *small.last().unwrap() >= 0.948 && small.len() < 9, "{small:?}");
        assert_eq!(decimals(&small), 2);
        assert_eq!(decimals(&[0.0, 20.0]), 0);
        assert_eq!(decimals(&[0.0, 0.005, 0.01]), 3);
        for range in [(5.0, 5.0), (0.0, 0.0), (-3.0, -3.0), (-30.0, 1e9)] {
            let ticks = ticks(range);
            assert!(
                ticks.len() >= 2 && ticks[0] <= range.0 && *ticks.last().unwrap() >= range.1,
                "{range:?} {ticks:?}"
            );
        }
    }

    fn chart(points: Vec<(f64, f64, f64)>) -> LineChart {
        let series = Series { name: "a < b".into(), color: 2, dashed: false, points };
        LineChart { x_label: "x".into(), y_label: "y & z".into(), logarithmic: true, series: vec![series] }
    }

    #[test]
    fn a_line_runs_between_the_margins() {
        let svg = chart(vec![(1.0, 0.0, 0.0), (4.0, 10.0, 0.0)]).render("t").unwrap();
        assert!(svg.contains(r#"<polyline class="line c2" points="60.0,256.0 458.0,28.0"/>"#), "{svg}");
        assert!(svg.contains("a &lt; b") && svg.contains("y &amp; z") && !svg.contains("a < b"));
        assert!(!svg.contains("polygon"), "no band without spread");
        assert!(chart(vec![(1.0, 5.0, 1.0), (2.0, 6.0, 1.0)]).render("t").unwrap().contains("polygon"));
    }

    #[test]
    fn non_finite_points_are_omitted() {
        assert!(chart(vec![]).render("t").is_none());
        assert!(chart(vec![(1.0, f64::NAN, 0.0)]).render("t").is_none());
        let svg = chart(vec![(1.0, f64::NAN, 0.0), (2.0, 5.0, 0.0), (4.0, 7.0, 0.0)]).render("t").unwrap();
        assert!(!svg.contains("NaN"));
    }

    #[test]
    fn bars_are_as_long_as_their_values() {
        let groups = vec![Group { name: "one".into(), bars: vec![Some((50.0, 0.0)), None] }];
        let chart =
            BarChart { label: "%".into(), bars: vec!["x".into(), "y".into()], groups, reference: None, end: 100.0 };
        let svg = chart.render("t").unwrap();
        assert!(svg.contains(r#"<rect class="bar b0" x="152.0" y="10.0" width="146.0" height="11.0"/>"#), "{svg}");
        assert_eq!(svg.matches("<rect").count(), 1);
        assert!(BarChart { groups: vec![], ..chart }.render("t").is_none());
    }
}
