//! Escapes text from outside the program, such as file names and class names, for safe display.

use std::prelude::v1::*;

/// Returns whether a terminal or viewer interprets a character instead of displaying it: control
/// characters, line separators, and characters that change the text direction.
pub fn is_obeyed(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// Returns the text with each character that [is interpreted](is_obeyed) replaced by `\n`, `\r`,
/// `\t` or `\u{..}`, and each backslash by two, so that different texts stay different.
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
