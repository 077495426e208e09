//! Windowing specifications and durations.
//!
//! Owns their keys. Must not know where they stand. Invariant: sizes, periods and gaps are positive,
//! offsets lie in `[0, size)`.

use crate::config::{Context, Entries};
use crate::plan::{Accumulation, TimestampCombiner, Trigger, WindowFunction, Windowing};
use crate::schema::Micros;
use crate::yaml::{Data, Scalar, Yaml};

const COMMON: [&str; 5] = ["type", "trigger", "accumulation", "allowed_lateness", "timestamp_combiner"];

/// Reads a specification: a map, or a string that holds one.
pub(crate) fn parse(cx: &Context<'_>, yaml: &Yaml) -> Option<Windowing> {
    if let Some(text) = yaml.as_str() {
        return parse_text(cx, yaml, text);
    }
    let spec = cx.map(yaml, "`windowing`")?;
    let ty = spec.required(cx, "type", yaml.span, "`windowing`")?;
    let name = cx.text(ty, "the type of the windowing")?;
    let own: &[&str] = match name {
        "global" => &[],
        "fixed" => &["size", "offset"],
        "sliding" => &["size", "period", "offset"],
        "sessions" => &["gap"],
        other => {
            let error = cx.at(ty.span, format!("unknown window type `{other}`"));
            let error = error.suggest(other, ["global", "fixed", "sliding", "sessions"]);
            cx.report(if error.suggestion().is_none() {
                error.with_help("the types are global, fixed, sliding, sessions")
            } else {
                error
            });
            return None;
        }
    };
    let known: Vec<&str> = COMMON.iter().chain(own).copied().collect();
    spec.only(cx, &known, &format!("{name} windows"));
    let function = function(cx, spec, name, yaml);
    let rest = common(cx, spec);
    let function = function?;
    rest.map(|rest| Windowing { function, ..rest })
}

/// Beam takes the specification as YAML or JSON text too; errors in it point at the whole text.
fn parse_text(cx: &Context<'_>, yaml: &Yaml, text: &str) -> Option<Windowing> {
    let source = crate::diagnostic::Source::new(text, crate::diagnostic::SourceName::new("windowing"));
    let found = match crate::yaml::parse(&source) {
        Err(error) => vec![*error],
        Ok(inner) => {
            let inside = Context::new(source);
            match &inner.data {
                Data::Map(_) => {
                    if let Some(windowing) = parse(&inside, &inner) {
                        return Some(windowing);
                    }
                }
                _ => inside.error(inner.span, "`windowing` must be a map"),
            }
            inside.into_found()
        }
    };
    for error in found {
        let outer = cx.at(yaml.span, error.message()).with_suggestion(error.suggestion().map(str::to_owned));
        cx.report(outer);
    }
    None
}

fn function(cx: &Context<'_>, spec: Entries<'_>, name: &str, yaml: &Yaml) -> Option<WindowFunction> {
    let what = format!("{name} windows");
    let positive = |key: &str| {
        let value = spec.required(cx, key, yaml.span, &what)?;
        let length = duration(cx, value, key)?;
        if length.0 <= 0 {
            cx.error(value.span, format!("`{key}` must be positive"));
            return None;
        }
        Some(length)
    };
    let offset = |modulus: Micros| match spec.get("offset") {
        None => Some(Micros(0)),
        Some(value) => duration(cx, value, "offset").map(|offset| Micros(offset.0.rem_euclid(modulus.0))),
    };
    match name {
        "global" => Some(WindowFunction::Global),
        "fixed" => {
            let size = positive("size")?;
            Some(WindowFunction::Fixed { size, offset: offset(size)? })
        }
        "sliding" => {
            let (size, period) = (positive("size"), positive("period"));
            let (size, period) = (size?, period?);
            Some(WindowFunction::Sliding { size, period, offset: offset(period)? })
        }
        _ => positive("gap").map(|gap| WindowFunction::Sessions { gap }),
    }
}

fn common(cx: &Context<'_>, spec: Entries<'_>) -> Option<Windowing> {
    let default = Windowing::default();
    let lateness = match spec.get("allowed_lateness") {
        None => Some(default.allowed_lateness),
        Some(value) => duration(cx, value, "allowed_lateness").filter(|lateness| {
            if lateness.0 < 0 {
                cx.error(value.span, "`allowed_lateness` must not be negative");
            }
            lateness.0 >= 0
        }),
    };
    let combiners = [
        ("end_of_window", TimestampCombiner::EndOfWindow),
        ("earliest", TimestampCombiner::Earliest),
        ("latest", TimestampCombiner::Latest),
    ];
    let combiner = choice(cx, spec, "timestamp_combiner", &combiners, default.timestamp_combiner);
    let modes = [("discarding", Accumulation::Discarding), ("accumulating", Accumulation::Accumulating)];
    let accumulation = choice(cx, spec, "accumulation", &modes, default.accumulation);
    let trigger = trigger(cx, spec);
    Some(Windowing {
        allowed_lateness: lateness?,
        timestamp_combiner: combiner?,
        accumulation: accumulation?,
        trigger: trigger?,
        ..default
    })
}

fn trigger(cx: &Context<'_>, spec: Entries<'_>) -> Option<Trigger> {
    let Some(value) = spec.get("trigger") else { return Some(Trigger::Default) };
    let default = match &value.data {
        Data::Scalar(Scalar::String(name)) => name == "default",
        Data::Map(entries) => matches!(entries.as_slice(), [(key, _)] if key.name() == "default"),
        _ => false,
    };
    if default {
        return Some(Trigger::Default);
    }
    cx.error(value.span, "triggers other than `default` are not supported yet");
    None
}

fn choice<T: Copy>(
    cx: &Context<'_>,
    spec: Entries<'_>,
    key: &str,
    choices: &[(&str, T)],
    default: T,
) -> Option<T> {
    let Some(value) = spec.get(key) else { return Some(default) };
    let name = cx.text(value, &format!("`{key}`"))?;
    if let Some((_, found)) = choices.iter().find(|(known, _)| *known == name) {
        return Some(*found);
    }
    let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
    let error = cx.at(value.span, format!("unknown {key} `{name}`")).suggest(name, names.iter().copied());
    cx.report(if error.suggestion().is_none() {
        error.with_help(format!("one of {}", names.join(", ")))
    } else {
        error
    });
    None
}

/// A length of time: a number with a unit `ms s m h d`, seconds without one. A day has 86,400 seconds.
pub(crate) fn duration(cx: &Context<'_>, yaml: &Yaml, what: &str) -> Option<Micros> {
    let text = match &yaml.data {
        Data::Scalar(
            scalar @ (Scalar::String(_) | Scalar::Int(_) | Scalar::BigInt(_) | Scalar::Float(_)),
        ) => scalar.python_str(),
        _ => {
            cx.error(yaml.span, format!("`{what}` must be a duration, not {}", yaml.kind()));
            return None;
        }
    };
    match parse_duration(&text) {
        Ok(length) => Some(length),
        Err(message) => {
            let error = cx.at(yaml.span, format!("`{what}`: {message}"));
            cx.report(error.with_help("a number and one of ms, s, m, h, d, as in `30s`"));
            None
        }
    }
}

fn parse_duration(text: &str) -> Result<Micros, String> {
    let unit_at = text.rfind(|c: char| c.is_ascii_digit()).map_or(0, |at| at + 1);
    // A number may end in its point.
    let unit_at = if text[unit_at..].starts_with('.') { unit_at + 1 } else { unit_at };
    let (number, unit) = text.split_at(unit_at);
    let micros = match unit {
        "ms" => 1e3,
        "" | "s" => 1e6,
        "m" => 60e6,
        "h" => 3_600e6,
        "d" => 86_400e6,
        _ if number.is_empty() => return Err(format!("`{text}` is no duration")),
        _ => return Err(format!("unknown unit `{unit}`")),
    };
    let valid = number.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'+' | b'e' | b'E'));
    let value: f64 = number.parse().ok().filter(|_| valid).ok_or(format!("`{text}` is no duration"))?;
    let length = (value * micros).round();
    if length.abs() > 9e18 {
        return Err(format!("`{text}` is too long"));
    }
    Ok(Micros(length as i64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_numbers_with_units() {
        let cases = [
            ("5", 5_000_000),
            ("1.5s", 1_500_000),
            ("250ms", 250_000),
            ("2m", 120_000_000),
            ("1h", 3_600_000_000),
            ("1d", 86_400_000_000),
            ("-3s", -3_000_000),
            ("1.s", 1_000_000),
        ];
        for (text, micros) in cases {
            assert_eq!(parse_duration(text), Ok(Micros(micros)), "{text}");
        }
        for text in ["", "s", "1 s", "1x", "abc", "1e300d", "--1s", "inf", "nan"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }
}
