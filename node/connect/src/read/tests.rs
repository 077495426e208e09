//! Files that are divided, that change, and that differ.

use std::fs;
use std::ops::Range;
use std::path::Path;

use pharos_beam::schema::Type;
use pharos_stream::io::{ConnectError, Fault, Offset};
use proptest::prelude::*;

use super::*;
use crate::object::tests::Server;

/// The splits of a file of text, divided into stripes of this length.
fn splits(place: &Place, stripe: u64, lanes: u64) -> Vec<Box<dyn Split>> {
    let division = Division { whole: if stripe == 0 { u64::MAX } else { 0 }, stripe, lanes, all: 1024 };
    open(place, 1, &division, &ReadFormat::Text, &Schema::new([("line", Type::String)]), &[true]).unwrap()
}

fn local(directory: &Path, bytes: &[u8]) -> Place {
    fs::write(directory.join("in.txt"), bytes).unwrap();
    Place::parse("in.txt", directory).unwrap()
}

/// The texts of the next `records` records, which are rows or not, and whether the split ends with them.
fn next(split: &mut dyn Split, records: usize) -> Result<(Vec<String>, bool), ConnectError> {
    let read = split.read(records)?;
    let mut found: Vec<(String, String)> =
        read.positions.iter().map(|position| split.record(*position)).collect();
    found.extend(read.bad.into_iter().map(|bad| (bad.place, bad.text)));
    let byte = |place: &str| place.rsplit([' ', ':']).next().unwrap().parse::<u64>().unwrap();
    found.sort_by_key(|(place, _)| byte(place));
    Ok((found.into_iter().map(|(_, text)| text).collect(), read.end))
}

/// All records of a split from where it stands.
fn rest(split: &mut dyn Split, records: usize) -> Vec<String> {
    let mut all = Vec::new();
    loop {
        let before = split.done();
        let (texts, end) = next(split, records).unwrap();
        all.extend(texts);
        assert!(before <= split.done() && split.done() <= split.bytes().unwrap());
        if end {
            assert_eq!(Some(split.done()), split.bytes());
            return all;
        }
    }
}

/// The records of a file with the bytes at which they begin, as the file read whole gives them.
fn records(bytes: &[u8]) -> Vec<(u64, String)> {
    let mut start = 0;
    let mut records = Vec::new();
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        let text = line.strip_suffix(b"\n").unwrap_or(line);
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        records.push((start, String::from_utf8_lossy(text).into_owned()));
        start += line.len() as u64;
    }
    records
}

fn owned(records: &[(u64, String)], stripe: u64, lane: u64, lanes: u64) -> Vec<String> {
    let mine = |byte: u64| byte / stripe % lanes == lane;
    records.iter().filter(|(byte, _)| mine(*byte)).map(|(_, text)| text.clone()).collect()
}

/// Lines of any length, empty ones, with either line break, with or without the last one, after a byte order mark.
fn text() -> impl Strategy<Value = Vec<u8>> {
    let line = prop_oneof![4 => 0usize..6, 1 => 0usize..60];
    let lines = prop::collection::vec((line, any::<bool>()), 0..25);
    (lines, any::<bool>(), any::<bool>()).prop_map(|(lines, mark, last)| {
        let mut bytes = if mark { b"\xef\xbb\xbf".to_vec() } else { Vec::new() };
        for (at, (length, carriage)) in lines.into_iter().enumerate() {
            bytes.extend((0..length).map(|place| b'a' + ((at + place) % 26) as u8));
            bytes.extend(if carriage { &b"\r\n"[..] } else { b"\n" });
        }
        if last && bytes.ends_with(b"\n") {
            bytes.pop();
        }
        bytes
    })
}

proptest! {
    /// For every stripe: each split has the records that begin in its stripes, in their order, and so each
    /// record of the file is in one split, and its bytes are counted once.
    #[test]
    fn the_splits_together_have_the_records_of_the_file_once(bytes in text(), lanes in 1u64..6, at_once in 1usize..9) {
        let directory = tempfile::tempdir().unwrap();
        let place = local(directory.path(), &bytes);
        let expected = records(&bytes);
        let whole = rest(&mut *splits(&place, 0, 1)[0], at_once);
        prop_assert_eq!(&whole, &expected.iter().map(|(_, text)| text.clone()).collect::<Vec<_>>());
        for stripe in 1..=bytes.len() as u64 + 2 {
            let mut splits = splits(&place, stripe, lanes);
            let count = splits.len() as u64;
            for (lane, split) in splits.iter_mut().enumerate() {
                let mine = owned(&expected, stripe, lane as u64, count);
                prop_assert_eq!(rest(&mut **split, at_once), mine, "stripe {}, lane {}", stripe, lane);
            }
            let own: u64 = splits.iter().map(|split| split.bytes().unwrap()).sum();
            prop_assert_eq!(own, bytes.len() as u64);
        }
    }

    /// Wherever a split is left, another process that opens the file again goes on there.
    #[test]
    fn a_split_goes_on_where_it_was_left(bytes in text(), stripe in 1u64..50, lanes in 1u64..6) {
        let directory = tempfile::tempdir().unwrap();
        let place = local(directory.path(), &bytes);
        for (lane, split) in splits(&place, stripe, lanes).iter_mut().enumerate() {
            let mut read = Vec::new();
            loop {
                let mut again = splits(&place, stripe, lanes).swap_remove(lane);
                again.seek(split.offset(), Some(&split.version())).unwrap();
                prop_assert_eq!(again.done(), split.done());
                let left = rest(&mut *again, 3);
                let all: Vec<String> = read.iter().chain(&left).cloned().collect();
                let expected = owned(&records(&bytes), stripe, lane as u64, splits(&place, stripe, lanes).len() as u64);
                prop_assert_eq!(all, expected);
                let (texts, end) = next(&mut **split, 2).unwrap();
                read.extend(texts);
                if end {
                    break;
                }
            }
        }
    }
}

#[test]
fn an_object_is_divided_like_a_file_and_little_is_fetched_twice() {
    let server = Server::start();
    let text: String = (0..40_000).map(|line| format!("line {line:>20}\n")).collect();
    server.put("in.txt", text.as_bytes());
    let place = Place::Object { bucket: server.bucket(), key: "in.txt".to_owned() };
    let mut divided = splits(&place, 300_000, 3);
    let mut all: Vec<String> = divided.iter_mut().flat_map(|split| rest(&mut **split, 512)).collect();
    all.sort();
    assert_eq!(all, text.lines().map(str::to_owned).collect::<Vec<_>>());
    // Who reads it, one request for its version, and of each of the four stripes one for its bytes and one for the end
    // of the line that leaves it.
    let requests = server.held().requests.len();
    assert!((5..=9).contains(&requests), "{requests} requests");
}

#[test]
fn a_record_of_a_divided_file_is_named_by_its_byte_and_of_a_whole_one_by_its_line() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("in.json"), "{\"n\": 1}\n{\"n\": \"x\"}\n{\"n\": 3}\n").unwrap();
    let place = Place::parse("in.json", directory.path()).unwrap();
    let schema = Schema::new([("n", Type::Int64)]);
    for (whole, expected) in [(1000, "in.json:2"), (0, "in.json at byte 9")] {
        let division = Division { whole, stripe: 9, lanes: 4, all: 1024 };
        let mut bad = Vec::new();
        for mut split in open(&place, 1, &division, &ReadFormat::Json, &schema, &[true]).unwrap() {
            bad.extend(split.read(100).unwrap().bad);
        }
        assert_eq!(bad.len(), 1);
        assert!(bad[0].place.ends_with(expected), "{}", bad[0].place);
        assert!(bad[0].message.contains("field `n`: expected integer, found a string"), "{}", bad[0].message);
    }
}

#[test]
fn splits_of_one_file_have_different_names_and_a_whole_file_has_its_own() {
    let directory = tempfile::tempdir().unwrap();
    let place = local(directory.path(), b"a\nb\nc\n");
    assert_eq!(splits(&place, 0, 1)[0].name(), place.name());
    let names: Vec<String> = splits(&place, 2, 2).iter().map(|split| split.name().to_owned()).collect();
    assert_eq!(names, [format!("{}#0/2x2", place.name()), format!("{}#1/2x2", place.name())]);
}

/// Many lines of one length.
fn lines(count: Range<u32>) -> Vec<u8> {
    count.flat_map(|line| format!("line {line:>10}\n").into_bytes()).collect()
}

#[test]
fn a_file_that_is_cut_while_it_is_read_ends_the_run_by_name_instead_of_the_input() {
    let directory = tempfile::tempdir().unwrap();
    for stripe in [0, 200_000] {
        // Longer than what is read ahead.
        let place = local(directory.path(), &lines(0..60_000));
        let mut splits = splits(&place, stripe, 2);
        for split in &mut splits {
            next(&mut **split, 1).unwrap();
        }
        local(directory.path(), &lines(0..20));
        let read = |split: &mut Box<dyn Split>| (0..2000).find_map(|_| next(&mut **split, 100).err());
        let error = splits.iter_mut().find_map(read).unwrap();
        assert_eq!(error.fault, Fault::User);
        let said = "in.txt` had 960000 bytes and has 320 now: files must not change while they are read";
        assert!(error.message.contains(said), "{error}");
    }
}

#[test]
fn a_file_that_was_cut_since_the_checkpoint_is_refused_and_what_was_appended_is_not_read() {
    let directory = tempfile::tempdir().unwrap();
    let place = local(directory.path(), &lines(0..100));
    let mut split = splits(&place, 0, 1).remove(0);
    next(&mut *split, 10).unwrap();
    let (offset, version) = (split.offset(), split.version());
    local(directory.path(), &lines(0..150));
    let mut longer = splits(&place, 0, 1).remove(0);
    longer.seek(offset, Some(&version)).unwrap();
    assert_eq!(rest(&mut *longer, 7).len(), 90);
    // What an earlier build kept says nothing of the size, but it had read so far.
    for (length, version) in [(99, Some(&version)), (9, None)] {
        local(directory.path(), &lines(0..length));
        let error = splits(&place, 0, 1)[0].seek(offset, version).unwrap_err();
        assert_eq!(error.fault, Fault::User);
        assert!(error.message.contains(&format!("and has {} now", 16 * length)), "{error}");
    }
}

#[test]
fn an_object_that_is_replaced_while_it_is_read_or_since_the_checkpoint_is_refused() {
    let server = Server::start();
    let place = Place::Object { bucket: server.bucket(), key: "in.txt".to_owned() };
    server.put("in.txt", &lines(0..1000));
    let mut split = splits(&place, 4_000, 2).remove(0);
    next(&mut *split, 10).unwrap();
    let (offset, version) = (split.offset(), split.version());
    server.put("in.txt", &lines(1000..2000));
    let error = (0..1000).find_map(|_| next(&mut *split, 10).err()).unwrap();
    let mut again = splits(&place, 4_000, 2).remove(0);
    for error in [error, again.seek(offset, Some(&version)).unwrap_err()] {
        assert_eq!(error.fault, Fault::User);
        assert!(error.message.contains("in.txt` has been replaced: files must not change"), "{error}");
    }
    server.held().objects.clear();
    let error = open(&place, 1, &Division::USUAL, &ReadFormat::Text, &Schema::default(), &[]).err().unwrap();
    assert_eq!(error.message, "`s3://b/in.txt`: there is no such object");
}

#[test]
fn a_checkpoint_of_another_part_of_a_file_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let place = local(directory.path(), &lines(0..100));
    let error = splits(&place, 16, 2)[0].seek(Offset { byte: 16, line: 1 }, None).unwrap_err();
    assert!(error.message.contains("which is another part"), "{error}");
}

#[test]
fn a_csv_file_is_never_divided_and_one_with_other_columns_is_named_before_anything_is_read() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("a.csv"), "n,s\n1,\"two\nlines\"\n").unwrap();
    fs::write(directory.path().join("b.csv"), "n,t\n1,x\n").unwrap();
    fs::write(directory.path().join("c.csv"), "s,n\nx,y\n").unwrap();
    let format = ReadFormat::Csv { delimiter: ',', comment: None, filename_column: None };
    let schema = Schema::new([("n", Type::Int64), ("s", Type::String)]);
    let division = Division { whole: 0, stripe: 4, lanes: 4, all: 1024 };
    let opened = |name: &str| {
        open(&Place::parse(name, directory.path()).unwrap(), 3, &division, &format, &schema, &[true; 2])
    };
    let mut whole = opened("a.csv").unwrap();
    assert_eq!(whole.len(), 1);
    assert_eq!(whole[0].read(10).unwrap().rows, 1);
    let error = opened("b.csv").err().unwrap();
    assert_eq!(error.fault, Fault::User);
    assert!(error.message.contains("b.csv`:1: the header has no column `s`"), "{error}");
    // Columns in another order are the same; a cell of another type is told with its file, line and column.
    let bad = opened("c.csv").unwrap()[0].read(10).unwrap().bad;
    assert!(bad[0].place.ends_with("c.csv:2"), "{}", bad[0].place);
    assert_eq!(bad[0].message, "column `n`: expected integer, found `y`");
}
