//! Rows per CPU-second of the exchange, by the size of batches, and what of that is the connection.
//!
//! `./x bench exchange` builds it for speed. Numbers for people, never assertions.

use std::time::Duration;

use pharos_stream::measure::{Way, exchange};

const ROWS: usize = 8_000_000;
const ROUNDS: usize = 3;

/// User and system time of this process, in the hundredths of a second that Linux counts in.
fn cpu_time() -> Duration {
    let text = std::fs::read_to_string("/proc/self/stat").expect("a process has times");
    let (_, fields) = text.rsplit_once(") ").expect("a process has a name");
    let ticks =
        fields.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<u64>().expect("a number"));
    Duration::from_millis(ticks.sum::<u64>() * 10)
}

fn main() -> std::io::Result<()> {
    println!("{:<24}{:>22}{:>22}", "rows in a batch", "threads, rows/CPU-s", "workers, rows/CPU-s");
    for size in [64, 1_024, 8_192] {
        print!("{size:<24}");
        for way in [Way::Threads, Way::Workers] {
            let mut rates = Vec::new();
            for _ in 0..ROUNDS {
                let before = cpu_time();
                let counted = exchange(way, ROWS, size)?;
                assert_eq!(counted as usize, ROWS.div_ceil(size) * size, "all rows arrive");
                rates.push(counted as f64 / (cpu_time() - before).as_secs_f64());
            }
            rates.sort_by(f64::total_cmp);
            print!("{:>22.0}", rates[ROUNDS / 2]);
        }
        println!();
    }
    Ok(())
}
