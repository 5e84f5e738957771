//! Escaping of user data, such as class names and paths.

use bagssl_core::text::{escaped, is_interpreted};

/// Escapes text for HTML, SVG and quoted attributes. Control characters become spaces.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            '\t' | '\n' | '\r' => escaped.push(character),
            control if is_interpreted(control) => escaped.push(' '),
            other => escaped.push(other),
        }
    }
    escaped
}

/// Escapes text for Markdown, including cells of tables.
pub(crate) fn escape_markdown(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\\' | '`' | '*' | '_' | '[' | ']' | '<' | '>' | '|' | '#' => escaped.extend(['\\', character]),
            control if is_interpreted(control) => escaped.push(' '),
            other => escaped.push(other),
        }
    }
    escaped
}

/// Escapes text for a cell of a spreadsheet. Spreadsheets interpret text that begins with `=`, `+`,
/// `-` or `@` as a formula. Unless such text is a number, it gets a leading apostrophe, which marks
/// it as text.
pub(crate) fn as_cell(text: &str) -> String {
    let is_formula = text.starts_with(['=', '+', '-', '@']) && text.parse::<f64>().is_err();
    if is_formula { format!("'{}", escaped(text)) } else { escaped(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escaped_text_stays_text() {
        assert_eq!(escape("<b title='x'>&\"\u{0}"), "&lt;b title=&#39;x&#39;&gt;&amp;&quot; ");
        assert_eq!(escape_markdown("a|b*_<i>\n"), "a\\|b\\*\\_\\<i\\> ");
        assert_eq!(as_cell("a,\"b\""), "a,\"b\"");
        assert_eq!(as_cell("a\r\n\u{1b}[2J"), "a\\r\\n\\u{1b}[2J");
        for formula in ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(1)", "-"] {
            assert_eq!(as_cell(formula), format!("'{formula}"));
        }
        for number in ["-1.5", "+3", "-2e-7", "0", "12 cats"] {
            assert_eq!(as_cell(number), number);
        }
    }
}
