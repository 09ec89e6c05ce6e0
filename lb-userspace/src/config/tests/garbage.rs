//! Whatever stands in the file, the door answers in words.

use proptest::prelude::*;

use super::*;

const RIGHT: &str = include_str!("right.toml");

/// What a slip of the hand puts into a file.
fn slip() -> impl Strategy<Value = String> {
    prop_oneof![
        "[\\PC\n]{0,8}",
        prop::sample::select(vec![
            "=",
            "[[",
            "]]",
            "{",
            "}",
            "\"",
            "\n",
            "# ",
            "'''",
            "9999999999999999999",
            "ä"
        ])
        .prop_map(str::to_owned),
    ]
}

fn answers(text: &str) {
    if let Err(errors) = crate::config::parse(text, "lb.toml", &Safe) {
        for error in &errors {
            let place = error.place.expect("an error of a text that was read has a place");
            let line = text.split('\n').nth(place.line - 1).expect("the line is there");
            assert!(place.column <= line.chars().count() + 1, "{error}");
            assert_eq!(error.to_string().lines().count(), 1, "{error}");
        }
    }
}

proptest! {
    #[test]
    fn random_text_never_panics(text in "[\\PC\\n\\t\\r\\[\\]={}\"']{0,200}") {
        answers(&text);
    }

    #[test]
    fn a_file_with_slips_never_panics(slips in prop::collection::vec((0..RIGHT.len(), 0..12usize, slip()), 1..4)) {
        let mut text: Vec<char> = RIGHT.chars().collect();
        for (at, removed, added) in slips {
            let at = at.min(text.len());
            let end = (at + removed).min(text.len());
            text.splice(at..end, added.chars());
        }
        answers(&text.into_iter().collect::<String>());
    }

    #[test]
    fn any_value_at_any_key_never_panics(
        line in 0..RIGHT.lines().count(),
        value in prop::sample::select(vec![
            "0", "-1", "1.5", "nan", "true", "1979-05-27", "\"\"", "\"/\"", "\":\"", "\"-\"", "[]", "[[]]", "{}",
            "[{}]", "\"ä\"", "\"999999999999999999999h\"", "\"18446744073709551615d\"", "\"fcgi:///\"", "\"\\u0000\"",
        ]),
    ) {
        let changed = |(i, text): (usize, &str)| match text.split_once(" = ") {
            Some((key, _)) if i == line => format!("{key} = {value}"),
            _ => text.to_owned(),
        };
        answers(&RIGHT.lines().enumerate().map(changed).collect::<Vec<_>>().join("\n"));
    }
}
