//! Where remote write goes on after a restart.

use std::io;
use std::path::{Path, PathBuf};

use crate::query::promql::series::Millis;

const HEAD: &str = "spandrel-remote-write 1";

/// A file of two lines.
#[derive(Debug)]
pub(super) struct Position {
    path: PathBuf,
}

impl Position {
    pub(super) fn of(data_dir: &Path) -> Self {
        Self { path: data_dir.join("remote-write") }
    }

    /// `None` when there is none, or another text: then it begins now.
    pub(super) fn read(&self) -> Option<Millis> {
        let text = std::fs::read_to_string(&self.path).ok()?;
        text.strip_prefix(HEAD)?.trim().parse().ok()
    }

    /// Replaces it as a whole.
    pub(super) fn write(&self, edge: Millis) -> io::Result<()> {
        let draft = self.path.with_extension("draft");
        std::fs::write(&draft, format!("{HEAD}\n{edge}\n"))?;
        std::fs::rename(draft, &self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_comes_back_and_what_is_none_is_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let position = Position::of(dir.path());
        assert_eq!(position.read(), None);
        position.write(1_790_000_000_000).unwrap();
        position.write(1_790_000_030_000).unwrap();
        assert_eq!(position.read(), Some(1_790_000_030_000));
        for text in ["", "spandrel-remote-write 2\n5\n", "spandrel-remote-write 1\nfive\n"] {
            std::fs::write(dir.path().join("remote-write"), text).unwrap();
            assert_eq!(position.read(), None, "{text:?}");
        }
    }
}
