//! Joins: the steps they become, the fields they give, and what is refused.

use pharos_beam::expr::eval::eval;
use pharos_beam::expr::ir::ExprKind;
use pharos_beam::plan::{AggregateFunction, JoinField, NodeKind, Outer, Side};
use pharos_beam::schema::{Type, Value};

use crate::support::{errors, names, node, plan, schema};

/// A pipeline that joins `orders`, `people` and `items` as `join` says; what stands after `- {type: Join`.
fn document(join: &str) -> String {
    format!(
        "pipeline:
  transforms:
    - type: ReadFromParquet
      name: orders
      config:
        path: orders.parquet
        schema:
          type: object
          required: [id, person, price]
          properties: {{id: {{type: integer}}, person: {{type: integer}}, price: {{type: number}}}}
    - type: ReadFromParquet
      name: people
      config:
        path: people.parquet
        schema:
          type: object
          required: [id]
          properties: {{id: {{type: integer}}, name: {{type: string}}}}
    - type: ReadFromParquet
      name: items
      config:
        path: items.parquet
        schema:
          type: object
          required: [order, what]
          properties: {{order: {{type: integer}}, what: {{type: string}}}}
    - {{type: Join, {join}}}
"
    )
}

const TWO: &str = "input: {o: orders, p: people}";
const ON_PERSON: &str = "equalities: [{o: person, p: id}]";

fn result(join: &str) -> Vec<(String, Type)> {
    let plan = plan(&document(join));
    let node = plan.nodes.last().unwrap();
    assert!(matches!(node.kind, NodeKind::Join { .. }));
    node.outputs[0].schema.fields.iter().map(|field| (field.name.clone(), field.ty.clone())).collect()
}

fn expect(join: &str, fields: &[(&str, Type)]) {
    let fields: Vec<(String, Type)> =
        fields.iter().map(|(name, ty)| ((*name).to_owned(), ty.clone())).collect();
    assert_eq!(result(join), fields, "{join}");
}

#[test]
fn a_join_is_a_grouping_of_both_sides_and_its_pairs() {
    let plan = plan(&document(&format!(
        "{TWO}, config: {{type: left, {ON_PERSON}, fields: {{o: [price], p: [name]}}}}"
    )));
    assert_eq!(names(&plan), ["orders", "people", "items", "Join/Sides", "Join", "Join/Rows"]);
    let group = node(&plan, "Join");
    let NodeKind::Combine { keys, aggregations } = &group.kind else { panic!() };
    assert_eq!(keys, &[0]);
    assert!(aggregations.iter().all(|one| one.function == AggregateFunction::Present));
    // Only what is wanted of a row is kept.
    let price = Type::Row(schema(&[("o.price", Type::Float64)]));
    let name = Type::Row(schema(&[("p.name", Type::String.nullable())]));
    let array = |row| Type::Array(Box::new(row));
    let expected = [("o.person = p.id", Type::Int64), ("left", array(price)), ("right", array(name))];
    assert_eq!(group.outputs[0].schema, schema(&expected));
    let NodeKind::Join { keys, outer, fields } = &node(&plan, "Join/Rows").kind else { panic!() };
    assert_eq!((*keys, *outer), (1, Outer::Left));
    let from = |side| JoinField { side, position: 0 };
    assert_eq!(fields, &[from(Side::Left), from(Side::Right)]);
}

#[test]
fn the_result_has_all_fields_or_those_that_are_listed_and_outer_sides_may_be_null() {
    let text = || Type::String.nullable();
    let int = || Type::Int64.nullable();
    // A name that is taken gets a number.
    let all = [
        ("id", Type::Int64),
        ("person", Type::Int64),
        ("price", Type::Float64),
        ("id0", Type::Int64),
        ("name", text()),
    ];
    expect(&format!("{TWO}, config: {{{ON_PERSON}}}"), &all);
    expect(&format!("{TWO}, config: {{{ON_PERSON}, type: inner, fields: {{o: '*'}}}}"), &all);
    expect(
        &format!("{TWO}, config: {{{ON_PERSON}, type: outer, fields: {{p: {{who: id}}, o: price}}}}"),
        &[("who", int()), ("price", Type::Float64.nullable())],
    );
    expect(
        &format!("{TWO}, config: {{{ON_PERSON}, type: right, fields: {{p: [id], o: [price]}}}}"),
        &[("id", Type::Int64), ("price", Type::Float64.nullable())],
    );
    // What is listed comes first, then all of what is not.
    expect(
        &format!("{TWO}, config: {{equalities: id, type: left, fields: {{p: [name]}}}}"),
        &[("name", text()), ("id", Type::Int64), ("person", Type::Int64), ("price", Type::Float64)],
    );
}

#[test]
fn three_inputs_are_joined_from_left_to_right() {
    let three = "input: {o: orders, p: people, i: items}";
    let config = "equalities: [{o: person, p: id}, {i: order, o: id}], fields: {i: [what], p: [name], o: []}";
    let plan = plan(&document(&format!("{three}, config: {{{config}, type: {{outer: [p]}}}}")));
    let steps =
        ["Join/Join[p]/Sides", "Join/Join[p]", "Join/Join[p]/Rows", "Join/Sides", "Join", "Join/Rows"];
    assert_eq!(names(&plan)[3..], steps);
    // The second stage still needs the order's number, and nothing else of it.
    let left = Type::Row(schema(&[("o.id", Type::Int64.nullable()), ("p.name", Type::String.nullable())]));
    assert_eq!(node(&plan, "Join").outputs[0].schema.fields[1].ty, Type::Array(Box::new(left)));
    let kinds = ["Join/Join[p]/Rows", "Join/Rows"].map(|name| match &node(&plan, name).kind {
        NodeKind::Join { outer, .. } => *outer,
        _ => panic!(),
    });
    // As in Beam, by each input and the one before it.
    assert_eq!(kinds, [Outer::Right, Outer::Left]);
    let fields: Vec<&str> = plan.nodes.last().unwrap().outputs[0].schema.names().collect();
    assert_eq!(fields, ["what", "name"]);
}

#[test]
fn integers_are_joined_with_numbers_as_numbers() {
    let plan = plan(&document(&format!("{TWO}, config: {{equalities: [{{o: price, p: id}}]}}")));
    assert_eq!(node(&plan, "Join").outputs[0].schema.fields[0].ty, Type::Float64);
}

#[test]
fn what_is_wrong_with_a_join_is_said_where_it_stands() {
    for (join, expected) in [
        (
            "input: [orders, people], config: {equalities: id}".to_owned(),
            "`Join` takes two inputs at least, each by a name of its own",
        ),
        (format!("{TWO}, config: {{type: inner}}"), "`Join` lacks `equalities`"),
        (
            format!("{TWO}, config: {{{ON_PERSON}, type: lefty}}"),
            "unknown type of Join `lefty` (did you mean `left`?)",
        ),
        (format!("{TWO}, config: {{{ON_PERSON}, using: x}}"), "unknown key `using` of Join"),
        (format!("{TWO}, config: {{equalities: [{{o: person, q: id}}]}}"), "the Join has no input `q`"),
        (
            format!("{TWO}, config: {{equalities: [{{o: person}}]}}"),
            "an equality names a field of two inputs at least",
        ),
        (
            format!("{TWO}, config: {{equalities: [{{o: persn, p: id}}]}}"),
            "the input `o` has no field `persn` (did you mean `person`?)",
        ),
        (
            format!("{TWO}, config: {{equalities: [{{o: person, p: name}}]}}"),
            "integer is joined with string, which it never equals",
        ),
        (
            format!("{TWO}, config: {{{ON_PERSON}, fields: {{p: [nam]}}}}"),
            "the input `p` has no field `nam` (did you mean `name`?)",
        ),
        (
            format!("{TWO}, config: {{{ON_PERSON}, fields: {{p: [id], o: [id]}}}}"),
            "the field `id` is named twice",
        ),
        (
            format!("input: {{o: orders, p: people, i: items}}, config: {{{ON_PERSON}}}"),
            "no equality joins `i` with an input that is named before it",
        ),
        (
            format!(
                "{TWO}, windowing: {{type: fixed, size: 1s, allowed_lateness: 1s}}, config: {{{ON_PERSON}}}"
            ),
            "a Join takes no late rows: each window is joined once, when it closes",
        ),
    ] {
        let found = errors(&document(&join));
        assert!(found.len() == 1 && found[0].contains(expected), "{join}: {found:?}");
    }
}

#[test]
fn sessions_are_joined_before_they_are_grouped_or_not_at_all() {
    let sessions = "windowing: {type: sessions, gap: 1s}";
    plan(&document(&format!("{TWO}, {sessions}, config: {{{ON_PERSON}}}")));
    let three = "input: {o: orders, p: people, i: items}";
    let text =
        format!("{three}, {sessions}, config: {{equalities: [{{o: person, p: id}}, {{o: id, i: order}}]}}");
    let found = errors(&document(&text));
    assert!(
        found.len() == 1 && found[0].contains("sessions that a grouping has closed cannot be joined"),
        "{found:?}"
    );
}

#[test]
fn a_row_that_agrees_with_nothing_is_not_kept_unless_its_side_stays() {
    for (kind, kept) in [("inner", [false, false]), ("left", [true, false]), ("outer", [true, true])] {
        let config = format!("config: {{type: {kind}, equalities: [{{o: name, p: name}}]}}");
        let plan = plan(&document(&format!("input: {{o: people, p: people}}, {config}")));
        let NodeKind::Flatten { projections } = &node(&plan, "Join/Sides").kind else { panic!() };
        let rows = [&projections[0][1], &projections[1][2]];
        assert_eq!(rows.map(|row| matches!(row.kind, ExprKind::MakeRow(_))), kept, "{kind}");
        // A person without a name.
        let person = [Value::Int64(1), Value::Null];
        assert_eq!(rows.map(|row| eval(row, &person).unwrap() != Value::Null), kept, "{kind}");
    }
}

#[test]
fn inputs_with_different_windows_are_refused() {
    let text = document("input: {o: windowed, p: people}, config: {equalities: id}")
        + "    - {type: WindowInto, name: windowed, input: orders, windowing: {type: fixed, size: 1s}}\n";
    let found = errors(&text);
    assert!(
        found.len() == 1 && found[0].contains("the inputs of the Join have different windowing"),
        "{found:?}"
    );
}
