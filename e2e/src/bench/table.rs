//! The table that a person pastes into a note.

use anyhow::Context;

use super::servers::Side;
use crate::command::output;

/// What of a sample is shown.
pub(super) type Pick<S> = fn(&S) -> f64;

/// One figure for each side; none where it has no meaning.
pub(super) struct Figures(pub(super) Vec<Option<f64>>);

/// Figures row by row, printed as they come, in Markdown.
pub(super) struct Table {
    sides: Vec<Side>,
}

impl Table {
    pub(super) fn begin(sides: &[Side]) -> anyhow::Result<Self> {
        println!("{}\n", machine()?);
        Ok(Self { sides: sides.to_vec() })
    }

    /// A part of its own, measured as `how` says.
    pub(super) fn part(&mut self, how: &str) -> anyhow::Result<()> {
        let load = std::fs::read_to_string("/proc/loadavg").context("cannot read the machine's load")?;
        let load = load.split_whitespace().next().unwrap_or_default();
        println!("\n{how}. The machine's load before: {load}.\n");
        let mut head = String::from("| |");
        let mut line = String::from("|---|");
        for side in &self.sides {
            head += &format!(" {} |", side.name());
            line += "---|";
        }
        for other in self.others() {
            head += &format!(" {:?}/{other:?} |", self.sides[0]);
            line += "---|";
        }
        println!("{head}\n{line}");
        Ok(())
    }

    /// What the first side is compared with.
    fn others(&self) -> impl Iterator<Item = Side> {
        self.sides.iter().skip(1).copied()
    }

    pub(super) fn row(&mut self, name: &str, figures: Figures) {
        println!("{}", row(name, &figures.0));
    }
}

fn row(name: &str, figures: &[Option<f64>]) -> String {
    let first = figures.first().copied().flatten();
    let ratio = |figure: &Option<f64>| match (first, figure) {
        (Some(first), Some(figure)) if *figure > 0.0 => format!("{:.2}", first / figure),
        _ => "–".to_owned(),
    };
    let cells = figures.iter().map(|figure| figure.map_or_else(|| "–".to_owned(), rounded));
    let cells: Vec<String> = cells.chain(figures.iter().skip(1).map(ratio)).collect();
    format!("| {name} | {} |", cells.join(" | "))
}

/// Three digits, or all before the point, in groups of three.
fn rounded(figure: f64) -> String {
    if !figure.is_finite() {
        return "–".to_owned();
    }
    let text = match figure.abs() {
        size if size < 10.0 => format!("{figure:.2}"),
        size if size < 100.0 => format!("{figure:.1}"),
        _ => format!("{figure:.0}"),
    };
    let (whole, rest) = text.split_at(text.find('.').unwrap_or(text.len()));
    let digits: Vec<char> = whole.chars().collect();
    let groups: Vec<String> = digits.rchunks(3).rev().map(|group| group.iter().collect()).collect();
    groups.join(",") + rest
}

/// Which machine this is, when, and what was asked for.
fn machine() -> anyhow::Result<String> {
    let read = |path: &str| std::fs::read_to_string(path).with_context(|| format!("cannot read {path}"));
    let cpus = read("/proc/cpuinfo")?;
    let cpu = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let cpu = cpu.map_or("unknown processor", |(_, name)| name);
    let cores = std::thread::available_parallelism().context("cannot count the cores")?;
    let memory = read("/proc/meminfo")?;
    let memory = memory.lines().find_map(|line| line.strip_prefix("MemTotal:")?.split_whitespace().next());
    let gibibytes = memory.and_then(|kib| kib.parse::<u64>().ok()).unwrap_or_default() >> 20;
    let kernel = read("/proc/sys/kernel/osrelease")?;
    let date = output(std::process::Command::new("date").args(["-u", "+%Y-%m-%d %H:%M UTC"]))?;
    let command: Vec<String> = std::env::args().skip(1).collect();
    Ok(format!(
        "{}, on {cores} cores of {cpu} that clients used too, {gibibytes} GiB, Linux {}: `{}`",
        date.trim(),
        kernel.trim(),
        command.join(" ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_a_figure_of_each_side_and_the_ratios_to_the_first() {
        assert_eq!(
            row("x", &[Some(1_234_567.8), Some(1000.0), None]),
            "| x | 1,234,568 | 1,000 | – | 1234.57 | – |"
        );
        assert_eq!(row("y", &[Some(0.256), Some(12.34), Some(0.0)]), "| y | 0.26 | 12.3 | 0.00 | 0.02 | – |");
        assert_eq!(row("z", &[None, Some(1.0)]), "| z | – | 1.00 | – |");
    }
}
