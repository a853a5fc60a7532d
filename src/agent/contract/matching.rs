//! Words back through a template: every way to read them.

use std::fmt;

use super::property::Property;
use super::template::{Element, Reading, Template, Word};

/// Most steps of one search. A template that people write takes about as many as it has elements and the call words.
const STEPS: usize = 20_000;

/// Why words cannot be read. It names places and properties, never a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// The word at this place, from 1, must be this literal of the template.
    Literal(usize, String),
    /// There is no word for this property.
    Missing(String),
    /// There are more words than the template has places for; the first of them.
    Surplus(usize),
    /// The word for this property is not of its kind.
    Kind(usize, String, &'static str),
    /// The word for this property begins with a hyphen.
    Hyphen(usize, String),
    /// The search was given up.
    TooMany,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Literal(place, literal) => write!(f, "argument {place} must be '{literal}'"),
            Self::Missing(name) => write!(f, "'{name}' is missing"),
            Self::Surplus(place) => write!(f, "argument {place} has no place in the script's contract"),
            Self::Kind(place, name, kind) => write!(f, "argument {place}, '{name}', must be {}{kind}", article(kind)),
            Self::Hyphen(place, name) => {
                write!(f, "argument {place}, '{name}', begins with '-' like an option, which its schema does not allow")
            }
            Self::TooMany => f.write_str("there are too many ways to read them"),
        }
    }
}

fn article(kind: &str) -> &'static str {
    match kind.chars().next() {
        Some('i') => "an ",
        Some('\'') | None => "",
        Some(_) if kind == "text" => "",
        Some(_) => "a ",
    }
}

/// One search.
pub(super) struct Matching<'a> {
    template: &'a Template,
    args: &'a [String],
    steps: usize,
    /// The failure that got furthest, and how far.
    furthest: (usize, Failure),
}

/// Called with each reading; what it returns ends the search.
type Visit<'v, 'a, T> = &'v mut dyn FnMut(&Reading<'a>) -> Option<T>;

impl<'a> Matching<'a> {
    pub(super) const fn new(template: &'a Template, args: &'a [String]) -> Self {
        Self { template, args, steps: 0, furthest: (0, Failure::Surplus(1)) }
    }

    /// Calls `visit` with every reading, the greediest first, until it returns something.
    ///
    /// # Errors
    /// It never did: why the words could not be read further.
    pub(super) fn each<T>(mut self, visit: Visit<'_, 'a, T>) -> Result<T, Failure> {
        let found = self.read((0, 0), &mut Reading::new(), visit);
        found.ok_or(if self.steps >= STEPS { Failure::TooMany } else { self.furthest.1 })
    }

    /// Reads on from `element` and `arg`.
    ///
    /// **Invariant:** the depth is bounded by the number of elements, which is bounded.
    fn read<T>(&mut self, at: (usize, usize), reading: &mut Reading<'a>, visit: Visit<'_, 'a, T>) -> Option<T> {
        let (element, arg) = at;
        self.steps += 1;
        if self.steps >= STEPS {
            return None;
        }
        let template = self.template;
        match template.elements.get(element) {
            None if arg == self.args.len() => visit(reading),
            None => self.fail(arg, Failure::Surplus(arg + 1)),
            Some(Element::Literal(literal)) if self.args.get(arg) == Some(literal) => {
                self.read((element + 1, arg + 1), reading, visit)
            }
            Some(Element::Literal(literal)) => self.fail(arg, Failure::Literal(arg + 1, literal.clone())),
            Some(Element::Value(place)) => self.value(at, *place, reading, visit),
            Some(Element::Flag(place, flag)) => self.flag(at, (*place, flag), reading, visit),
            Some(Element::Each(place)) => self.many(at, *place, reading, visit),
        }
    }

    fn value<T>(
        &mut self,
        at: (usize, usize),
        place: usize,
        reading: &mut Reading<'a>,
        visit: Visit<'_, 'a, T>,
    ) -> Option<T> {
        let property = self.template.properties.get(place)?;
        if let Some(word) = self.positional(at, property, false) {
            let found = self.with((at.0 + 1, at.1 + 1), (place, Word::Text(word)), reading, visit);
            if found.is_some() {
                return found;
            }
        }
        if property.omissible() {
            return self.with((at.0 + 1, at.1), (place, Word::Absent), reading, visit);
        }
        None
    }

    fn flag<T>(
        &mut self,
        at: (usize, usize),
        (place, flag): (usize, &str),
        reading: &mut Reading<'a>,
        visit: Visit<'_, 'a, T>,
    ) -> Option<T> {
        let property = self.template.properties.get(place)?;
        let (element, arg) = at;
        let announced = self.args.get(arg).is_some_and(|word| word == flag);
        if announced && let Some(word) = self.announced((element, arg + 1), place) {
            let found = self.with((element + 1, arg + 2), (place, Word::Text(word)), reading, visit);
            if found.is_some() {
                return found;
            }
        }
        if announced && property.kinds.boolean {
            let found = self.with((element + 1, arg + 1), (place, Word::On), reading, visit);
            if found.is_some() {
                return found;
            }
        }
        if property.kinds.boolean || property.omissible() {
            return self.with((element + 1, arg), (place, Word::Absent), reading, visit);
        }
        if announced { None } else { self.fail(arg, Failure::Missing(property.name.clone())) }
    }

    fn many<T>(
        &mut self,
        at: (usize, usize),
        place: usize,
        reading: &mut Reading<'a>,
        visit: Visit<'_, 'a, T>,
    ) -> Option<T> {
        let property = self.template.properties.get(place)?;
        let (element, start) = at;
        let mut items = Vec::new();
        while start + items.len() < self.args.len() {
            let Some(item) = self.positional((element, start + items.len()), property, true) else { break };
            items.push(item);
        }
        loop {
            let (next, word) = (start + items.len(), Word::Many(items.clone()));
            let found = self.with((element + 1, next), (place, word), reading, visit);
            if found.is_some() || items.pop().is_none() {
                return found;
            }
        }
    }

    /// Reads on with this said of a property, unless the words before said something else of it.
    fn with<T>(
        &mut self,
        at: (usize, usize),
        (place, word): (usize, Word<'a>),
        reading: &mut Reading<'a>,
        visit: Visit<'_, 'a, T>,
    ) -> Option<T> {
        if let Some(before) = reading.get(&place) {
            return if *before == word { self.read(at, reading, visit) } else { None };
        }
        reading.insert(place, word);
        let found = self.read(at, reading, visit);
        reading.remove(&place);
        found
    }

    /// The word at a place that nothing announces, if it can be a value of `property`, or of its items.
    fn positional(&mut self, (element, arg): (usize, usize), property: &Property, item: bool) -> Option<&'a str> {
        // Collecting the items of an array is a step for each: else one step could be as long as the call.
        self.steps += 1;
        let kinds = if item { property.items } else { property.kinds };
        let args = self.args;
        let Some(word) = args.get(arg) else {
            return self.fail(arg, Failure::Missing(property.name.clone()));
        };
        if !kinds.allow(word) {
            return self.fail(arg, Failure::Kind(arg + 1, property.name.clone(), kinds.name()));
        }
        self.no_option((element, arg), property, item).map(|()| word.as_str())
    }

    /// That the word at a place is none that a program could take for an option.
    fn no_option(&mut self, (element, arg): (usize, usize), property: &Property, item: bool) -> Option<()> {
        let template = self.template;
        let word = self.args.get(arg)?;
        if property.looks_like_an_option(word, item) && !template.options_ended(element) {
            return self.fail(arg, Failure::Hyphen(arg + 1, property.name.clone()));
        }
        Some(())
    }

    /// The word behind a flag, if it can be a value of `property`. A boolean has none there.
    fn announced(&mut self, (element, arg): (usize, usize), place: usize) -> Option<&'a str> {
        let template = self.template;
        let (property, kinds) = (template.properties.get(place)?, template.spoken(place));
        if !kinds.scalar() {
            return None;
        }
        let args = self.args;
        let Some(word) = args.get(arg) else {
            return self.fail(arg, Failure::Missing(property.name.clone()));
        };
        if !kinds.allow(word) {
            return self.fail(arg, Failure::Kind(arg + 1, property.name.clone(), kinds.name()));
        }
        self.no_option((element, arg), property, false).map(|()| word.as_str())
    }

    fn fail<T>(&mut self, arg: usize, failure: Failure) -> Option<T> {
        // That a word has no place says less than what was wrong with it in the place it was tried in.
        if arg > self.furthest.0 || (arg == self.furthest.0 && !matches!(failure, Failure::Surplus(_))) {
            self.furthest = (arg, failure);
        }
        None
    }
}
