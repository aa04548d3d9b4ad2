//! How stores are named on the command line.

use std::fmt;
use std::path::PathBuf;

use crate::cli::Failure;
use crate::cli::serve;

/// Where a store is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// In this file.
    Sqlite(PathBuf),
}

impl Place {
    /// Reads the value of an option.
    pub(super) fn parse(option: &str, named: &str) -> Result<Self, Failure> {
        serve::options::file(option, Some(named.to_owned())).map(Self::Sqlite)
    }

    /// Where `serve` keeps its data when it is not told.
    pub(super) fn default() -> Result<Self, Failure> {
        serve::options::file("--store", None).map(Self::Sqlite)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
        }
    }
}
