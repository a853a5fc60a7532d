//! Figures, taken in one run.
fn main() {}
