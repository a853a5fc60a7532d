//! The argument contract of a script: which calls its sidecar allows.
//!
//! A sidecar ([`super::sidecar`]) describes a script's parameters as a JSON Schema (`arguments`, draft 2020-12) and how
//! a caller's tool turns an object of parameters into words (`argv`). What arrives here are the words. A call is allowed
//! if **some object that the schema allows turns into exactly these words**; so the words are read back through the
//! template, the object is rebuilt, and the schema judges it. A template that can be read in several ways is read in
//! all of them, up to a bound: the script sees the words alone, whichever object was meant.
//!
//! # The rules
//!
//! 1. `argv` is a list. A string stands for itself. `{"arg": "x"}` is the value of the property `x`.
//!    `{"arg": "x", "flag": "--x"}` is the flag and then the value; for a boolean the flag alone, if it is true.
//!    `{"arg": "x", "repeat": true}` is each item of an array.
//! 2. A missing value is the property's `default`, or nothing if there is none. `null` is nothing.
//! 3. Without `argv`, the properties' values stand in the order in which `properties` declares them; arrays as if they
//!    were repeated. A schema without properties allows no arguments: those that are declared in another schema, which it
//!    refers to or is put together from, are not looked for, and the operator is told so.
//! 4. Text is text. An integer is in plain decimal digits, a number as JSON writes it, a boolean `true` or `false`. A
//!    property that can be both text and something else is tried as text first.
//! 5. No value begins with `-`, a number's no more than a text's and behind a flag no more than elsewhere: a script could
//!    take it for an option. Unless the schema says that it is meant: the property's `enum` or `const` names this very
//!    value, the `pattern` of a text begins with `^-`, the `minimum` or `exclusiveMinimum` of a number is below 0. Or
//!    unless a literal `"--"` stands before it in `argv`, which ends options; but not one that could be an option's value:
//!    directly behind a literal that begins with `-` (and has no `=`), or behind a value that may begin with `-`.
//! 6. `format` is checked where the format is known. A `pattern` is matched in linear time, so one that needs to look
//!    around or back makes the contract broken. Nothing is fetched: a `$ref` leads into the schema itself.
//!
//! Contracts are the front-end's: no JSON Schema is in root code, which has the counts of `args=` to hold.
//!
//! **Invariant:** a contract that cannot be used allows nothing ([`Contract::new`] fails and the caller refuses).

mod matching;
mod property;
mod template;
mod unsaid;

use jsonschema::{Draft, PatternOptions, Validator};
use serde_json::{Map, Value};

use self::matching::{Failure, Matching};
use self::template::Template;
use crate::wire::order::check_arguments;
use crate::wire::refusal::Refusal;

/// Largest compiled pattern, in bytes. It is far below the size at which regex-automata panics on a match
/// (github.com/rust-lang/regex/issues/1344), which would end the agent.
const PATTERN: usize = 1 << 20;
/// Most readings of one call that the schema is asked about.
const READINGS: usize = 64;
/// Of a parameter that no argument can say.
const UNSAID: &str = "is declared in '$ref', 'allOf' or the like alone, so no argument can be meant for it: arguments are \
    those of the schema's own 'properties', or of 'argv'";
/// Longest reason that a caller is told, in characters.
const REASON: usize = 300;

/// A usable contract.
#[derive(Debug)]
pub struct Contract {
    template: Template,
    validator: Validator,
    doubt: Option<String>,
}

impl Contract {
    /// A contract from a sidecar's `arguments` and `argv`.
    ///
    /// # Errors
    /// What is broken, in words for the operator.
    pub fn new(arguments: &Value, argv: Option<&Value>) -> Result<Self, String> {
        let schema = arguments.as_object().ok_or("'arguments' is no object")?;
        let mut options = jsonschema::options().with_draft(Draft::Draft202012).offline();
        options = options.should_validate_formats(true);
        options = options.with_pattern_options(PatternOptions::regex().size_limit(PATTERN));
        let built = options.build(arguments);
        let validator = built.map_err(|error| shortened(&format!("'arguments' is no usable JSON Schema: {error}")))?;
        let template = Template::new(schema, argv).map_err(|why| shortened(&why))?;
        let unsaid = if argv.is_some() { None } else { unsaid::first(schema) };
        let doubt = unsaid.map(|name| shortened(&format!("'{name}' {UNSAID}")));
        Ok(Self { template, validator, doubt })
    }

    /// What the operator may not have meant by it.
    #[must_use]
    pub fn doubt(&self) -> Option<&str> {
        self.doubt.as_deref()
    }

    /// Judges the words of a call. Returns the parameters that they mean.
    ///
    /// # Errors
    /// `arguments-not-allowed`, with the argument and the reason. No value is repeated. Or there are more arguments, or
    /// larger ones, than any script can be given ([`check_arguments`]).
    pub fn check(&self, args: &[String]) -> Result<Map<String, Value>, Refusal> {
        // Not worth a search: no executor takes it.
        check_arguments(args)?;
        let mut first = None;
        let mut readings = 0;
        let outcome = Matching::new(&self.template, args).each(&mut |reading| {
            // Text first; then, where the schema leaves it open, as what the words look like.
            for narrow in [false, true] {
                let object = Value::Object(self.template.object(reading, narrow));
                match self.validator.validate(&object) {
                    Ok(()) => return Some(Ok(object)),
                    Err(error) => first = first.take().or_else(|| Some(reason(&error))),
                }
            }
            readings += 1;
            (readings >= READINGS).then_some(Err(Failure::TooMany))
        });
        let why = match outcome {
            Ok(Ok(Value::Object(object))) => return Ok(object),
            Ok(Err(failure)) | Err(failure) => first.unwrap_or_else(|| failure.to_string()),
            Ok(Ok(_)) => "it is no object".to_owned(),
        };
        Err(Refusal::new("arguments-not-allowed", format!("arguments not allowed: {}", shortened(&why))))
    }
}

/// Which parameter the schema does not allow, and why, without its value.
fn reason(error: &jsonschema::ValidationError<'_>) -> String {
    let place = error.instance_path().as_str().trim_start_matches('/').replace("~1", "/").replace("~0", "~");
    let text = error.masked_with("the value");
    if place.is_empty() { text.to_string() } else { format!("'{place}': {text}") }
}

fn shortened(text: &str) -> String {
    let mut chars = text.chars();
    let short: String = chars.by_ref().take(REASON).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if chars.next().is_some() { short + "..." } else { short }
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
