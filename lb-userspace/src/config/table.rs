//! Typed access to one table of the document, with every refusal at its place.

use std::ops::RangeInclusive;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::report::Report;
use super::value::{Fault, parse_duration, spell};

/// A value and the byte offset at which it stands, counted through all files.
#[derive(Clone, Copy, Debug)]
pub(super) struct Marked<T> {
    pub(super) value: T,
    pub(super) at: usize,
}

/// One table: the root, a `[[service]]`, an inline `{ … }`.
///
/// Each getter returns `None` both for what is absent and for what it has reported.
pub(super) struct Section<'a> {
    /// What the table describes, with its article: "a service".
    what: &'static str,
    /// Where the table begins among all files.
    pub(super) at: usize,
    table: &'a DeTable<'a>,
    report: &'a Report<'a>,
    /// Known keys that an unknown one was taken for; they are not also reported as missing.
    misspelt: Vec<&'static str>,
}

impl<'a> Section<'a> {
    pub(super) fn new(
        report: &'a Report<'a>,
        what: &'static str,
        at: usize,
        table: &'a DeTable<'a>,
        keys: &[&'static str],
    ) -> Self {
        Self::with_foreign(report, what, at, table, keys, &[])
    }

    /// The same with keys that are known and do not belong here: the caller says where they do.
    pub(super) fn with_foreign(
        report: &'a Report<'a>,
        what: &'static str,
        at: usize,
        table: &'a DeTable<'a>,
        keys: &[&'static str],
        foreign: &[&str],
    ) -> Self {
        let misspelt = Vec::new();
        let mut section = Self { what, at, table, report, misspelt };
        for key in table.keys() {
            let name = key.get_ref().as_ref();
            if !keys.contains(&name) && !foreign.contains(&name) {
                section.refuse_key(key.get_ref(), report.at(key.span().start), keys);
            }
        }
        section
    }

    fn refuse_key(&mut self, key: &str, at: usize, keys: &[&'static str]) {
        let right = match nearest(key, keys.iter().copied()) {
            Some(near) => {
                self.misspelt.push(near);
                format!("did you mean `{near}`?")
            }
            None => format!("{} has: {}", self.what, keys.join(", ")),
        };
        let key = key.escape_debug();
        self.report.add(at, Fault::new(format!("unknown key `{key}` in {}", self.what), right));
    }

    pub(super) fn report(&self) -> &'a Report<'a> {
        self.report
    }

    /// Reports an error at the value of a key, or at the table where the key is absent.
    pub(super) fn add(&self, key: &str, fault: Fault) {
        let at = self.table.get(key).map_or(self.at, |value| self.report.at(value.span().start));
        self.report.add(at, fault);
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// Whether a key is there or was meant to be: then its absence is no error of its own.
    pub(super) fn meant(&self, key: &str) -> bool {
        self.has(key) || self.misspelt.contains(&key)
    }

    /// Reports an absent key that must be there; `example` is a line that would do.
    pub(super) fn require(&self, key: &str, example: &str) {
        if !self.meant(key) {
            let wrong = format!("{} needs `{key}`", self.what);
            self.report.add(self.at, Fault::new(wrong, format!("write {example}")));
        }
    }

    /// Reports a key that has no meaning here.
    pub(super) fn refuse(&self, key: &str, wrong: &str, right: &str) {
        if let Some((key, _)) = self.table.get_key_value(key) {
            self.report.add(self.report.at(key.span().start), Fault::new(wrong, right));
        }
    }

    /// A string.
    pub(super) fn text(&self, key: &str, example: &str) -> Option<Marked<&'a str>> {
        let value = self.table.get(key)?;
        let text = value.get_ref().as_str();
        if text.is_none() {
            self.refuse_type(key, value, "a string", example);
        }
        Some(Marked { value: text?, at: self.report.at(value.span().start) })
    }

    /// A string that is parsed further.
    pub(super) fn parsed<T>(
        &self,
        key: &str,
        example: &str,
        parse: impl FnOnce(&str) -> Result<T, Fault>,
    ) -> Option<Marked<T>> {
        let Marked { value, at } = self.text(key, example)?;
        match parse(value) {
            Ok(value) => Some(Marked { value, at }),
            Err(Fault { wrong, right }) => {
                self.report.add(at, Fault::new(format!("{key}: {wrong}"), right));
                None
            }
        }
    }

    /// A string that is parsed further and must be there.
    pub(super) fn required<T>(
        &self,
        key: &str,
        example: &str,
        parse: impl FnOnce(&str) -> Result<T, Fault>,
    ) -> Option<Marked<T>> {
        self.require(key, &format!("{key} = {example}"));
        self.parsed(key, example, parse)
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy>(&self, key: &str, words: &[(&str, T)]) -> Option<T> {
        let accepted = quoted(words);
        let word = self.text(key, &accepted)?;
        let found = words.iter().find(|(name, _)| *name == word.value);
        if found.is_none() {
            let wrong = format!(r#"{key}: "{}" does not exist"#, word.value.escape_debug());
            let right = match nearest(word.value, words.iter().map(|(name, _)| *name)) {
                Some(near) => format!(r#"did you mean "{near}"? accepted: {accepted}"#),
                None => format!("accepted: {accepted}"),
            };
            self.report.add(word.at, Fault::new(wrong, right));
        }
        found.map(|(_, value)| *value)
    }

    /// One of a few words, which must be there.
    pub(super) fn required_choice<T: Copy>(&self, key: &str, words: &[(&str, T)]) -> Option<T> {
        self.require(key, &format!("{key} = {}", quoted(words)));
        self.choice(key, words)
    }

    /// An integer within a range.
    pub(super) fn integer<T: TryFrom<i64>>(&self, key: &str, range: RangeInclusive<i64>) -> Option<T> {
        let value = self.table.get(key)?;
        let form = format!("{} to {}", range.start(), range.end());
        let Some(integer) = value.get_ref().as_integer() else {
            self.refuse_type(key, value, "an integer", &form);
            return None;
        };
        let number = i64::from_str_radix(integer.as_str(), integer.radix()).ok();
        let number =
            number.filter(|number| range.contains(number)).and_then(|number| T::try_from(number).ok());
        if number.is_none() {
            self.add(key, Fault::new(format!("{key}: {integer} is out of range"), format!("write {form}")));
        }
        number
    }

    /// `true` or `false`.
    pub(super) fn switch(&self, key: &str) -> Option<bool> {
        let value = self.table.get(key)?;
        let switch = value.get_ref().as_bool();
        if switch.is_none() {
            self.refuse_type(key, value, "true or false", "true or false");
        }
        switch
    }

    /// A time, or the default.
    pub(super) fn duration(&self, key: &str, default: Duration) -> Duration {
        let example = format!(r#"a number with its unit in quotes: {key} = "{}""#, spell(default));
        self.parsed(key, &example, parse_duration).map_or(default, |time| time.value)
    }

    /// `interval` and `timeout`, of which the second must not exceed the first; a default never does.
    pub(super) fn rhythm(&self, interval: Duration, timeout: Duration) -> (Duration, Duration) {
        let interval = self.duration("interval", interval);
        let timeout = self.duration("timeout", timeout.min(interval));
        if timeout > interval {
            let wrong =
                format!("timeout: {} is longer than the interval, {}", spell(timeout), spell(interval));
            self.add("timeout", Fault::new(wrong, format!("write at most {}", spell(interval))));
        }
        (interval, timeout)
    }

    /// A table within this one.
    pub(super) fn table(&self, key: &str, example: &str) -> Option<Marked<&'a DeTable<'a>>> {
        let value = self.table.get(key)?;
        let table = value.get_ref().as_table();
        if table.is_none() {
            self.refuse_type(key, value, "a table", example);
        }
        Some(Marked { value: table?, at: self.report.at(value.span().start) })
    }

    /// A list of tables within this one; what is no table in it is reported and left out.
    pub(super) fn tables(&self, key: &str, example: &str) -> Vec<Marked<&'a DeTable<'a>>> {
        self.list(key, example, "a table", DeValue::as_table)
    }

    /// A list of strings; what is no string in it is reported and left out.
    pub(super) fn texts(&self, key: &str, example: &str) -> Vec<Marked<&'a str>> {
        self.list(key, example, "a string", DeValue::as_str)
    }

    fn list<T: ?Sized>(
        &self,
        key: &str,
        example: &str,
        of: &str,
        get: impl Fn(&'a DeValue<'a>) -> Option<&'a T>,
    ) -> Vec<Marked<&'a T>> {
        let Some(value) = self.table.get(key) else { return Vec::new() };
        let Some(array) = value.get_ref().as_array() else {
            self.refuse_type(key, value, "a list", example);
            return Vec::new();
        };
        let mut list = Vec::with_capacity(array.len());
        for item in array {
            match get(item.get_ref()) {
                Some(value) => list.push(Marked { value, at: self.report.at(item.span().start) }),
                None => self.refuse_type(key, item, of, example),
            }
        }
        list
    }

    /// Whether a key is there and is a list with nothing in it.
    pub(super) fn is_empty_list(&self, key: &str) -> bool {
        self.table.get(key).and_then(|value| value.get_ref().as_array()).is_some_and(|array| array.is_empty())
    }

    /// Never quotes the value: a secret may stand where it does not belong.
    fn refuse_type(&self, key: &str, value: &Spanned<DeValue<'_>>, wanted: &str, example: &str) {
        let is = value.get_ref().type_str();
        let article = if matches!(is, "integer" | "array") { "an" } else { "a" };
        let wrong = format!("{key}: {wanted} is wanted, and this is {article} {is}");
        self.report.add(self.report.at(value.span().start), Fault::new(wrong, format!("write {example}")));
    }
}

/// `"a", "b" or "c"`.
fn quoted<T>(words: &[(&str, T)]) -> String {
    let quoted: Vec<String> = words.iter().map(|(word, _)| format!(r#""{word}""#)).collect();
    match quoted.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => quoted.concat(),
    }
}

/// The word that was probably meant: within a third of the letters, counting swapped neighbours as one slip.
pub(super) fn nearest<'w>(typed: &str, words: impl Iterator<Item = &'w str>) -> Option<&'w str> {
    let typed = typed.to_ascii_lowercase().replace('_', "-");
    words
        .map(|word| (strsim::osa_distance(&typed, word), word))
        .filter(|(distance, word)| distance * 3 <= word.len().max(3))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, word)| word)
}
