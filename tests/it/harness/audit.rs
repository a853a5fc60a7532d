//! Audit lines: `ident: ACTION=... KEY=value ...`, taken apart.

/// One audit line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// Who wrote it.
    pub(crate) ident: String,
    /// The fields in their order, `ACTION` first, values without quotes and escapes.
    pub(crate) fields: Vec<(String, String)>,
}

impl Line {
    /// Reads a line as it stands on standard error.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (ident, rest) = text.split_once(": ")?;
        if !ident.starts_with("ctrl-exec-") || !rest.starts_with("ACTION=") {
            return None;
        }
        Some(Self { ident: ident.to_owned(), fields: fields(rest) })
    }

    /// Reads the part behind the ident.
    pub(crate) fn of_message(ident: &str, message: &str) -> Self {
        Self { ident: ident.to_owned(), fields: fields(message) }
    }

    pub(crate) fn action(&self) -> &str {
        self.get("ACTION").unwrap_or_default()
    }

    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        self.fields.iter().find(|(known, _)| known == key).map(|(_, value)| value.as_str())
    }

    /// The keys in their order.
    pub(crate) fn keys(&self) -> Vec<&str> {
        self.fields.iter().map(|(key, _)| key.as_str()).collect()
    }

    /// Whether it has exactly these fields; see [`Line::is`].
    pub(crate) fn matches(&self, want: &[&str]) -> bool {
        let pairs = want.iter().map(|text| text.split_once('=').unwrap());
        let same = |((key, value), (known, found)): ((&str, &str), &(String, String))| {
            key == known && (value == "*" || value == found)
        };
        want.len() == self.fields.len() && pairs.zip(&self.fields).all(same)
    }

    /// Demands exactly these fields in this order, as `KEY=value` with bare values; `*` stands for any value.
    #[track_caller]
    pub(crate) fn is(&self, want: &[&str]) {
        let want: Vec<(&str, &str)> = want.iter().map(|text| text.split_once('=').unwrap()).collect();
        let keys: Vec<&str> = want.iter().map(|(key, _)| *key).collect();
        assert_eq!(self.keys(), keys, "{self:?}");
        for (key, value) in want {
            assert!(value == "*" || self.get(key) == Some(value), "{key} is not {value}: {self:?}");
        }
    }
}

/// Every audit line of a text.
pub(crate) fn lines(text: &str) -> Vec<Line> {
    text.lines().filter_map(Line::parse).collect()
}

fn fields(text: &str) -> Vec<(String, String)> {
    let mut fields = Vec::new();
    let mut rest = text;
    while let Some((key, behind)) = rest.split_once('=') {
        let (value, behind) = value(behind);
        fields.push((key.to_owned(), value));
        rest = behind.strip_prefix(' ').unwrap_or(behind);
    }
    fields
}

fn value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find(' ').unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((place, character)) = characters.next() {
        match character {
            '"' => return (value, &quoted[place + 1..]),
            '\\' => match characters.next().unwrap().1 {
                'n' => value.push('\n'),
                'r' => value.push('\r'),
                't' => value.push('\t'),
                other => value.push(other),
            },
            other => value.push(other),
        }
    }
    panic!("a quote is open: {text}");
}

#[test]
fn an_audit_line_is_taken_apart_at_its_quotes() {
    let line = Line::parse(r#"ctrl-exec-agent: ACTION=run A= REQID="a \"b\"\n" SCRIPT=x"#).unwrap();
    assert_eq!(line.ident, "ctrl-exec-agent");
    line.is(&["ACTION=run", "A=", "REQID=a \"b\"\n", "SCRIPT=x"]);
    assert_eq!(Line::parse("Error: ACTION=x"), None);
}
