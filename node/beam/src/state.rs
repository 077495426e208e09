//! What state a pipeline keeps, by transform, and whether another one can take it over.
//!
//! Owns the description of state, version 1, and the comparison of two. Must not know how state is kept, nor
//! where. Invariants: a description has everything on which the meaning of kept state depends, and nothing
//! else; whoever is compared with himself takes everything over; what is gone, or means something else, is
//! refused by the transform's name.
//!
//! Transforms without state (maps, filters, windowings, logs, assertions) are not in it, so they may come, go and change.
//! What a transform computes from its input may change too: only its name says that it is still the same.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::plan::{
    AggregateFunction, Node, NodeKind, OutputRef, Plan, ReadFormat, ReadSpec, TimestampCombiner,
    WindowFunction, Windowing, WriteFormat, WriteSpec,
};
use crate::schema::{Field, Micros, Schema, Type};

/// The version that this crate writes, and the only one it reads.
pub const STATE_VERSION: u32 = 1;

/// The state of a pipeline, by the full names of the transforms that keep some.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateSchema {
    /// [`STATE_VERSION`] of the writer.
    pub version: u32,
    /// What is known of types.
    pub types: Types,
    /// What each transform keeps.
    pub transforms: BTreeMap<String, TransformState>,
}

/// What is known of types.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Types {
    /// All.
    Known,
    /// What the document alone says: `any` may stand for a type that only the data tells.
    Declared,
}

/// What a transform keeps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TransformState {
    /// How far each split was read, and its highest event time.
    Read(ReadState),
    /// That its rows are out.
    Create {
        /// SHA-256 of the rows.
        rows: String,
    },
    /// Accumulators by key and window.
    Combine(CombineState),
    /// What was written and is not visible yet.
    Write(WriteState),
}

/// What the offsets and event times of a read depend on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadState {
    /// The path.
    pub path: String,
    /// How bytes become records.
    pub format: ReadFormat,
    /// Where event times come from.
    pub event_time: EventTime,
    /// The fields of its rows, if they are known. They may change with the document, but see
    /// [`StateSchema::has_input_of`].
    pub schema: Option<Schema>,
}

/// Where the event times of a read come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventTime {
    /// There are none: its rows are at minus infinity.
    None,
    /// An expression.
    Of {
        /// The fields that it uses.
        fields: Vec<String>,
        /// The expression in JSON, fields by their names.
        expression: String,
    },
    /// An expression over fields that only the data tells.
    Unknown,
}

/// What the accumulators of a Combine depend on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CombineState {
    /// The key fields, in order.
    pub keys: Vec<Field>,
    /// The aggregations, in order.
    pub aggregations: Vec<AggregationState>,
    /// Its windows.
    pub windowing: Windowing,
    /// Whether an earlier grouping gives its rows their windows.
    pub windows_given: bool,
}

/// What an accumulator depends on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AggregationState {
    /// The field of the result.
    pub name: String,
    /// What is computed.
    pub function: AggregateFunction,
    /// Of what type.
    pub input: Type,
}

/// What an output in the making depends on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriteState {
    /// Where to, and how.
    pub spec: WriteSpec,
    /// The columns that the header of a CSV file names.
    pub header: Option<Vec<String>>,
}

/// What another pipeline takes over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TakeOver {
    /// The transforms that go on.
    pub kept: Vec<String>,
    /// Those that begin without state.
    pub begun: Vec<String>,
}

/// One thing that stands in the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The transform.
    pub transform: String,
    /// What differs.
    pub what: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "transform `{}`: {}", self.transform, self.what)
    }
}

/// Why state cannot be taken over: at least one difference, by transform.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", differences.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
pub struct Incompatible {
    /// What differs.
    pub differences: Vec<Difference>,
}

impl StateSchema {
    /// What a plan keeps.
    #[must_use]
    pub fn of(plan: &Plan) -> Self {
        Self::of_nodes(&plan.nodes, Types::Known)
    }

    pub(crate) fn of_nodes(nodes: &[Node], types: Types) -> Self {
        let state = |node: &Node| Some((node.name.clone(), transform_state(nodes, node)?));
        Self { version: STATE_VERSION, types, transforms: nodes.iter().filter_map(state).collect() }
    }

    /// What a pipeline that keeps `after` takes over from this one.
    ///
    /// # Errors
    /// Everything that stands in the way.
    pub fn taken_over_by(&self, after: &Self) -> Result<TakeOver, Incompatible> {
        let mut take_over = TakeOver::default();
        let mut found = Found { differences: Vec::new(), types: self.types.and(after.types) };
        for (name, before) in &self.transforms {
            match after.transforms.get(name) {
                Some(now) => found.compare(name, before, now),
                None => found.add(name, format!("is gone, with {}", before.holds())),
            }
            take_over.kept.push(name.clone());
        }
        let begun = after.transforms.keys().filter(|name| !self.transforms.contains_key(*name));
        take_over.begun = begun.cloned().collect();
        let Found { differences, .. } = found;
        if differences.is_empty() { Ok(take_over) } else { Err(Incompatible { differences }) }
    }
}

impl StateSchema {
    /// Whether the reads of both have the same fields. If they do not although the document is the same, its
    /// input was found to be another one.
    #[must_use]
    pub fn has_input_of(&self, other: &Self) -> bool {
        let fields = |of: &Self| -> BTreeMap<String, Option<Schema>> {
            let reads = of.transforms.iter().filter_map(|(name, state)| match state {
                TransformState::Read(read) => Some((name.clone(), read.schema.clone())),
                _ => None,
            });
            reads.collect()
        };
        fields(self) == fields(other)
    }
}

impl Types {
    fn and(self, other: Self) -> Self {
        if self == Self::Known { other } else { self }
    }

    /// Whether both may be the same type.
    fn agree(self, one: &Type, other: &Type) -> bool {
        one == other || (self == Self::Declared && (is_open(one) || is_open(other)))
    }
}

/// Whether the data may tell more of a type.
fn is_open(ty: &Type) -> bool {
    match ty {
        Type::Any => true,
        Type::Nullable(inner) | Type::Array(inner) | Type::Map(inner) => is_open(inner),
        Type::Row(schema) => schema.fields.iter().any(|field| is_open(&field.ty)),
        _ => false,
    }
}

fn transform_state(nodes: &[Node], node: &Node) -> Option<TransformState> {
    Some(match &node.kind {
        NodeKind::Read(spec) => TransformState::Read(read_state(spec)),
        NodeKind::Create { rows } => {
            let rows = serde_json::to_vec(rows).expect("values become JSON");
            let digest = Sha256::digest(rows);
            TransformState::Create { rows: digest.iter().map(|byte| format!("{byte:02x}")).collect() }
        }
        NodeKind::Combine { aggregations, .. } => {
            let input = node.inputs[0];
            let fields = &node.outputs[0].schema.fields;
            TransformState::Combine(CombineState {
                // The result is keys, then aggregations.
                keys: fields[..fields.len().saturating_sub(aggregations.len())].to_vec(),
                aggregations: aggregations
                    .iter()
                    .map(|one| AggregationState {
                        name: one.name.clone(),
                        function: one.function,
                        input: one.value.ty.clone(),
                    })
                    .collect(),
                windowing: nodes[input.node.0 as usize].outputs[input.output as usize].windowing.clone(),
                windows_given: windows_are_given(nodes, input),
            })
        }
        NodeKind::Write(spec) => {
            let input = node.inputs[0];
            let schema = &nodes[input.node.0 as usize].outputs[input.output as usize].schema;
            let header = matches!(spec.format, WriteFormat::Csv { .. });
            let header = header.then(|| schema.names().map(str::to_owned).collect());
            TransformState::Write(WriteState { spec: spec.clone(), header })
        }
        _ => return None,
    })
}

/// Whether the windows of an output's rows are those that a grouping gave them.
#[must_use]
pub fn windows_are_given(nodes: &[Node], output: OutputRef) -> bool {
    let node = &nodes[output.node.0 as usize];
    match node.kind {
        NodeKind::Combine { .. } => true,
        NodeKind::WindowInto | NodeKind::Read(_) | NodeKind::Create { .. } => false,
        _ => node.inputs.iter().any(|input| windows_are_given(nodes, *input)),
    }
}

fn read_state(spec: &ReadSpec) -> ReadState {
    let event_time = match (&spec.watermark, &spec.schema) {
        (None, _) => EventTime::None,
        (Some(_), None) => EventTime::Unknown,
        (Some(watermark), Some(schema)) => {
            let mut json = serde_json::to_value(&watermark.timestamp).expect("an expression becomes JSON");
            let mut fields = Vec::new();
            name_fields(&mut json, schema, &mut fields);
            EventTime::Of { fields, expression: json.to_string() }
        }
    };
    ReadState {
        path: spec.path.clone(),
        format: spec.format.clone(),
        event_time,
        schema: spec.schema.clone(),
    }
}

/// Puts the names of fields in the place of their positions, which change when others come and go.
fn name_fields(json: &mut serde_json::Value, schema: &Schema, found: &mut Vec<String>) {
    use serde_json::Value;
    match json {
        Value::Object(entries) => {
            let alone = entries.len() == 1;
            for (key, value) in entries {
                let position = value.as_u64().filter(|_| alone && key == "field");
                let field = position.and_then(|position| schema.fields.get(usize::try_from(position).ok()?));
                match field {
                    Some(field) => {
                        found.push(field.name.clone());
                        *value = Value::String(field.name.clone());
                    }
                    None => name_fields(value, schema, found),
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(|value| name_fields(value, schema, found)),
        _ => {}
    }
}

impl TransformState {
    fn is(&self) -> &'static str {
        match self {
            Self::Read(_) => "a read",
            Self::Create { .. } => "a Create",
            Self::Combine(_) => "a Combine",
            Self::Write(_) => "a write",
        }
    }

    fn holds(&self) -> &'static str {
        match self {
            Self::Read(_) => "how far it has read",
            Self::Create { .. } => "the note that its rows are out",
            Self::Combine(_) => "what it has gathered",
            Self::Write(_) => "what it has written and is not visible yet",
        }
    }
}

/// What was found so far.
struct Found {
    differences: Vec<Difference>,
    types: Types,
}

impl Found {
    fn add(&mut self, transform: &str, what: String) {
        self.differences.push(Difference { transform: transform.to_owned(), what });
    }

    fn changed<T: PartialEq>(&mut self, name: &str, what: &str, of: (&T, &T), show: impl Fn(&T) -> String) {
        let (before, now) = of;
        if before != now {
            self.add(name, format!("{what} was {}, is {}", show(before), show(now)));
        }
    }

    fn compare(&mut self, name: &str, before: &TransformState, now: &TransformState) {
        match (before, now) {
            (TransformState::Read(before), TransformState::Read(now)) => self.reads(name, before, now),
            (TransformState::Create { rows: before }, TransformState::Create { rows: now }) => {
                if before != now {
                    self.add(name, "its rows are out, and are others now".to_owned());
                }
            }
            (TransformState::Combine(before), TransformState::Combine(now)) => {
                self.combines(name, before, now)
            }
            (TransformState::Write(before), TransformState::Write(now)) => self.writes(name, before, now),
            (before, now) => self.add(name, format!("was {}, is {}", before.is(), now.is())),
        }
    }

    fn reads(&mut self, name: &str, before: &ReadState, now: &ReadState) {
        self.changed(name, "its path", (&before.path, &now.path), quoted);
        self.changed(name, "its format", (&before.format, &now.format), read_format);
        let times = (&before.event_time, &now.event_time);
        let unknown = times.0 == &EventTime::Unknown || times.1 == &EventTime::Unknown;
        let either_none = times.0 == &EventTime::None || times.1 == &EventTime::None;
        match times {
            (EventTime::Of { fields, expression }, EventTime::Of { fields: same, expression: other })
                if fields == same =>
            {
                if expression != other {
                    self.add(name, format!("its event time is computed otherwise from {}", listed(fields)));
                }
            }
            _ if unknown && !either_none => {}
            times => self.changed(name, "its event time", times, event_time),
        }
    }

    fn combines(&mut self, name: &str, before: &CombineState, now: &CombineState) {
        let names = |keys: &Vec<Field>| keys.iter().map(|key| key.name.clone()).collect::<Vec<_>>();
        self.changed(name, "its key", (&names(&before.keys), &names(&now.keys)), |names| listed(names));
        for (before, now) in before.keys.iter().zip(&now.keys).filter(|(one, other)| one.name == other.name) {
            if !self.types.agree(&before.ty, &now.ty) {
                self.add(name, format!("key field `{}` was {}, is {}", before.name, before.ty, now.ty));
            }
        }
        self.aggregations(name, &before.aggregations, &now.aggregations);
        let (old, new) = (&before.windowing, &now.windowing);
        self.changed(name, "window", (&old.function, &new.function), window);
        let lateness = (&old.allowed_lateness, &new.allowed_lateness);
        self.changed(name, "allowed lateness", lateness, |span| span_text(*span));
        let combiner = (&old.timestamp_combiner, &new.timestamp_combiner);
        self.changed(name, "timestamp of results", combiner, |combiner| {
            timestamp_combiner(*combiner).to_owned()
        });
        let panes = (&old.accumulation, &new.accumulation);
        self.changed(name, "accumulation", panes, |mode| format!("{mode:?}").to_lowercase());
        let given = (&before.windows_given, &now.windows_given);
        self.changed(name, "the origin of its windows", given, |given| {
            if *given { "an earlier grouping" } else { "its windowing" }.to_owned()
        });
    }

    fn aggregations(&mut self, name: &str, before: &[AggregationState], now: &[AggregationState]) {
        let names = |all: &[AggregationState]| all.iter().map(|one| one.name.clone()).collect::<Vec<_>>();
        if names(before) != names(now) {
            let (before, now) = (listed(&names(before)), listed(&names(now)));
            return self.add(name, format!("its aggregations were {before}, are {now}"));
        }
        for (before, now) in before.iter().zip(now) {
            if (before.function, now.function) == (AggregateFunction::Present, AggregateFunction::Present) {
                if !self.types.agree(&before.input, &now.input) {
                    let (side, was, is) = (&before.name, before.input.non_null(), now.input.non_null());
                    self.add(name, format!("what it keeps of its {side} input was {was}, is {is}"));
                }
            } else if before.function != now.function || !self.types.agree(&before.input, &now.input) {
                let show = |one: &AggregationState| {
                    format!("{} of {}", format!("{:?}", one.function).to_lowercase(), one.input)
                };
                let what = format!("aggregation `{}` was {}, is {}", before.name, show(before), show(now));
                self.add(name, what);
            }
        }
    }

    fn writes(&mut self, name: &str, before: &WriteState, now: &WriteState) {
        let (old, new) = (&before.spec, &now.spec);
        self.changed(name, "its path", (&old.path, &new.path), quoted);
        self.changed(name, "its format", (&old.format, &new.format), write_format);
        let shards = (&old.shards.unwrap_or(1).max(1), &new.shards.unwrap_or(1).max(1));
        self.changed(name, "its number of files", shards, u32::to_string);
        // What the document alone says of columns may be less than there are.
        if let (Types::Known, Some(before), Some(now)) = (self.types, &before.header, &now.header)
            && before != now
        {
            self.add(name, format!("its columns were {}, are {}", listed(before), listed(now)));
        }
    }
}

fn quoted(text: &String) -> String {
    format!("`{text}`")
}

fn listed(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.iter().map(quoted).collect::<Vec<_>>().join(", ") }
}

fn event_time(of: &EventTime) -> String {
    match of {
        EventTime::None => "none".to_owned(),
        EventTime::Unknown => "of a field".to_owned(),
        EventTime::Of { fields, .. } => format!("of {}", listed(fields)),
    }
}

fn read_format(format: &ReadFormat) -> String {
    match format {
        ReadFormat::Text => "text".to_owned(),
        ReadFormat::Json => "JSON".to_owned(),
        ReadFormat::Parquet => "Parquet".to_owned(),
        ReadFormat::Csv { delimiter, comment, .. } => {
            let comment =
                comment.map_or_else(String::new, |comment| format!(" with comments after {comment:?}"));
            format!("CSV by {delimiter:?}{comment}")
        }
    }
}

fn write_format(format: &WriteFormat) -> String {
    match format {
        WriteFormat::Text => "text".to_owned(),
        WriteFormat::Json => "JSON".to_owned(),
        WriteFormat::Csv { delimiter } => format!("CSV by {delimiter:?}"),
    }
}

fn window(function: &WindowFunction) -> String {
    let shifted = |offset: &Micros| {
        if offset.0 == 0 { String::new() } else { format!(" shifted by {}", span_text(*offset)) }
    };
    match function {
        WindowFunction::Global => "global".to_owned(),
        WindowFunction::Fixed { size, offset } => format!("fixed {}{}", span_text(*size), shifted(offset)),
        WindowFunction::Sliding { size, period, offset } => {
            format!("sliding {} every {}{}", span_text(*size), span_text(*period), shifted(offset))
        }
        WindowFunction::Sessions { gap } => format!("sessions with a gap of {}", span_text(*gap)),
    }
}

fn timestamp_combiner(combiner: TimestampCombiner) -> &'static str {
    match combiner {
        TimestampCombiner::EndOfWindow => "the end of the window",
        TimestampCombiner::Earliest => "that of the earliest row",
        TimestampCombiner::Latest => "that of the latest row",
    }
}

fn span_text(Micros(micros): Micros) -> String {
    if micros % 1_000_000 == 0 { format!("{} s", micros / 1_000_000) } else { format!("{micros} µs") }
}
