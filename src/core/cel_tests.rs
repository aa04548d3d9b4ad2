//! Tests of expressions: what holds, what is refused, and that nothing a person can write ends
//! the process, on the smallest stack it may meet and in an unoptimised build.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;

use super::Program;
use crate::core::inventory::{Marks, Origin, Resource, ResourceSpec};
use crate::core::limits::{CEL_ADDITIONS_MAX, CEL_BYTES_MAX, VALUE_BYTES_MAX};
use crate::core::types::{Key, LabTime, ResourceId, ResourceName, Value};

fn resource(labels: &[(&str, Value)]) -> Resource {
    let labels = labels.iter().map(|(key, value)| (Key::parse(key, "label").unwrap(), value.clone())).collect();
    Resource {
        id: ResourceId(1),
        spec: Arc::new(ResourceSpec {
            name: ResourceName::parse("pixel-8-01").unwrap(),
            pool: Key::parse("phone", "pool").unwrap(),
            labels,
            properties: BTreeMap::new(),
            secrets: BTreeMap::new(),
            slots: 1,
        }),
        origin: Origin::File,
        marks: Marks::default(),
        pending: None,
        last_used: LabTime(0),
        holders: BTreeSet::new(),
        slots_used: 0,
        cooling: Vec::new(),
    }
}

fn phone() -> Resource {
    resource(&[
        ("os", Value::Text("android".into())),
        ("api", Value::Int(34)),
        ("zero", Value::Int(0)),
        ("scale", Value::Float(1.5)),
        ("rooted", Value::Bool(true)),
        ("x-y", Value::Text("dashed".into())),
        ("int", Value::Text("shadow".into())),
        ("long", Value::Text("a".repeat(VALUE_BYTES_MAX).into())),
    ])
}

fn parse(text: &str) -> Program {
    Program::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[test]
fn what_is_true_holds() {
    let phone = phone();
    for text in [
        "true",
        "api >= 34 && os == 'android'",
        "api == 34.0 && api > 33.5 && scale < 2",
        "rooted",
        "!(api < 30) || missing == 1",
        "missing == 1 || rooted",
        "name.startsWith('pixel') && name.endsWith('01') && name.contains('-8-')",
        "pool == 'phone'",
        "labels['x-y'] == 'dashed' && labels.os == 'android' && labels['name'] == name",
        "labels['x' + '-y'] == 'dashed'",
        "'x-y' in labels && !('nope' in labels)",
        "has(labels.os) && !has(labels.nope)",
        "os in ['ios', 'android']",
        "{'android': 30, 'ios': 16}[os] <= api",
        "os.matches('^and.*d$') && matches(name, 'pixel-[0-9]+')",
        "size(os) == 7 && os.size() == 7",
        "int('3') + 31 == api && double(api) == 34.0 && string(api) == '34'",
        "labels['int'] == 'shadow' && int == 'shadow'",
        "api > 30 ? rooted : false",
        "api % 2 == 0 && -api < 0 && api * 2 - 34 == api && api / 2 == 17",
        ".os == 'android'",
        "long.size() == 4096",
        "os != \"ios\" // a comment",
    ] {
        assert!(parse(text).holds(&phone), "{text}");
    }
}

#[test]
fn what_is_false_or_cannot_be_evaluated_does_not_hold() {
    let phone = phone();
    for text in [
        "false",
        "api < 34",
        "missing == 1",
        "missing != 1",
        "!missing",
        "os",
        "api",
        "os > 3",
        "os && rooted",
        "api / zero == 1",
        "api % zero == 1",
        "api * 9223372036854775807 > 0",
        "-(-9223372036854775807 - 1) > 0",
        "zero / 0.0 == zero",
        "[1, 2][7] == 1",
        "[1][-1] == 1",
        "{'a': 1}['b'] == 1",
        "int('x') == 1",
        "int(1e300) == 1",
        "int == bool",
        "string == 'x'",
        "labels",
        "labels['nope'] == 'x'",
        "labels[api] == 'x'",
        "3 in labels",
        "labels == labels",
        "size(labels) > 0",
        "api.matches('3')",
        "has(labels.nope)",
        "'os' + 1 == 'os1'",
        "null",
        "-os == 'x'",
    ] {
        assert!(!parse(text).holds(&phone), "{text}");
    }
}

#[test]
fn what_is_not_supported_is_refused_by_name() {
    for (text, message) in [
        ("", "mismatched input 'the end' expecting expression"),
        ("api >=", "at character"),
        ("api >= 34 &&& x", "at character 13"),
        ("a b", "at character 3"),
        ("'open", "at character"),
        ("99999999999999999999 > 1", "at character 1"),
        ("[1].all(x, x > 0)", "`all`, `exists`"),
        ("[1, 2].map(x, x * 2) == [2]", "not supported"),
        ("labels.exists(l, true)", "not supported"),
        ("google.Any{a: 1} == 1", "structs are not supported"),
        ("os.length() == 1", "no function `length`; there are `has` and bool, contains"),
        ("type(os) == string", "no function `type`"),
        ("os.contains() == 1", "expected `x.contains('…')`"),
        ("contains(os, 'a')", "expected `x.contains('…')`"),
        ("int() == 1", "expected `int(x)`"),
        ("os.upper == 'A'", "labels have no fields, found `.upper`"),
        ("has(os.x)", "labels have no fields"),
        ("has(os)", "write `has(labels.x)`"),
        ("a.?b", "unsupported syntax"),
        ("os.matches('(')", "\"(\" is not a usable pattern: unclosed group"),
        ("os.matches(name)", "the pattern of `matches` as a text in quotes"),
        (r"os.matches('\\w{900}')", "[a-z0-9] instead of"),
        ("__x__ ==", "at character"),
    ] {
        let error = Program::parse(text).expect_err(text);
        assert!(error.contains(message), "{text}: {error}");
        assert!(error.len() < 400, "{error}");
    }
}

#[test]
fn the_labels_asked_for_are_known() {
    let program = parse(
        "api > 1 && labels['x-y'] == os && has(labels.b) && ('c-d' in labels || labels.e) && name == pool && labels[f]",
    );
    let variables: Vec<&str> = program.variables().collect();
    assert_eq!(variables, ["api", "b", "c-d", "e", "f", "os", "x-y"]);
}

/// Runs `work` on the stack of a worker or test thread, whatever RUST_MIN_STACK says.
fn on_a_small_stack(work: impl FnOnce() + Send + 'static) {
    std::thread::Builder::new().stack_size(2 * 1024 * 1024).spawn(work).unwrap().join().unwrap();
}

#[test]
fn nothing_large_or_deep_ends_the_process() {
    let fill = |open: &str, middle: &str, close: &str| {
        let depth = (CEL_BYTES_MAX - middle.len()) / (open.len() + close.len());
        format!("{}{middle}{}", open.repeat(depth), close.repeat(depth))
    };
    let mut texts: Vec<String> = [
        ("(", "1", ")"),
        ("[", "1", "]"),
        ("{1:", "1", "}"),
        ("!", "rooted", ""),
        ("-", "api", ""),
        ("1+", "1", ""),
        ("api-", "1", ""),
        ("1<", "1", ""),
        ("rooted&&", "rooted", ""),
        ("rooted||", "rooted", ""),
        ("a?b:", "c", ""),
        ("a?", "b", ":c"),
        ("a[", "0", "]"),
        ("size(", "os", ")"),
        ("string(", "os", ")"),
        ("has(", "a.b", ")"),
        ("[0].map(x,", "x", ")"),
        ("[0].exists(x,", "x", ")"),
        ("(", "", ""),
        ("[", "", ""),
        ("{", "", ""),
        ("\"", "", ""),
        ("?", "", ""),
        (".", "", ""),
        ("é", "", ""),
        ("\\", "", ""),
        ("a.", "b", ""),
        ("0x", "", ""),
    ]
    .iter()
    .map(|(open, middle, close)| fill(open, middle, close))
    .collect();
    texts.push(format!("os{}", ".size()".repeat(140)));
    texts.push(format!("os{}", ".contains('a')".repeat(70)));
    texts.push(format!("os{}", "[0]".repeat(300)));
    texts.push(format!("os{}", ".a{}".repeat(200)));
    texts.push("a".repeat(CEL_BYTES_MAX + 1));
    on_a_small_stack(move || {
        let phone = phone();
        for text in texts {
            match Program::parse(&text) {
                Ok(program) => {
                    assert_eq!(program.holds(&phone), program.holds(&phone), "{text}");
                }
                Err(error) => assert!(error.len() < 400, "{error}"),
            }
        }
    });
}

#[test]
fn the_deepest_that_is_allowed_is_evaluated() {
    on_a_small_stack(|| {
        let phone = phone();
        assert!(parse(&format!("{}rooted", "!".repeat(2))).holds(&phone));
        assert!(parse(&format!("1{} == 17", " + 1".repeat(CEL_ADDITIONS_MAX))).holds(&phone));
        assert!(parse(&format!("1{} == -28", " - 1".repeat(29))).holds(&phone));
        assert!(parse(&format!("rooted{}", "&& rooted".repeat(100))).holds(&phone));
        assert!(parse(&format!("{}true{}", "(".repeat(60), ")".repeat(60))).holds(&phone));
        let error = Program::parse(&format!("1{} == -39", " - 1".repeat(40))).unwrap_err();
        assert!(error.contains("nested at most 32 deep"), "{error}");
        let error = Program::parse(&format!("1{} == 18", " + 1".repeat(CEL_ADDITIONS_MAX + 1))).unwrap_err();
        assert!(error.contains("at most 16 additions"), "{error}");
    });
}

proptest! {
    #[test]
    fn any_words_in_any_order_give_a_program_or_a_reason(
        words in prop::collection::vec(prop::sample::select(vec![
            "os", "api", "labels", "name", "missing", "'a'", "\"é\"", "34", "1.5", "2u", "true", "null", "(", ")", "[",
            "]", "{", "}", "?", ":", ",", ".", "==", "!=", "<", ">=", "&&", "||", "!", "-", "+", "*", "/", "%", " in ",
            "has(labels.os)", ".size()", ".matches('a+')", ".contains('a')", "int(", "string(", "r'\\d'", "b'x'", "\\",
            "'", "`", "@", "é", "\n", "//", "x.map(", "/*",
        ]), 0..24),
    ) {
        let phone = phone();
        match Program::parse(&words.concat()) {
            Ok(program) => prop_assert_eq!(program.holds(&phone), program.holds(&phone)),
            Err(error) => prop_assert!(!error.is_empty()),
        }
    }
}

#[test]
fn resources_that_look_alike_are_answered_alike_and_no_others() {
    let values = [Value::Int(1), Value::Float(1.0), Value::Text("1".into()), Value::Bool(true), Value::Int(2)];
    let mut resources: Vec<Resource> = values.iter().map(|value| resource(&[("api", value.clone())])).collect();
    resources.push(resource(&[]));
    resources.push(resource(&[("api", Value::Int(1)), ("rack", Value::Int(7))]));
    // Twice, under other names: the second of each pair may be answered from the first.
    for number in 0..resources.len() {
        let mut twin = resources[number].clone();
        let mut spec = (*twin.spec).clone();
        spec.name = ResourceName::parse(&format!("twin-{number}")).unwrap();
        twin.spec = Arc::new(spec);
        resources.push(twin);
    }
    for text in [
        "api == 1",
        "string(api) == '1'",
        "has(labels.api)",
        "'api' in labels",
        "labels['a' + 'pi'] == 1",
        "labels[name] == 1 || api == 2",
        "name.startsWith('twin') && api == 1",
        "rack == 7 || api == 2",
        "true",
    ] {
        let program = Program::parse(text).unwrap();
        let mut answers = super::Answers::default();
        for resource in &resources {
            let known = program.holds(resource);
            assert_eq!(answers.holds(&program, resource), known, "{text} of {:?}", resource.spec);
        }
    }
}
