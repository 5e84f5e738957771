//! Escapes text from outside the program, such as file names and class names, for safe display.

use std::prelude::v1::*;

/// Returns whether a terminal or viewer interprets a character instead of displaying it: control
/// characters, line separators, and characters that change the text direction.
pub fn is_interpreted(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// Returns the text with each character that [is interpreted](is_interpreted) replaced by `\n`, `\r`,
/// `\t` or `\u{..}`, and each backslash by two, so that different texts stay different.
pub fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match is_interpreted(character) || character == '\\' {
            true => escaped.extend(character.escape_default()),
            false => escaped.push(character),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escaped_control_characters() {
        assert_eq!(escaped("a\u{1b}[31m\r\n\tb"), "a\\u{1b}[31m\\r\\n\\tb");
        assert_eq!(escaped("x\u{202e}gpj.exe\u{2066}\u{9b}\u{2028}"), "x\\u{202e}gpj.exe\\u{2066}\\u{9b}\\u{2028}");
        assert_eq!(escaped("grün, 犬 \u{1f469}\u{200d}\u{1f4bb}"), "grün, 犬 \u{1f469}\u{200d}\u{1f4bb}");
        // The six characters and the one that they stand for.
        assert_eq!([escaped("\\u{1b}"), escaped("\u{1b}")], ["\\\\u{1b}", "\\u{1b}"]);
        assert_eq!([escaped("\\n"), escaped("\\\n")], ["\\\\n", "\\\\\\n"]);
    }
}
