//! For any template and any object: what it turns into reads back as the object, and nothing else is allowed.

use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;

/// What a caller's tool does: rule 1 to 3, written from the sidecar's side.
fn render(arguments: &Value, argv: &[Value], object: &Map<String, Value>) -> Vec<String> {
    let word = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let mut words = Vec::new();
    for element in argv {
        let Some(name) = element["arg"].as_str() else {
            words.push(word(element));
            continue;
        };
        let default = &arguments["properties"][name]["default"];
        match (object.get(name).unwrap_or(default), element["flag"].as_str()) {
            (Value::Null, _) | (Value::Bool(false), Some(_)) => {}
            (Value::Bool(true), Some(flag)) => words.push(flag.to_owned()),
            (value, Some(flag)) => words.extend([flag.to_owned(), word(value)]),
            (Value::Array(items), None) => words.extend(items.iter().map(word)),
            (value, None) => words.push(word(value)),
        }
    }
    words
}

/// A parameter with its element of `argv`, and a value for it.
fn parameter(number: usize) -> impl Strategy<Value = (Value, Value, Option<Value>)> {
    let name = format!("p{number}");
    let plain = json!({"arg": name});
    let flag = json!({"arg": name, "flag": format!("--{name}")});
    let text = "[a-zé0-9 ][ -~é]{0,6}";
    let scalar = prop_oneof![
        text.prop_map(|value| (json!({"type": "string"}), json!(value))),
        any::<i64>().prop_map(|value| (json!({"type": "integer", "minimum": i64::MIN}), json!(value))),
        any::<u64>().prop_map(|value| (json!({"type": "integer", "minimum": 0}), json!(value))),
        (-1e9_f64..1e9).prop_map(|value| (json!({"type": "number", "minimum": -1e9}), json!(value))),
        any::<bool>().prop_map(|value| (json!({"type": "boolean"}), json!(value))),
    ];
    let announced = scalar.prop_map(move |(schema, value)| (schema, flag.clone(), value));
    let required = text.prop_map(move |value| (json!({"type": "string"}), plain.clone(), json!(value)));
    prop_oneof![
        3 => (announced, any::<bool>()).prop_map(|((schema, element, value), given)| (schema, element, given.then_some(value))),
        1 => required.prop_map(|(schema, element, value)| (schema, element, Some(value))),
    ]
}

proptest! {
    #[test]
    fn what_a_template_renders_reads_back_as_the_object(
        parameters in (0..6_usize).prop_flat_map(|count| (0..count).map(parameter).collect::<Vec<_>>()),
        items in vec("[a-z]{1,4}", 0..4),
    ) {
        let (mut properties, mut argv, mut object) = (Map::new(), vec![json!("verb")], Map::new());
        let mut required = Vec::new();
        for (schema, element, value) in parameters {
            let name = element["arg"].as_str().unwrap().to_owned();
            required.extend(element["flag"].is_null().then(|| name.clone()));
            properties.insert(name.clone(), schema);
            argv.push(element);
            object.extend(value.map(|value| (name, value)));
        }
        properties.insert("rest".to_owned(), json!({"type": "array", "items": {"type": "string"}}));
        argv.push(json!({"arg": "rest", "repeat": true}));
        if !items.is_empty() {
            object.insert("rest".to_owned(), json!(items));
        }
        let arguments = json!({"properties": properties, "required": required, "additionalProperties": false});
        let words = render(&arguments, &argv, &object);
        let contract = Contract::new(&arguments, Some(&json!(argv))).map_err(TestCaseError::fail)?;
        let read = contract.check(&words).map_err(|refusal| TestCaseError::fail(format!("{words:?}: {refusal}")))?;
        prop_assert_eq!(render(&arguments, &argv, &read), words);
        // A switch that is off leaves no word behind.
        object.retain(|_, value| *value != json!(false));
        prop_assert_eq!(read, object);
    }

    /// Nothing is allowed that no object turns into.
    #[test]
    fn what_is_allowed_could_have_been_rendered(args in vec("(-{0,2}[a-c]{0,2}|--port|--verify|[0-9]{1,3}|--batch)", 0..7)) {
        let arguments = json!({
            "properties": {
                "port": {"type": "integer"},
                "verify": {"type": "boolean"},
                "name": {"type": "string"},
                "more": {"type": "array", "items": {"type": ["string", "integer"]}},
            },
        });
        let argv = vec![
            json!({"arg": "port", "flag": "--port"}),
            json!({"arg": "verify", "flag": "--verify"}),
            json!({"arg": "name"}),
            json!({"arg": "more", "repeat": true}),
        ];
        if let Ok(object) = Contract::new(&arguments, Some(&json!(argv))).unwrap().check(&args) {
            prop_assert_eq!(render(&arguments, &argv, &object), args);
        }
    }

    #[test]
    fn no_sidecar_and_no_words_make_it_panic(arguments in json_value(), argv in json_value(), args in vec(".{0,8}", 0..5)) {
        if let Ok(contract) = Contract::new(&arguments, Some(&argv)) {
            drop(contract.check(&args));
        }
    }
}

/// JSON that is near enough to a schema or a template to reach every corner.
fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        (-3..300_i64).prop_map(|number| json!(number)),
        "(x|y|string|integer|array|boolean|object|--x|\\^-|\\^\\[a-z\\]|#|#/properties/x|.{0,4})"
            .prop_map(Value::String),
    ];
    leaf.prop_recursive(5, 40, 5, |inner| {
        let key = prop_oneof![
            "(type|properties|required|items|enum|const|default|pattern|\\$ref|minimum|not|allOf)",
            "(arg|flag|repeat|x|y|x|y)",
        ];
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::Array),
            proptest::collection::btree_map(key, inner, 0..5)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}
