//! Collects what is wrong in the files of a configuration, and turns offsets into files, lines and columns.
//!
//! An offset counts through all files as if they stood one after the other, so that two places can be compared and
//! named whichever files they are in.

use std::cell::RefCell;

use super::error::{ConfigError, ConfigErrors, Place};
use super::value::Fault;

/// One file: what it is called, and where it begins among all files.
struct File<'t> {
    origin: &'t str,
    text: &'t str,
    begins: usize,
    line_starts: Vec<usize>,
}

impl<'t> File<'t> {
    fn new(origin: &'t str, text: &'t str, begins: usize) -> Self {
        let after_newlines = text.match_indices('\n').map(|(offset, _)| offset + 1);
        let line_starts = std::iter::once(0).chain(after_newlines).collect();
        Self { origin, text, begins, line_starts }
    }

    /// The place of an offset within the file.
    fn place(&self, at: usize) -> Place {
        let line = self.line_starts.partition_point(|start| *start <= at).max(1);
        let start = self.line_starts[line - 1];
        let before = self.text.get(start..at.min(self.text.len())).unwrap_or_default();
        // A byte order mark is no column of its own to whoever looks at the file.
        Place { line, column: before.trim_start_matches('\u{feff}').chars().count() + 1 }
    }

    fn error(&self, at: usize, Fault { wrong, right }: Fault) -> ConfigError {
        ConfigError { file: self.origin.to_owned(), place: Some(self.place(at)), wrong, right }
    }
}

/// The error at a byte offset of a single text, which needs no collecting.
pub(super) fn error(origin: &str, text: &str, at: usize, fault: Fault) -> ConfigError {
    File::new(origin, text, 0).error(at, fault)
}

/// The files of one configuration, the main one first, and what has been found in them.
///
/// Readers only ever add to it and go on with a stand-in value; [`Files::finish`] lets the result out only if nothing
/// was added. The cells spare every reader a `&mut` that nothing else in it needs.
pub(super) struct Files<'t> {
    all: Vec<File<'t>>,
    faults: RefCell<Vec<(usize, Fault)>>,
    notes: RefCell<Vec<(usize, Fault)>>,
}

impl<'t> Files<'t> {
    /// The files with what they are called; at least one.
    pub(super) fn new(texts: impl IntoIterator<Item = (&'t str, &'t str)>) -> Self {
        let mut begins = 0;
        let file = |(origin, text): (&'t str, &'t str)| {
            let file = File::new(origin, text, begins);
            begins += text.len() + 1;
            file
        };
        let all = texts.into_iter().map(file).collect();
        Self { all, faults: RefCell::default(), notes: RefCell::default() }
    }

    /// What readers of the file of that number report to.
    pub(super) fn report(&'t self, number: usize) -> Report<'t> {
        Report { files: self, begins: self.all[number].begins }
    }

    /// What the main file is called.
    pub(super) fn main(&self) -> &'t str {
        self.all[0].origin
    }

    /// The file that an offset is in, and the offset within it.
    fn find(&self, at: usize) -> (&File<'t>, usize) {
        let number = self.all.partition_point(|file| file.begins <= at).max(1) - 1;
        let file = &self.all[number];
        (file, at - file.begins)
    }

    fn errors(&self, mut found: Vec<(usize, Fault)>) -> Vec<ConfigError> {
        found.sort_by_key(|(at, _)| *at);
        let error = |(at, fault)| {
            let (file, at) = self.find(at);
            file.error(at, fault)
        };
        found.into_iter().map(error).collect()
    }

    /// The value and what is only to be said if there was no error, all errors otherwise.
    pub(super) fn finish<T>(&self, value: T) -> Result<(T, Vec<ConfigError>), ConfigErrors> {
        let faults = self.faults.take();
        if faults.is_empty() {
            return Ok((value, self.errors(self.notes.take())));
        }
        Err(ConfigErrors::new(self.errors(faults)))
    }
}

/// One file's side of [`Files`].
pub(super) struct Report<'t> {
    files: &'t Files<'t>,
    begins: usize,
}

impl<'t> Report<'t> {
    /// Where a byte of this file is among those of all files.
    pub(super) fn at(&self, offset: usize) -> usize {
        self.begins + offset
    }

    /// The files that it belongs to.
    pub(super) fn files(&self) -> &'t Files<'t> {
        self.files
    }

    /// Adds an error at an offset of all files.
    pub(super) fn add(&self, at: usize, fault: Fault) {
        self.files.faults.borrow_mut().push((at, fault));
    }

    /// Adds what is no error and yet to be said.
    pub(super) fn note(&self, at: usize, fault: Fault) {
        self.files.notes.borrow_mut().push((at, fault));
    }

    /// The place of `at` in the words of a message that stands at `from`: `line 12`, or in another file
    /// `conf.d/shop.toml:12`.
    pub(super) fn line(&self, at: usize, from: usize) -> String {
        let (file, offset) = self.files.find(at);
        let line = file.place(offset).line;
        if file.begins == self.files.find(from).0.begins {
            format!("line {line}")
        } else {
            format!("{}:{line}", file.origin)
        }
    }
}
