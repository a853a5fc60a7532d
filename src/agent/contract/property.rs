//! One parameter as its schema declares it: what kinds of value it can have, and how words become such values.

use serde_json::{Map, Number, Value};

/// References that are followed from one schema to the next; more is taken for a circle.
const REFERENCES: usize = 16;

/// The kinds of value that a schema leaves open.
#[expect(clippy::struct_excessive_bools, reason = "a set of JSON Schema's seven types, each in it or not")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Kinds {
    pub(super) text: bool,
    pub(super) integer: bool,
    pub(super) number: bool,
    pub(super) boolean: bool,
    pub(super) null: bool,
    pub(super) array: bool,
    pub(super) object: bool,
}

impl Kinds {
    /// Of a schema that says nothing: any scalar, or an array.
    const OPEN: Self =
        Self { text: true, integer: true, number: true, boolean: true, null: false, array: true, object: false };

    /// Whether a word can be such a value.
    pub(super) const fn scalar(self) -> bool {
        self.text || self.integer || self.number || self.boolean
    }

    fn add(&mut self, name: &str) {
        match name {
            "string" => self.text = true,
            "integer" => self.integer = true,
            "number" => self.number = true,
            "boolean" => self.boolean = true,
            "null" => self.null = true,
            "array" => self.array = true,
            "object" => self.object = true,
            // No other name is in a schema that was taken.
            _ => {}
        }
    }

    /// The value that a word means: as text if it can be text, unless the narrowest kind is wanted.
    pub(super) fn value(self, word: &str, narrow: bool) -> Option<Value> {
        let text = || self.text.then(|| Value::String(word.to_owned()));
        let other = || self.number(word).or_else(|| self.boolean(word));
        if narrow { other().or_else(text) } else { text().or_else(other) }
    }

    /// Whether a word can mean one, without making it.
    pub(super) fn allow(self, word: &str) -> bool {
        self.text || self.number(word).is_some() || self.boolean(word).is_some()
    }

    fn number(self, word: &str) -> Option<Value> {
        let number: Number = serde_json::from_str(word).ok()?;
        // JSON allows blanks around a number and integers as 1.0 or 1e3; an integer's words are its digits.
        let whole = (number.is_i64() || number.is_u64()) && number.to_string() == word;
        let plain = word.bytes().all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte));
        ((self.integer && whole) || (self.number && plain)).then_some(Value::Number(number))
    }

    fn boolean(self, word: &str) -> Option<Value> {
        word.parse().ok().filter(|_| self.boolean).map(Value::Bool)
    }

    /// In words, for a refusal.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self { text: true, .. } => "text",
            Self { number: true, .. } => "number",
            Self { integer: true, .. } => "integer of at most 64 bits in plain digits",
            Self { boolean: true, .. } => "'true' or 'false'",
            _ => "value",
        }
    }
}

/// One parameter.
#[derive(Clone, Debug)]
pub(super) struct Property {
    pub(super) name: String,
    pub(super) kinds: Kinds,
    /// Of the items, if it is an array.
    pub(super) items: Kinds,
    pub(super) required: bool,
    pub(super) default: Option<Value>,
    hyphens: Hyphens,
    item_hyphens: Hyphens,
}

/// Which values may begin with a hyphen.
#[derive(Clone, Debug, Default)]
struct Hyphens {
    by_pattern: bool,
    /// The schema's bounds let a number be negative, and say so.
    negative: bool,
    /// As words.
    values: Vec<String>,
}

impl Hyphens {
    fn of(schema: &Schema<'_>) -> Self {
        let named = schema.find("enum").and_then(Value::as_array).into_iter().flatten().chain(schema.find("const"));
        let word = |value: &Value| match value {
            Value::String(text) => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        };
        let values = named.filter_map(word).filter(|value| value.starts_with('-'));
        let pattern = schema.find("pattern").and_then(Value::as_str);
        let below_zero = |keyword| schema.find(keyword).and_then(Value::as_f64).is_some_and(|bound| bound < 0.0);
        Self {
            by_pattern: pattern.is_some_and(|pattern| pattern.starts_with("^-")),
            negative: ["minimum", "exclusiveMinimum"].into_iter().any(below_zero),
            values: values.collect(),
        }
    }

    fn allow(&self, word: &str, kinds: Kinds) -> bool {
        let negative = self.negative && kinds.number(word).is_some();
        negative || (self.by_pattern && kinds.text) || self.values.iter().any(|value| value == word)
    }

    /// Whether there is any such value.
    fn any(&self) -> bool {
        self.by_pattern || self.negative || !self.values.is_empty()
    }
}

impl Property {
    /// The parameter `name` of the schema `root`, which declares it as `schema`.
    pub(super) fn new(name: &str, schema: &Value, root: &Map<String, Value>) -> Self {
        let schema = Schema { value: schema, root };
        let items = Schema { value: schema.find("items").unwrap_or(&Value::Bool(true)), root };
        let required = root.get("required").and_then(Value::as_array);
        Self {
            name: name.to_owned(),
            kinds: schema.kinds(),
            items: items.kinds(),
            required: required.is_some_and(|names| names.iter().any(|required| required == name)),
            default: schema.find("default").filter(|default| !default.is_null()).cloned(),
            hyphens: Hyphens::of(&schema),
            item_hyphens: Hyphens::of(&items),
        }
    }

    /// Whether nothing in the words can stand for it.
    pub(super) const fn omissible(&self) -> bool {
        self.kinds.null || (!self.required && self.default.is_none())
    }

    /// Whether a word could be taken for an option, and no schema says that it is meant. A program cannot tell a negative
    /// number from an option either.
    pub(super) fn looks_like_an_option(&self, word: &str, item: bool) -> bool {
        let (kinds, hyphens) = if item { (self.items, &self.item_hyphens) } else { (self.kinds, &self.hyphens) };
        word.starts_with('-') && !hyphens.allow(word, kinds)
    }

    /// Whether some value of it, or of its items, may begin with a hyphen where options have not ended.
    pub(super) fn may_begin_with_hyphen(&self, item: bool) -> bool {
        if item { self.item_hyphens.any() } else { self.hyphens.any() }
    }
}

/// A part of a schema, with the whole that references lead into.
struct Schema<'a> {
    value: &'a Value,
    root: &'a Map<String, Value>,
}

impl<'a> Schema<'a> {
    /// A keyword of it, or of what it refers to.
    fn find(&self, keyword: &str) -> Option<&'a Value> {
        self.chain().find_map(|value| value.get(keyword))
    }

    /// It, what it refers to, and so on.
    fn chain(&self) -> impl Iterator<Item = &'a Value> {
        let root = self.root;
        let next = move |value: &&'a Value| reference(value.get("$ref")?.as_str()?, root);
        std::iter::successors(Some(self.value), next).take(REFERENCES)
    }

    fn kinds(&self) -> Kinds {
        let mut kinds = Kinds::default();
        let kind = |value: &Value| match value {
            Value::String(_) => "string",
            Value::Number(number) if number.is_f64() => "number",
            Value::Number(_) => "integer",
            Value::Bool(_) => "boolean",
            Value::Null => "null",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        };
        match (self.find("type"), self.find("enum"), self.find("const")) {
            (Some(Value::String(name)), ..) => kinds.add(name),
            (Some(Value::Array(names)), ..) => names.iter().filter_map(Value::as_str).for_each(|name| kinds.add(name)),
            (_, Some(Value::Array(values)), _) => values.iter().for_each(|value| kinds.add(kind(value))),
            (.., Some(value)) => kinds.add(kind(value)),
            _ => return Kinds::OPEN,
        }
        kinds
    }
}

/// `#/a/b` below the root, RFC 6901.
fn reference<'a>(reference: &str, root: &'a Map<String, Value>) -> Option<&'a Value> {
    let mut parts = reference.strip_prefix("#/")?.split('/').map(|part| part.replace("~1", "/").replace("~0", "~"));
    let first = root.get(&parts.next()?)?;
    parts.try_fold(first, |value, part| match value {
        Value::Array(values) => values.get(part.parse::<usize>().ok()?),
        other => other.get(&part),
    })
}
