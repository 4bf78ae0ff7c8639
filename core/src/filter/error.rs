//! Why a text is not a filter.

/// Why a text is not a filter, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct FilterError {
    /// Where the fault begins, in bytes into the text; just behind the last word if something is
    /// missing there.
    pub offset: usize,
    /// How wide the fault is, in bytes; at least 1, also at the end of the text.
    pub width: usize,
    /// What is wrong.
    pub message: String,
    /// What to write instead, where that is known.
    pub hint: Option<String>,
}
