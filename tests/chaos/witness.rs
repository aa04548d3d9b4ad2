//! The world outside the broker: each resource has at most one user, and remembers the highest
//! fence it ever saw.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};

/// What became of one resource.
#[derive(Debug, Default)]
struct Use {
    by: Option<String>,
    fence: u64,
    times: u64,
}

/// All resources, as their users see them.
#[derive(Debug, Default)]
pub struct Witness(Mutex<BTreeMap<String, Use>>);

impl Witness {
    /// A holder begins to use these. Panics when another uses one, or has used it with this fence
    /// or a higher one.
    #[track_caller]
    pub fn enter(&self, who: &str, resources: &[String], fence: u64) {
        let mut uses = self.locked();
        for name in resources {
            let used = uses.entry(name.clone()).or_default();
            assert!(used.by.is_none(), "{name} has two holders: {who} with fence {fence}, and {used:?}");
            assert!(used.fence < fence, "{name} went back: {who} comes with fence {fence} after {used:?}");
            *used = Use { by: Some(who.to_owned()), fence, times: used.times + 1 };
        }
    }

    /// The holder does not use them any more.
    #[track_caller]
    pub fn leave(&self, who: &str, resources: &[String], fence: u64) {
        let mut uses = self.locked();
        for name in resources {
            let used = uses.get_mut(name).unwrap_or_else(|| panic!("{name} was never used"));
            assert_eq!((used.by.as_deref(), used.fence), (Some(who), fence), "{name} changed hands under {who}");
            used.by = None;
        }
    }

    /// How often each resource was used.
    pub fn times(&self) -> BTreeMap<String, u64> {
        self.locked().iter().map(|(name, used)| (name.clone(), used.times)).collect()
    }

    fn locked(&self) -> MutexGuard<'_, BTreeMap<String, Use>> {
        // A panic of one user is the test's verdict already.
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
