//! The typed expression tree that an engine evaluates over columns.
//!
//! Owns the operators and what each means. Must not know the languages it comes from. Invariants:
//! every node carries its type; every conversion is an explicit [`ExprKind::Cast`]; operands of a
//! typed operator have exactly the type it names and are never nullable, unless the operator says
//! otherwise.
//!
//! Evaluation yields a value and, per row, an optional error. An error of a row whose value is not
//! asked for does not count: the branch of an [`ExprKind::If`] that is not taken, what follows the
//! operand that settles an [`ExprKind::And`] or [`ExprKind::Or`]. When several parts of a row fail, the first in Python's order of evaluation
//! (left to right) is the row's error. [`crate::expr::eval`] is the reference for one row.

use serde::{Deserialize, Serialize};

use crate::schema::{Type, Value};

/// A typed expression over one input row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Expr {
    /// The type of the result.
    #[serde(rename = "type")]
    pub ty: Type,
    /// What to compute.
    pub kind: ExprKind,
}

impl Expr {
    /// What it is made of.
    pub fn parts(&self) -> Vec<&Expr> {
        match &self.kind {
            ExprKind::Field(_) | ExprKind::Literal(_) => Vec::new(),
            ExprKind::Member { row: value, .. }
            | ExprKind::Cast { value, .. }
            | ExprKind::Negate(value)
            | ExprKind::Not(value)
            | ExprKind::IsNull(value)
            | ExprKind::Truthy(value) => vec![value],
            ExprKind::Arithmetic { left, right, .. } | ExprKind::Compare { left, right, .. } => {
                vec![left, right]
            }
            ExprKind::If { condition, then, otherwise } => vec![condition, then, otherwise],
            ExprKind::And(parts)
            | ExprKind::Or(parts)
            | ExprKind::MakeArray(parts)
            | ExprKind::MakeRow(parts)
            | ExprKind::Call { args: parts, .. }
            | ExprKind::Dynamic { args: parts, .. } => parts.iter().collect(),
        }
    }

    /// Whether it, or something that it is made of, looks at the input row's field at this position.
    #[must_use]
    pub fn uses(&self, position: usize) -> bool {
        matches!(self.kind, ExprKind::Field(field) if field == position)
            || self.parts().iter().any(|part| part.uses(position))
    }
}

/// What an expression computes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExprKind {
    /// The input row's field at this position.
    Field(usize),
    /// A constant.
    Literal(Value),
    /// A field of a nested row: null when the row is null (only if `ty` is nullable).
    Member {
        /// The nested row.
        row: Box<Expr>,
        /// The position of the field in it.
        field: usize,
    },
    /// An explicit conversion.
    Cast {
        /// How.
        cast: Cast,
        /// Of what.
        value: Box<Expr>,
    },
    /// `-x`; `Int64` (overflow of the minimum is a row error) or `Float64`.
    Negate(Box<Expr>),
    /// `not x` of a boolean.
    Not(Box<Expr>),
    /// Whether the value is null; of any type.
    IsNull(Box<Expr>),
    /// Python's truth of a value of any type: false for null, false, 0, 0.0, empty text, bytes,
    /// lists, maps; NaN, rows and timestamps are true.
    Truthy(Box<Expr>),
    /// Arithmetic on two numbers of one type.
    Arithmetic {
        /// The operator.
        op: ArithmeticOp,
        /// Left operand.
        left: Box<Expr>,
        /// Right operand.
        right: Box<Expr>,
    },
    /// Comparison; boolean, never null. For `Equal` and `NotEqual` both operands may be nullable
    /// (null equals null only) and of any one type, `Any` included (then with Python's equality:
    /// 1 == 1.0 == True). The ordering operators take two equal types out of `Boolean` (false
    /// before true), `Int64`, `Float64` (false with NaN), `String` (by code point), `Bytes`,
    /// `Timestamp`.
    Compare {
        /// The operator.
        op: CompareOp,
        /// Left operand.
        left: Box<Expr>,
        /// Right operand.
        right: Box<Expr>,
    },
    /// Whether all are true; booleans, evaluated left to right until one is false.
    And(Vec<Expr>),
    /// Whether any is true; booleans, evaluated left to right until one is true.
    Or(Vec<Expr>),
    /// `then if condition else otherwise`; the branches have this expression's type.
    If {
        /// A boolean.
        condition: Box<Expr>,
        /// The value where it is true.
        then: Box<Expr>,
        /// The value where it is false.
        otherwise: Box<Expr>,
    },
    /// A built-in function of typed arguments.
    Call {
        /// The function.
        function: Function,
        /// Its arguments, as the function's documentation lists them.
        args: Vec<Expr>,
    },
    /// A list of values of the element type of this expression's `Array`.
    MakeArray(Vec<Expr>),
    /// A nested row of these values, in the order of the fields of this expression's `Row`.
    MakeRow(Vec<Expr>),
    /// An operator on values whose types are known only row by row; see
    /// [`crate::expr::eval::dynamic`].
    Dynamic {
        /// The operator.
        op: DynamicOp,
        /// One or two operands of type `Any`.
        args: Vec<Expr>,
    },
}

/// A Python operator on `Any` operands. The result is `Any`, or `Boolean` for comparisons. Operands
/// that Python refuses (null among them) are row errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DynamicOp {
    /// Two numbers, texts or lists for `+`; numbers for the others (and `text * n`).
    Arithmetic(ArithmeticOp),
    /// `<`, `<=`, `>`, `>=`; equality is [`ExprKind::Compare`].
    Compare(CompareOp),
    /// `-x`
    Negate,
    /// `abs(x)`
    Abs,
    /// `container[index]`
    Index,
    /// `len(x)`
    Length,
    /// `element in container`
    Contains,
}

/// An explicit conversion. All but `Wrap`, `Assume` and `ToAny` map null to a row error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cast {
    /// Non-null to nullable of the same type.
    Wrap,
    /// Nullable to non-null: null is a row error ("unsupported operand: None").
    Assume,
    /// Any type to `Any`.
    ToAny,
    /// `Any` to the type of the expression: a value of another type is a row error. Integers and
    /// booleans pass as `Float64`, booleans as `Int64` (as in Python); null passes if it is nullable.
    FromAny,
    /// `Boolean` to `Int64`.
    BoolToInt,
    /// `Int64` to `Float64`, to the nearest.
    IntToFloat,
    /// `Int64` seconds to `Timestamp`; beyond the range of microseconds is a row error.
    IntSecondsToTimestamp,
    /// `Float64` seconds to `Timestamp`, as Beam's `Timestamp.of`: truncated to microseconds; NaN,
    /// infinities and what is beyond the range are row errors.
    FloatSecondsToTimestamp,
    /// `String` to `Timestamp`, as [`crate::expr::time::parse`].
    TextToTimestamp,
    /// Element by element, for `Array`, `Map` and `Row` whose parts differ in type: every part is
    /// converted to the target's part as by the casts above (`Wrap`, `ToAny`, a missing row field is null).
    Structural,
}

/// Arithmetic on `Int64` (overflow is a row error) or `Float64`, both sides alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ArithmeticOp {
    /// `+`
    Add,
    /// `-`
    Subtract,
    /// `*`
    Multiply,
    /// `/`, on `Float64` only; division by zero is a row error, as in Python.
    Divide,
    /// `//`: rounds to negative infinity; division by zero is a row error.
    FloorDivide,
    /// `%`: the sign of the divisor; division by zero is a row error.
    Modulo,
    /// `**`; on `Int64` a negative exponent is a row error; on `Float64` a negative base with a
    /// fractional exponent, zero to a negative power, and overflow are row errors.
    Power,
}

/// A comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CompareOp {
    /// `==`
    Equal,
    /// `!=`
    NotEqual,
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
}

/// A built-in function. Text positions count code points. `?` marks an argument that may be the
/// literal null, meaning "not given".
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Function {
    /// `(String) -> String`
    Upper,
    /// `(String) -> String`
    Lower,
    /// `(String) -> String`: each word's first letter upper case, the others lower, as `str.title`.
    Title,
    /// `(String) -> String`, as `str.capitalize`.
    Capitalize,
    /// `(String, String? characters) -> String`; white space when not given.
    Strip,
    /// `(String, String? characters) -> String`
    StripStart,
    /// `(String, String? characters) -> String`
    StripEnd,
    /// `(String, String) -> Boolean`
    StartsWith,
    /// `(String, String) -> Boolean`
    EndsWith,
    /// `(String, String old, String new, Int64? count) -> String`
    Replace,
    /// `(String, String? separator, Int64? most) -> Array(String)`; an empty separator is a row error.
    Split,
    /// `(String separator, Array(String)) -> String`
    Join,
    /// `(String, String) -> Int64`, -1 when absent.
    Find,
    /// `(String, String) -> Int64`: occurrences that do not overlap.
    Count,
    /// `(String needle, String) -> Boolean`: `needle in text`.
    ContainsText,
    /// `(T, Array(T)) -> Boolean`: `value in list`, by `Compare`'s equality.
    ContainsElement,
    /// `(String, Map) -> Boolean`: `key in map`.
    ContainsKey,
    /// `(String...) -> String`: all, one after the other.
    Concat,
    /// `(Array(T), Array(T)) -> Array(T)`
    ConcatArray,
    /// `(String, Int64) -> String`: `text * n`, empty when n <= 0; longer than 1 MiB is a row error.
    Repeat,
    /// `(String | Bytes | Array | Map) -> Int64`
    Length,
    /// `(String, Int64) -> String`, one code point, negative from the end; outside is a row error.
    TextAt,
    /// `(Array(T), Int64) -> T`, likewise.
    ElementAt,
    /// `(Map(T), String) -> T`; an absent key is a row error.
    ValueAt,
    /// `(String, Int64? start, Int64? stop, Int64? step) -> String`, Python's slice; a step of 0 is a row error.
    SliceText,
    /// `(Array(T), Int64? start, Int64? stop, Int64? step) -> Array(T)`
    SliceArray,
    /// `(any type) -> String`, as `str`: `None`, `True`, `1.0`, `1e+16`, `['a', 1]`.
    ToText,
    /// `(String) -> Int64`, as `int`: white space around, sign, `_` between digits; else a row error.
    ParseInt,
    /// `(String) -> Float64`, as `float`, with `nan`, `inf`.
    ParseFloat,
    /// `(Float64) -> Int64`: truncated; NaN, infinities and what is outside the range are row errors.
    Truncate,
    /// `(Any) -> Int64`, as `int` of whatever it holds; null and lists are row errors.
    AnyToInt,
    /// `(Any) -> Float64`, as `float` of whatever it holds.
    AnyToFloat,
    /// `(Float64) -> Int64`: half to even.
    Round,
    /// `(Float64, Int64 digits) -> Float64`, correctly rounded on the decimal value, as `round`.
    RoundDigits,
    /// `(Int64, Int64 digits) -> Int64`: negative digits round to tens, half to even.
    RoundIntDigits,
    /// `(Int64 | Float64) -> same`
    Abs,
    /// `(T, T...) -> T` of an ordered type: the first of the smallest.
    Min,
    /// `(T, T...) -> T`: the first of the largest.
    Max,
    /// `(Array(T)) -> T`; an empty list is a row error.
    MinOf,
    /// `(Array(T)) -> T`
    MaxOf,
    /// `(Array(Int64 | Float64)) -> same`; 0 when empty.
    SumOf,
    /// `(Int64 | Float64 | String | Boolean, literal String) -> String`: a format specification
    /// `[[fill]align][sign][0][width][,][.precision][type]` with type one of `s d f e g %`.
    Format,
}
