//! Every rule by example.

use serde_json::{Map, Value, json};

use super::*;

fn contract(arguments: &Value, argv: &Value) -> Contract {
    Contract::new(arguments, Some(argv).filter(|argv| !argv.is_null())).unwrap()
}

fn broken(arguments: &Value, argv: &Value) -> String {
    Contract::new(arguments, Some(argv).filter(|argv| !argv.is_null())).unwrap_err()
}

/// The parameters that the words mean, or why they are refused.
fn judge(contract: &Contract, args: &[&str]) -> Result<Value, String> {
    let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
    contract.check(&args).map(Value::Object).map_err(|refusal| {
        assert_eq!(refusal.code(), "arguments-not-allowed");
        refusal.text().strip_prefix("arguments not allowed: ").unwrap().to_owned()
    })
}

#[track_caller]
fn refused(contract: &Contract, args: &[&str], why: &str) {
    let text = judge(contract, args).unwrap_err();
    assert!(text.contains(why), "{args:?}: {text}");
}

/// A backup script: a target, an optional port, a switch, tags.
fn backup() -> Contract {
    let arguments = json!({
        "type": "object",
        "properties": {
            "target": {"type": "string", "pattern": "^[a-z./]+$"},
            "port": {"type": "integer", "minimum": 1, "maximum": 65535},
            "verify": {"type": "boolean"},
            "tags": {"type": "array", "items": {"type": "string", "maxLength": 4}, "maxItems": 3},
        },
        "required": ["target"],
        "additionalProperties": false,
    });
    let argv = json!([
        "--batch",
        {"arg": "port", "flag": "--port"},
        {"arg": "verify", "flag": "--verify"},
        {"arg": "target"},
        {"arg": "tags", "repeat": true},
    ]);
    contract(&arguments, &argv)
}

#[test]
fn each_kind_of_element_is_read_back() {
    let backup = backup();
    assert_eq!(judge(&backup, &["--batch", "db"]), Ok(json!({"target": "db"})));
    assert_eq!(
        judge(&backup, &["--batch", "--port", "22", "--verify", "db", "a", "b"]),
        Ok(json!({"target": "db", "port": 22, "verify": true, "tags": ["a", "b"]}))
    );
}

#[test]
fn what_the_template_cannot_produce_is_refused_with_its_place() {
    let backup = backup();
    refused(&backup, &[], "argument 1 must be '--batch'");
    refused(&backup, &["db"], "argument 1 must be '--batch'");
    refused(&backup, &["--batch"], "'target' is missing");
    refused(&backup, &["--batch", "--port", "22"], "'target' is missing");
    refused(&backup, &["--batch", "--port", "x", "db"], "argument 3, 'port', must be an integer");
    refused(&backup, &["--batch", "--port"], "'port' is missing");
    // Flags stand in the order of the template.
    refused(&backup, &["--batch", "--verify", "--port", "1", "db"], "argument 3, 'target', begins with '-'");
    for odd in ["022", "+1", " 1", "1.0", "1e3", "99999999999999999999"] {
        refused(&backup, &["--batch", "--port", odd, "db"], "must be an integer");
    }
    let none = contract(&json!({"type": "object"}), &Value::Null);
    assert_eq!(judge(&none, &[]), Ok(json!({})));
    refused(&none, &["x"], "argument 1 has no place in the script's contract");
}

#[test]
fn what_the_schema_does_not_allow_is_refused_by_name_and_without_its_value() {
    let backup = backup();
    refused(&backup, &["--batch", "--port", "65536", "db"], "'port': the value is greater than the maximum of 65535");
    refused(&backup, &["--batch", "DB"], "'target': the value does not match \"^[a-z./]+$\"");
    refused(&backup, &["--batch", "db", "a", "b", "c", "d"], "'tags': ");
    refused(&backup, &["--batch", "db", "secret"], "'tags/0': ");
    assert!(!judge(&backup, &["--batch", "db", "secret"]).unwrap_err().contains("secret"));
}

#[test]
fn nothing_that_could_be_an_option_stands_where_none_was_declared() {
    let text = |extra: Value| {
        let mut schema = json!({"type": "string"});
        schema.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        contract(&json!({"properties": {"x": schema}}), &json!([{"arg": "x"}]))
    };
    refused(&text(json!({})), &["-rf"], "argument 1, 'x', begins with '-' like an option");
    refused(&text(json!({"pattern": "^.*$"})), &["-"], "like an option");
    refused(&text(json!({"enum": ["-a", "b"]})), &["-b"], "like an option");
    assert!(judge(&text(json!({"enum": ["-a", "b"]})), &["-a"]).is_ok());
    assert!(judge(&text(json!({"const": "-a"})), &["-a"]).is_ok());
    assert!(judge(&text(json!({"pattern": "^-[a-z]$"})), &["-z"]).is_ok());
    let items = json!({"properties": {"x": {"type": "array", "items": {"type": "string"}}}});
    refused(
        &contract(&items, &json!([{"arg": "x", "repeat": true}])),
        &["a", "-b"],
        "argument 2, 'x', begins with '-'",
    );
    // Behind what ends options, a hyphen is only a hyphen.
    let any = json!({"properties": {"x": {"type": "string"}}});
    assert!(judge(&contract(&any, &json!(["--", {"arg": "x"}])), &["--", "-x"]).is_ok());
    // A number is what its schema says.
    let number = json!({"properties": {"x": {"type": "integer", "minimum": -5}}});
    let number = contract(&number, &json!([{"arg": "x"}]));
    assert_eq!(judge(&number, &["-5"]), Ok(json!({"x": -5})));
    refused(&number, &["-6"], "'x': the value is less than the minimum of -5");
}

#[test]
fn a_negative_number_that_no_schema_declares_is_taken_for_an_option() {
    let number = |extra: Value, flag: Option<&str>| {
        let mut schema = json!({"type": "number"});
        schema.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        let element = flag.map_or_else(|| json!({"arg": "x"}), |flag| json!({"arg": "x", "flag": flag}));
        contract(&json!({"properties": {"x": schema}}), &json!([element]))
    };
    for undeclared in
        [json!({}), json!({"type": "integer"}), json!({"minimum": 0}), json!({"maximum": -1}), json!({"enum": [-4]})]
    {
        refused(&number(undeclared.clone(), None), &["-5"], "argument 1, 'x', begins with '-' like an option");
        refused(&number(undeclared, Some("-n")), &["-n", "-5"], "argument 2, 'x', begins with '-' like an option");
    }
    for declared in
        [json!({"minimum": -9}), json!({"exclusiveMinimum": -6}), json!({"enum": [-5]}), json!({"const": -5})]
    {
        assert_eq!(judge(&number(declared.clone(), None), &["-5"]), Ok(json!({"x": -5})), "{declared}");
        assert_eq!(judge(&number(declared, Some("-n")), &["-n", "-5"]), Ok(json!({"x": -5})));
    }
    // What may be a negative number may not be any other word with a hyphen.
    let either = number(json!({"type": ["string", "integer"], "minimum": -9}), None);
    assert!(judge(&either, &["-5"]).is_ok());
    refused(&either, &["-rf"], "like an option");
    let items = json!({"properties": {"x": {"type": "array", "items": {"type": "integer"}}}});
    refused(&contract(&items, &Value::Null), &["1", "-2"], "argument 2, 'x', begins with '-'");
}

#[test]
fn a_flag_announces_no_option_as_its_value() {
    let text = |schema: Value| contract(&json!({"properties": {"x": schema}}), &json!([{"arg": "x", "flag": "--x"}]));
    refused(&text(json!({"type": "string"})), &["--x", "-rf"], "argument 2, 'x', begins with '-' like an option");
    refused(&text(json!({})), &["--x", "--"], "like an option");
    assert!(judge(&text(json!({"type": "string", "pattern": "^-[a-z]+$"})), &["--x", "-rf"]).is_ok());
    assert!(judge(&text(json!({"enum": ["-rf"]})), &["--x", "-rf"]).is_ok());
}

#[test]
fn two_hyphens_that_are_an_options_value_end_no_options() {
    let arguments = json!({
        "properties": {
            "x": {"type": "string"}, "on": {"type": "boolean"}, "n": {"type": "integer"}, "mode": {"enum": ["-a", "b"]},
            "cold": {"type": "integer", "minimum": -9}, "more": {"type": "array", "items": {"type": "string"}},
        },
        "required": ["x"],
    });
    let judged = |argv: Value, args: &[&str]| judge(&contract(&arguments, &argv), args);
    let x = json!({"arg": "x"});
    for (argv, args) in [
        (json!(["-c", "--", x]), &["-c", "--", "-x"][..]),
        (json!(["--batch", {"arg": "on", "flag": "-v"}, "--", x]), &["--batch", "--", "-x"]),
        (json!([{"arg": "mode"}, "--", x]), &["-a", "--", "-x"]),
        (json!([{"arg": "mode", "flag": "-m"}, "--", x]), &["-m", "-a", "--", "-x"]),
        (json!(["-c", {"arg": "more", "repeat": true}, "--", x]), &["-c", "--", "-x"]),
        (json!([{"arg": "cold"}, "--", x]), &["-5", "--", "-x"]),
    ] {
        let why = judged(argv.clone(), args).unwrap_err();
        assert!(why.contains("begins with '-'"), "{argv}: {why}");
        let last = args.len() - 1;
        assert!(judged(argv, &[&args[..last], &["x"]].concat()).is_ok(), "{args:?}");
    }
    for (argv, args) in [
        (json!(["verb", "--", x]), &["verb", "--", "-x"][..]),
        (json!(["--mode=fast", "--", x]), &["--mode=fast", "--", "-x"]),
        (json!([{"arg": "on", "flag": "-v"}, "--", x]), &["-v", "--", "-x"]),
        (json!(["verb", {"arg": "n", "flag": "-n"}, "--", x]), &["verb", "-n", "3", "--", "-x"]),
        (json!([{"arg": "more", "repeat": true}, "--", x]), &["a", "--", "-x"]),
        (json!(["--", "-c", "--", x]), &["--", "-c", "--", "-x"]),
    ] {
        assert!(judged(argv.clone(), args).is_ok(), "{argv} {args:?}");
    }
}

#[test]
fn without_a_template_values_stand_in_the_order_of_declaration() {
    let arguments = json!({
        "properties": {
            "zone": {"type": "string"},
            "count": {"type": "integer"},
            "dry": {"type": "boolean"},
            "hosts": {"type": "array", "items": {"type": "string"}},
        },
        "required": ["zone", "count", "dry"],
    });
    let plain = contract(&arguments, &Value::Null);
    let expected = json!({"zone": "eu", "count": 3, "dry": false, "hosts": ["a", "b"]});
    assert_eq!(judge(&plain, &["eu", "3", "false", "a", "b"]), Ok(expected));
    refused(&plain, &["3", "eu", "false"], "argument 2, 'count', must be an integer");
    refused(&plain, &["eu", "3", "yes"], "argument 3, 'dry', must be 'true' or 'false'");
}

#[test]
fn a_default_is_always_among_the_words() {
    let arguments = json!({"properties": {
        "mode": {"type": "string", "default": "fast"},
        "loud": {"type": "boolean", "default": true},
    }});
    let defaults = contract(&arguments, &json!([{"arg": "mode"}, {"arg": "loud", "flag": "-l"}]));
    assert_eq!(judge(&defaults, &["fast", "-l"]), Ok(json!({"mode": "fast", "loud": true})));
    assert_eq!(judge(&defaults, &["slow"]), Ok(json!({"mode": "slow", "loud": false})));
    refused(&defaults, &[], "'mode' is missing");
    // One without a place in the template is taken for granted.
    let hidden = json!({"properties": {"api": {"const": 2, "default": 2}}, "required": ["api"]});
    assert_eq!(judge(&contract(&hidden, &json!([])), &[]), Ok(json!({"api": 2})));
}

#[test]
fn null_is_nothing() {
    let arguments = json!({"properties": {"x": {"type": ["string", "null"]}}, "required": ["x"]});
    let nullable = contract(&arguments, &json!([{"arg": "x", "flag": "--x"}]));
    assert_eq!(judge(&nullable, &[]), Ok(json!({"x": null})));
    assert_eq!(judge(&nullable, &["--x", "null"]), Ok(json!({"x": "null"})));
}

#[test]
fn what_can_be_read_in_several_ways_is_allowed_if_one_of_them_is() {
    // Either parameter may be left out; the second takes only digits.
    let arguments = json!({"properties": {
        "name": {"type": "string", "pattern": "^[a-z]+$"},
        "id": {"type": "string", "pattern": "^[0-9]+$"},
    }});
    let either = contract(&arguments, &json!([{"arg": "name"}, {"arg": "id"}]));
    assert_eq!(judge(&either, &["web"]), Ok(json!({"name": "web"})));
    assert_eq!(judge(&either, &["12"]), Ok(json!({"id": "12"})));
    refused(&either, &["12", "web"], "'name': ");
    // Text or number.
    let union = json!({"properties": {"x": {"type": ["string", "integer"], "pattern": "^[a-z]+$", "maximum": 9}}});
    let union = contract(&union, &json!([{"arg": "x"}]));
    assert_eq!((judge(&union, &["a"]), judge(&union, &["7"])), (Ok(json!({"x": "a"})), Ok(json!({"x": 7}))));
    refused(&union, &["10"], "'x': ");
    // Two lists in a row.
    let words = json!({"type": "array", "items": {"type": "string"}, "maxItems": 2});
    let lists = json!({"properties": {"a": words, "b": words}});
    let lists = contract(&lists, &json!([{"arg": "a", "repeat": true}, {"arg": "b", "repeat": true}]));
    assert_eq!(judge(&lists, &["1", "2", "3"]), Ok(json!({"a": ["1", "2"], "b": ["3"]})));
    refused(&lists, &["1", "2", "3", "4", "5"], "'a': ");
    // One property in two places says the same in both.
    let twice = json!({"properties": {"x": {"type": "string"}}, "required": ["x"]});
    let twice = contract(&twice, &json!([{"arg": "x"}, "to", {"arg": "x"}]));
    assert!(judge(&twice, &["a", "to", "a"]).is_ok() && judge(&twice, &["a", "to", "b"]).is_err());
}

#[test]
fn kinds_are_known_from_references_and_listed_values() {
    let arguments = json!({
        "$defs": {"port": {"type": "integer", "maximum": 9}, "again": {"$ref": "#/$defs/port"}},
        "properties": {
            "port": {"$ref": "#/$defs/again"},
            "level": {"enum": [1, 2, "auto"]},
            "free": {"description": "anything"},
        },
        "required": ["port", "level", "free"],
    });
    let found = contract(&arguments, &Value::Null);
    assert_eq!(judge(&found, &["9", "2", "x"]), Ok(json!({"port": 9, "level": 2, "free": "x"})));
    assert_eq!(judge(&found, &["9", "auto", "1"]), Ok(json!({"port": 9, "level": "auto", "free": "1"})));
    refused(&found, &["x", "1", "1"], "must be an integer");
    refused(&found, &["9", "3", "1"], "'level': ");
}

#[test]
fn a_value_announced_by_a_flag_may_be_true_only_where_it_is_text() {
    let arguments = json!({"properties": {"x": {"type": ["boolean", "integer"]}}});
    let flag = contract(&arguments, &json!([{"arg": "x", "flag": "-x"}]));
    assert_eq!((judge(&flag, &["-x"]), judge(&flag, &["-x", "3"])), (Ok(json!({"x": true})), Ok(json!({"x": 3}))));
    refused(&flag, &["-x", "true"], "must be an integer");
}

#[test]
fn formats_that_are_known_are_checked() {
    let arguments = json!({"properties": {"ip": {"type": "string", "format": "ipv4"}}, "required": ["ip"]});
    let ip = contract(&arguments, &Value::Null);
    assert!(judge(&ip, &["10.0.0.1"]).is_ok());
    refused(&ip, &["10.0.0.256"], "'ip': ");
}

#[test]
fn a_broken_schema_or_template_makes_no_contract() {
    let x = json!({"properties": {"x": {"type": "string"}, "l": {"type": "array"}, "o": {"type": "object"}}});
    for (arguments, argv, why) in [
        (json!(true), Value::Null, "'arguments' is no object"),
        (json!({"type": "objekt"}), Value::Null, "no usable JSON Schema"),
        (json!({"properties": []}), Value::Null, "no usable JSON Schema"),
        (json!({"properties": {"x": {"pattern": "("}}}), Value::Null, "no usable JSON Schema"),
        (json!({"properties": {"x": {"pattern": "^(?!root)"}}}), Value::Null, "no usable JSON Schema"),
        (json!({"properties": {"x": {"pattern": "^.{0,404600}$"}}}), Value::Null, "no usable JSON Schema"),
        (json!({"properties": {"x": {"$ref": "https://example.com/x.json"}}}), Value::Null, "no usable JSON Schema"),
        (json!({"properties": {"x": {"$ref": "#/$defs/none"}}}), Value::Null, "no usable JSON Schema"),
        (x.clone(), json!("x"), "'argv' is no array"),
        (x.clone(), json!([1]), "'argv', element 1: it is neither text nor an object"),
        (x.clone(), json!(["a", {"flag": "-x"}]), "'argv', element 2: it has no 'arg'"),
        (x.clone(), json!([{"arg": "y"}]), "'arguments' declares no property 'y'"),
        (x.clone(), json!([{"arg": "x", "default": 1}]), "'default' is unknown"),
        (x.clone(), json!([{"arg": "x", "flag": 1}]), "'flag' is no text"),
        (x.clone(), json!([{"arg": "x", "flag": ""}]), "'flag' is no text"),
        (x.clone(), json!([{"arg": "l", "flag": "-l", "repeat": true}]), "do not go together"),
        (x.clone(), json!([{"arg": "x", "repeat": "yes"}]), "'repeat' is neither true nor false"),
        (x.clone(), json!([{"arg": "x", "repeat": true}]), "'x' is repeated in 'argv', and is no array"),
        (x.clone(), json!([{"arg": "l"}]), "an array takes \"repeat\": true"),
        (x.clone(), json!([{"arg": "o"}]), "'o' is no single value"),
        (x, json!(vec!["a"; 257]), "more than 256 elements"),
        (json!({"properties": {"x": {}}, "required": ["x"]}), json!([]), "'x' is required, and 'argv' has no place"),
        (json!({"required": ["x"]}), Value::Null, "'x' is required, and 'argv' has no place"),
    ] {
        let text = broken(&arguments, &argv);
        assert!(text.contains(why), "{arguments} {argv}: {text}");
    }
}

#[test]
fn a_broken_contract_is_told_in_words_that_steer_no_terminal() {
    let arguments = json!({"properties": {"f": {"type": "array"}}});
    let reason = broken(&arguments, &json!([{"arg": "f", "repe\u{1b}[2K\t": true}]));
    assert!(reason.contains("'repe [2K ' is unknown") && !reason.contains(char::is_control), "{reason:?}");
    let reason = broken(&arguments, &json!([{"arg": "\u{1b}]0;x\u{7}".repeat(500)}]));
    assert!(!reason.contains(char::is_control) && reason.chars().count() <= REASON + 3, "{reason:?}");
}

#[test]
fn references_in_a_circle_do_no_harm() {
    for schema in [
        json!({"properties": {"x": {"$ref": "#/properties/x"}}}),
        json!({"$ref": "#"}),
        json!({"properties": {"x": {"$ref": "#/$defs/a"}}, "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}),
        json!({"allOf": [{"$ref": "#"}]}),
    ] {
        if let Ok(contract) = Contract::new(&schema, None) {
            drop(judge(&contract, &["x"]));
            drop(judge(&contract, &[]));
        }
    }
}

#[test]
fn a_search_that_would_never_end_is_given_up() {
    let words = json!({"type": "array", "items": {"type": "string"}});
    let names: Vec<String> = (0..8).map(|n| format!("p{n}")).collect();
    let properties: Map<String, Value> = names.iter().map(|name| (name.clone(), words.clone())).collect();
    let argv: Vec<Value> = names.iter().map(|name| json!({"arg": name, "repeat": true})).collect();
    let arguments = json!({"properties": properties, "not": {}});
    let never = contract(&arguments, &json!(argv));
    assert!(judge(&never, &["x"; 256]).is_err());
    let with_end = argv.into_iter().chain([json!("end")]).collect::<Vec<_>>();
    refused(&contract(&arguments, &json!(with_end)), &["x"; 256], "too many ways");
}

#[test]
fn no_call_holds_up_the_agent_however_many_or_long_its_words_are() {
    let lists = |items: Value| {
        let names: Vec<String> = (0..8).map(|n| format!("p{n}")).collect();
        let each = |name: &String| (name.clone(), json!({"type": "array", "items": items}));
        let properties: Map<String, Value> = names.iter().map(each).collect();
        let argv = names.iter().map(|name| json!({"arg": name, "repeat": true})).chain([json!("end")]);
        contract(&json!({"properties": properties}), &json!(argv.collect::<Vec<_>>()))
    };
    let started = std::time::Instant::now();
    for (items, word) in [(json!({"type": "string"}), "x"), (json!({"type": "number"}), "1")] {
        let lists = lists(items);
        let refused = |args: Vec<String>| lists.check(&args).unwrap_err();
        assert_eq!(refused(vec![word.to_owned(); 200_000]).code(), "arguments-too-large");
        assert_eq!(refused(vec![word.repeat(4096); 256]).code(), "arguments-not-allowed");
    }
    // Without the bounds minutes, in a debug build.
    assert!(started.elapsed() < std::time::Duration::from_mins(1), "{:?}", started.elapsed());
}

#[test]
fn the_documented_example_does_what_the_documentation_says() {
    let text = include_str!("../../../README.md");
    let (_, rest) = text.split_once("```json\n").unwrap();
    let sidecar: Value = serde_json::from_str(rest.split_once("```").unwrap().0).unwrap();
    let restart = contract(&sidecar["arguments"], &sidecar["argv"]);
    assert_eq!(judge(&restart, &["--wait", "30", "nginx"]), Ok(json!({"service": "nginx", "wait": 30})));
    refused(&restart, &["sshd"], "'service': the value is not one of");
    refused(&restart, &["--help"], "begins with '-' like an option");
}
