//! `store`: whole stores, without a broker: proving one, copying, backing up, restoring.
//!
//! Owns the words and what is refused before anything is opened. What is proved and copied is
//! `archive`'s; what a store is, the stores' own.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use self::place::Place;
use super::Failure;

mod check;
mod moving;
mod place;

/// Check, copy, back up and restore the broker's data
#[derive(Debug, Args)]
pub struct StoreCommand {
    /// Print JSON instead of sentences
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    act: Act,
}

/// Which store, where `serve` would take it from.
#[derive(Debug, Args)]
struct Which {
    /// Where the data is: sqlite:PATH [default: leasehold.db in $STATE_DIRECTORY or $XDG_STATE_HOME/leasehold], or
    /// postgres://USER@HOST:PORT/DATABASE
    #[arg(long, value_name = "STORE")]
    store: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Act {
    /// Prove the tables against the journal, also beside a running broker
    ///
    /// Replays the journal by the code that wrote it and compares what comes of it with the tables, row by row.
    /// Prints each difference; exits 0 where there is none, else 1.
    Check(Which),
    /// Copy a store that no broker uses into an empty one, and put the copy into use
    ///
    /// Copies everything, compares every row, then ends every session that the copy holds and raises its fences by
    /// 2^32: the copy goes on in place of the original, which stays as it is and is not to be served again.
    Copy {
        /// The store to copy: sqlite:PATH or postgres://...
        #[arg(long, value_name = "STORE")]
        from: String,
        /// The store to be: sqlite:PATH or postgres://...
        #[arg(long, value_name = "STORE")]
        to: String,
    },
    /// Back the store up into a file, also while a broker runs
    Backup {
        /// The file to be
        file: PathBuf,
        /// Replace what has that name
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        which: Which,
    },
    /// Put a backup into use: as `copy` does
    Restore {
        /// The backup
        file: PathBuf,
        /// Move a store that is there aside; it is kept under another name
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        which: Which,
    },
}

impl StoreCommand {
    /// Does it.
    pub fn execute(self) -> Result<u8, Failure> {
        let json = self.json;
        match self.act {
            Act::Check(which) => check::check(&which.place()?, json),
            Act::Copy { from, to } => moving::copy(&Place::parse("--from", &from)?, &Place::parse("--to", &to)?, json),
            Act::Backup { file, force, which } => {
                moving::backup(&which.place()?, &Place::parse_file(&file)?, force, json)
            }
            Act::Restore { file, force, which } => {
                moving::restore(&Place::parse_file(&file)?, &which.place()?, force, json)
            }
        }
    }
}

impl Which {
    fn place(&self) -> Result<Place, Failure> {
        self.store.as_deref().map_or_else(Place::default, |named| Place::parse("--store", named))
    }
}
