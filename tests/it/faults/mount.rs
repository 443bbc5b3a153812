//! File systems of a test's own: a small tmpfs, or ext4 in an image file. Both leave with their guard, also on failure.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::run;

/// Where files live in memory, when the machine has such a place: images there are copied in milliseconds.
pub(crate) fn memory_dir() -> TempDir {
    let shm = Path::new("/dev/shm");
    let dir = if shm.is_dir() { tempfile::tempdir_in(shm) } else { tempfile::tempdir() };
    dir.expect("a temporary directory")
}

/// A mounted directory; unmounted and removed when dropped.
pub(crate) struct Mount {
    dir: TempDir,
}

impl Mount {
    /// A tmpfs of `mib` MiB. `Err` says why there can be none.
    pub(crate) fn tmpfs(mib: u64) -> Result<Self, String> {
        Self::new(&["-t", "tmpfs", "-o", &format!("size={mib}m,mode=0700"), "tmpfs"])
    }

    /// The ext4 of an image, by a loop device that goes with the mount.
    pub(crate) fn image(image: &Path, options: &str) -> Result<Self, String> {
        Self::new(&["-t", "ext4", "-o", &format!("loop,{options}"), &image.display().to_string()])
    }

    fn new(arguments: &[&str]) -> Result<Self, String> {
        let dir = tempfile::tempdir().map_err(|error| error.to_string())?;
        let _said = run("mount", &[arguments, &[&dir.path().display().to_string()]].concat())?;
        Ok(Self { dir })
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let path = self.dir.path().display().to_string();
        if run("umount", &[&path]).is_err() {
            // Somebody still holds a file: it leaves with the last of them.
            let _said = run("umount", &["-l", &path]);
        }
    }
}

/// An empty ext4 of `mib` MiB in a sparse file below `dir`.
pub(crate) fn ext4_image(dir: &Path, mib: u64) -> Result<PathBuf, String> {
    let path = dir.join("disk.ext4");
    let file = std::fs::File::create(&path).and_then(|file| file.set_len(mib << 20));
    file.map_err(|error| format!("{}: {error}", path.display()))?;
    let _said = run("mkfs.ext4", &["-qF", "-m", "0", &path.display().to_string()])?;
    Ok(path)
}
