//! Rows by seed, and what a Pipeline has to make of them.
//!
//! Owns the files, the document, and an oracle that shares no code with the product. Must not know who runs the document.
//! Invariant: no row is late: within a file event times are behind by less than the document's `max_delay`.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context, ensure};
use pharos_crowd::Rng;

/// Files, each of which is a split. They differ in length, so some splits end before others.
const FILES: usize = 8;
/// Records of one file in a second of event time.
const PACE: usize = 32;
/// How many seconds a record may be behind, which is less than the 20 s that the document allows.
const DISORDER: u64 = 15;
/// For so many seconds a key is busy, and then others are: sessions end.
const SHIFT: i64 = 16;
/// How many keys are busy at a time, of which some are busy for longer.
const BUSY: u64 = 60;
const KEYS: u64 = 2_000;
/// One row in so many is of one key, whose session lasts from the first row to the last.
const HOT: usize = 20;
const BEGIN: i64 = 1_000_000;

const FIXED: i64 = 10;
const SLIDING: i64 = 12;
const PERIOD: i64 = 4;
const GAP: i64 = 5;

/// The outputs: name and windowing.
pub(super) const OUTPUTS: [(&str, &str); 3] = [
    ("fixed", "{type: fixed, size: 10s}"),
    ("sliding", "{type: sliding, size: 12s, period: 4s}"),
    ("sessions", "{type: sessions, gap: 5s}"),
];

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Row {
    key: u32,
    at: i64,
    value: i64,
}

/// One row of an output: a window of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Pane {
    key: u32,
    rows: i64,
    sum: i64,
    first: i64,
    last: i64,
}

impl Pane {
    const fn empty(key: u32) -> Self {
        Self { key, rows: 0, sum: 0, first: i64::MAX, last: i64::MIN }
    }

    fn add(&mut self, row: Row) {
        self.rows += 1;
        self.sum += row.value;
        self.first = self.first.min(row.at);
        self.last = self.last.max(row.at);
    }
}

/// How many keys are busy at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keys {
    Few,
    /// Each of them always is, but sessions end all the same.
    All,
}

/// The input on the disk, and the panes of each output in order.
pub(super) struct Input {
    pub(super) rows: usize,
    pub(super) expected: [Vec<Pane>; 3],
}

impl Input {
    /// Writes so many rows into files of this directory.
    pub(super) fn write(directory: &Path, rows: usize, seed: u64) -> anyhow::Result<Self> {
        Self::of(Keys::Few, directory, rows, seed)
    }

    /// The same with so many keys that are busy.
    pub(super) fn of(keys: Keys, directory: &Path, rows: usize, seed: u64) -> anyhow::Result<Self> {
        let mut rng = Rng::new(seed);
        let mut all = Vec::with_capacity(rows);
        for file in 0..FILES {
            let begin = all.len();
            let count = rows * (FILES + file) / (FILES * (3 * FILES - 1) / 2);
            let mut now = BEGIN;
            for _ in 0..count {
                now += i64::from(rng.one_in(PACE));
                all.push(row(now, keys, &mut rng));
            }
            let path = directory.join(format!("in-{file}.json"));
            let write = |rows: &[Row]| {
                let mut out = std::io::BufWriter::new(std::fs::File::create(&path)?);
                for Row { key, at, value } in rows {
                    writeln!(out, r#"{{"at":{at},"key":"k{key}","value":{value}}}"#)?;
                }
                out.flush()
            };
            write(&all[begin..]).with_context(|| format!("cannot write {}", path.display()))?;
        }
        let rows = all.len();
        all.sort_unstable();
        Ok(Self { rows, expected: [fixed(&all), sliding(&all), sessions(&all)] })
    }

    /// Whether outputs are what they have to be.
    ///
    /// # Errors
    /// Names the first rows that are lost, doubled or wrong.
    pub(super) fn check(&self, outputs: &[Vec<u8>; 3]) -> anyhow::Result<()> {
        for (((name, _), output), expected) in OUTPUTS.iter().zip(outputs).zip(&self.expected) {
            let difference = compare(output, expected)?;
            ensure!(difference.first.is_empty(), "{name}: {:?}", difference.first);
        }
        Ok(())
    }
}

fn row(now: i64, keys: Keys, rng: &mut Rng) -> Row {
    let at = now - i64::try_from(rng.below(DISORDER + 1)).unwrap_or_default();
    let busy = rng.below(match keys {
        Keys::Few => BUSY,
        Keys::All => KEYS,
    });
    let busy = u64::try_from(now / SHIFT * 37).unwrap_or_default() + busy;
    let key = if rng.one_in(HOT) { 0 } else { u32::try_from(1 + busy % KEYS).unwrap_or_default() };
    Row { key, at, value: i64::try_from(rng.below(2_001)).unwrap_or_default() - 1_000 }
}

fn fixed(rows: &[Row]) -> Vec<Pane> {
    in_windows(rows, |at| std::iter::once(at - at.rem_euclid(FIXED)))
}

fn sliding(rows: &[Row]) -> Vec<Pane> {
    in_windows(rows, |at| (at - SLIDING + 1..=at).filter(|start| start.rem_euclid(PERIOD) == 0))
}

fn in_windows<I: Iterator<Item = i64>>(rows: &[Row], windows: impl Fn(i64) -> I) -> Vec<Pane> {
    let mut panes = HashMap::new();
    for row in rows {
        for start in windows(row.at) {
            panes.entry((row.key, start)).or_insert(Pane::empty(row.key)).add(*row);
        }
    }
    sorted(panes.into_values().collect())
}

/// The rows are in the order of keys and times.
fn sessions(rows: &[Row]) -> Vec<Pane> {
    let mut panes: Vec<Pane> = Vec::new();
    for row in rows {
        match panes.last_mut() {
            Some(pane) if pane.key == row.key && row.at - pane.last < GAP => pane.add(*row),
            _ => {
                let mut pane = Pane::empty(row.key);
                pane.add(*row);
                panes.push(pane);
            }
        }
    }
    sorted(panes)
}

fn sorted(mut panes: Vec<Pane>) -> Vec<Pane> {
    panes.sort_unstable();
    panes
}

/// The Pipeline over the input in one directory, which writes into another.
pub(super) fn document(input: &Path, output: &Path) -> String {
    let mut text = format!(
        "pipeline:\n  transforms:\n\
         \x20   - type: ReadFromJson\n      name: Read\n\
         \x20     config: {{path: '{}/in-*.json', watermark: {{timestamp: at, max_delay: 20s}}}}\n",
        input.display()
    );
    for (name, windowing) in OUTPUTS {
        write!(
            text,
            "    - type: Combine\n      name: {name}\n      input: Read\n      windowing: {windowing}\n      config:\n\
             \x20       group_by: key\n        combine:\n\
             \x20         rows: {{value: value, fn: count}}\n          sum: {{value: value, fn: sum}}\n\
             \x20         first: {{value: at, fn: min}}\n          last: {{value: at, fn: max}}\n\
             \x20   - {{type: WriteToJson, name: write-{name}, input: {name}, config: {{path: '{}/{name}'}}}}\n",
            output.display()
        )
        .expect("a string takes everything");
    }
    text
}

/// The bytes of the outputs that are in a directory, in which nothing else may be.
pub(super) fn read_outputs(directory: &Path) -> anyhow::Result<[Vec<u8>; 3]> {
    let names = OUTPUTS.map(|(name, _)| format!("{name}-00000-of-00001"));
    let entries = std::fs::read_dir(directory).with_context(|| format!("no {}", directory.display()))?;
    let mut found = entries
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<anyhow::Result<Vec<_>>>()?;
    found.sort_unstable();
    let mut wanted = names.to_vec();
    wanted.sort_unstable();
    ensure!(found == wanted, "in {} are {found:?}", directory.display());
    let [one, two, three] = names.map(|name| std::fs::read(directory.join(name)));
    Ok([one?, two?, three?])
}

/// How an output differs from what it has to be, in the first rows of each kind.
#[derive(Debug, Default)]
pub(super) struct Difference {
    pub(super) lost: usize,
    pub(super) surplus: usize,
    pub(super) first: Vec<String>,
}

/// Compares an output as a multiset of rows.
pub(super) fn compare(output: &[u8], expected: &[Pane]) -> anyhow::Result<Difference> {
    const SHOWN: usize = 5;
    let lines = output.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let found = sorted(lines.map(pane).collect::<anyhow::Result<_>>()?);
    let (mut found, mut expected) = (found.iter().peekable(), expected.iter().peekable());
    let mut difference = Difference::default();
    while found.peek().is_some() || expected.peek().is_some() {
        let surplus = match (found.peek(), expected.peek()) {
            (Some(found), Some(expected)) if found == expected => None,
            (Some(found), Some(expected)) => Some(found < expected),
            (found, _) => Some(found.is_some()),
        };
        let (count, what, pane) = match surplus {
            None => {
                found.next();
                expected.next();
                continue;
            }
            Some(true) => (&mut difference.surplus, "doubled or wrong", found.next()),
            Some(false) => (&mut difference.lost, "lost", expected.next()),
        };
        *count += 1;
        if *count <= SHOWN {
            difference.first.push(format!("{what}: {pane:?}"));
        }
    }
    Ok(difference)
}

fn pane(line: &[u8]) -> anyhow::Result<Pane> {
    let text = || String::from_utf8_lossy(line).into_owned();
    let row: serde_json::Value = serde_json::from_slice(line).with_context(text)?;
    let number = |name: &str| row[name].as_i64().with_context(|| format!("no {name} in {}", text()));
    let key = row["key"].as_str().and_then(|key| key.strip_prefix('k')?.parse().ok());
    ensure!(row.as_object().is_some_and(|row| row.len() == 5), "other columns in {}", text());
    Ok(Pane {
        key: key.with_context(text)?,
        rows: number("rows")?,
        sum: number("sum")?,
        first: number("first")?,
        last: number("last")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn panes(panes: &[Pane]) -> Vec<(i64, i64, i64)> {
        panes.iter().map(|pane| (pane.rows, pane.first, pane.last)).collect()
    }

    #[test]
    fn the_oracle_knows_windows_and_a_gap_that_is_just_long_enough() {
        let rows: Vec<Row> = [0, 4, 9, 13].map(|at| Row { key: 1, at, value: 1 }).to_vec();
        assert_eq!(panes(&fixed(&rows)), [(1, 13, 13), (3, 0, 9)]);
        assert_eq!(panes(&sessions(&rows)), [(2, 0, 4), (2, 9, 13)]);
        // Those that start at -8, -4, 0, 4, 8 and 12.
        assert_eq!(
            panes(&sliding(&rows)),
            [(1, 0, 0), (1, 13, 13), (2, 0, 4), (2, 9, 13), (3, 0, 9), (3, 4, 13)]
        );
    }

    #[test]
    fn a_row_that_is_lost_and_one_that_is_doubled_are_told_apart() {
        let pane = |rows| Pane { key: 7, rows, sum: 1, first: 2, last: 3 };
        let line = |rows| format!("{{\"key\":\"k7\",\"rows\":{rows},\"sum\":1,\"first\":2,\"last\":3}}\n");
        let expected = [pane(1), pane(2), pane(3)];
        let said = |rows: &[i64]| {
            let text: String = rows.iter().copied().map(line).collect();
            let difference = compare(text.as_bytes(), &expected).unwrap();
            (difference.lost, difference.surplus)
        };
        assert_eq!(said(&[3, 1, 2]), (0, 0));
        assert_eq!(said(&[3, 1, 2, 2]), (0, 1));
        assert_eq!(said(&[3, 2]), (1, 0));
        assert_eq!(said(&[3, 1, 4]), (1, 1));
    }
}
