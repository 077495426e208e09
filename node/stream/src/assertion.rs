//! AssertEqual: the rows against those expected.
//!
//! Owns: the comparison: any order, null fields dropped, numbers by Python's equality.
//! Must not know: threads, batches.
//! Invariant: the comparison is of multisets.

use pharos_beam::expr::dynamic::equal;
use pharos_beam::schema::{Schema, Value};

use crate::column::{decode_any, encode_any};

/// A row as a map without its null fields, as tagged bytes.
#[must_use]
pub(crate) fn encode(schema: &Schema, row: Vec<Value>) -> Vec<u8> {
    let fields = schema.fields.iter().zip(row);
    let named = fields.map(|(field, value)| (field.name.clone(), value));
    encode_any(&Value::Map(named.filter(|(_, value)| *value != Value::Null).collect()))
}

/// Compares rows with those expected.
///
/// # Errors
/// If they differ: what is missing and what was not expected.
pub(crate) fn compare(expected: &[Value], rows: &[Vec<u8>]) -> Result<(), String> {
    let mut missing: Vec<Value> = expected.iter().map(without_nulls).collect();
    let mut unexpected = Vec::new();
    for row in rows {
        let row = decode_any(row).expect("this module wrote the tagged bytes");
        match missing.iter().position(|candidate| equal(candidate, &row)) {
            Some(found) => {
                missing.swap_remove(found);
            }
            None => unexpected.push(row),
        }
    }
    if missing.is_empty() && unexpected.is_empty() {
        return Ok(());
    }
    Err(format!(
        "the rows differ: expected but missing {}, not expected {}",
        show(&missing),
        show(&unexpected)
    ))
}

fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Map(entries) => {
            Value::Map(entries.iter().filter(|(_, value)| *value != Value::Null).cloned().collect())
        }
        other => other.clone(),
    }
}

fn show(rows: &[Value]) -> String {
    let shown = rows.iter().take(5).map(|row| {
        let mut out = String::new();
        crate::json::value(&pharos_beam::schema::Type::Any, row, &mut out);
        out
    });
    let more = if rows.len() > 5 { format!(" and {} more", rows.len() - 5) } else { String::new() };
    format!("[{}]{more}", shown.collect::<Vec<_>>().join(", "))
}
