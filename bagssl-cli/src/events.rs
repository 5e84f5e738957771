//! Shows what an evaluation says while it runs.

use bagssl::Event;

use crate::input::source::report_skipped;
use crate::terminal::output::{note, note_once, one_line};
use crate::terminal::progress::Progress;

/// Shows progress on the bar, and prints notes to standard error.
pub(crate) fn show(event: Event<'_>, bar: &Progress) {
    match event {
        Event::Planned(images) => bar.inc_length(images),
        Event::Embedded(images) => bar.inc(images),
        Event::Skipped(skipped) => report_skipped(skipped),
        Event::SkippedBefore(images) => note!("{images} images skipped, as an earlier call has reported"),
        Event::ImagesChanged { location, is_cached } => {
            let what = if is_cached { "were extracted earlier" } else { "are extracted anew" };
            note_once(&format!("{}: other images than before: their features {what}", one_line(location)));
        }
        Event::Waiting { folder } => {
            note!("{}: others are at work on these features; they are waited for", folder.display());
        }
        _ => {}
    }
}
