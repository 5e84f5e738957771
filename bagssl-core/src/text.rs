//! Texts of others, such as names of files and classes, made fit to be shown.

use std::prelude::v1::*;

/// Whether a character is obeyed by a terminal or a reader instead of being shown: control characters, ends of lines, and those that
/// turn the direction of what follows.
pub fn is_obeyed(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// The text with `\n`, `\r`, `\t` and `\u{..}` instead of each character that [is obeyed](is_obeyed), and `\\` instead of a backslash, so that
/// different texts are shown differently.
pub fn shown(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        match is_obeyed(character) || character == '\\' {
            true => shown.extend(character.escape_default()),
            false => shown.push(character),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_obeyed_is_shown() {
        assert_eq!(shown("a\u{1b}[31m\r\n\tb"), "a\\u{1b}[31m\\r\\n\\tb");
        assert_eq!(shown("x\u{202e}gpj.exe\u{2066}\u{9b}\u{2028}"), "x\\u{202e}gpj.exe\\u{2066}\\u{9b}\\u{2028}");
        assert_eq!(shown("grün, 犬 \u{1f469}\u{200d}\u{1f4bb}"), "grün, 犬 \u{1f469}\u{200d}\u{1f4bb}");
        // The six characters and the one that they stand for.
        assert_eq!([shown("\\u{1b}"), shown("\u{1b}")], ["\\\\u{1b}", "\\u{1b}"]);
        assert_eq!([shown("\\n"), shown("\\\n")], ["\\\\n", "\\\\\\n"]);
    }
}
