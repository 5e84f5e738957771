//! Escaping: class names and paths are a user's data.

/// The text, safe in HTML, SVG and in quoted attributes. Characters that XML forbids become spaces.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            '\t' | '\n' | '\r' => escaped.push(character),
            control if control.is_control() => escaped.push(' '),
            other => escaped.push(other),
        }
    }
    escaped
}

/// The text, safe in a cell of a Markdown table and elsewhere in Markdown.
pub(super) fn escape_markdown(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\\' | '`' | '*' | '_' | '[' | ']' | '<' | '>' | '|' | '#' => escaped.extend(['\\', character]),
            control if control.is_control() => escaped.push(' '),
            other => escaped.push(other),
        }
    }
    escaped
}

/// The text as a field of a CSV file (RFC 4180).
pub(super) fn escape_csv(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_gets_out() {
        assert_eq!(escape("<b title='x'>&\"\u{0}"), "&lt;b title=&#39;x&#39;&gt;&amp;&quot; ");
        assert_eq!(escape_markdown("a|b*_<i>\n"), "a\\|b\\*\\_\\<i\\> ");
        assert_eq!(escape_csv("a,\"b\""), "\"a,\"\"b\"\"\"");
        assert_eq!(escape_csv("plain"), "plain");
    }
}
