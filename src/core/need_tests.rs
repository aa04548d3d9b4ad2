//! Tests of the NEED syntax: tables of what is read and what is refused, and properties of both.

use proptest::prelude::*;

use super::{Count, Need, Slots, Term, check_needs};
use crate::core::limits::{CEL_BYTES_MAX, NEED_BYTES_MAX, TERMS_PER_NEED_MAX};
use crate::core::refusal::{Code, Refusal};
use crate::core::types::Key;

fn key(text: &str) -> Key {
    Key::parse(text, "key").unwrap()
}

fn need(text: &str) -> Need {
    Need::parse(text).unwrap_or_else(|error| panic!("{error}"))
}

fn term(label: &str, negated: bool, value: &str) -> Term {
    Term { key: key(label), negated, value: value.into() }
}

fn plain(pool: &str) -> Need {
    Need {
        alias: key(pool),
        count: Count::Exactly(1),
        pool: key(pool),
        slots: Slots::Exactly(1),
        terms: Vec::new(),
        expression: None,
    }
}

#[test]
fn every_part_is_read() {
    let table = [
        ("phone", plain("phone")),
        ("  phone ", plain("phone")),
        ("1:phone/1", plain("phone")),
        ("all", plain("all")),
        ("2:phone", Need { count: Count::Exactly(2), ..plain("phone") }),
        ("256:phone", Need { count: Count::Exactly(256), ..plain("phone") }),
        ("all:phone", Need { count: Count::All, ..plain("phone") }),
        ("seats/3", Need { slots: Slots::Exactly(3), ..plain("seats") }),
        ("seats/all", Need { slots: Slots::All, ..plain("seats") }),
        ("seats/10000", Need { slots: Slots::Exactly(10_000), ..plain("seats") }),
        ("net=vlan", Need { alias: key("net"), ..plain("vlan") }),
        ("vlan=vlan", plain("vlan")),
        (
            "net=vlan,site=berlin",
            Need { alias: key("net"), terms: vec![term("site", false, "berlin")], ..plain("vlan") },
        ),
        (
            "n=all:vlan/all , site != berlin,os=\"\"",
            Need {
                alias: key("n"),
                count: Count::All,
                slots: Slots::All,
                terms: vec![term("site", true, "berlin"), term("os", false, "")],
                ..plain("vlan")
            },
        ),
        (
            r#"phone,model="a, b \"c\" \\ where d",x=1"#,
            Need {
                terms: vec![term("model", false, r#"a, b "c" \ where d"#), term("x", false, "1")],
                ..plain("phone")
            },
        ),
        ("phone,a=b=c,d=e:f/g\\h", {
            Need { terms: vec![term("a", false, "b=c"), term("d", false, "e:f/g\\h")], ..plain("phone") }
        }),
        (
            "phone where api >= 34 && os == 'a where b'",
            Need { expression: Some("api >= 34 && os == 'a where b'".into()), ..plain("phone") },
        ),
        (
            "phone,a=\"x where y\"  where  b == \"c\" ",
            Need {
                terms: vec![term("a", false, "x where y")],
                expression: Some("b == \"c\"".into()),
                ..plain("phone")
            },
        ),
        ("phone where x where y", Need { expression: Some("x where y".into()), ..plain("phone") }),
        ("where where x", Need { expression: Some("x".into()), ..plain("where") }),
    ];
    for (text, expected) in table {
        assert_eq!(need(text), expected, "{text}");
    }
}

#[test]
fn what_cannot_be_read_is_refused_with_the_place() {
    let table = [
        ("", 1, "expected a pool"),
        ("   ", 4, "expected a pool"),
        ("Phone", 1, "a small letter"),
        ("0:phone", 1, "a count: 1 to 256, or `all`, found `0`"),
        ("257:phone", 1, "found `257`"),
        ("+2:phone", 1, "found `+2`"),
        (":phone", 1, "a count"),
        ("99999999999:phone", 1, "a count"),
        ("2:", 3, "expected a pool"),
        ("2:net=vlan", 1, "`net=2:vlan`"),
        ("=vlan", 1, "expected an alias"),
        ("net=", 5, "expected a pool"),
        ("a!=b", 1, "expected an alias"),
        ("seats/", 7, "expected slots"),
        ("seats/0", 7, "slots: 1 to 10000, or `all`"),
        ("seats/10001", 7, "slots"),
        ("seats/-1", 7, "slots"),
        ("seats/1/2", 7, "slots"),
        ("phone os=android", 1, "a comma before the first label"),
        ("phone,", 7, "label=value"),
        ("phone,,os=a", 7, "label=value"),
        ("phone,os", 7, "label=value or label!=value"),
        ("phone,api<34", 7, "label=value or label!=value"),
        ("phone,OS=a", 7, "a label's key"),
        ("phone,os=", 10, "\"\" for an empty one"),
        ("phone,os==a", 10, "single `=`"),
        ("phone,os=a b", 10, "double quotes"),
        ("phone,os=a\"b\"", 10, "double quotes"),
        ("phone,os=\"a", 10, "a closing double quote"),
        ("phone,os=\"a\\n\"", 12, "found `\\n\"`"),
        ("phone,os=\"a\\", 12, "found `\\`"),
        ("phone,os=\"a\"b", 13, "a comma after the quoted value, found `b`"),
        ("phone,os=\"a where b", 10, "a closing double quote"),
        ("phone where", 12, "expected a CEL expression"),
        ("phone where   ", 15, "expected a CEL expression"),
        (" where x", 2, "expected a pool"),
        ("größe,x=1", 1, "found `größe`"),
        ("phone,ü=1,Ö=2", 7, "found `ü`"),
    ];
    for (text, at, problem) in table {
        let error = Need::parse(text).expect_err(text);
        assert_eq!(error.at, at, "{text:?}: {error}");
        assert!(error.problem.contains(problem), "{text:?}: {error}");
        assert!(error.to_string().contains(&format!("{text:?} is not a valid need")), "{error}");
    }
}

#[test]
fn bounds_are_said_in_numbers() {
    let long_value = format!("phone,os={}", "a".repeat(NEED_BYTES_MAX));
    let long_expression = format!("phone where {}", "a".repeat(CEL_BYTES_MAX + 1));
    let terms = format!("phone{}", ",a=1".repeat(TERMS_PER_NEED_MAX + 1));
    for (text, number) in
        [(long_value, NEED_BYTES_MAX), (long_expression, CEL_BYTES_MAX), (terms.clone(), TERMS_PER_NEED_MAX)]
    {
        let error = Need::parse(&text).unwrap_err();
        assert!(error.problem.contains(&number.to_string()), "{error}");
        assert!(error.to_string().len() < 400, "an error shows no more than the beginning");
    }
    assert_eq!(need(&terms[..terms.len() - 4]).terms.len(), TERMS_PER_NEED_MAX);
}

#[test]
fn the_canonical_text_leaves_out_what_goes_without_saying() {
    for (text, canonical) in [
        (" vlan=1:vlan/1 , a = \"b\" ", "vlan,a=b"),
        ("net=2:vlan/all,a!=\"b c\"  where  x ", "net=2:vlan/all,a!=\"b c\" where x"),
        (r#"a,b="\"\\""#, r#"a,b="\"\\""#),
        ("a,b=\"=\"", "a,b=\"=\""),
    ] {
        assert_eq!(need(text).to_string(), canonical);
    }
}

fn check(needs: &[&str], same: Option<&str>, distinct: Option<&str>) -> Result<(), Refusal> {
    let needs: Vec<Need> = needs.iter().map(|text| need(text)).collect();
    check_needs(&needs, same.map(key).as_ref(), distinct.map(key).as_ref())
}

#[test]
fn needs_that_go_together_pass() {
    let many: Vec<String> = (0..16).map(|n| format!("a{n}=16:phone")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    for needs in [&["phone"][..], &["phone", "phone2=phone", "net=2:vlan"], &["a=seats/all", "b=seats/all"], &many] {
        assert_eq!(check(needs, Some("site"), Some("host")), Ok(()), "{needs:?}");
    }
    assert_eq!(check(&["phone"], Some("site"), Some("site")), Ok(()), "one pick is alike and not alike");
}

#[test]
fn needs_that_do_not_go_together_are_refused_with_the_fix() {
    let seventeen = ["phone"; 17];
    let table: &[(&[&str], Code, &str)] = &[
        (&[], Code::InvalidParams, "at least one need"),
        (&seventeen, Code::TooManyNeeds, "16 needs, this one has 17"),
        (&["200:phone", "57:vlan"], Code::TooManyPicks, "this one asks for 257"),
        (&["256:phone", "all:vlan"], Code::TooManyPicks, "this one asks for 257"),
        (&["phone", "phone,os=ios"], Code::AliasCollision, "such as `phone2=phone,os=ios`"),
        (&["phone", "phone2=vlan", "phone"], Code::AliasCollision, "such as `phone3=phone`"),
        (&["a-b", "a_b"], Code::AliasCollision, "`a-b` and `a_b` would meet"),
        (&["net-2=vlan", "net=vlan"], Code::AliasCollision, "`net-2` and `net` would meet"),
        (&["github"], Code::AliasCollision, "such as `github2=github`"),
        (&["ca-cert"], Code::AliasCollision, "such as `cacert2=ca-cert`"),
        (&["a=seats/2", "b=seats/all"], Code::InvalidNeed, "`a=seats/2` and `b=seats/all`"),
    ];
    for (needs, code, message) in table {
        let refusal = check(needs, None, None).unwrap_err();
        assert_eq!(refusal.code, *code, "{needs:?}: {refusal}");
        assert!(refusal.message.contains(message), "{needs:?}: {refusal}");
    }
    let refusal = check(&["2:phone"], Some("site"), Some("site")).unwrap_err();
    assert!(refusal.message.contains("alike and not alike"), "{refusal}");
    assert!(check(&["phone"], None, Some("labels")).unwrap_err().message.contains("no label"));
}

#[test]
fn the_fix_that_is_proposed_passes() {
    for needs in [&["phone", "phone"][..], &["github"], &["a-b", "a_b"], &["net-2=vlan", "net=vlan"]] {
        let refusal = check(needs, None, None).unwrap_err();
        let (_, fix) = refusal.message.split_once("such as `").unwrap();
        let mut mended = needs.to_vec();
        *mended.last_mut().unwrap() = fix.trim_end_matches('`');
        assert_eq!(check(&mended, None, None), Ok(()), "{mended:?}");
    }
}

prop_compose! {
    fn any_need()(
        alias in "[a-z][a-z0-9_-]{0,8}",
        count in prop_oneof![Just(Count::All), (1..=256_u32).prop_map(Count::Exactly)],
        pool in "[a-z][a-z0-9_-]{0,8}",
        slots in prop_oneof![Just(Slots::All), (1..=10_000_u32).prop_map(Slots::Exactly)],
        terms in prop::collection::vec(("[a-z][a-z0-9_-]{0,4}", any::<bool>(), "([ -~]|where|\\PC){0,8}"), 0..5),
        expression in prop::option::of("[!-~]([ -~]{0,20}[!-~])?"),
    ) -> Need {
        let terms = terms.iter().map(|(label, negated, value)| term(label, *negated, value)).collect();
        Need { alias: key(&alias), count, pool: key(&pool), slots, terms, expression: expression.map(Into::into) }
    }
}

proptest! {
    #[test]
    fn the_canonical_text_parses_back(need in any_need()) {
        prop_assert_eq!(Need::parse(&need.to_string()), Ok(need));
    }

    #[test]
    fn any_text_gives_a_need_or_a_place_in_it(text in "([ -~]|[=:/,\"\\\\]| where |all|a|1|é|\\PC){0,12}") {
        match Need::parse(&text) {
            Ok(need) => {
                let canonical = need.to_string();
                prop_assert!(canonical.len() <= text.len());
                prop_assert_eq!(Need::parse(&canonical), Ok(need));
            }
            Err(error) => prop_assert!((1..=text.chars().count() + 1).contains(&error.at)),
        }
    }
}
