//! What can go wrong with a store, by what the engine has to do about it.

use std::fmt;

/// A store's failure.
#[derive(Debug)]
pub enum StoreError {
    /// The store did not answer as it should: the disk is full, gone or broken. What was being
    /// written may be there or not.
    Failed {
        /// What was being done, fitting "failed to …".
        doing: &'static str,
        /// What the driver said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The store holds what this version cannot have written.
    Inconsistent {
        /// Where and what, for people.
        what: String,
    },
    /// The store was written by a newer version.
    TooNew {
        /// The version found.
        found: i64,
        /// The newest that this binary knows.
        known: i64,
    },
    /// The store was written by an older version, and was to be read as it is.
    TooOld {
        /// The version found.
        found: i64,
        /// The version that this binary reads.
        known: i64,
    },
    /// There is no store of this name.
    Missing {
        /// What people call it.
        name: String,
    },
    /// There is something where an empty store was expected.
    NotEmpty {
        /// What people call it.
        name: String,
    },
    /// A backup was to be served.
    Backup,
    /// Another broker has it open.
    Locked {
        /// The lock file.
        path: String,
    },
    /// A broker writes to it, and it was to be still.
    InUse {
        /// Where it says it is reached, when it does.
        by: Option<String>,
    },
    /// Another broker leads the lab: this process writes nothing more.
    Deposed {
        /// Where the other says it is reached, when it does.
        by: Option<String>,
    },
    /// A batch out of order was offered: the engine and the store disagree about the past.
    OutOfOrder {
        /// The last batch in the store.
        last: u64,
        /// The batch offered.
        offered: u64,
    },
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed { doing, source } => write!(f, "failed to {doing}: {source}"),
            Self::Inconsistent { what } => write!(f, "the store contradicts itself: {what}"),
            Self::TooNew { found, known } => write!(
                f,
                "the store has version {found}, and this leasehold knows versions up to {known}: \
                 use the newer leasehold that wrote it"
            ),
            Self::TooOld { found, known } => write!(
                f,
                "the store has version {found}, and this leasehold reads version {known}: a broker brings it up to \
                 that when it starts on it"
            ),
            Self::Missing { name } => write!(f, "there is no store {name}"),
            Self::NotEmpty { name } => write!(f, "there is a store {name} already, and it is not empty"),
            Self::Backup => f.write_str(
                "it is a backup, and a broker on it would give fences that were given before: put it into use with \
                 `leasehold store restore`",
            ),
            Self::Locked { path } => {
                write!(
                    f,
                    "another broker has this store open (it holds the lock {path}): stop it, or use another store"
                )
            }
            Self::InUse { by } => {
                let at = by.as_deref().map_or_else(String::new, |url| format!(", {url}"));
                write!(f, "a broker uses this store{at}: stop every broker on it first")
            }
            Self::Deposed { by } => {
                let at = by.as_deref().map_or_else(String::new, |url| format!(", at {url}"));
                write!(f, "another broker leads this lab now{at}")
            }
            Self::OutOfOrder { last, offered } => {
                write!(f, "batch {offered} was offered after batch {last}: another process has written to this store")
            }
        }
    }
}

impl std::error::Error for StoreError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Failed { source, .. } => Some(&**source),
            _ => None,
        }
    }
}
