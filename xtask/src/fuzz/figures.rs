//! What a session comes to, read from what libFuzzer prints.

use std::fmt;
use std::path::{Path, PathBuf};

/// One line of the table.
#[derive(Debug, PartialEq)]
pub(super) struct Figures {
    name: &'static str,
    seconds: f64,
    executions: u64,
    /// Edges that some input reached.
    coverage: u64,
    /// Edges that the seeds alone reach: if the other is not more, nothing guided the search.
    begun_with: u64,
    corpus: u64,
    finding: Option<PathBuf>,
}

impl Figures {
    /// The table's head.
    pub(super) const HEADER: &str =
        "target           CPU-seconds   executions   edges (first)   inputs kept   findings";

    /// Reads a session's log.
    pub(super) fn read(name: &'static str, log: &str, seconds: f64) -> Self {
        let mut figures = Self { name, seconds, executions: 0, coverage: 0, begun_with: 0, corpus: 0, finding: None };
        for line in log.lines() {
            let after = |word: &str| line.split_once(word).map(|(_, rest)| rest.trim_start());
            if let Some(file) = after("Test unit written to ") {
                figures.finding = Some(PathBuf::from(file));
            } else if line.starts_with('#') {
                figures.take(line, after);
            } else if let Some(count) = after("stat::number_of_executed_units:").and_then(number) {
                figures.executions = figures.executions.max(count);
            }
        }
        figures
    }

    /// One of the lines that tell how far it is: `#4096 pulse cov: 12 ft: 20 corp: 3/40b ...`.
    fn take<'a>(&mut self, line: &str, after: impl Fn(&str) -> Option<&'a str>) {
        let field = |word| after(word).and_then(number).unwrap_or(0);
        self.executions = self.executions.max(number(line.trim_start_matches('#')).unwrap_or(0));
        self.coverage = self.coverage.max(field("cov:"));
        self.corpus = self.corpus.max(field("corp:"));
        if line.contains("INITED") {
            self.begun_with = field("cov:");
        }
    }

    /// The input that broke something.
    pub(super) fn finding(&self) -> Option<&Path> {
        self.finding.as_deref()
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, seconds, executions, coverage, begun_with, corpus, finding } = self;
        let edges = format!("{coverage} ({begun_with})");
        let found = finding.as_ref().map_or_else(|| "none".to_owned(), |file| file.display().to_string());
        write!(f, "{name:15}  {seconds:11.1}   {executions:10}   {edges:>13}   {corpus:11}   {found}")
    }
}

/// The digits that a text begins with.
fn number(text: &str) -> Option<u64> {
    let digits = text.trim_start();
    digits.get(..digits.bytes().take_while(u8::is_ascii_digit).count())?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "INFO: seed corpus: files: 3 min: 1b max: 90b total: 120b rss: 40Mb\n\
        #4\tINITED cov: 120 ft: 200 corp: 3/120b exec/s: 0 rss: 45Mb\n\
        #37\tNEW    cov: 140 ft: 240 corp: 4/150b lim: 90 exec/s: 0 rss: 45Mb L: 30/90 MS: 1 ChangeBit-\n\
        stat::number_of_executed_units: 5000\n";

    #[test]
    fn figures_are_read_from_what_is_printed() {
        let figures = Figures::read("x", LOG, 1.5);
        assert_eq!((figures.executions, figures.coverage, figures.begun_with, figures.corpus), (5000, 140, 120, 4));
        assert_eq!(figures.finding(), None);
    }

    #[test]
    fn an_input_that_broke_something_is_named() {
        let log = format!("{LOG}artifact_prefix='/a/'; Test unit written to /a/crash-1\n");
        assert_eq!(Figures::read("x", &log, 0.0).finding(), Some(Path::new("/a/crash-1")));
    }
}
