//! Parameters that a schema declares where no argument is read from: in the schemas that it refers to, or is put together
//! from (JSON Schema 2020-12, core, 8.2.3 and 10.2).

use std::collections::HashSet;

use serde_json::{Map, Value};

/// Keywords that hold schemas of the same object: a list, one, or one a name.
const LISTS: [&str; 3] = ["allOf", "anyOf", "oneOf"];
const SINGLE: [&str; 3] = ["if", "then", "else"];
const NAMED: &str = "dependentSchemas";

/// The first such parameter, by name; none where the schema declares all of them itself.
pub(super) fn first(schema: &Map<String, Value>) -> Option<String> {
    let own = schema.get("properties").and_then(Value::as_object);
    let declared = |name: &str| own.is_some_and(|own| own.contains_key(name));
    // Each is looked at once, however often others refer to it.
    let (mut seen, mut rest) = (HashSet::new(), vec![schema]);
    while let Some(part) = rest.pop() {
        if !seen.insert(std::ptr::from_ref(part)) {
            continue;
        }
        let mut names = part.get("properties").and_then(Value::as_object).into_iter().flat_map(Map::keys);
        if let Some(name) = names.find(|name| !declared(name)) {
            return Some(name.clone());
        }
        rest.extend(parts(part, schema).filter_map(Value::as_object));
    }
    None
}

/// The schemas that speak of the same object.
fn parts<'a>(schema: &'a Map<String, Value>, root: &'a Map<String, Value>) -> impl Iterator<Item = &'a Value> {
    let lists = LISTS.into_iter().filter_map(|key| schema.get(key)?.as_array()).flatten();
    let single = SINGLE.into_iter().filter_map(|key| schema.get(key));
    let named = schema.get(NAMED).and_then(Value::as_object).into_iter().flat_map(Map::values);
    let referred = schema.get("$ref").and_then(Value::as_str).and_then(|place| referred(place, root));
    lists.chain(single).chain(named).chain(referred)
}

/// A place in the schema itself (RFC 6901, as a URI fragment). What has other characters than a name is not looked for.
fn referred<'a>(place: &str, root: &'a Map<String, Value>) -> Option<&'a Value> {
    let mut steps = place.strip_prefix("#/")?.split('/').map(|step| step.replace("~1", "/").replace("~0", "~"));
    let first = root.get(&steps.next()?)?;
    steps.try_fold(first, |value, step| match value {
        Value::Object(object) => object.get(&step),
        Value::Array(list) => list.get(step.parse::<usize>().ok()?),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(schema: &Value) -> Option<String> {
        first(schema.as_object().unwrap())
    }

    #[test]
    fn a_parameter_that_only_another_schema_declares_is_found_wherever_that_is() {
        let other = json!({"properties": {"host": {"type": "string"}}});
        for schema in [
            json!({"$ref": "#/$defs/a", "$defs": {"a": other}}),
            json!({"allOf": [{"type": "object"}, other]}),
            json!({"properties": {"x": {}}, "oneOf": [{"$ref": "#/$defs/a~1b/0"}], "$defs": {"a/b": [other]}}),
            json!({"properties": {"x": {}}, "if": {"properties": {"x": {"const": 1}}}, "then": other}),
            json!({"dependentSchemas": {"x": {"anyOf": [other]}}}),
        ] {
            assert_eq!(of(&schema).as_deref(), Some("host"), "{schema}");
        }
    }

    #[test]
    fn what_the_schema_declares_itself_is_no_matter_and_neither_is_what_it_does_not_speak_of() {
        let other = json!({"properties": {"host": {"minLength": 1}}});
        for schema in [
            json!({}),
            json!({"properties": {"host": {}}, "allOf": [other]}),
            json!({"$defs": {"a": other}, "properties": {"x": {"allOf": [other]}}}),
            json!({"$ref": "#"}),
            json!({"$ref": "#/$defs/none"}),
            json!({"$ref": "#/$defs/a", "$defs": {"a": {"allOf": vec![json!({"$ref": "#/$defs/a"}); 100]}}}),
        ] {
            assert_eq!(of(&schema), None, "{schema}");
        }
    }
}
