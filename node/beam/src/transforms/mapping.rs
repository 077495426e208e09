//! MapToFields, Filter, AssignTimestamps, Explode.

use super::io::{json_type, timestamp};
use super::{Checked, Form, Job, Language, Rows, expression};
use crate::config::Entries;
use crate::expr::check::coerce;
use crate::expr::ir::{Expr, ExprKind};
use crate::plan::NodeKind;
use crate::schema::{Field, Schema, Type};
use crate::yaml::{Data, Key, Yaml};

pub(super) fn map_to_fields(job: &Job<'_, '_, '_>) -> Checked {
    let cx = job.cx;
    let language = job.language()?;
    let append = flag(job, "append")?;
    let drop = match job.config.get("drop").filter(|value| !value.is_null()) {
        None => Vec::new(),
        Some(yaml) => cx.texts(yaml, "`drop`")?,
    };
    if let Some((key, value)) = job.config.entry("dependencies")
        && !value.is_null()
    {
        cx.error(key.span, "`dependencies` are not supported");
    }
    if let Some((_, span)) = drop.first().filter(|_| !append) {
        cx.error(*span, "fields can be dropped only with `append: true`");
    }
    for (name, span) in &drop {
        if !job.input().open && job.input().schema.index_of(name).is_none() {
            let error = cx.at(*span, format!("the input has no field `{name}` to drop"));
            cx.report(error.suggest(name, job.input().schema.names()));
        }
    }
    let fields = match job.config.get("fields") {
        Some(yaml) => cx.map(yaml, "`fields`")?,
        None if append => Entries::empty(),
        None => {
            job.required("fields");
            return None;
        }
    };
    let kept: Vec<usize> = if append {
        let dropped = |name: &str| drop.iter().any(|(dropped, _)| *dropped == name);
        let names = job.input().schema.names().enumerate();
        names.filter(|(_, name)| !dropped(name)).map(|(position, _)| position).collect()
    } else {
        Vec::new()
    };
    project(job, &kept, fields, language, append)
}

/// The kept fields of the input, then the new ones.
fn project(
    job: &Job<'_, '_, '_>,
    kept: &[usize],
    fields: Entries<'_>,
    language: Language,
    append: bool,
) -> Checked {
    let input = job.input();
    let mut schema = Schema::default();
    let mut exprs = Vec::new();
    for &position in kept {
        let field = &input.schema.fields[position];
        exprs.push(Expr { ty: field.ty.clone(), kind: ExprKind::Field(position) });
        schema.fields.push(field.clone());
    }
    for (key, value) in fields.entries {
        let name = key.name();
        if schema.index_of(&name).is_some() {
            let error = job.cx.at(key.span, format!("the field `{name}` exists already"));
            job.cx.report(error.with_help("to replace it, name it under `drop` too"));
        }
        let expr = field(job, key, value, language);
        let ty = expr.as_ref().map_or(Type::Any, |expr| expr.ty.clone());
        exprs.extend(expr);
        schema.fields.push(Field { name, ty });
    }
    let rows = Rows { open: append && input.open, loose: input.loose, ..input.with(schema) };
    Some((NodeKind::Map { fields: exprs }, Some(rows)))
}

fn field(job: &Job<'_, '_, '_>, key: &Key, value: &Yaml, language: Language) -> Option<Expr> {
    let cx = job.cx;
    let source = expression(cx, value, &format!("the field `{}`", key.name()))?;
    let expr = source.check(cx, job.input(), Form::value(language));
    let declared = match &value.data {
        Data::Map(entries) => Entries { entries }.get("output_type"),
        _ => None,
    };
    let Some(declared) = declared.filter(|value| !value.is_null()) else { return expr };
    let ty = json_type(cx, declared)?;
    let expr = expr?;
    let found = expr.ty.clone();
    coerce(expr, &ty)
        .map_err(|_| {
            cx.error(declared.span, format!("the expression gives {found}, not {ty}"));
        })
        .ok()
}

fn flag(job: &Job<'_, '_, '_>, key: &str) -> Option<bool> {
    match job.config.get(key).filter(|value| !value.is_null()) {
        None => Some(false),
        Some(yaml) => job.cx.boolean(yaml, &format!("`{key}`")),
    }
}

pub(super) fn filter(job: &Job<'_, '_, '_>) -> Checked {
    let language = job.language();
    let keep = job.required("keep")?;
    let source = expression(job.cx, keep, "`keep`")?;
    let form = Form { language: language?, comparisons: true, condition: true };
    let keep = source.check(job.cx, job.input(), form)?;
    Some((NodeKind::Filter { keep }, Some(job.input().clone())))
}

pub(super) fn assign_timestamps(job: &Job<'_, '_, '_>) -> Checked {
    let language = job.language();
    let yaml = job.required("timestamp")?;
    let text = super::io::Text::Refused;
    let timestamp = timestamp(job.cx, yaml, "`timestamp`", job.input(), language?, text)?;
    Some((NodeKind::AssignTimestamps { timestamp }, Some(job.input().clone())))
}

pub(super) fn explode(job: &Job<'_, '_, '_>) -> Checked {
    let cx = job.cx;
    let input = job.input();
    let names = cx.texts(job.required("fields")?, "`fields`")?;
    let cross_product = match job.config.get("cross_product").filter(|value| !value.is_null()) {
        Some(yaml) => cx.boolean(yaml, "`cross_product`")?,
        None if names.len() > 1 => {
            let span = job.transform.name_span;
            cx.error(span, "`cross_product` must be true or false when several fields are exploded");
            return None;
        }
        None => true,
    };
    let mut schema = input.schema.clone();
    let mut fields: Vec<usize> = Vec::new();
    for (name, span) in names {
        match schema.index_of(name) {
            None if input.open => {}
            None => {
                let error = cx.at(span, format!("the input has no field `{name}`"));
                cx.report(error.suggest(name, input.schema.names()));
            }
            Some(position) if fields.contains(&position) => {
                cx.error(span, format!("the field `{name}` is named twice"));
            }
            Some(position) => {
                let field = &mut schema.fields[position];
                match field.ty.non_null() {
                    Type::Array(element) => {
                        let element = (**element).clone();
                        field.ty = if cross_product { element } else { element.nullable() };
                        fields.push(position);
                    }
                    Type::Any => fields.push(position),
                    ty => cx.error(span, format!("the field `{name}` is {ty}, no array")),
                }
            }
        }
    }
    let rows = Rows { schema, ..input.clone() };
    Some((NodeKind::Explode { fields, cross_product }, Some(rows)))
}
