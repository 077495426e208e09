//! Join: the rows of several inputs that agree.
//!
//! Owns the meaning of its configuration, which is that of Beam's `yaml_join.py`, and how it becomes steps that there are
//! anyway: all sides' rows together, grouped by what must agree, and of each group its pairs. Must not know how groups
//! are kept. Invariant: rows meet only within their window; null agrees with nothing.
//!
//! Several inputs are joined from left to right, in the order in which they are named, as in SQL: each stage joins what
//! is there with one more. Each stage has three steps: `…/Sides`, the grouping (which alone has state) and `…/Rows`. In
//! between a field is called by its input and its name, `orders.id`.

use super::{Checked, Rows};
use crate::config::{Context, Entries};
use crate::diagnostic::Span;
use crate::expr::check::coerce;
use crate::expr::ir::{Expr, ExprKind};
use crate::plan::{AggregateFunction, Aggregation, JoinField, NodeKind, Outer, Side, WindowFunction};
use crate::schema::{Field, Schema, Type, Value};
use crate::syntax::Transform;
use crate::yaml::{Data, Scalar, Yaml};

/// A field of an input, as written.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Column {
    table: usize,
    name: String,
    span: Span,
}

/// Two fields that must agree; the input of `right` comes after that of `left`.
#[derive(Clone, Debug)]
struct Equality {
    left: Column,
    right: Column,
}

/// The fields of an input that are asked for: the new name of each, and itself.
type Listed = (usize, Vec<(String, Column)>);

/// What a Join says.
#[derive(Debug)]
pub(crate) struct JoinSpec {
    span: Span,
    tables: Vec<String>,
    /// For each input but the first: whose rows stay that agree with none.
    outer: Vec<Outer>,
    /// For each input but the first: what joins it with those before.
    equalities: Vec<Vec<Equality>>,
    /// The fields of the result by input: the new name and the field. All of an input that is not listed.
    fields: Vec<Listed>,
}

/// Which of the three steps of a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum JoinStep {
    /// The rows of both sides, with what must agree.
    Sides,
    /// They are grouped by it.
    Group,
    /// The pairs of each group.
    Rows,
}

/// Reads the configuration of a Join of these inputs; none when something was reported.
pub(crate) fn parse(cx: &Context<'_>, transform: &Transform<'_>, tables: Vec<String>) -> Option<JoinSpec> {
    let before = cx.count();
    let config = transform.config.unwrap_or(Entries::empty());
    config.only(cx, super::config_keys(transform.ty), transform.ty);
    let span = transform.name_span;
    for table in tables.iter().filter(|table| table.contains('.')) {
        cx.error(span, format!("the name of an input of a Join must not hold a dot: `{table}`"));
    }
    let reader = Reader { cx, tables: &tables };
    let outer = reader.outer(config.get("type").filter(|value| !value.is_null()));
    let label = format!("`{}`", transform.label());
    let equalities = config.required(cx, "equalities", span, &label).and_then(|yaml| reader.equalities(yaml));
    let fields = match config.get("fields").filter(|value| !value.is_null()) {
        None => Some(Vec::new()),
        Some(yaml) => reader.fields(yaml),
    };
    let (outer, equalities, fields) = (outer?, equalities?, fields?);
    (cx.count() == before).then_some(JoinSpec { span, tables, outer, equalities, fields })
}

struct Reader<'r, 'c> {
    cx: &'r Context<'c>,
    tables: &'r [String],
}

impl Reader<'_, '_> {
    fn table(&self, name: &str, span: Span) -> Option<usize> {
        let found = self.tables.iter().position(|table| table == name);
        if found.is_none() {
            let error = self.cx.at(span, format!("the Join has no input `{name}`"));
            self.cx.report(error.suggest(name, self.tables.iter().map(String::as_str)));
        }
        found
    }

    fn outer(&self, yaml: Option<&Yaml>) -> Option<Vec<Outer>> {
        const KINDS: [(&str, Outer); 4] =
            [("inner", Outer::None), ("left", Outer::Left), ("right", Outer::Right), ("outer", Outer::Both)];
        let stages = self.tables.len() - 1;
        let Some(yaml) = yaml else { return Some(vec![Outer::None; stages]) };
        if let Data::Map(entries) = &yaml.data {
            let entries = Entries { entries };
            entries.only(self.cx, &["outer"], "`type`");
            let listed = entries.required(self.cx, "outer", yaml.span, "`type`")?;
            let listed = self.cx.texts(listed, "`outer`")?;
            let outer: Vec<usize> =
                listed.iter().map(|(name, span)| self.table(name, *span)).collect::<Option<_>>()?;
            // As in Beam: by the input and the one that is named before it.
            let kind = |stage: usize| match (outer.contains(&stage), outer.contains(&(stage + 1))) {
                (true, true) => Outer::Both,
                (true, false) => Outer::Left,
                (false, true) => Outer::Right,
                (false, false) => Outer::None,
            };
            return Some((0..stages).map(kind).collect());
        }
        let name = self.cx.text(yaml, "the type of a Join")?;
        if let Some((_, kind)) = KINDS.iter().find(|(known, _)| *known == name) {
            return Some(vec![*kind; stages]);
        }
        let names = KINDS.map(|(name, _)| name);
        let error = self.cx.at(yaml.span, format!("unknown type of Join `{name}`")).suggest(name, names);
        self.cx.report(if error.suggestion().is_none() {
            error.with_help(format!("one of {}, or `{{outer: [inputs]}}`", names.join(", ")))
        } else {
            error
        });
        None
    }

    /// One field that all inputs have, or a list of maps from inputs to fields.
    fn equalities(&self, yaml: &Yaml) -> Option<Vec<Vec<Equality>>> {
        let mut pairs = Vec::new();
        if let Some(name) = yaml.as_str() {
            let column = |table| Column { table, name: name.to_owned(), span: yaml.span };
            pairs.extend(
                (1..self.tables.len()).map(|table| Equality { left: column(0), right: column(table) }),
            );
        } else {
            for item in self.cx.list(yaml, "`equalities`")? {
                pairs.extend(self.equality(item)?);
            }
        }
        let mut stages: Vec<Vec<Equality>> = vec![Vec::new(); self.tables.len() - 1];
        for pair in pairs {
            stages[pair.right.table - 1].push(pair);
        }
        for (stage, _) in stages.iter().enumerate().filter(|(_, pairs)| pairs.is_empty()) {
            let message = format!(
                "no equality joins `{}` with an input that is named before it",
                self.tables[stage + 1]
            );
            self.cx.error(yaml.span, message);
        }
        Some(stages)
    }

    fn equality(&self, yaml: &Yaml) -> Option<Vec<Equality>> {
        let entries = self.cx.map(yaml, "an equality")?;
        let columns: Vec<Column> = entries
            .entries
            .iter()
            .map(|(key, value)| {
                let table = self.table(&key.name(), key.span)?;
                let name = self.cx.text(value, "a field")?.to_owned();
                Some(Column { table, name, span: value.span })
            })
            .collect::<Option<_>>()?;
        let [first, others @ ..] = columns.as_slice() else { return self.too_few(yaml) };
        if others.is_empty() {
            return self.too_few(yaml);
        }
        let pair = |other: &Column| {
            let (one, other) = (first.clone(), other.clone());
            if one.table < other.table {
                Equality { left: one, right: other }
            } else {
                Equality { left: other, right: one }
            }
        };
        Some(others.iter().map(pair).collect())
    }

    fn too_few<T>(&self, yaml: &Yaml) -> Option<T> {
        self.cx.error(yaml.span, "an equality names a field of two inputs at least");
        None
    }

    fn fields(&self, yaml: &Yaml) -> Option<Vec<Listed>> {
        let mut seen: Vec<String> = Vec::new();
        let mut fields = Vec::new();
        for (key, value) in self.cx.map(yaml, "`fields`")?.entries {
            let table = self.table(&key.name(), key.span)?;
            if value.as_str() == Some("*") {
                continue;
            }
            let named: Vec<(String, &str, Span)> = match &value.data {
                Data::Map(entries) => entries
                    .iter()
                    .map(|(new, old)| {
                        let old_name = self.cx.text(old, "a field")?;
                        Some((new.name(), old_name, old.span))
                    })
                    .collect::<Option<_>>()?,
                Data::List(_) | Data::Scalar(Scalar::String(_)) => {
                    let names = self.cx.texts(value, "the fields of an input")?;
                    names.into_iter().map(|(name, span)| (name.to_owned(), name, span)).collect()
                }
                _ => {
                    let message = format!("the fields of an input are a list or a map, not {}", value.kind());
                    self.cx.error(value.span, message);
                    return None;
                }
            };
            for (new, _, span) in &named {
                if seen.contains(new) {
                    self.cx.error(*span, format!("the field `{new}` is named twice"));
                }
                seen.push(new.clone());
            }
            let column = |(new, name, span): (String, &str, Span)| {
                (new, Column { table, name: name.to_owned(), span })
            };
            fields.push((table, named.into_iter().map(column).collect()));
        }
        Some(fields)
    }
}

/// Checks a step of a stage; none when something was reported.
pub(crate) fn check(
    cx: &Context<'_>,
    spec: &JoinSpec,
    stage: usize,
    step: JoinStep,
    inputs: &[Rows],
) -> Checked {
    let before = cx.count();
    let checked = match step {
        JoinStep::Sides => Stage { cx, spec, stage }.sides(&inputs[0], &inputs[1]),
        JoinStep::Group => Some(group(&inputs[0])),
        JoinStep::Rows => Stage { cx, spec, stage }.rows(&inputs[0]),
    };
    checked.filter(|_| cx.count() == before)
}

struct Stage<'s, 'c> {
    cx: &'s Context<'c>,
    spec: &'s JoinSpec,
    /// The input that is joined is the one after this.
    stage: usize,
}

impl Stage<'_, '_> {
    fn qualified(&self, table: usize, name: &str) -> String {
        format!("{}.{name}", self.spec.tables[table])
    }

    /// A field of one of the sides. The first input still has its own names; what comes of a stage has qualified ones.
    fn find(&self, rows: &Rows, column: &Column) -> Option<Expr> {
        let inside = self.stage > 0 && column.table <= self.stage;
        let name = if inside { self.qualified(column.table, &column.name) } else { column.name.clone() };
        match rows.schema.index_of(&name) {
            Some(position) => {
                Some(Expr { ty: rows.schema.fields[position].ty.clone(), kind: ExprKind::Field(position) })
            }
            None if rows.open => Some(Expr { ty: Type::Any, kind: ExprKind::Field(usize::MAX) }),
            None => {
                let table = &self.spec.tables[column.table];
                let error =
                    self.cx.at(column.span, format!("the input `{table}` has no field `{}`", column.name));
                self.cx.report(error.suggest(&column.name, rows.schema.names()));
                None
            }
        }
    }

    /// The fields of an input that are wanted after this stage.
    fn wanted(&self, table: usize, rows: &Rows) -> Vec<Column> {
        let column = |name: &str| Column { table, name: name.to_owned(), span: self.spec.span };
        let Some((_, listed)) = self.spec.fields.iter().find(|(listed, _)| *listed == table) else {
            return rows.schema.names().map(column).collect();
        };
        let later = self.spec.equalities.iter().skip(self.stage + 1).flatten();
        let later = later.flat_map(|pair| [&pair.left, &pair.right]).filter(|column| column.table == table);
        let mut wanted: Vec<Column> = Vec::new();
        for column in listed.iter().map(|(_, column)| column).chain(later) {
            if wanted.iter().all(|known| known.name != column.name) {
                wanted.push(column.clone());
            }
        }
        wanted
    }

    /// One side's row as far as it is wanted, with qualified names.
    fn row(&self, left: bool, rows: &Rows) -> Option<(Schema, Vec<Expr>)> {
        if left && self.stage > 0 {
            let field = |(position, field): (usize, &Field)| Expr {
                ty: field.ty.clone(),
                kind: ExprKind::Field(position),
            };
            return Some((rows.schema.clone(), rows.schema.fields.iter().enumerate().map(field).collect()));
        }
        let table = if left { 0 } else { self.stage + 1 };
        let mut schema = Schema::default();
        let mut exprs = Vec::new();
        for column in self.wanted(table, rows) {
            let expr = self.find(rows, &column)?;
            schema.fields.push(Field { name: self.qualified(table, &column.name), ty: expr.ty.clone() });
            exprs.push(expr);
        }
        Some((schema, exprs))
    }

    /// All rows of both sides: what must agree, and the row itself in the column of its side.
    fn sides(&self, left: &Rows, right: &Rows) -> Checked {
        self.windows_meet(left, right);
        let mut schema = Schema::default();
        let mut keys: [Vec<Expr>; 2] = Default::default();
        for Equality { left: one, right: other } in &self.spec.equalities[self.stage] {
            let name = format!(
                "{} = {}",
                self.qualified(one.table, &one.name),
                self.qualified(other.table, &other.name)
            );
            let (Some(a), Some(b)) = (self.find(left, one), self.find(right, other)) else { continue };
            if schema.index_of(&name).is_some() {
                continue;
            }
            let ty = self.common(&a, &b, other)?;
            let [first, second] = [a, b].map(|side| coerce(side, &ty).unwrap_or_else(|side| *side));
            schema.fields.push(Field { name, ty });
            keys[0].push(first);
            keys[1].push(second);
        }
        let ((left_row, left_exprs), (right_row, right_exprs)) =
            (self.row(true, left)?, self.row(false, right)?);
        let open = left.open || right.open;
        // What is not known yet may be any row.
        let side = |rows: &Rows, row: Schema| if rows.open { Type::Any } else { Type::Row(row).nullable() };
        let [left_ty, right_ty] = [side(left, left_row), side(right, right_row)];
        schema.fields.push(Field { name: "left".to_owned(), ty: left_ty.clone() });
        schema.fields.push(Field { name: "right".to_owned(), ty: right_ty.clone() });
        let [mut first, mut second] = keys;
        let outer = self.spec.outer[self.stage];
        let rows = [
            kept(&first, &left_ty, left_exprs, outer.keeps(Side::Left)),
            kept(&second, &right_ty, right_exprs, outer.keeps(Side::Right)),
        ];
        let [left_row, right_row] = rows;
        first.extend([left_row, null(&right_ty)]);
        second.extend([null(&left_ty), right_row]);
        let rows = Rows {
            schema,
            open,
            loose: left.loose || right.loose,
            windowing: left.windowing.clone(),
            mixed: false,
            grouped: false,
            bounded: left.bounded && right.bounded,
        };
        Some((NodeKind::Flatten { projections: vec![first, second] }, Some(rows)))
    }

    fn windows_meet(&self, left: &Rows, right: &Rows) {
        let help = "put `windowing` on this transform";
        if left.mixed || right.mixed || left.windowing != right.windowing {
            let error = self.cx.at(self.spec.span, "the inputs of the Join have different windowing");
            self.cx.report(error.with_help(help));
        } else if !(left.bounded && right.bounded) && left.windowing.function == WindowFunction::Global {
            let message = "inputs without end are joined in the global window, which never closes";
            self.cx.report(self.cx.at(self.spec.span, message).with_help(help));
        } else if matches!(left.windowing.function, WindowFunction::Sessions { .. })
            && (left.grouped || right.grouped)
        {
            let message =
                "sessions that a grouping has closed cannot be joined: others would have been part of them";
            let error = self.cx.at(self.spec.span, message);
            self.cx.report(error.with_help("join two inputs before they are grouped, or in fixed windows"));
        } else if left.windowing.allowed_lateness.0 > 0 {
            let message = "a Join takes no late rows: each window is joined once, when it closes";
            let error = self.cx.at(self.spec.span, message);
            self.cx.report(error.with_help("leave `allowed_lateness` out"));
        }
    }

    /// The type in which both can be compared.
    fn common(&self, left: &Expr, right: &Expr, at: &Column) -> Option<Type> {
        let null = left.ty.admits_null() || right.ty.admits_null();
        let ty = match (left.ty.non_null(), right.ty.non_null()) {
            (Type::Any, _) | (_, Type::Any) => Type::Any,
            (Type::Int64, Type::Float64) | (Type::Float64, Type::Int64) => Type::Float64,
            (one, other) if one == other => one.clone(),
            (one, other) => {
                let message = format!("{one} is joined with {other}, which it never equals");
                let error = self.cx.at(at.span, message);
                self.cx.report(error.with_help("make them one type by MapToFields before"));
                return None;
            }
        };
        Some(if null { ty.nullable() } else { ty })
    }

    /// The pairs of each group: of the last stage the fields of the result, of others all.
    fn rows(&self, groups: &Rows) -> Checked {
        let keys = groups.schema.fields.len().checked_sub(2)?;
        let outer = self.spec.outer[self.stage];
        let side = |side: Side, position: usize, kept: bool| -> Vec<(String, Type, JoinField)> {
            let Type::Array(row) = groups.schema.fields[position].ty.non_null() else { return Vec::new() };
            let Type::Row(schema) = row.non_null() else { return Vec::new() };
            let field = |(position, field): (usize, &Field)| {
                let ty = if kept { field.ty.clone() } else { field.ty.clone().nullable() };
                (field.name.clone(), ty, JoinField { side, position })
            };
            schema.fields.iter().enumerate().map(field).collect()
        };
        let mut found = side(Side::Left, keys, !outer.keeps(Side::Right));
        found.extend(side(Side::Right, keys + 1, !outer.keeps(Side::Left)));
        if self.stage + 2 == self.spec.tables.len() {
            found = self.result(found);
        }
        let (mut schema, mut fields) = (Schema::default(), Vec::new());
        for (name, ty, field) in found {
            schema.fields.push(Field { name, ty });
            fields.push(field);
        }
        let rows = Rows { open: groups.open, ..groups.with(schema) };
        Some((NodeKind::Join { keys, outer, fields }, Some(rows)))
    }

    /// The fields of the result: first those that are listed, then those of the other inputs. One whose name is taken
    /// gets a number, as in Beam.
    fn result(&self, found: Vec<(String, Type, JoinField)>) -> Vec<(String, Type, JoinField)> {
        let listed = self.spec.fields.iter().flat_map(|(_, fields)| fields).filter_map(|(new, column)| {
            let name = self.qualified(column.table, &column.name);
            let (_, ty, field) = found.iter().find(|(known, ..)| *known == name)?;
            Some((new.clone(), ty.clone(), *field))
        });
        let mut result: Vec<(String, Type, JoinField)> = listed.collect();
        for table in
            (0..self.spec.tables.len()).filter(|table| self.spec.fields.iter().all(|(of, _)| of != table))
        {
            let prefix = self.qualified(table, "");
            for (name, ty, field) in &found {
                let Some(name) = name.strip_prefix(&prefix) else { continue };
                let free = |name: &String| result.iter().all(|(taken, ..)| taken != name);
                let numbered = (0..).map(|number| format!("{name}{number}"));
                let name = std::iter::once(name.to_owned()).chain(numbered).find(free);
                result.extend(name.map(|name| (name, ty.clone(), *field)));
            }
        }
        result
    }
}

fn null(ty: &Type) -> Expr {
    Expr { ty: ty.clone(), kind: ExprKind::Literal(Value::Null) }
}

/// A side's row. One with null in a key agrees with nothing: unless it stays all the same, there is none.
fn kept(keys: &[Expr], ty: &Type, cells: Vec<Expr>, stays: bool) -> Expr {
    let row = Expr { ty: ty.clone(), kind: ExprKind::MakeRow(cells) };
    let may_be_null = keys.iter().filter(|key| key.ty.admits_null());
    let is_null = |key: &Expr| Expr { ty: Type::Boolean, kind: ExprKind::IsNull(Box::new(key.clone())) };
    let nulls: Vec<Expr> = may_be_null.map(is_null).collect();
    if stays || nulls.is_empty() {
        return row;
    }
    let condition = Box::new(Expr { ty: Type::Boolean, kind: ExprKind::Or(nulls) });
    let kind = ExprKind::If { condition, then: Box::new(null(ty)), otherwise: Box::new(row) };
    Expr { ty: ty.clone(), kind }
}

/// Both sides' rows by what must agree.
fn group(rows: &Rows) -> (NodeKind, Option<Rows>) {
    let mut schema = rows.schema.clone();
    let keys = schema.fields.len().saturating_sub(2);
    let aggregations: Vec<Aggregation> = schema
        .fields
        .iter_mut()
        .enumerate()
        .skip(keys)
        .map(|(position, field)| {
            let value = Expr { ty: field.ty.clone(), kind: ExprKind::Field(position) };
            field.ty = Type::Array(Box::new(field.ty.non_null().clone()));
            Aggregation {
                name: field.name.clone(),
                function: AggregateFunction::Present,
                value,
                output: field.ty.clone(),
            }
        })
        .collect();
    let kind = NodeKind::Combine { keys: (0..keys).collect(), aggregations };
    (kind, Some(Rows { schema, grouped: true, ..rows.clone() }))
}
