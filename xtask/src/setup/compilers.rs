//! Names under which compilers are found through ccache.
//!
//! In a directory of our own, which `x` puts first on PATH: Debian's lacks `c++` when ccache and g++ are installed
//! together.

use std::os::unix::fs::symlink;
use std::path::Path;

use anyhow::Context;

use crate::layout::Layout;

const NAMES: [&str; 4] = ["c++", "cc", "g++", "gcc"];
const CCACHE: &str = "/usr/bin/ccache";

pub(crate) fn cached(layout: &Layout) -> anyhow::Result<()> {
    let directory = layout.cache("compilers");
    if !Path::new(CCACHE).exists() || NAMES.iter().all(|name| directory.join(name).exists()) {
        return Ok(());
    }
    std::fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
    for name in NAMES {
        let link = directory.join(name);
        // It may be there and lead nowhere.
        let _ = std::fs::remove_file(&link);
        symlink(CCACHE, &link).with_context(|| format!("cannot make {}", link.display()))?;
    }
    Ok(())
}
