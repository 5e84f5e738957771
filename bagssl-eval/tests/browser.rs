//! The report as a browser shows it: it opens without a word on the console, every figure and picture is there, and nothing is wider
//! than the window, on a desk and on a phone, light and dark. Looks at nothing where there is no Chromium (`CHROMIUM` names one that
//! is not on the path).
#![cfg(unix)]

use std::path::{Path, PathBuf};
use std::process::Command;

use bagssl_eval::report::{Block, LinePlot, Page, Point, Scatter, Thumbnail};
use serde_json::Value;

use crate::sample;

fn chromium() -> Option<PathBuf> {
    let named = std::env::var_os("CHROMIUM").map(PathBuf::from);
    let folders: Vec<PathBuf> = std::env::split_paths(&std::env::var_os("PATH")?).collect();
    let names = ["chromium", "chromium-browser", "google-chrome"];
    named.or_else(|| names.iter().flat_map(|name| folders.iter().map(move |it| it.join(name))).find(|it| it.is_file()))
}

/// What a page says of itself, in its title: a program in the page is the last that is run before it is written out.
const ASK: &str = "<script>addEventListener('load', () => {
  const all = (name) => [...document.querySelectorAll(name)];
  const box = (it) => it.getBoundingClientRect();
  document.title = JSON.stringify({
    svgs: all('svg').length,
    emptySvgs: all('svg').filter((it) => box(it).width < 20 || box(it).height < 20).length,
    emptyPlots: all('figure svg').filter((it) => it.querySelectorAll('path, polyline, circle, line').length < 3).length,
    images: all('img').length,
    brokenImages: all('img').filter((it) => !it.complete || it.naturalWidth === 0).length,
    unnamedImages: all('img').filter((it) => !it.hasAttribute('alt')).length,
    headings: all('h2').length,
    deadLinks: all('a').filter((it) => it.hash && !document.getElementById(it.hash.slice(1))).length,
    emptySections: all('section').filter((it) => it.children.length < 2).length,
    foreign: all('[src], link[href]').filter((it) => !(it.getAttribute('src') || '').startsWith('data:')).length,
    tooWide: document.documentElement.scrollWidth - innerWidth,
    dark: matchMedia('(prefers-color-scheme: dark)').matches,
    ground: getComputedStyle(document.body).backgroundColor,
    width: innerWidth,
  });
});</script></body>";

/// Shows a page in a window of this width.
fn shown(chromium: &Path, html: &str, width: u32, dark: bool) -> Value {
    let folder = tempfile::tempdir().unwrap();
    let page = folder.path().join("page.html");
    std::fs::write(&page, html.replace("</body>", ASK)).unwrap();
    let mut command = Command::new(chromium);
    command.args(["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync", "--disable-quic"]);
    command.args(["--disable-background-networking", "--disable-component-update", "--enable-logging=stderr"]);
    command.arg(format!("--user-data-dir={}", folder.path().join("profile").display()));
    command.arg(format!("--window-size={width},900"));
    command.arg(format!("--blink-settings=preferredColorScheme={}", u8::from(!dark)));
    let output = command.args(["--virtual-time-budget=5000", "--dump-dom"]).arg(&page).output().unwrap();
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(!words.contains("CONSOLE"), "{words}");
    let text = String::from_utf8(output.stdout).unwrap();
    let title = text.split("<title>").nth(1).and_then(|rest| rest.split("</title>").next());
    serde_json::from_str(title.unwrap_or_else(|| panic!("no page: {words}"))).unwrap()
}

/// What a page has none of.
const NOTHING: [&str; 7] =
    ["emptySvgs", "emptyPlots", "brokenImages", "unnamedImages", "emptySections", "foreign", "deadLinks"];

/// A picture of one pixel.
const DOT: &str = "data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7";

/// A map, and a plot of curves.
fn page() -> Page {
    let dot = Thumbnail::new(2, 3, vec![90; 18]).unwrap();
    let point = |index: usize| Point {
        position: [(index as f64).sin(), (index as f64 * 0.7).cos()],
        group: index % 3,
        name: format!("image {index}"),
        thumbnail: index.is_multiple_of(4).then(|| dot.clone()),
    };
    let map = Scatter {
        title: "a map".into(),
        caption: "what is near".into(),
        groups: ["a", "b", "c"].map(String::from).to_vec(),
        points: (0..20).map(point).collect(),
    };
    let curve =
        |name: &str, rise: f64| (name.to_string(), (1..6).map(|x| (f64::from(x), rise * f64::from(x), 1.0)).collect());
    let plot = LinePlot {
        title: "curves".into(),
        caption: "which rises".into(),
        x_label: "patches".into(),
        y_label: "%".into(),
        logarithmic: true,
        lines: vec![curve("one", 3.0), curve("two", 5.0)],
    };
    let block = Block { title: "Places".into(), maps: vec![map], plots: vec![plot], ..Block::default() };
    Page {
        title: "A page".into(),
        lead: vec!["An answer.".into()],
        blocks: vec![block],
        origins: vec!["seed 0".into()],
    }
}

#[test]
fn pages_are_whole_in_a_browser() {
    let Some(chromium) = chromium() else {
        return;
    };
    for (name, html) in [("report", sample::report().html().unwrap()), ("page", page().html().unwrap())] {
        let count = |what: &str| html.matches(what).count() as u64;
        let mut grounds = Vec::new();
        for (width, dark) in [(1200, false), (1200, true), (500, false)] {
            let ranks = shown(&chromium, &html, width, dark);
            let at = format!("{name}, {width} pixels, dark {dark}: {ranks}");
            for nothing in NOTHING {
                assert_eq!(ranks[nothing], 0, "{nothing}: {at}");
            }
            assert_eq!(
                (ranks["svgs"].as_u64(), ranks["images"].as_u64()),
                (Some(count("<svg")), Some(count("<img"))),
                "{at}"
            );
            assert!(count("<svg") > 0 && ranks["headings"].as_u64() == Some(count("<h2")), "{at}");
            assert!(ranks["tooWide"].as_i64().unwrap() <= 0, "{at}");
            assert_eq!(ranks["dark"], dark, "{at}");
            grounds.push(ranks["ground"].clone());
        }
        assert_ne!(grounds[0], grounds[1], "{name}: a dark page has another ground");
    }
}

/// Each check can fail: a broken picture, one without a name, a figure that is too small, one of two lines alone, a section that is
/// its heading alone, what comes from elsewhere, a link to nothing, an element that is too wide, a word on the console.
#[test]
fn damage_is_detected() {
    let Some(chromium) = chromium() else { return };
    let shows = |body: &str| shown(&chromium, &format!("<html><body>{body}</body></html>"), 500, false);
    let section = |text: &str| format!("<section><h2>a</h2>{text}</section>");
    let plot = |lines: usize| {
        let lines = "<line x2='9' y2='9'/>".repeat(lines);
        format!("<figure><svg width='20' height='50'>{lines}</svg></figure>")
    };
    let whole = format!("<img alt='' src='{DOT}'>{}{}<a href='#a' id='a'>b</a>", plot(3), section("<p>b</p>"));
    for (bad, check) in [
        (String::new(), ""),
        ("<img alt='a' src='data:image/png;base64,AA'>".into(), "brokenImages"),
        (format!("<img src='{DOT}'>"), "unnamedImages"),
        ("<svg width='5' height='50'></svg>".into(), "emptySvgs"),
        (plot(2), "emptyPlots"),
        (section(""), "emptySections"),
        ("<iframe src='about:blank'></iframe>".into(), "foreign"),
        ("<link rel='none' href='style.css'>".into(), "foreign"),
        ("<a href='#nowhere'>x</a>".into(), "deadLinks"),
    ] {
        let ranks = shows(&format!("{whole}{bad}"));
        for it in NOTHING {
            assert_eq!(ranks[it], i32::from(it == check), "{it}: {bad}");
        }
    }
    assert!(shows("<p style='width: 3000px'>x</p>")["tooWide"].as_i64().unwrap() > 2000);
    let words = "<script>console.error('no')</script>";
    assert!(std::panic::catch_unwind(|| shows(words)).is_err());
}
