use proptest::prelude::*;
use serde_json::Value;

use super::*;

fn mask(paths: &[&str]) -> FieldMask {
    let paths: Vec<FieldPath> = paths.iter().map(|path| FieldPath::parse(path).unwrap()).collect();
    FieldMask::new(&paths).unwrap()
}

/// What becomes of `json`, whose white space goes.
fn masked(paths: &[&str], json: &str) -> String {
    mask(paths).apply(json).unwrap()
}

#[test]
fn a_name_is_masked_wherever_it_is() {
    let json =
        r#"{"account_number":"123","a":[{"account_number":"456","b":{"account_number":"789"}}],"other":"x"}"#;
    let expected = r#"{"account_number":"********","a":[{"account_number":"********","b":{"account_number":"********"}}],"other":"x"}"#;
    assert_eq!(masked(&["account_number"], json), expected);
    for other in [
        r#"{"account_numbers":"1"}"#,
        r#"{"number":"1"}"#,
        r#"{"Account_Number":"1"}"#,
        r#"["account_number"]"#,
    ] {
        assert_eq!(masked(&["account_number"], other), other);
    }
}

#[test]
fn a_path_is_a_chain_of_names_and_an_asterisk_one_of_them() {
    let json =
        r#"{"owner":{"name":"A","address":{"city":"B"}},"x":{"owner":[{"name":"C"}],"name":"D"},"name":"E"}"#;
    assert_eq!(
        masked(&["owner.*"], json),
        r#"{"owner":{"name":"********","address":null},"x":{"owner":[{"name":"********"}],"name":"D"},"name":"E"}"#
    );
    assert_eq!(
        masked(&["owner.*.city"], json),
        r#"{"owner":{"name":"A","address":{"city":"********"}},"x":{"owner":[{"name":"C"}],"name":"D"},"name":"E"}"#
    );
    assert_eq!(
        masked(&["x.owner.name", "address"], json),
        r#"{"owner":{"name":"A","address":null},"x":{"owner":[{"name":"********"}],"name":"D"},"name":"E"}"#
    );
}

#[test]
fn texts_become_asterisks_of_one_length_and_all_else_null() {
    let json = r#"{"n":[1,-2.50,true,null,"","long long text",{"a":"b"},[["deep"]],[]],"m":1}"#;
    assert_eq!(
        masked(&["n"], json),
        r#"{"n":[null,null,null,null,"********","********",null,[["********"]],[]],"m":1}"#
    );
}

#[test]
fn everything_else_stays_as_it_is_written() {
    let json =
        r#"{"z":1.0,"a":123456789012345678901234567890,"e":1E-7,"n":-0,"t":"\u00e9\/\ud83d\ude00","x":"s"}"#;
    assert_eq!(masked(&["x"], json), json.replace(r#""s""#, MASKED_TEXT));
    assert_eq!(masked(&["x"], " { \"a\" : [ 1 , 2 ] } "), r#"{"a":[1,2]}"#);
    for scalar in ["1", "\"x\"", "null", "true"] {
        assert_eq!(masked(&["x"], scalar), scalar);
    }
}

#[test]
fn no_way_of_writing_a_name_gets_past() {
    for json in [
        r#"{"x":"s3cret","x":"s3cret"}"#,
        r#"{"\u0078":"s3cret"}"#,
        r#"{"a":{"x":"s3cret"},"a":{"x":"s3cret"}}"#,
        r#"[[[[{"x":["s3cret",["s3cret"]]}]]]]"#,
        r#"{"x":{"y":"s3cret"}}"#,
        r#"{"x":{"x":"s3cret"}}"#,
        r#"{"x" : "s3cret" }"#,
        "{\"x\"\n:\t\"s3cret\"}",
    ] {
        assert!(!masked(&["x"], json).contains("s3cret"), "{json}");
    }
}

#[test]
fn what_is_not_one_json_value_of_bounded_depth_is_not_masked() {
    for text in [
        "",
        " ",
        "{",
        r#"{"a":1"#,
        r#"{"a":1}{"b":2}"#,
        r#"{"a":1} x"#,
        "NaN",
        "{'a':1}",
        r#"{"a":01}"#,
        "\u{feff}{}",
        "[1,]",
        r#"{"a":"\q"}"#,
        "{\"a\":\"\u{1}\"}",
        "<html>",
        r#"{"\ud800":1}"#,
        "123,456",
    ] {
        assert_eq!(mask(&["x"]).apply(text), Err(NotMaskable), "{text}");
    }
    let nested = |depth: usize| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
    assert_eq!(masked(&["x"], &nested(DEPTH_MAX)), nested(DEPTH_MAX));
    assert_eq!(mask(&["x"]).apply(&nested(DEPTH_MAX + 1)), Err(NotMaskable));
    assert_eq!(mask(&["x"]).apply(&nested(100_000)), Err(NotMaskable));
}

#[test]
fn a_path_has_names_and_not_only_asterisks() {
    for path in ["a", "a.b", "*.a", "a.*", "a.*.b", "a-b c"] {
        assert!(FieldPath::parse(path).is_ok(), "{path}");
    }
    for path in ["", ".", "a.", ".a", "a..b", "*", "*.*", "a*", "a.b*", "a.b.c.d.e.f.g.h.i"] {
        assert!(FieldPath::parse(path).is_err(), "{path}");
    }
}

#[test]
fn only_what_says_that_it_is_json_is_taken_for_it() {
    let of = |values: &[&'static str]| {
        let fields = values.iter().map(|value| (CONTENT_TYPE, HeaderValue::from_static(value)));
        is_json(&fields.fold(HeaderMap::new(), |mut map, (name, value)| {
            map.append(name, value);
            map
        }))
    };
    for yes in ["application/json", "application/json; charset=utf-8", "Application/Vnd.mx.api.v1+JSON"] {
        assert!(of(&[yes]), "{yes}");
    }
    for no in ["text/html", "text/json", "application/pdf", "application/jsonp", "image/svg+json", ""] {
        assert!(!of(&[no]), "{no}");
    }
    assert!(!of(&[]) && !of(&["application/json", "text/html"]));
}

#[test]
fn what_described_the_answer_as_it_was_is_gone() {
    let mut fields = HeaderMap::new();
    for name in [
        "content-length",
        "etag",
        "last-modified",
        "accept-ranges",
        "digest",
        "content-md5",
        "repr-digest",
        "x-other",
    ] {
        fields.insert(HeaderName::from_static(name), HeaderValue::from_static("1"));
    }
    describes_no_more(&mut fields);
    assert_eq!(fields.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["x-other"]);
}

/// Values whose texts say whether they are to be masked; names and nesting as they come.
fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[a-z\"\\\\é]{0,6}".prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 60, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec(("[abc]|account_number|owner", inner), 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// The same rule, told over again on a tree.
fn mask_tree(value: &mut Value, path: &mut Vec<String>, is_hit: &impl Fn(&[String]) -> bool) {
    let hit = is_hit(path);
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| mask_tree(item, path, is_hit)),
        Value::String(text) if hit => *text = "********".into(),
        value if hit => *value = Value::Null,
        Value::Object(members) => {
            for (name, member) in members {
                path.push(name.clone());
                mask_tree(member, path, is_hit);
                path.pop();
            }
        }
        _ => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn the_result_is_the_same_value_with_the_masked_ones_replaced(value in value(), pretty in any::<bool>()) {
        let json = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) }.unwrap();
        let result: Value = serde_json::from_str(&masked(&["account_number", "owner.*", "a.b"], &json)).unwrap();
        let is_hit = |path: &[String]| {
            let at = |back: usize| path.len().checked_sub(back).map(|at| path[at].as_str());
            at(1) == Some("account_number") || at(2) == Some("owner") || (at(2) == Some("a") && at(1) == Some("b"))
        };
        let mut expected = value;
        mask_tree(&mut expected, &mut Vec::new(), &is_hit);
        prop_assert_eq!(result, expected);
    }

    /// Names and canaries in every way that JSON can write them, names twice and more.
    #[test]
    fn a_masked_value_is_never_in_the_output(
        around in prop::collection::vec((0..4_usize, any::<bool>()), 0..6),
        escaped in prop::collection::vec(any::<bool>(), 14),
        twice in any::<bool>(),
    ) {
        let name: String = "account_number".chars().zip(&escaped)
            .map(|(c, escaped)| if *escaped { format!("\\u{:04x}", c as u32) } else { c.to_string() }).collect();
        let mut json = format!(r#"{{"{name}":"c4n4ry"}}"#);
        if twice {
            json = format!(r#"{{"x":1,"account_number":["c4n4ry"],"{name}":{{"deep":"c4n4ry"}}, "{name}" : "c4n4ry"}}"#);
        }
        for (kind, first) in around {
            json = match (kind, first) {
                (0, true) => format!("[{json},1]"),
                (0, false) => format!("[1 , {json}]"),
                (1, _) => format!(r#"{{"a":{json},"a":{json}}}"#),
                (2, _) => format!("{{ \"owner\" :\n{json} }}"),
                _ => format!(r#"{{"b":[[{json}]]}}"#),
            };
        }
        let out = masked(&["account_number"], &json);
        prop_assert!(!out.contains("c4n4ry"), "{}", out);
        prop_assert!(serde_json::from_str::<Value>(&out).is_ok());
    }

    #[test]
    fn no_text_makes_it_fail_otherwise(text in "[\\[\\]{}:,\"a1\\\\ ]{0,24}") {
        let is_json = serde_json::from_str::<Value>(&text).is_ok();
        prop_assert_eq!(mask(&["a"]).apply(&text).is_ok(), is_json, "{}", text);
    }
}
