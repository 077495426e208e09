//! The plan: what an engine runs.
//!
//! Owns the checked, typed, ordered form of a pipeline and its version. Must not know YAML nor any
//! engine. Invariants: nodes are in topological order (`inputs` name earlier nodes), `id` is the
//! position in `nodes`, names are distinct, and two plans with the same [`Plan::hash`] do the same.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::expr::ir::Expr;
use crate::schema::{Micros, Schema, Type, Value};

/// The version this crate writes, and the only one it reads.
pub const PLAN_VERSION: u32 = 1;

/// The number of key groups, fixed in a plan because state is stored by them.
pub const KEY_GROUPS: u32 = 1024;

/// A pipeline ready to run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// [`PLAN_VERSION`] of the writer.
    pub version: u32,
    /// How many groups the keys are divided into.
    pub key_groups: u32,
    /// The steps, inputs before users.
    pub nodes: Vec<Node>,
}

/// What a plan is told from others by: SHA-256 of its canonical JSON, places in the source left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PlanHash(pub [u8; 32]);

impl fmt::Display for PlanHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Why a stored plan is not taken.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// The bytes are no plan.
    #[error("plan is malformed")]
    Malformed(#[from] serde_json::Error),
    /// It was written by another version.
    #[error("plan has version {found}, this reads version {PLAN_VERSION}")]
    Version {
        /// Its version.
        found: u64,
    },
}

impl Plan {
    /// The plan as JSON.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a plan's maps have text for keys")
    }

    /// Reads a plan; one of another version is refused by that name.
    pub fn from_json(bytes: &[u8]) -> Result<Plan, PlanError> {
        #[derive(Deserialize)]
        struct Versioned {
            version: u64,
        }
        let Versioned { version } = serde_json::from_slice(bytes)?;
        if version != u64::from(PLAN_VERSION) {
            return Err(PlanError::Version { found: version });
        }
        Ok(serde_json::from_slice(bytes)?)
    }

    /// The same for plans that do the same, wherever their transforms stand in the source.
    #[must_use]
    pub fn hash(&self) -> PlanHash {
        let mut placeless = self.clone();
        for node in &mut placeless.nodes {
            node.span = SourceSpan::default();
        }
        PlanHash(Sha256::digest(placeless.to_json()).into())
    }

    /// The node.
    #[must_use]
    pub fn node(&self, id: NodeId) -> Option<&Node> {
        self.nodes.get(id.0 as usize)
    }
}

/// The position of a node in its plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NodeId(pub u32);

/// One output of one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct OutputRef {
    /// The node.
    pub node: NodeId,
    /// The position in its `outputs`.
    pub output: u32,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// Its position.
    pub id: NodeId,
    /// What state is keyed by: names from the outermost composite inwards, joined by `/`. A
    /// transform without an explicit name goes by its type, with `#2`, `#3` for later ones of the
    /// same type in the same composite; never by line.
    pub name: String,
    /// What it does.
    pub kind: NodeKind,
    /// What it reads, in the order the kind expects.
    pub inputs: Vec<OutputRef>,
    /// What it yields: `outputs[0]` is the result; writes and AssertEqual have none.
    pub outputs: Vec<Output>,
    /// The position in `outputs` of the dead letters, if asked for. Without it a row error fails
    /// the pipeline. Their rows are [`error_schema`]; window and timestamp are those of the input row.
    pub error_output: Option<u32>,
    /// Where it stands in the source. No part of the hash.
    pub span: SourceSpan,
}

/// A collection of rows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Output {
    /// `output`, or the name that `error_handling` gives.
    pub name: String,
    /// The rows' fields.
    pub schema: Schema,
    /// How its rows are windowed.
    pub windowing: Windowing,
    /// Whether it ends.
    pub bounded: bool,
}

/// A place in the source, 1-based, columns in characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceSpan {
    /// The line.
    pub line: u32,
    /// The column.
    pub column: u32,
}

/// What a node does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeKind {
    /// Reads rows of `outputs[0].schema`.
    Read(ReadSpec),
    /// Yields these rows, of `outputs[0].schema`, at minus infinity in the global window.
    Create {
        /// The rows.
        rows: Vec<Vec<Value>>,
    },
    /// Computes one row from each: one expression for each field of `outputs[0].schema`.
    Map {
        /// The expressions, in the order of the output's fields.
        fields: Vec<Expr>,
    },
    /// Keeps the rows for which a boolean expression is true.
    Filter {
        /// The condition.
        keep: Expr,
    },
    /// One row for each element of list fields; null in a list field is a row error.
    Explode {
        /// The positions of the list fields, in the order given.
        fields: Vec<usize>,
        /// All combinations (the first field varies slowest), or element by element, the shorter
        /// lists filled with null.
        cross_product: bool,
    },
    /// All rows of all inputs.
    Flatten {
        /// For each input, one expression for each field of `outputs[0].schema`.
        projections: Vec<Vec<Expr>>,
    },
    /// Sets the event time. Never moves a watermark. Windows are assigned anew from the new time
    /// only by a later windowing.
    AssignTimestamps {
        /// A `Timestamp`.
        timestamp: Expr,
    },
    /// Assigns windows: those of `outputs[0].windowing`.
    WindowInto,
    /// Groups by keys and window, and aggregates. `outputs[0].schema` is keys, then aggregations.
    Combine {
        /// The positions of the key fields in the input; none: one group for each window, which
        /// yields a row only if there was one.
        keys: Vec<usize>,
        /// The aggregations.
        aggregations: Vec<Aggregation>,
    },
    /// The rows of a Join: of each group of left and right rows, as a Combine gathered them in its last two fields, the
    /// pairs of a left and a right one. If one of the group's first `keys` fields is null, it has none.
    Join {
        /// How many key fields come before the two arrays of rows.
        keys: usize,
        /// Of which sides those rows stay, with null for the other side, that are in no pair.
        outer: Outer,
        /// Where each field of `outputs[0].schema` comes from.
        fields: Vec<JoinField>,
    },
    /// Passes rows on and logs each as one JSON object.
    Log {
        /// The level.
        level: LogLevel,
        /// Text before each row.
        prefix: String,
    },
    /// Fails the pipeline at the end of input unless the rows are these, in any order, null fields
    /// dropped before comparing (as Beam does), numbers by Python's equality.
    AssertEqual {
        /// The rows expected, as maps from field to value.
        elements: Vec<Value>,
    },
    /// Writes rows.
    Write(WriteSpec),
}

/// A side of a Join.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// What was there before.
    Left,
    /// The input that is joined with it.
    Right,
}

/// Of which sides of a Join those rows stay that agree with none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outer {
    /// Of none: an inner join.
    None,
    /// Of the left one.
    Left,
    /// Of the right one.
    Right,
    /// Of both.
    Both,
}

impl Outer {
    /// Whether rows of that side stay.
    #[must_use]
    pub fn keeps(self, side: Side) -> bool {
        matches!((self, side), (Self::Both, _) | (Self::Left, Side::Left) | (Self::Right, Side::Right))
    }
}

/// Where a field of a Join's rows comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinField {
    /// From which side's row.
    pub side: Side,
    /// Its position there.
    pub position: usize,
}

/// A read. A path may be a glob.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReadSpec {
    /// File name, glob, or object URL.
    pub path: String,
    /// How the bytes become rows.
    pub format: ReadFormat,
    /// The declared fields; `None`: sampled from the data when the plan is compiled (always `Some`
    /// in a plan).
    pub schema: Option<Schema>,
    /// Event time and watermark; `None`: rows at minus infinity, and the watermark holds there
    /// until the end of input.
    pub watermark: Option<WatermarkSpec>,
    /// Whether the input ends. All reads of this version do.
    pub bounded: bool,
}

/// How a read's bytes become rows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReadFormat {
    /// One row `line: string` for each line.
    Text,
    /// A header line, then one row for each record.
    Csv {
        /// The delimiter, one ASCII character.
        delimiter: char,
        /// A character that begins a comment.
        comment: Option<char>,
        /// A field that receives the file's name.
        filename_column: Option<String>,
    },
    /// One JSON object on each line.
    Json,
    /// Apache Parquet.
    Parquet,
}

/// How a read tells the time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WatermarkSpec {
    /// The event time of a row: a `Timestamp`, over the read's schema. A row for which it fails is
    /// an error row of the read.
    pub timestamp: Expr,
    /// How far the watermark stays behind the highest event time.
    pub max_delay: Micros,
    /// After how long a silence, once caught up, the split leaves the minimum.
    pub idle_after: Option<Micros>,
}

/// A write.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriteSpec {
    /// The path; shards add to it.
    pub path: String,
    /// How rows become bytes.
    pub format: WriteFormat,
    /// The number of files; `None`: as many as suits.
    pub shards: Option<u32>,
}

/// How a write's rows become bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WriteFormat {
    /// The only field, a line for each row.
    Text,
    /// A header, then a record for each row.
    Csv {
        /// The delimiter.
        delimiter: char,
    },
    /// One JSON object on each line.
    Json,
}

/// A level of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogLevel {
    /// ERROR
    Error,
    /// INFO
    Info,
    /// DEBUG
    Debug,
}

/// One aggregation of a Combine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Aggregation {
    /// The field of the result.
    pub name: String,
    /// What it computes.
    pub function: AggregateFunction,
    /// The value it takes from each row; its `ty` is the input type.
    pub value: Expr,
    /// The type of the result.
    pub output: Type,
}

/// What an aggregation computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AggregateFunction {
    /// Sum of `Int64` (overflow fails) or `Float64`; same type.
    Sum,
    /// The largest, of an ordered type; same type.
    Max,
    /// The smallest.
    Min,
    /// Mean of numbers, as `Float64`.
    Mean,
    /// How many rows, as `Int64`, null values counted.
    Count,
    /// Whether any is true (`Boolean` input).
    Any,
    /// Whether all are true.
    All,
    /// The values, as an array, in any order.
    Group,
    /// The concatenation of array values, in any order.
    Concat,
    /// The values that are not null, as an array, in any order. No document names it: Joins are made of it.
    Present,
}

/// How rows are windowed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Windowing {
    /// Which windows.
    pub function: WindowFunction,
    /// When panes fire.
    pub trigger: Trigger,
    /// How long after its end a window takes late rows.
    pub allowed_lateness: Micros,
    /// The time of a pane.
    pub timestamp_combiner: TimestampCombiner,
    /// What later panes hold.
    pub accumulation: Accumulation,
}

/// Which windows a row belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WindowFunction {
    /// One for all time.
    Global,
    /// `[start, start + size)`, start = offset modulo size.
    Fixed {
        /// Length.
        size: Micros,
        /// Shift, in `[0, size)`.
        offset: Micros,
    },
    /// One of `size` every `period`.
    Sliding {
        /// Length.
        size: Micros,
        /// Distance between starts.
        period: Micros,
        /// Shift, in `[0, period)`.
        offset: Micros,
    },
    /// Windows that end `gap` after the last row of a key.
    Sessions {
        /// The gap.
        gap: Micros,
    },
}

/// When panes fire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trigger {
    /// At the end of the window, and for each late bundle.
    Default,
}

/// The event time of a pane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimestampCombiner {
    /// The window's last instant.
    EndOfWindow,
    /// The earliest of its rows.
    Earliest,
    /// The latest of its rows.
    Latest,
}

/// What a later pane of a window holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Accumulation {
    /// What came since the last.
    Discarding,
    /// Everything.
    Accumulating,
}

impl Default for Windowing {
    /// Beam's default, which every source starts with.
    fn default() -> Self {
        Windowing {
            function: WindowFunction::Global,
            trigger: Trigger::Default,
            allowed_lateness: Micros(0),
            timestamp_combiner: TimestampCombiner::EndOfWindow,
            accumulation: Accumulation::Discarding,
        }
    }
}

/// The schema of dead letters for rows of this schema. A read's `element` is a string: the record
/// as it stood in the file.
#[must_use]
pub fn error_schema(element: Type) -> Schema {
    Schema::new([("element", element), ("msg", Type::String), ("stack", Type::String)])
}
