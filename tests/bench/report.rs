//! The table: what, how much, the limit, and whether it holds.

/// One figure.
struct Row {
    scenario: &'static str,
    what: String,
    value: String,
    limit: String,
    verdict: &'static str,
}

/// Figures so far.
#[derive(Default)]
pub(crate) struct Report {
    scenario: &'static str,
    rows: Vec<Row>,
}

impl Report {
    /// The figures that follow are this scenario's.
    pub(crate) fn scenario(&mut self, name: &'static str) {
        self.scenario = name;
    }

    /// A figure without a limit.
    pub(crate) fn fact(&mut self, what: &str, value: f64, unit: &str) {
        self.row(what, shown(value, unit), String::new(), "");
    }

    /// A figure that was not taken, and why.
    pub(crate) fn skipped(&mut self, what: &str, why: &str) {
        self.row(what, "-".to_owned(), why.to_owned(), "skipped");
    }

    /// A figure that should be at most `limit`.
    pub(crate) fn at_most(&mut self, what: &str, value: f64, unit: &str, limit: f64) {
        let verdict = if value <= limit { "ok" } else { "over" };
        self.row(what, shown(value, unit), format!("<= {}", shown(limit, unit)), verdict);
    }

    /// A figure that should be at least `limit`.
    pub(crate) fn at_least(&mut self, what: &str, value: f64, unit: &str, limit: f64) {
        let verdict = if value >= limit { "ok" } else { "under" };
        self.row(what, shown(value, unit), format!(">= {}", shown(limit, unit)), verdict);
    }

    pub(crate) fn print(&self) {
        println!("{:<10} {:<58} {:>14}  {:<18} verdict", "scenario", "what", "value", "limit");
        for row in &self.rows {
            let Row { scenario, what, value, limit, verdict } = row;
            println!("{scenario:<10} {what:<58} {value:>14}  {limit:<18} {verdict}");
        }
    }

    fn row(&mut self, what: &str, value: String, limit: String, verdict: &'static str) {
        eprintln!("  {what}: {value} {limit} {verdict}");
        self.rows.push(Row { scenario: self.scenario, what: what.to_owned(), value, limit, verdict });
    }
}

/// Three digits behind the point where they mean something.
fn shown(value: f64, unit: &str) -> String {
    let digits = if value.fract() == 0.0 || value >= 1000.0 { 0 } else { 3 };
    format!("{value:.digits$} {unit}").trim_end().to_owned()
}
