//! The two paths of a grouping against each other.

use std::sync::Arc;

use arrow_array::Int64Array;
use pharos_beam::expr::ir::{Expr, ExprKind};
use pharos_beam::plan::{AggregateFunction, Aggregation};
use pharos_beam::schema::Type;
use pharos_window::{Accumulation, Lateness, Span, Timestamp, Watermark, WindowFn, WindowingStrategy};
use proptest::prelude::*;

use super::*;
use crate::column::{Panes, Steps, value_at};

fn spec(strategy: WindowingStrategy) -> Arc<GroupSpec> {
    let value = Expr { ty: Type::Int64, kind: ExprKind::Field(0) };
    let aggregation =
        |function, output| Aggregation { name: "a".to_owned(), function, value: value.clone(), output };
    Arc::new(GroupSpec {
        strategy,
        keys: Arc::from([Type::Int64]),
        aggregations: Arc::from([
            aggregation(AggregateFunction::Sum, Type::Int64),
            aggregation(AggregateFunction::Count, Type::Int64),
            aggregation(AggregateFunction::Max, Type::Int64),
        ]),
        explicit_windows: false,
    })
}

fn batch(rows: &[Row], function: WindowFn) -> KeyedBatch {
    let keys = Int64Array::from_iter_values(rows.iter().map(|(_, key, _)| *key));
    let values: ArrayRef = Arc::new(Int64Array::from_iter_values(rows.iter().map(|(_, _, value)| *value)));
    let times = Times::Each(rows.iter().map(|(at, _, _)| *at).collect());
    let windows = match function {
        WindowFn::Global => Windows::All(Window::Global),
        function => Windows::Assigned { function, at: times.clone() },
    };
    KeyedBatch {
        keys: Keys::of(&[&Type::Int64], &[&keys], rows.len()),
        values: vec![Arc::clone(&values), Arc::clone(&values), values],
        times,
        windows,
        steps: Steps::All(0),
        originals: None,
    }
}

/// Results as (key, window, time, pane, sum, count, max), sorted.
fn told(fired: Vec<Fired>) -> Vec<String> {
    let mut rows = Vec::new();
    for Fired { batch, .. } in fired {
        for row in 0..batch.rows {
            let pane = match &batch.panes {
                Panes::All(pane) => pane.expect("results have a pane"),
                Panes::Each(panes) => panes[row],
            };
            let cells: Vec<_> =
                batch.columns.iter().map(|column| value_at(&Type::Int64, column, row)).collect();
            rows.push(format!("{:?} {:?} {} {pane:?}", cells, batch.windows.at(row), batch.times.at(row)));
        }
    }
    rows.sort();
    rows
}

/// Event time, key, value.
type Row = (i64, i64, i64);

/// Rows of several bundles, each followed by a watermark.
fn any_story() -> impl Strategy<Value = Vec<(Vec<Row>, i64)>> {
    let row = (-30i64..200, 0i64..5, -9i64..9);
    prop::collection::vec((prop::collection::vec(row, 0..20), 0i64..40), 0..12)
}

fn any_function() -> impl Strategy<Value = (WindowFn, i64)> {
    let span = |range: std::ops::Range<i64>| range.prop_map(Span::from_micros);
    prop_oneof![
        Just((WindowFn::Global, 0)),
        (span(1..40), span(-9..9), 0i64..30)
            .prop_map(|(size, offset, late)| (WindowFn::fixed(size, offset).unwrap(), late)),
        (span(1..40), span(1..20), span(-9..9))
            .prop_map(|(size, period, offset)| (WindowFn::sliding(size, period, offset).unwrap(), 0)),
    ]
}

proptest! {
    #[test]
    fn slices_and_the_general_path_give_the_same_panes_and_drop_the_same_rows(
        story in any_story(), (function, late) in any_function(), accumulating in any::<bool>(), restart in 0usize..12,
    ) {
        let mut strategy = WindowingStrategy::with_defaults(function);
        strategy.allowed_lateness = Lateness(Span::from_micros(late));
        strategy.accumulation = if accumulating { Accumulation::Accumulating } else { Accumulation::Discarding };
        let spec = spec(strategy);
        let mut slices = Slices::new(Arc::clone(&spec));
        let mut general = General::new(Arc::clone(&spec));
        let mut before = Watermark::NEG_INF;
        let steps = story.len();
        for (step, (rows, passed)) in story.into_iter().enumerate() {
            let batch = batch(&rows, function);
            let count = batch.keys.len();
            let mut one = slices.add(&batch, 0..count, before);
            let mut other = general.add(&batch, 0..count, before);
            one.sort();
            other.sort();
            prop_assert_eq!(one, other);
            let mut after = before.max(Watermark::at(Timestamp::from_micros(
                before.timestamp().micros().max(-40) + passed)));
            if step + 1 == steps {
                after = Watermark::POS_INF;
            }
            prop_assert_eq!(
                told(slices.advance(before, after).unwrap()),
                told(general.advance(before, after).unwrap())
            );
            before = after;
            if step == restart {
                // A checkpoint taken here and taken up by two threads changes nothing.
                let (Frozen::Slices(tables), bytes) = (slices.freeze(), general.write()) else { unreachable!() };
                slices = Slices::new(Arc::clone(&spec));
                general = General::new(Arc::clone(&spec));
                for half in 0..2 {
                    let mine = |hash: KeyHash| hash.group().owner(2) == half;
                    for (slice, table) in &tables {
                        let mut bytes = Vec::new();
                        table.as_ref().expect("the first checkpoint is whole").write(&mut bytes);
                        slices.restore(*slice, &mut Reader::new(&bytes), mine).unwrap();
                    }
                    general.restore(&mut Reader::new(&bytes), mine).unwrap();
                }
            }
        }
    }
}
