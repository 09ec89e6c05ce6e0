//! Collects the errors of one file and turns offsets into lines and columns.

use std::cell::RefCell;

use super::error::{ConfigError, ConfigErrors, Place};
use super::value::Fault;

/// The errors found so far in one text.
///
/// Readers only ever add to it and go on with a stand-in value; [`Report::finish`] lets the result out only if
/// nothing was added. The cell spares every reader a `&mut` that nothing else in it needs.
pub(super) struct Report<'t> {
    origin: &'t str,
    text: &'t str,
    line_starts: Vec<usize>,
    faults: RefCell<Vec<(usize, Fault)>>,
}

impl<'t> Report<'t> {
    pub(super) fn new(origin: &'t str, text: &'t str) -> Self {
        let after_newlines = text.match_indices('\n').map(|(offset, _)| offset + 1);
        let line_starts = std::iter::once(0).chain(after_newlines).collect();
        Self { origin, text, line_starts, faults: RefCell::default() }
    }

    /// Adds an error at a byte offset of the text.
    pub(super) fn add(&self, at: usize, fault: Fault) {
        self.faults.borrow_mut().push((at, fault));
    }

    /// The line of a byte offset, from 1.
    pub(super) fn line(&self, at: usize) -> usize {
        self.place(at).line
    }

    fn place(&self, at: usize) -> Place {
        let line = self.line_starts.partition_point(|start| *start <= at).max(1);
        let start = self.line_starts[line - 1];
        let before = self.text.get(start..at.min(self.text.len())).unwrap_or_default();
        // A byte order mark is no column of its own to whoever looks at the file.
        Place { line, column: before.trim_start_matches('\u{feff}').chars().count() + 1 }
    }

    fn error(&self, at: usize, fault: Fault) -> ConfigError {
        let Fault { wrong, right } = fault;
        ConfigError { file: self.origin.to_owned(), place: Some(self.place(at)), wrong, right }
    }

    /// A single error, whatever was added before.
    pub(super) fn only(&self, at: usize, fault: Fault) -> ConfigErrors {
        ConfigErrors::new(vec![self.error(at, fault)])
    }

    /// The value if there was no error, all errors otherwise.
    pub(super) fn finish<T>(self, value: T) -> Result<T, ConfigErrors> {
        let mut faults = self.faults.take();
        if faults.is_empty() {
            return Ok(value);
        }
        faults.sort_by_key(|(at, _)| *at);
        Err(ConfigErrors::new(faults.into_iter().map(|(at, fault)| self.error(at, fault)).collect()))
    }
}
