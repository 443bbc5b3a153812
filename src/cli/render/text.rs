//! Text that is safe and fits: escaping, and cutting and padding by columns.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Makes visible what a terminal would obey or hide: control characters, line ends, bidirectional controls,
/// zero-width characters and tags. `"a\x1b[2J"` becomes `a\x1b[2J`, spelled out. Everything else is kept.
pub fn escape(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 8);
    for character in text.chars() {
        match character {
            '\n' => safe.push_str("\\n"),
            '\r' => safe.push_str("\\r"),
            '\t' => safe.push_str("\\t"),
            '\0' => safe.push_str("\\0"),
            control if is_unsafe(control) && control.is_ascii() => {
                let _infallible = write!(safe, "\\x{:02x}", u32::from(control));
            }
            control if is_unsafe(control) => {
                let _infallible = write!(safe, "\\u{{{:x}}}", u32::from(control));
            }
            plain => safe.push(plain),
        }
    }
    Cow::Owned(safe)
}

fn is_unsafe(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// Columns that a terminal gives to `text`: near enough (wide East Asian and emoji ranges count two, combining
/// diacritics none), as terminals themselves disagree about the rest.
pub(super) fn columns(text: &str) -> usize {
    text.chars().map(char_columns).sum()
}

fn char_columns(character: char) -> usize {
    match character {
        '\u{300}'..='\u{36f}' | '\u{fe00}'..='\u{fe0f}' => 0,
        '\u{1100}'..='\u{115f}'
        | '\u{2e80}'..='\u{a4cf}'
        | '\u{ac00}'..='\u{d7a3}'
        | '\u{f900}'..='\u{faff}'
        | '\u{fe30}'..='\u{fe6f}'
        | '\u{ff00}'..='\u{ff60}'
        | '\u{1f300}'..='\u{1faff}'
        | '\u{20000}'..='\u{3fffd}' => 2,
        _ => 1,
    }
}

/// `text` in exactly `width` columns: padded on the right, or cut with `ellipsis` (one column) at its end.
pub(super) fn fit(text: &str, width: usize, ellipsis: &str) -> String {
    let whole = columns(text);
    if whole <= width {
        return format!("{text}{}", " ".repeat(width - whole));
    }
    let Some(room) = width.checked_sub(1) else { return String::new() };
    let mut used = 0;
    let mut cut: String = text
        .chars()
        .take_while(|character| {
            used += char_columns(*character);
            used <= room
        })
        .collect();
    cut.push_str(ellipsis);
    let missing = width - columns(&cut);
    cut + &" ".repeat(missing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_spelled_out() {
        for (hostile, safe) in [
            ("plain /a b\\n", "plain /a b\\n"),
            ("\x1b[2Jgone", "\\x1b[2Jgone"),
            ("a\r\nb\tc\0", "a\\r\\nb\\tc\\0"),
            ("\u{7f}\u{9b}31m", "\\x7f\\u{9b}31m"),
            ("pay\u{202e}gpj.exe", "pay\\u{202e}gpj.exe"),
            ("\u{2066}x\u{2069}\u{200b}\u{feff}", "\\u{2066}x\\u{2069}\\u{200b}\\u{feff}"),
            ("\u{e9}t\u{e9} \u{65e5}\u{672c}", "\u{e9}t\u{e9} \u{65e5}\u{672c}"),
        ] {
            assert_eq!(escape(hostile), safe);
        }
    }

    #[test]
    fn a_text_takes_exactly_its_columns() {
        for (text, width, shown) in [
            ("cart", 6, "cart  "),
            ("cart", 4, "cart"),
            ("checkout", 5, "chec~"),
            ("checkout", 1, "~"),
            ("checkout", 0, ""),
            ("\u{65e5}\u{672c}\u{8a9e}", 6, "\u{65e5}\u{672c}\u{8a9e}"),
            // The second wide character would need columns 3 and 4, and the cut mark the fourth.
            ("\u{65e5}\u{672c}\u{8a9e}", 4, "\u{65e5}~ "),
        ] {
            assert_eq!(fit(text, width, "~"), shown);
        }
    }
}
