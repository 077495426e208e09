//! One member of ours alone, with more values than there is memory for.
//!
//! Owns what is stored, how it is read, and what of the process is shown. The memory is limited by a control group, as a
//! container's is; the pages of files that the kernel caches count against it, and give way.

use std::ffi::OsString;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use pharos_jute::{AclRef, Create, OpCode, PathWatch, Request, Response};

use crate::local::LocalEnsemble;
use crate::wire::Wire;

const VALUE: usize = 4096;
/// Directories that the znodes are spread over.
const DIRECTORIES: u64 = 256;
/// Requests on the way while the member is filled.
const WINDOW: u64 = 256;
/// A start reads everything that the store holds.
const RESTART: Duration = Duration::from_secs(600);

/// What [`values`] does.
#[derive(Clone, Copy, Debug)]
pub struct Values {
    /// GiB of values.
    pub gib: u64,
    /// The limit of the member's memory, in MiB.
    pub memory_mib: u64,
    /// How long each load is measured.
    pub load: Duration,
}

/// Fills a member with values of 4 KiB that do not compress, reads them by chance, restarts it, reads again. Every value
/// that is read is compared with what was written.
///
/// # Errors
/// If the member does not do its work, or there is no control group to limit it.
pub fn values(options: Values) -> anyhow::Result<()> {
    let Values { gib, memory_mib, load } = options;
    let group = Group::create(memory_mib << 20)?;
    let mut member = LocalEnsemble::found_one_under(group.starter())?;
    let shape = Shape { count: (gib << 30) / VALUE as u64 };
    println!(
        "one member, {} values of {VALUE} bytes, {gib} GiB, in {memory_mib} MiB of memory\n",
        shape.count
    );
    let address = member.address(0)?;
    let begun = Instant::now();
    fill(address, shape)?;
    let took = begun.elapsed();
    println!(
        "{:<28}{:>10.1} s, {:.0} writes/s",
        "filled",
        took.as_secs_f64(),
        shape.count as f64 / took.as_secs_f64()
    );
    show_memory(&member, &group)?;
    show_reads(address, shape, load)?;
    show_disk(&member)?;
    restart(&mut member)?;
    show_memory(&member, &group)?;
    show_reads(address, shape, load)?;
    show_memory(&member, &group)
}

/// What is stored.
#[derive(Clone, Copy)]
struct Shape {
    count: u64,
}

impl Shape {
    /// Three levels of names above each znode, the same for every `DIRECTORIES`th.
    fn directory(index: u64) -> String {
        format!("/of/the/directory-{:03}", index % DIRECTORIES)
    }

    fn path(index: u64) -> String {
        format!("{}/znode-{index:018}", Self::directory(index))
    }

    /// Bytes by chance, the same for an index at any time.
    fn value(index: u64) -> Vec<u8> {
        let mut word = index.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut bytes = Vec::with_capacity(VALUE + 8);
        while bytes.len() < VALUE {
            word = next(word);
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        bytes.truncate(VALUE);
        bytes
    }
}

fn next(mut word: u64) -> u64 {
    word ^= word << 13;
    word ^= word >> 7;
    word ^ word << 17
}

fn create(wire: &mut Wire, xid: i32, path: &str, data: &[u8]) {
    let acl = vec![AclRef { perms: 31, scheme: Some("world"), id: Some("anyone") }];
    wire.ask(xid, &Request::Create(Create { path: Some(path), data: Some(data), acl: Some(acl), flags: 0 }));
}

fn fill(address: SocketAddr, shape: Shape) -> anyhow::Result<()> {
    let mut wire = Wire::open(address)?;
    let mut made = 0;
    for path in
        ["/of", "/of/the"].map(str::to_owned).into_iter().chain((0..DIRECTORIES).map(Shape::directory))
    {
        made += 1;
        create(&mut wire, made, &path, b"");
        wire.answered(made).with_context(|| path)?;
    }
    let mut answered = 0;
    for index in 0..shape.count {
        create(&mut wire, number(index), &Shape::path(index), &Shape::value(index));
        if index - answered >= WINDOW {
            wire.flush()?;
            // Half of the window at once, so that both sides have work.
            while index - answered >= WINDOW / 2 {
                wire.answered(number(answered))?;
                answered += 1;
            }
        }
    }
    wire.flush()?;
    (answered..shape.count).try_for_each(|index| wire.answered(number(index)).map(drop))
}

fn number(index: u64) -> i32 {
    i32::try_from(index + 1).unwrap_or(i32::MAX)
}

/// By how many connections, and among how many of the values.
const LOADS: [(&str, u64, u64); 3] = [
    ("any value, 1 connection", 1, 1),
    ("any value, 16 connections", 16, 1),
    ("one in 50, 16 connections", 16, 50),
];

fn show_reads(address: SocketAddr, shape: Shape, length: Duration) -> anyhow::Result<()> {
    for (name, connections, share) in LOADS {
        let among = Shape { count: (shape.count / share).max(1) };
        let mut latencies = std::thread::scope(|scope| {
            let readers: Vec<_> = (0..connections)
                .map(|seed| scope.spawn(move || read(address, among, seed + 1, length)))
                .collect();
            let each = readers.into_iter().map(|reader| reader.join().expect("a reader does not panic"));
            each.collect::<anyhow::Result<Vec<_>>>().map(|all| all.concat())
        })?;
        latencies.sort_unstable();
        let at = |share: f64| {
            latencies.get((latencies.len() as f64 * share) as usize).copied().unwrap_or_default()
        };
        println!(
            "{name:<28}{:>10.0} reads/s, p50 {} µs, p99 {} µs, longest {} ms",
            latencies.len() as f64 / length.as_secs_f64(),
            at(0.5),
            at(0.99),
            latencies.last().copied().unwrap_or_default() / 1000
        );
    }
    Ok(())
}

/// Latencies in µs, one request after the other.
fn read(address: SocketAddr, shape: Shape, seed: u64, length: Duration) -> anyhow::Result<Vec<u32>> {
    let mut wire = Wire::open(address)?;
    let (mut word, mut latencies, end) = (next(seed << 32 | 0x5eed), Vec::new(), Instant::now() + length);
    while Instant::now() < end {
        word = next(word);
        let index = word % shape.count;
        let (path, begun) = (Shape::path(index), Instant::now());
        let xid = number(latencies.len() as u64);
        wire.ask(xid, &Request::GetData(PathWatch { path: Some(&path), watch: false }));
        let body = wire.answered(xid)?;
        latencies.push(u32::try_from(begun.elapsed().as_micros()).unwrap_or(u32::MAX));
        let response = Response::decode(OpCode::GetData, body).context("cannot read an answer")?;
        let Response::Data { data, .. } = response else { anyhow::bail!("{path}: {response:?}") };
        ensure!(data.unwrap_or_default() == Shape::value(index), "{path} holds another value");
    }
    Ok(latencies)
}

fn restart(member: &mut LocalEnsemble) -> anyhow::Result<()> {
    member.kill(0)?;
    let begun = Instant::now();
    member.start(0)?;
    member.wait_serving_for(0, RESTART)?;
    println!("{:<28}{:>10.1} s", "\nrestarted", begun.elapsed().as_secs_f64());
    Ok(())
}

fn show_memory(member: &LocalEnsemble, group: &Group) -> anyhow::Result<()> {
    let pid = member.pid(0).context("the member runs")?;
    let status =
        fs::read_to_string(format!("/proc/{pid}/status")).context("cannot read a process's status")?;
    let mib = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap_or_default() / 1024
    };
    print!("{:<28}{:>10} MiB now, {} MiB at most", "resident", mib("VmRSS:"), mib("VmHWM:"));
    match group.peak() {
        Some(peak) => println!(", {} MiB with cached files", peak >> 20),
        None => println!(),
    }
    Ok(())
}

fn show_disk(member: &LocalEnsemble) -> anyhow::Result<()> {
    let state = member.directory.path().join("0/state");
    println!("{:<28}{:>10} MiB, log {} MiB", "store", tree_bytes(&state)? >> 20, member.log_bytes(0)? >> 20);
    Ok(())
}

fn tree_bytes(dir: &Path) -> anyhow::Result<u64> {
    let entries = fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))?;
    // Files may go while they are counted.
    Ok(entries.flatten().filter_map(|entry| entry.metadata().ok()).map(|data| data.len()).sum())
}

/// A control group that limits the memory of what is started in it. Removed when this is dropped.
struct Group {
    path: PathBuf,
    v2: bool,
}

impl Group {
    fn create(limit: u64) -> anyhow::Result<Self> {
        let root = Path::new("/sys/fs/cgroup");
        let v2 = root.join("cgroup.controllers").exists();
        let name = format!("pharos-bench-{}", std::process::id());
        let path = if v2 { root.join(name) } else { root.join("memory").join(name) };
        if v2 {
            fs::write(root.join("cgroup.subtree_control"), "+memory")
                .context("cannot limit memory; root can")?;
        }
        fs::create_dir(&path).with_context(|| format!("cannot make {}; root can", path.display()))?;
        let this = Self { path, v2 };
        let file = if v2 { "memory.max" } else { "memory.limit_in_bytes" };
        fs::write(this.path.join(file), limit.to_string()).context("cannot limit memory")?;
        Ok(this)
    }

    /// Puts itself into the group and becomes the program.
    fn starter(&self) -> Vec<OsString> {
        let script = "echo $$ > \"$0\" && exec \"$@\"";
        let procs = self.path.join("cgroup.procs");
        vec!["sh".into(), "-c".into(), script.into(), procs.into()]
    }

    fn peak(&self) -> Option<u64> {
        let file = if self.v2 { "memory.peak" } else { "memory.max_usage_in_bytes" };
        fs::read_to_string(self.path.join(file)).ok()?.trim().parse().ok()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Killed processes leave their group a moment later.
        let gone = || Ok(fs::remove_dir(&self.path).ok());
        if let Err(error) =
            crate::command::wait_until("the end of a control group", Duration::from_secs(20), gone)
        {
            eprintln!("{}: {error}", self.path.display());
        }
    }
}
