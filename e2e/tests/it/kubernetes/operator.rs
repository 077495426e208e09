//! The operator and its chart.
