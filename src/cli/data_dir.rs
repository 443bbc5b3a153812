//! Which data directory the upkeep commands mean, found as the server finds it, and how far they are.

use std::path::PathBuf;

use indicatif::{ProgressBar, ProgressStyle};

use crate::config::{Config, RawConfig};

/// Flags of the commands that work on a data directory.
#[derive(clap::Args, Debug)]
pub(super) struct DataDirArgs {
    /// The server's data directory [default: ./spandrel-data]
    #[arg(long, env = "SPANDREL_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// The server's settings file (TOML), for its data-dir
    #[arg(long, env = "SPANDREL_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
}

impl DataDirArgs {
    /// The settings; `store.data_dir` is the directory.
    pub(super) fn resolve(&self) -> anyhow::Result<Config> {
        let file = self.config.as_deref().map(RawConfig::from_file).transpose()?.unwrap_or_default();
        let flags = RawConfig { data_dir: self.data_dir.clone(), ..RawConfig::default() };
        Ok(flags.or(file).resolve()?)
    }
}

/// A bar of bytes on stderr; hidden when that is no terminal.
pub(super) fn bytes_bar(total: u64) -> anyhow::Result<ProgressBar> {
    let bar = ProgressBar::new(total);
    bar.set_style(ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes} {bytes_per_sec} {wide_msg}")?);
    Ok(bar)
}
