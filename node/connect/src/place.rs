//! Where files are: local paths and object URLs, with globs.
//!
//! Owns: the meaning of a `path` in a pipeline.
//! Must not know: formats.
//! Invariant: what a glob finds comes in the order of the names, so splits are the same every time.
//!
//! In a glob `*` and `?` stay within one part of a path, `**` crosses parts, `[ab]`, `[a-z]` and
//! `[!a]` are classes. A path without such characters names one file. Relative paths start at the
//! directory the process was given.

use std::path::{Path, PathBuf};

use pharos_stream::io::ConnectError;

use crate::object::Bucket;

/// A path or pattern.
#[derive(Debug, Clone)]
pub enum Place {
    /// On this machine.
    Local(PathBuf),
    /// In an object store.
    Object {
        /// The bucket.
        bucket: Bucket,
        /// The key or pattern.
        key: String,
    },
}

impl Place {
    /// The place that `path` names; a relative one starts at `base`.
    ///
    /// # Errors
    /// If it is a URL of a kind that is not known.
    pub fn parse(path: &str, base: &Path) -> Result<Self, ConnectError> {
        if path.is_empty() {
            return Err(ConnectError::user("the path is empty"));
        }
        let Some((scheme, rest)) = path.split_once("://") else { return Ok(Self::Local(base.join(path))) };
        match scheme {
            "file" => Ok(Self::Local(PathBuf::from(rest))),
            "s3" | "s3a" => {
                let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
                Ok(Self::Object { bucket: Bucket::open(bucket)?, key: key.to_owned() })
            }
            _ => Err(ConnectError::user(format!(
                "`{path}`: unknown kind of URL `{scheme}`; known are file and s3"
            ))),
        }
    }

    /// The files that match, in order.
    ///
    /// # Errors
    /// If there are none, or they cannot be listed.
    pub fn find(&self) -> Result<Vec<Self>, ConnectError> {
        let found = match self {
            Self::Local(path) => {
                let text = path.to_string_lossy();
                if !is_glob(&text) {
                    if !path.is_file() {
                        let what = if path.is_dir() { "is a directory" } else { "there is no such file" };
                        return Err(ConnectError::user(format!("`{text}`: {what}")));
                    }
                    return Ok(vec![self.clone()]);
                }
                let mut found = Vec::new();
                walk(&fixed_directory(&text), &text, &mut found)
                    .map_err(|error| ConnectError::environment(format!("`{text}`: {error}")))?;
                found.into_iter().map(Self::Local).collect::<Vec<_>>()
            }
            Self::Object { bucket, key } => {
                let keys = if is_glob(key) {
                    let prefix = fixed_directory(key).to_string_lossy().into_owned();
                    bucket.list(&prefix)?.into_iter().filter(|found| matches_glob(key, found)).collect()
                } else {
                    bucket.size(key)?;
                    vec![key.clone()]
                };
                keys.into_iter().map(|key| Self::Object { bucket: bucket.clone(), key }).collect()
            }
        };
        if found.is_empty() {
            return Err(ConnectError::user(format!("`{}`: no file matches", self.name())));
        }
        Ok(found)
    }

    /// The path or URL.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Local(path) => path.to_string_lossy().into_owned(),
            Self::Object { bucket, key } => format!("s3://{}/{key}", bucket.name()),
        }
    }
}

fn is_glob(path: &str) -> bool {
    path.contains(['*', '?', '['])
}

/// The directory before the first part with a pattern.
fn fixed_directory(pattern: &str) -> PathBuf {
    let fixed = &pattern[..pattern.find(['*', '?', '[']).unwrap_or(pattern.len())];
    PathBuf::from(fixed.rfind('/').map_or("", |slash| &fixed[..=slash]))
}

fn walk(directory: &Path, pattern: &str, found: &mut Vec<PathBuf>) -> std::io::Result<()> {
    let shown = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
    if !shown.is_dir() {
        return Ok(());
    }
    let mut entries: Vec<PathBuf> = std::fs::read_dir(shown)?
        .map(|entry| entry.map(|entry| directory.join(entry.file_name())))
        .collect::<Result<_, _>>()?;
    entries.sort();
    for entry in entries {
        if entry.is_dir() {
            walk(&entry, pattern, found)?;
        } else if matches_glob(pattern, &entry.to_string_lossy()) {
            found.push(entry);
        }
    }
    Ok(())
}

/// Whether `name` matches `pattern`.
#[must_use]
fn matches_glob(pattern: &str, name: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let name: Vec<char> = name.chars().collect();
    matches(&pattern, &name)
}

fn matches(pattern: &[char], name: &[char]) -> bool {
    match pattern {
        [] => name.is_empty(),
        ['*', '*', '/', rest @ ..] => {
            matches(rest, name) || (0..name.len()).any(|at| name[at] == '/' && matches(rest, &name[at + 1..]))
        }
        ['*', '*', rest @ ..] => (0..=name.len()).any(|at| matches(rest, &name[at..])),
        ['*', rest @ ..] => {
            let part = name.iter().position(|c| *c == '/').unwrap_or(name.len());
            (0..=part).any(|at| matches(rest, &name[at..]))
        }
        ['?', rest @ ..] => name.first().is_some_and(|c| *c != '/') && matches(rest, &name[1..]),
        ['[', rest @ ..] => {
            let Some(close) = rest.iter().skip(1).position(|c| *c == ']').map(|at| at + 1) else {
                return name.first() == Some(&'[') && matches(rest, &name[1..]);
            };
            name.first().is_some_and(|c| *c != '/' && in_class(&rest[..close], *c))
                && matches(&rest[close + 1..], &name[1..])
        }
        [c, rest @ ..] => name.first() == Some(c) && matches(rest, &name[1..]),
    }
}

fn in_class(class: &[char], c: char) -> bool {
    let (negated, class) = match class {
        ['!', rest @ ..] => (true, rest),
        class => (false, class),
    };
    let mut found = false;
    let mut at = 0;
    while at < class.len() {
        if at + 2 < class.len() && class[at + 1] == '-' {
            found |= (class[at]..=class[at + 2]).contains(&c);
            at += 3;
        } else {
            found |= class[at] == c;
            at += 1;
        }
    }
    found != negated
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_stay_within_a_part_unless_doubled() {
        for (pattern, name, expected) in [
            ("a/*.json", "a/b.json", true),
            ("a/*.json", "a/b/c.json", false),
            ("a/**/*.json", "a/b/c.json", true),
            ("a/**/*.json", "a/c.json", true),
            ("a/?[0-9].csv", "a/x7.csv", true),
            ("a/?[!0-9].csv", "a/x7.csv", false),
            ("a[b", "a[b", true),
        ] {
            assert_eq!(matches_glob(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = Place::parse("no/such.json", Path::new("/tmp")).unwrap().find().unwrap_err();
        assert_eq!(error.message, "`/tmp/no/such.json`: there is no such file");
    }

    #[test]
    fn files_are_found_in_the_order_of_their_names() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["b.json", "a.json", "c.txt"] {
            std::fs::write(directory.path().join(name), "").unwrap();
        }
        let found = Place::parse("*.json", directory.path()).unwrap().find().unwrap();
        let names: Vec<_> =
            found.iter().map(|place| place.name().rsplit('/').next().unwrap().to_owned()).collect();
        assert_eq!(names, ["a.json", "b.json"]);
    }
}
