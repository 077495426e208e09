//! ZooKeeper's rules for paths of nodes that are created or written. Reads do not apply them: a path that breaks them
//! simply does not exist.

/// Whether a node may have this path. The rules speak of UTF-16 units, so any character beyond U+FFFF, whose units are
/// surrogates, is refused.
pub fn validate_path(path: &str) -> bool {
    if path == "/" {
        return true;
    }
    let Some(names) = path.strip_prefix('/') else { return false };
    names.split('/').all(is_name)
}

/// The part before the last slash, which is empty for children of the root, and the part after it. `None` if there is
/// no slash or the path contains NUL: such paths are refused before the parent is looked for.
pub(crate) fn split(path: &str) -> Option<(&str, &str)> {
    if path.contains('\0') {
        return None;
    }
    path.rsplit_once('/')
}

fn is_name(name: &str) -> bool {
    !matches!(name, "" | "." | "..") && name.chars().all(is_allowed)
}

fn is_allowed(c: char) -> bool {
    !matches!(u32::from(c), 0..=0x1f | 0x7f..=0x9f | 0xd800..=0xf8ff | 0xfff0..)
}
