//! The secrets of the hooks: which forge has which, from the environment and from files.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use crate::builds::happening::Forge;
use crate::builds::hook::secret::Secret;
use crate::core::inventory::SecretRef;
use crate::inventory::secrets;

/// Secrets of one forge, at most: each is tried against a delivery.
pub const SECRETS_PER_FORGE_MAX: usize = 16;

/// The files of secrets that the configuration names.
pub(super) type HookFiles = BTreeMap<Forge, Vec<PathBuf>>;

/// The environment variable of a forge's secrets.
#[must_use]
pub const fn secret_variable(forge: Forge) -> &'static str {
    match forge {
        Forge::Gitea => "LEASEHOLD_GITEA_WEBHOOK_SECRET",
        Forge::Github => "LEASEHOLD_GITHUB_WEBHOOK_SECRET",
        Forge::Gitlab => "LEASEHOLD_GITLAB_WEBHOOK_SECRET",
    }
}

/// The secrets that each forge signs with at present. A forge without one has no route.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct HookSecrets(BTreeMap<Forge, Arc<[Secret]>>);

impl HookSecrets {
    /// Secrets as given.
    #[must_use]
    pub fn new(secrets: BTreeMap<Forge, Arc<[Secret]>>) -> Self {
        Self(secrets.into_iter().filter(|(_, secrets)| !secrets.is_empty()).collect())
    }

    /// A forge's secrets; none of them is empty.
    #[must_use]
    pub fn of(&self, forge: Forge) -> &[Secret] {
        self.0.get(&forge).map_or(&[], |secrets| secrets)
    }

    /// Reads the variables and the files.
    pub(super) fn read(files: &HookFiles) -> Result<Self, String> {
        let mut read = BTreeMap::new();
        for forge in [Forge::Gitea, Forge::Github, Forge::Gitlab] {
            let variable = secret_variable(forge);
            let mut secrets = match std::env::var_os(variable) {
                None => Vec::new(),
                Some(_) => secrets::resolve(&SecretRef::Env(variable.into()))
                    .and_then(|list| Secret::parse_list(&list).map_err(|error| format!("{variable}: {error}")))?,
            };
            for path in files.get(&forge).into_iter().flatten() {
                let shown = path.display().to_string();
                let text = secrets::resolve(&SecretRef::File(shown.as_str().into()))?;
                secrets.push(Secret::parse(&text).map_err(|error| format!("{shown}: {error}"))?);
            }
            if secrets.len() > SECRETS_PER_FORGE_MAX {
                return Err(format!(
                    "{forge} has {} webhook secrets: expected at most {SECRETS_PER_FORGE_MAX}, remove those that are \
                     used no more",
                    secrets.len()
                ));
            }
            read.insert(forge, secrets.into());
        }
        Ok(Self::new(read))
    }
}

impl fmt::Debug for HookSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.0.iter().map(|(forge, secrets)| (forge.as_str(), secrets.len()))).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::{HookFiles, HookSecrets, SECRETS_PER_FORGE_MAX};
    use crate::builds::happening::Forge;

    #[test]
    fn files_have_one_secret_each_and_a_bad_one_stops_the_start() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).expect("written");
            path
        };
        let (old, new, bad) = (file("old", "old-secret\n"), file("new", " new-secret "), file("bad", "\n"));
        let read = |files| HookSecrets::read(&HookFiles::from([(Forge::Gitea, files)]));
        let secrets = read(vec![old.clone(), new]).expect("two secrets");
        let texts: Vec<_> = secrets.of(Forge::Gitea).iter().map(|secret| secret.as_bytes().to_vec()).collect();
        assert_eq!(texts, [b"old-secret".to_vec(), b"new-secret".to_vec()]);
        assert!(read(vec![bad]).is_err_and(|error| error.contains("bad: the secret is empty")));
        let absent = folder.path().join("absent");
        assert!(read(vec![absent]).is_err_and(|error| error.contains("cannot be read")));
        assert!(read(vec![old; SECRETS_PER_FORGE_MAX + 1]).is_err_and(|error| error.contains("at most 16")));
    }
}
