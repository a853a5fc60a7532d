//! A reader of `OpenMetrics` text (version 1.0) that forgives nothing.

use std::collections::{BTreeMap, BTreeSet};

/// Labels of a sample, by name.
type Labels = BTreeMap<String, String>;

/// A text that was read.
#[derive(Debug)]
pub(crate) struct Exposition {
    families: BTreeMap<String, Family>,
    samples: BTreeMap<(String, Labels), f64>,
}

#[derive(Debug, Default)]
struct Family {
    kind: Option<String>,
    help: Option<String>,
    unit: Option<String>,
}

impl Exposition {
    /// Reads a whole text; whatever is not as the specification wants it fails the test.
    #[track_caller]
    pub(crate) fn read(text: &str) -> Self {
        let body = text.strip_suffix("# EOF\n").unwrap_or_else(|| panic!("no end: {text}"));
        let mut read = Self { families: BTreeMap::new(), samples: BTreeMap::new() };
        let mut present = String::new();
        for line in body.lines() {
            match line.strip_prefix("# ") {
                Some(about) => read.describe(about, &mut present),
                None => read.sample(line, &present),
            }
        }
        read.judge();
        read
    }

    /// `HELP`, `TYPE` or `UNIT` of a family. A family's lines stand together, these before its samples.
    fn describe(&mut self, about: &str, present: &mut String) {
        let mut words = about.splitn(3, ' ');
        let [word, name, value] = [(); 3].map(|()| words.next().unwrap_or_else(|| panic!("{about}")));
        if name != present {
            assert!(!self.families.contains_key(name), "{name} stands in two places");
            name.clone_into(present);
        }
        assert!(self.samples.keys().all(|(sample, _)| self.family_of(sample) != Some(name)), "{about} comes too late");
        let family = self.families.entry(name.to_owned()).or_default();
        let place = match word {
            "HELP" => &mut family.help,
            "TYPE" => &mut family.kind,
            "UNIT" => &mut family.unit,
            other => panic!("unknown word {other}"),
        };
        assert!(place.replace(value.to_owned()).is_none(), "{about} is said twice");
    }

    fn sample(&mut self, line: &str, present: &str) {
        let end = line.find(['{', ' ']).unwrap_or_else(|| panic!("{line}"));
        let (name, rest) = line.split_at(end);
        assert!(is_name(name), "{line}");
        let (labels, value) = match rest.strip_prefix('{') {
            Some(rest) => labels(rest),
            None => (Labels::new(), rest),
        };
        let value = value.strip_prefix(' ').unwrap_or_else(|| panic!("{line}"));
        let value = if value == "+Inf" { f64::INFINITY } else { value.parse().unwrap_or_else(|_| panic!("{line}")) };
        assert_eq!(self.family_of(name), Some(present), "{line} stands outside its family");
        assert!(self.samples.insert((name.to_owned(), labels), value).is_none(), "{line} is there twice");
    }

    /// The family that a sample belongs to, by the suffix that its type gives it.
    fn family_of(&self, sample: &str) -> Option<&str> {
        let belongs = |(name, family): &(&String, &Family)| {
            let Some(suffix) = sample.strip_prefix(name.as_str()) else { return false };
            match family.kind.as_deref() {
                Some("counter") => suffix == "_total",
                Some("gauge") => suffix.is_empty(),
                Some("info") => suffix == "_info",
                Some("histogram") => ["_bucket", "_sum", "_count"].contains(&suffix),
                _ => false,
            }
        };
        self.families.iter().find(belongs).map(|(name, _)| name.as_str())
    }

    fn judge(&self) {
        for (name, family) in &self.families {
            assert!(is_name(name) && family.kind.is_some(), "{name}: {family:?}");
            let help = family.help.as_deref().unwrap_or_default();
            assert!(help.ends_with('.') && help.len() > 10, "{name}: {help}");
            assert!(family.unit.as_ref().is_none_or(|unit| name.ends_with(&format!("_{unit}"))), "{name}: {family:?}");
            if family.kind.as_deref() == Some("histogram") {
                self.judge_histogram(name);
            }
        }
        for ((name, labels), value) in &self.samples {
            assert!(!name.ends_with("_total") || *value >= 0.0, "{name}{labels:?}");
            assert!(!name.ends_with("_info") || (*value - 1.0).abs() < f64::EPSILON, "{name}{labels:?}");
        }
    }

    /// Buckets are counted up to their bound, and the last one has all.
    fn judge_histogram(&self, name: &str) {
        let buckets = self.samples.iter().filter(|((sample, _), _)| *sample == format!("{name}_bucket"));
        let mut series: BTreeMap<Labels, Vec<(f64, f64)>> = BTreeMap::new();
        for ((_, labels), value) in buckets {
            let mut labels = labels.clone();
            let bound = labels.remove("le").unwrap();
            let bound = if bound == "+Inf" { f64::INFINITY } else { bound.parse().unwrap() };
            series.entry(labels).or_default().push((bound, *value));
        }
        for (labels, mut buckets) in series {
            buckets.sort_by(|one, other| one.0.total_cmp(&other.0));
            assert!(buckets.is_sorted_by(|one, other| one.1 <= other.1), "{name}{labels:?}: {buckets:?}");
            let all = self.samples[&(format!("{name}_count"), labels.clone())];
            assert_eq!(buckets.last().copied(), Some((f64::INFINITY, all)), "{name}{labels:?}");
            assert!(self.samples.contains_key(&(format!("{name}_sum"), labels)));
        }
    }

    /// A sample's value; nothing where there is no such sample.
    pub(crate) fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        self.samples.get(&(name.to_owned(), labels)).copied()
    }

    /// Every sample of this name that is not zero, as `label=value,...` and its value, in order.
    pub(crate) fn non_zero(&self, name: &str) -> Vec<(String, f64)> {
        let samples = self.samples.iter().filter(|((sample, _), value)| sample == name && **value != 0.0);
        let text = |labels: &Labels| labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>();
        samples.map(|((_, labels), value)| (text(labels).join(","), *value)).collect()
    }

    /// The families.
    pub(crate) fn names(&self) -> BTreeSet<&str> {
        self.families.keys().map(String::as_str).collect()
    }

    /// A family's unit.
    pub(crate) fn unit(&self, family: &str) -> Option<&str> {
        self.families[family].unit.as_deref()
    }

    /// Every label's value.
    pub(crate) fn label_values(&self) -> BTreeSet<&str> {
        self.samples.keys().flat_map(|(_, labels)| labels.values()).map(String::as_str).collect()
    }
}

/// `key="value",...}` and what stands behind it.
fn labels(mut rest: &str) -> (Labels, &str) {
    let mut labels = Labels::new();
    loop {
        let (key, after) = rest.split_once("=\"").unwrap_or_else(|| panic!("{rest}"));
        assert!(is_name(key) && !key.contains(':'), "{key}");
        let (value, after) = quoted(after);
        assert!(labels.insert(key.to_owned(), value).is_none(), "{key} is there twice");
        match after.strip_prefix(',') {
            Some(more) => rest = more,
            None => return (labels, after.strip_prefix('}').unwrap_or_else(|| panic!("{after}"))),
        }
    }
}

fn quoted(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut rest = text.chars();
    loop {
        match rest.next().expect("a closing quote") {
            '"' => return (value, rest.as_str()),
            '\\' => value.push(match rest.next() {
                Some('n') => '\n',
                Some(plain @ ('"' | '\\')) => plain,
                other => panic!("unknown escape {other:?}"),
            }),
            plain => value.push(plain),
        }
    }
}

fn is_name(text: &str) -> bool {
    let first = |c: char| c.is_ascii_alphabetic() || c == '_' || c == ':';
    text.starts_with(first) && text.chars().all(|c| first(c) || c.is_ascii_digit())
}
