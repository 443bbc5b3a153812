//! Files that are read again when they change: certificates and tokens are renewed without a restart.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;

use crate::clock;

/// A change is seen this late at most. A look costs one `stat` per file.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What the files say, as of a second ago. What cannot be read or makes no sense leaves the last good state in force.
pub(super) struct Watched<T> {
    paths: Vec<PathBuf>,
    load: Load<T>,
    state: Mutex<State<T>>,
}

/// Makes sense of the contents of the files, in order, or says why not.
type Load<T> = fn(&[Vec<u8>]) -> Result<T, String>;

struct State<T> {
    current: Arc<T>,
    /// Of the files when they were read last, with or without success.
    seen: Vec<Option<Stamp>>,
    looked: Instant,
}

/// Changes whenever a file is written or replaced, by way of a symbolic link too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    modified: Option<SystemTime>,
    bytes: u64,
    inode: u64,
}

/// A file that cannot be read, or not be used.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {why}", path = .path.display())]
pub struct FileError {
    /// The first of the files that belong together.
    pub path: PathBuf,
    /// What the system said, or what is wrong inside.
    pub why: String,
}

impl<T> Watched<T> {
    /// Reads the files for the first time.
    ///
    /// # Errors
    /// Names the file and what is wrong with it.
    pub(super) fn open(paths: Vec<PathBuf>, load: Load<T>) -> Result<Self, FileError> {
        let seen = paths.iter().map(|path| stamp(path)).collect();
        let current = Arc::new(read(&paths, load)?);
        let state = State { current, seen, looked: clock::instant() };
        Ok(Self { paths, load, state: Mutex::new(state) })
    }

    /// What the files say now, or said when they last made sense.
    pub(super) fn current(&self) -> Arc<T> {
        let mut state = self.state.lock();
        if LOOK_EVERY <= state.looked.elapsed() {
            state.looked = clock::instant();
            self.look(&mut state);
        }
        Arc::clone(&state.current)
    }

    fn look(&self, state: &mut State<T>) {
        let seen: Vec<_> = self.paths.iter().map(|path| stamp(path)).collect();
        if seen == state.seen {
            return;
        }
        // Noted also when reading fails: one line in the log for each change, not one a second.
        state.seen = seen;
        match read(&self.paths, self.load) {
            Ok(current) => {
                state.current = Arc::new(current);
                tracing::info!(files = ?self.paths, "read again after a change");
            }
            Err(error) => tracing::error!(%error, "a changed file is of no use; what it said before stays in force"),
        }
    }
}

impl<T> std::fmt::Debug for Watched<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watched").field("paths", &self.paths).finish_non_exhaustive()
    }
}

fn stamp(path: &Path) -> Option<Stamp> {
    use std::os::unix::fs::MetadataExt as _;
    let metadata = std::fs::metadata(path).ok()?;
    Some(Stamp { modified: metadata.modified().ok(), bytes: metadata.len(), inode: metadata.ino() })
}

fn read<T>(paths: &[PathBuf], load: Load<T>) -> Result<T, FileError> {
    let error = |path: &Path, why: String| FileError { path: path.to_path_buf(), why };
    let contents = paths.iter().map(|path| std::fs::read(path).map_err(|io| error(path, io.to_string())));
    let contents = contents.collect::<Result<Vec<_>, _>>()?;
    load(&contents).map_err(|why| error(paths.first().map_or(Path::new(""), PathBuf::as_path), why))
}
