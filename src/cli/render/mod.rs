//! How answers look in a terminal: pure functions from views to strings.
//!
//! Whatever comes from outside (names, attributes, ids) is escaped before it is printed: a span name must not be able
//! to move the cursor, recolour the screen or reverse the text.

mod chart;
mod plot;
mod table;
mod text;
mod tree;
pub mod units;
mod waterfall;

#[cfg(test)]
#[expect(clippy::needless_raw_string_hashes, reason = "expect-test writes them when it updates")]
mod tests;

pub use plot::{Unit, metrics_list, metrics_plot};
pub use table::{graph_table, percentile_table, pins_table, search_table, services_table};
pub use text::escape;
pub use waterfall::{WATERFALL_ROWS_MAX, waterfall};

/// What the terminal can show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Style {
    /// Emit ANSI colours; nothing else ever emits an escape sequence.
    pub color: bool,
    /// Draw with ASCII alone instead of boxes and blocks, for terminals that are not UTF-8.
    pub ascii: bool,
}

/// SGR parameters of what is coloured.
#[derive(Clone, Copy, Debug)]
enum Paint {
    Dim,
    Bold,
    Error,
    Highlight,
    Slow,
    Slowest,
    Service(u8),
}

impl Style {
    fn paint(self, text: &str, paint: Paint) -> String {
        if !self.color || text.is_empty() {
            return text.to_owned();
        }
        let sgr = match paint {
            Paint::Dim => "2".to_owned(),
            Paint::Bold => "1".to_owned(),
            Paint::Error => "1;31".to_owned(),
            Paint::Highlight => "1;33".to_owned(),
            Paint::Slow => "33".to_owned(),
            Paint::Slowest => "31".to_owned(),
            Paint::Service(colour) => colour.to_string(),
        };
        format!("\x1b[{sgr}m{text}\x1b[0m")
    }

    fn pick<'a>(self, ascii: &'a str, unicode: &'a str) -> &'a str {
        if self.ascii { ascii } else { unicode }
    }
}

/// A colour for a service, always the same one. Red and yellow are left for errors and the highlight.
fn service_paint(service: &str) -> Paint {
    const COLOURS: [u8; 8] = [32, 34, 35, 36, 92, 94, 95, 96];
    let sum = service.bytes().fold(7_usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(usize::from(byte)));
    Paint::Service(COLOURS.get(sum % COLOURS.len()).copied().unwrap_or(36))
}
