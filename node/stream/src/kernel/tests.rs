//! The kernels against the reference evaluator, row by row.

use pharos_beam::expr::ir::Function;
use pharos_beam::schema::Micros;
use proptest::prelude::*;

use super::*;

const FIELDS: [fn() -> Type; 6] = [
    || Type::Int64,
    || Type::Float64,
    || Type::Boolean,
    || Type::String,
    || Type::Int64.nullable(),
    || Type::Any,
];

fn any_row() -> impl Strategy<Value = Vec<Value>> {
    let int = || prop_oneof![-3i64..4, Just(i64::MAX), Just(i64::MIN)];
    let float = prop_oneof![(-3i32..4).prop_map(f64::from), Just(0.5), Just(f64::NAN), Just(1e300)];
    let text = prop_oneof![Just(""), Just("a"), Just("2001-03-01 00:07"), Just("B")];
    let dynamic = prop_oneof![
        Just(Value::Null),
        Just(Value::Int64(1)),
        Just(Value::Float64(1.0)),
        Just(Value::Boolean(true)),
        Just(Value::String("a".to_owned())),
    ];
    (int(), float, any::<bool>(), text, prop::option::of(int()), dynamic).prop_map(|(i, f, b, s, n, a)| {
        vec![
            Value::Int64(i),
            Value::Float64(f),
            Value::Boolean(b),
            Value::String(s.to_owned()),
            n.map_or(Value::Null, Value::Int64),
            a,
        ]
    })
}

fn expr(ty: Type, kind: ExprKind) -> Expr {
    Expr { ty, kind }
}

fn boxed(of: Expr) -> Box<Expr> {
    Box::new(of)
}

fn field(position: usize) -> Expr {
    expr(FIELDS[position](), ExprKind::Field(position))
}

fn any_int() -> BoxedStrategy<Expr> {
    let assumed = expr(Type::Int64, ExprKind::Cast { cast: Cast::Assume, value: boxed(field(4)) });
    let leaf = prop_oneof![
        Just(field(0)),
        (-3i64..4).prop_map(|value| expr(Type::Int64, ExprKind::Literal(Value::Int64(value)))),
        Just(assumed),
    ];
    leaf.prop_recursive(3, 12, 2, |inner| {
        let op = prop_oneof![
            Just(ArithmeticOp::Add),
            Just(ArithmeticOp::Subtract),
            Just(ArithmeticOp::Multiply),
            Just(ArithmeticOp::FloorDivide),
            Just(ArithmeticOp::Modulo),
            Just(ArithmeticOp::Power),
        ];
        prop_oneof![
            (op, inner.clone(), inner.clone()).prop_map(|(op, left, right)| expr(
                Type::Int64,
                ExprKind::Arithmetic { op, left: boxed(left), right: boxed(right) }
            )),
            inner.clone().prop_map(|value| expr(Type::Int64, ExprKind::Negate(boxed(value)))),
            (any_bool_of(inner.clone()), inner.clone(), inner).prop_map(|(condition, then, otherwise)| expr(
                Type::Int64,
                ExprKind::If { condition: boxed(condition), then: boxed(then), otherwise: boxed(otherwise) }
            )),
        ]
    })
    .boxed()
}

fn any_bool_of(int: impl Strategy<Value = Expr> + Clone + 'static) -> BoxedStrategy<Expr> {
    let op = prop_oneof![
        Just(CompareOp::Equal),
        Just(CompareOp::NotEqual),
        Just(CompareOp::Less),
        Just(CompareOp::GreaterOrEqual),
    ];
    let compared = (op.clone(), int.clone(), int).prop_map(|(op, left, right)| {
        expr(Type::Boolean, ExprKind::Compare { op, left: boxed(left), right: boxed(right) })
    });
    // Of every type, null and NaN included, each field equals itself or another of its type.
    let same =
        (prop_oneof![Just(CompareOp::Equal), Just(CompareOp::NotEqual)], 0usize..6).prop_map(|(op, of)| {
            expr(Type::Boolean, ExprKind::Compare { op, left: boxed(field(of)), right: boxed(field(of)) })
        });
    let leaf = prop_oneof![
        4 => compared,
        1 => same,
        1 => Just(field(2)),
        1 => (0usize..6).prop_map(|of| expr(Type::Boolean, ExprKind::IsNull(boxed(field(of))))),
        1 => (0usize..6).prop_map(|of| expr(Type::Boolean, ExprKind::Truthy(boxed(field(of))))),
    ];
    leaf.prop_recursive(2, 8, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 1..4)
                .prop_map(|parts| expr(Type::Boolean, ExprKind::And(parts))),
            prop::collection::vec(inner.clone(), 1..4)
                .prop_map(|parts| expr(Type::Boolean, ExprKind::Or(parts))),
            inner.prop_map(|value| expr(Type::Boolean, ExprKind::Not(boxed(value)))),
        ]
    })
    .boxed()
}

fn any_expr() -> impl Strategy<Value = Expr> {
    let to_float =
        |int: Expr| expr(Type::Float64, ExprKind::Cast { cast: Cast::IntToFloat, value: boxed(int) });
    let divided = any_int().prop_map(move |int| {
        let (left, right) = (boxed(to_float(int)), boxed(field(1)));
        expr(Type::Float64, ExprKind::Arithmetic { op: ArithmeticOp::Divide, left, right })
    });
    let upper = expr(Type::String, ExprKind::Call { function: Function::Upper, args: vec![field(3)] });
    let time = expr(Type::Timestamp, ExprKind::Cast { cast: Cast::TextToTimestamp, value: boxed(field(3)) });
    let any =
        any_int().prop_map(|int| expr(Type::Any, ExprKind::Cast { cast: Cast::ToAny, value: boxed(int) }));
    prop_oneof![any_int(), any_bool_of(any_int()), divided, any, Just(upper), Just(time)]
}

fn same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Float64(a), Value::Float64(b)) => a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan()),
        (Value::Timestamp(Micros(a)), Value::Timestamp(Micros(b))) => a == b,
        (a, b) => a == b,
    }
}

proptest! {
    #[test]
    fn kernels_give_the_values_and_errors_of_the_reference(
        expr in any_expr(), rows in prop::collection::vec(any_row(), 0..12),
    ) {
        let columns: Vec<ArrayRef> = FIELDS
            .iter()
            .enumerate()
            .map(|(at, ty)| build(&ty(), &rows.iter().map(|row| &row[at]).collect::<Vec<_>>()))
            .collect();
        let got = evaluate(&expr, &columns, rows.len());
        prop_assert_eq!(got.column.len(), rows.len());
        for (at, row) in rows.iter().enumerate() {
            let error = got.errors.iter().find(|(failed, _)| *failed as usize == at).map(|(_, error)| error);
            match eval::eval(&expr, row) {
                Ok(expected) => {
                    prop_assert_eq!(error, None);
                    let value = value_at(&expr.ty, &got.column, at);
                    prop_assert!(same(&value, &expected), "{:?} is not {:?}", value, expected);
                }
                Err(expected) => prop_assert_eq!(error, Some(&expected)),
            }
        }
    }
}
