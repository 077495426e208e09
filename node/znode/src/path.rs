//! ZooKeeper's rules for paths of nodes that are created or written. Reads do not apply them: a path that breaks them
//! simply does not exist.

/// Bytes of the longest path: a row's key has two for the depth. In ZooKeeper a request's length is the limit.
pub(crate) const MAX_PATH: usize = u16::MAX as usize;

/// Whether a node may have this path. The rules speak of UTF-16 units, so any character beyond U+FFFF, whose units are
/// surrogates, is refused.
pub fn validate_path(path: &str) -> bool {
    if path == "/" {
        return true;
    }
    let Some(names) = path.strip_prefix('/') else { return false };
    if path.len() > MAX_PATH {
        return false;
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_no_deeper_than_a_rows_key_can_say() {
        let path = "/a".repeat(MAX_PATH / 2);
        assert!(validate_path(&path));
        assert!(!validate_path(&format!("{path}/a")));
    }
}
