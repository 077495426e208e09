//! Types, schemas and literal values of rows.
//!
//! Owns what a row may hold: Beam's schema types, as JSON Schema spells them in YAML. Must not know
//! how an engine lays columns out. Invariant: field names of one [`Schema`] are distinct, and
//! `Nullable` is never directly inside `Nullable` nor around `Any` (which holds null by itself).

use std::fmt;

use serde::{Deserialize, Serialize};

/// Microseconds: a point of event time since 1970-01-01T00:00:00Z, or a length of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Micros(pub i64);

impl Micros {
    /// One second.
    pub const SECOND: Micros = Micros(1_000_000);
}

/// The type of a value.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Type {
    /// `true` or `false`.
    Boolean,
    /// A signed 64-bit integer; results outside the range are row errors.
    Int64,
    /// An IEEE double.
    Float64,
    /// Unicode text.
    String,
    /// Bytes.
    Bytes,
    /// A point in event time, in microseconds since the epoch, UTC.
    Timestamp,
    /// The inner type, or null.
    Nullable(Box<Type>),
    /// A list of one element type.
    Array(Box<Type>),
    /// A map from strings to one value type.
    Map(Box<Type>),
    /// A nested row.
    Row(Schema),
    /// A value that carries its type with it, null included.
    Any,
}

impl Type {
    /// This type or null; `Any` and nullable types stay as they are.
    #[must_use]
    pub fn nullable(self) -> Type {
        match self {
            Type::Nullable(_) | Type::Any => self,
            other => Type::Nullable(Box::new(other)),
        }
    }

    /// The type without null.
    #[must_use]
    pub fn non_null(&self) -> &Type {
        match self {
            Type::Nullable(inner) => inner,
            other => other,
        }
    }

    /// Whether null is a value of this type.
    #[must_use]
    pub fn admits_null(&self) -> bool {
        matches!(self, Type::Nullable(_) | Type::Any)
    }

    /// The smallest type that holds the values of both. As in Beam's Flatten and Create, types that
    /// differ by more than null meet in `Any`.
    #[must_use]
    pub fn union(&self, other: &Type) -> Type {
        if self == other {
            return self.clone();
        }
        let null = self.admits_null() || other.admits_null();
        let joined = match (self.non_null(), other.non_null()) {
            (a, b) if a == b => a.clone(),
            (Type::Array(a), Type::Array(b)) => Type::Array(Box::new(a.union(b))),
            (Type::Map(a), Type::Map(b)) => Type::Map(Box::new(a.union(b))),
            (Type::Row(a), Type::Row(b)) => Type::Row(a.union(b)),
            _ => return Type::Any,
        };
        if null { joined.nullable() } else { joined }
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Type::Boolean => f.write_str("boolean"),
            Type::Int64 => f.write_str("integer"),
            Type::Float64 => f.write_str("number"),
            Type::String => f.write_str("string"),
            Type::Bytes => f.write_str("bytes"),
            Type::Timestamp => f.write_str("timestamp"),
            Type::Nullable(inner) => write!(f, "{inner} or null"),
            Type::Array(inner) => write!(f, "array of {inner}"),
            Type::Map(inner) => write!(f, "map of {inner}"),
            Type::Row(schema) => write!(f, "{schema}"),
            Type::Any => f.write_str("any"),
        }
    }
}

/// A named, typed field.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Field {
    /// Its name, distinct within the schema.
    pub name: String,
    /// Its type.
    #[serde(rename = "type")]
    pub ty: Type,
}

/// The fields of a row, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Schema {
    /// The fields.
    pub fields: Vec<Field>,
}

impl Schema {
    /// A schema of these fields.
    pub fn new<N: Into<String>>(fields: impl IntoIterator<Item = (N, Type)>) -> Schema {
        Schema { fields: fields.into_iter().map(|(name, ty)| Field { name: name.into(), ty }).collect() }
    }

    /// The position of the field of that name.
    #[must_use]
    pub fn index_of(&self, name: &str) -> Option<usize> {
        self.fields.iter().position(|field| field.name == name)
    }

    /// The field of that name.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.fields.iter().find(|field| field.name == name)
    }

    /// The names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.fields.iter().map(|field| field.name.as_str())
    }

    /// The fields of both, those missing on one side nullable, in the order of first appearance.
    #[must_use]
    pub fn union(&self, other: &Schema) -> Schema {
        let mut fields: Vec<Field> = self
            .fields
            .iter()
            .map(|field| {
                let ty = match other.field(&field.name) {
                    Some(there) => field.ty.union(&there.ty),
                    None => field.ty.clone().nullable(),
                };
                Field { name: field.name.clone(), ty }
            })
            .collect();
        fields.extend(
            other
                .fields
                .iter()
                .filter(|field| self.index_of(&field.name).is_none())
                .map(|field| Field { name: field.name.clone(), ty: field.ty.clone().nullable() }),
        );
        Schema { fields }
    }
}

impl fmt::Display for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("row(")?;
        for (position, field) in self.fields.iter().enumerate() {
            let comma = if position == 0 { "" } else { ", " };
            write!(f, "{comma}{}: {}", field.name, field.ty)?;
        }
        f.write_str(")")
    }
}

/// A constant value: literals of expressions, elements of Create and AssertEqual.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Value {
    /// No value.
    Null,
    /// A boolean.
    Boolean(bool),
    /// An integer.
    Int64(i64),
    /// A double; written as text when JSON has no number for it.
    #[serde(with = "float_text")]
    Float64(f64),
    /// Text.
    String(String),
    /// Bytes.
    Bytes(Vec<u8>),
    /// A point in time.
    Timestamp(Micros),
    /// A list.
    Array(Vec<Value>),
    /// A map, in the order written.
    Map(Vec<(String, Value)>),
    /// A nested row: the values in the order of its schema.
    Row(Vec<Value>),
}

/// JSON has no NaN and no infinity, so those travel as text.
mod float_text {
    use serde::{Deserialize, Deserializer, Serializer};

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Form {
        Number(f64),
        Text(String),
    }

    pub(super) fn serialize<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
        if value.is_finite() { serializer.serialize_f64(*value) } else { serializer.collect_str(value) }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
        match Form::deserialize(deserializer)? {
            Form::Number(number) => Ok(number),
            Form::Text(text) => text.parse().map_err(serde::de::Error::custom),
        }
    }
}
