//! How stores are named on the command line.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::cli::Failure;
use crate::cli::serve::options;
use crate::store::{StoreError, postgres};

/// Where a store is.
#[derive(Clone, Debug)]
pub(super) enum Place {
    /// In this file.
    File(PathBuf),
    /// In a database: its URL, and what people call it, which has no password in it.
    Database { url: String, name: String },
}

impl Place {
    /// Reads the value of an option.
    pub(super) fn parse(option: &str, named: &str) -> Result<Self, Failure> {
        if !options::is_database(named) {
            return options::file(option, Some(named.to_owned())).map(Self::File);
        }
        let name = postgres::name_of(named).map_err(|error| Failure::usage(format!("{option}: {error}")))?;
        Ok(Self::Database { url: named.to_owned(), name })
    }

    /// Reads the name of a file that may be called as a store is.
    pub(super) fn parse_file(named: &Path) -> Result<PathBuf, Failure> {
        match named.to_str() {
            // Not repeated: it may have a password in it.
            Some(text) if options::is_database(text) => {
                Err(Failure::usage("FILE is the file of a backup: the database is named with --store"))
            }
            Some(text) if text.starts_with("sqlite:") => options::file("FILE", Some(text.to_owned())),
            _ => Ok(named.to_owned()),
        }
    }

    /// Where `serve` keeps its data when it is not told.
    pub(super) fn default() -> Result<Self, Failure> {
        options::file("--store", None).map(Self::File)
    }

    /// Whether both are one store; a file that is not there is no other.
    pub(super) fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::File(one), Self::File(other)) => one == other || same_file(one, other),
            (Self::Database { url: one, .. }, Self::Database { url: other, .. }) => postgres::is_same(one, other),
            _ => false,
        }
    }
}

fn same_file(one: &Path, other: &Path) -> bool {
    one.canonicalize().is_ok_and(|one| other.canonicalize().is_ok_and(|other| one == other))
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "sqlite:{}", path.display()),
            Self::Database { name, .. } => f.write_str(name),
        }
    }
}

/// What a store said, and which it was.
pub(super) fn at(store: impl fmt::Display, error: StoreError) -> Failure {
    let (store, said) = (store.to_string(), error.to_string());
    Failure::refused(if said.contains(&store) { said } else { format!("{store}: {said}") })
}
