//! `argv`: how parameters become words.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::property::{Kinds, Property};
use crate::wire::limits;

/// What one element of `argv` stands for. Numbers are places among the properties.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Element {
    /// Itself.
    Literal(String),
    /// A value.
    Value(usize),
    /// A flag, and what it announces.
    Flag(usize, String),
    /// Each item of an array.
    Each(usize),
}

/// What the words say of one property. It borrows them: a search says it many times over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Word<'a> {
    /// Nothing.
    Absent,
    /// A flag without a value.
    On,
    /// A value.
    Text(&'a str),
    /// So many values.
    Many(Vec<&'a str>),
}

/// One way to read the words: what they say of each property that `argv` names.
pub(super) type Reading<'a> = BTreeMap<usize, Word<'a>>;

/// A template and the properties that it is about.
#[derive(Debug)]
pub(super) struct Template {
    pub(super) elements: Vec<Element>,
    pub(super) properties: Vec<Property>,
    /// The literal `--` that ends options, if there is one.
    separator: Option<usize>,
}

impl Template {
    /// Reads `argv`, or makes it up from the order of the properties.
    ///
    /// # Errors
    /// What is broken.
    pub(super) fn new(schema: &Map<String, Value>, argv: Option<&Value>) -> Result<Self, String> {
        let declared = schema.get("properties").and_then(Value::as_object);
        let declared = declared.into_iter().flatten();
        let properties: Vec<Property> = declared.map(|(name, value)| Property::new(name, value, schema)).collect();
        let elements: Vec<Element> = match argv {
            None => (0..properties.len()).map(|place| in_order(place, &properties)).collect(),
            Some(Value::Array(list)) => {
                let parsed = list.iter().zip(1..).map(|(element, number)| {
                    parse(element, &properties).map_err(|why| format!("'argv', element {number}: {why}"))
                });
                parsed.collect::<Result<_, _>>()?
            }
            Some(_) => return Err("'argv' is no array".to_owned()),
        };
        if elements.len() > limits::ARGUMENTS {
            return Err(format!("'argv' has more than {} elements", limits::ARGUMENTS));
        }
        let mut template = Self { elements, properties, separator: None };
        let ends = |number: &usize| template.is_separator(*number);
        template.separator = (0..template.elements.len()).find(ends);
        template.check(schema)?;
        Ok(template)
    }

    /// That every element can be a word, and every required parameter can be said.
    fn check(&self, schema: &Map<String, Value>) -> Result<(), String> {
        for element in &self.elements {
            let place = match element {
                Element::Literal(_) => continue,
                Element::Value(place) | Element::Flag(place, _) | Element::Each(place) => place,
            };
            let Some(property) = self.properties.get(*place) else { continue };
            let (name, kinds) = (&property.name, property.kinds);
            if matches!(element, Element::Each(_)) {
                if !kinds.array || !property.items.scalar() {
                    return Err(format!("'{name}' is repeated in 'argv', and is no array of single values"));
                }
            } else if !kinds.scalar() {
                let help = if kinds.array { ": an array takes \"repeat\": true" } else { "" };
                return Err(format!("'{name}' is no single value, so it cannot be an argument{help}"));
            }
        }
        let required = schema.get("required").and_then(Value::as_array).into_iter().flatten();
        let said = |name: &str| {
            self.properties
                .iter()
                .zip(0..)
                .any(|(property, place)| property.name == name && (self.names(place) || property.default.is_some()))
        };
        match required.filter_map(Value::as_str).find(|name| !said(name)) {
            Some(name) => Err(format!("'{name}' is required, and 'argv' has no place for it")),
            None => Ok(()),
        }
    }

    /// Whether options have ended before an element.
    pub(super) fn options_ended(&self, element: usize) -> bool {
        self.separator.is_some_and(|separator| separator < element)
    }

    /// Whether an element is a `--` that ends options, whatever the call: not one that a program could take for the value
    /// of an option before it.
    fn is_separator(&self, number: usize) -> bool {
        if !matches!(self.elements.get(number), Some(Element::Literal(literal)) if literal == "--") {
            return false;
        }
        // What may stand directly before it: up to the first element that cannot be left out.
        for element in self.elements.iter().take(number).rev() {
            let (place, items) = match element {
                // One with '=' has its value.
                Element::Literal(literal) => return !literal.starts_with('-') || literal.contains('='),
                Element::Value(place) | Element::Flag(place, _) => (place, false),
                Element::Each(place) => (place, true),
            };
            let Some(property) = self.properties.get(*place) else { return false };
            if property.may_begin_with_hyphen(items) {
                return false;
            }
            let switch = matches!(element, Element::Flag(..)) && property.kinds.boolean;
            let may_be_missing = items || switch || property.omissible();
            if !may_be_missing {
                return true;
            }
        }
        true
    }

    /// Whether an element is about this property.
    fn names(&self, property: usize) -> bool {
        self.elements.iter().any(|element| match element {
            Element::Literal(_) => false,
            Element::Value(place) | Element::Flag(place, _) | Element::Each(place) => *place == property,
        })
    }

    /// The kinds of value of a property that are words of their own: behind a flag, a boolean has none.
    pub(super) fn spoken(&self, property: usize) -> Kinds {
        let flagged = |element: &Element| matches!(element, Element::Flag(place, _) if *place == property);
        let kinds = self.properties.get(property).map(|property| property.kinds).unwrap_or_default();
        Kinds { boolean: kinds.boolean && !self.elements.iter().any(flagged), ..kinds }
    }

    /// The parameters that a reading means. Those that leave no trace in the words are what the schema is most likely
    /// to want: absent, or what is nearest to it where they are required.
    pub(super) fn object(&self, reading: &Reading<'_>, narrow: bool) -> Map<String, Value> {
        let mut object = Map::new();
        for (place, property) in self.properties.iter().enumerate() {
            let value = match reading.get(&place) {
                Some(word) => said(property, self.spoken(place), word, narrow),
                None => property.default.clone().filter(|_| property.required),
            };
            if let Some(value) = value {
                object.insert(property.name.clone(), value);
            }
        }
        object
    }
}

fn said(property: &Property, spoken: Kinds, word: &Word<'_>, narrow: bool) -> Option<Value> {
    match word {
        Word::On => Some(Value::Bool(true)),
        Word::Text(text) => spoken.value(text, narrow),
        Word::Many(items) => {
            let wanted = !items.is_empty() || property.required || property.default.is_some();
            wanted.then(|| items.iter().filter_map(|item| property.items.value(item, narrow)).collect())
        }
        Word::Absent => {
            let wanted = property.required || property.default.is_some();
            let value = if property.kinds.null { Value::Null } else { Value::Bool(false) };
            wanted.then_some(value)
        }
    }
}

fn in_order(place: usize, properties: &[Property]) -> Element {
    let repeated = properties.get(place).is_some_and(|property| property.kinds.array && !property.kinds.scalar());
    if repeated { Element::Each(place) } else { Element::Value(place) }
}

fn parse(element: &Value, properties: &[Property]) -> Result<Element, String> {
    let fields = match element {
        Value::String(text) => return Ok(Element::Literal(text.clone())),
        Value::Object(fields) => fields,
        _ => return Err("it is neither text nor an object".to_owned()),
    };
    if let Some(odd) = fields.keys().find(|key| !matches!(key.as_str(), "arg" | "flag" | "repeat")) {
        return Err(format!("'{odd}' is unknown; an element has 'arg', and 'flag' or 'repeat'"));
    }
    let name = fields.get("arg").and_then(Value::as_str).ok_or("it has no 'arg' that names a property")?;
    let place = properties.iter().position(|property| property.name == name);
    let place = place.ok_or_else(|| format!("'arguments' declares no property '{name}'"))?;
    match (fields.get("flag"), fields.get("repeat")) {
        (None, None | Some(Value::Bool(false))) => Ok(Element::Value(place)),
        (None, Some(Value::Bool(true))) => Ok(Element::Each(place)),
        (Some(Value::String(flag)), None | Some(Value::Bool(false))) if !flag.is_empty() => {
            Ok(Element::Flag(place, flag.clone()))
        }
        (Some(Value::String(flag)), Some(Value::Bool(true))) if !flag.is_empty() => {
            Err("'flag' and 'repeat' do not go together".to_owned())
        }
        (Some(_), _) => Err("'flag' is no text".to_owned()),
        (None, Some(_)) => Err("'repeat' is neither true nor false".to_owned()),
    }
}
