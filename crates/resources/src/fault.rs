use std::fmt;
use std::path::PathBuf;

/// One thing that is wrong with the documents, and what to do about it.
///
/// Prints as `file:line:column: what: remedy`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fault {
    /// The file as it was named to [`crate::load`].
    pub file: PathBuf,
    /// From 1; 0 where the documents as a whole are meant.
    pub line: usize,
    /// From 1, in characters; 0 where the file as a whole is meant.
    pub column: usize,
    /// What is wrong, in one clause.
    pub what: String,
    /// What to do, in one clause.
    pub remedy: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {}: {}", self.file.display(), self.line, self.column, self.what, self.remedy)
    }
}

impl std::error::Error for Fault {}
