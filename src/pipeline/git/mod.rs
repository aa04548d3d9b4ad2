//! Git: mirrors of the repositories, and what builds need of them.
//!
//! Owns a bare mirror per repository under one folder, fetched by ref and by commit; reading a file and the
//! changed paths of a commit; and checking one out. All of it with the `git` that is installed, as its users
//! do, but with nothing of theirs: no configuration, no hooks, no prompts. Several processes may share the
//! folder: each mirror has a lock file.
//!
//! Submodules are not fetched, and Git LFS's pointers stay pointers: a step that wants them asks for them, with
//! credentials that are its own.

mod names;
mod process;
#[cfg(test)]
mod tests;

use std::ffi::OsStr;
use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;
use tokio::time::sleep;

pub use self::names::{check_ref, full_ref};
use self::process::{Call, Output};
use crate::builds::happening::Sha;
use crate::clock::boot_now;
use crate::inventory::pipelines::Repository;
use crate::inventory::secrets;
use crate::protocol::builds::Checkout;
use crate::units::hex;

/// How long one thing that is asked of git may take.
pub const TIME_MAX: Duration = Duration::from_secs(120);
/// Gits that run at one time, at most.
const RUNNING_MAX: usize = 4;
/// Paths of a change that are looked at, at most; and their bytes.
pub const PATHS_MAX: usize = 10_000;
const PATHS_BYTES_MAX: usize = 1024 * 1024;
/// What git says in a line or two.
const LINE_BYTES_MAX: usize = 64 * 1024;
/// Between two looks at a lock that another process has.
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// What git says where a repository does not have what it is asked for.
const NOT_THERE: &[&str] = &["couldn't find remote ref", "not our ref", "no such remote ref", "unadvertised object"];

/// Why git did not do it, for people, without a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GitError {
    /// In words, with what git said.
    pub message: Arc<str>,
    /// Whether the repository answered that it has no such thing: asked again it answers the same.
    pub absent: bool,
}

/// What a commit keeps at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kept {
    /// Nothing.
    Nothing,
    /// A file.
    File(Vec<u8>),
    /// Something that is not read, and why, in words: no plain file, or too large a one.
    Odd(String),
}

impl GitError {
    fn new(message: impl Into<Arc<str>>) -> Self {
        let message = message.into();
        Self { absent: NOT_THERE.iter().any(|words| message.contains(words)), message }
    }
}

impl fmt::Display for GitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for GitError {}

/// What git fetches from. Its `Debug` shows no secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Remote {
    url: Arc<str>,
    login: Option<(Arc<str>, Arc<str>)>,
}

impl Remote {
    /// A URL or path without secrets, and a user and token for HTTP.
    ///
    /// # Errors
    /// It is nothing that git should be given.
    pub fn new(url: &str, login: Option<(&str, &str)>) -> Result<Self, GitError> {
        if url.is_empty() || url.starts_with('-') || url.contains(|c: char| c.is_control()) {
            return Err(GitError::new("the repository's URL is nothing that git may fetch"));
        }
        let login = login.filter(|_| url.starts_with("http://") || url.starts_with("https://"));
        Ok(Self { url: url.into(), login: login.map(|(user, token)| (user.into(), token.into())) })
    }

    /// A repository of the configuration, with its token. Blocks for as long as reading that takes.
    ///
    /// # Errors
    /// The token cannot be read.
    pub fn of(repository: &Repository) -> Result<Self, GitError> {
        let token = repository.token.as_ref().map(secrets::resolve).transpose();
        let token = token.map_err(|error| GitError::new(format!("the token of {}: {error}", repository.name)))?;
        Self::new(&repository.url, token.as_deref().map(|token| (&*repository.user, token.trim())))
    }

    /// What an agent is told of a commit.
    ///
    /// # Errors
    /// As [`Remote::new`].
    pub fn of_checkout(checkout: &Checkout) -> Result<Self, GitError> {
        Self::new(&checkout.url, checkout.user.as_deref().zip(checkout.token.as_deref()))
    }

    /// The URL, which has no secret in it.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote").field("url", &self.url).finish_non_exhaustive()
    }
}

/// What a change touches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changed {
    /// These paths, with slashes, from the repository's own folder.
    Paths(Vec<String>),
    /// More than are looked at.
    TooMany,
}

/// The mirrors under one folder.
#[derive(Clone, Debug)]
pub struct Git {
    folder: Arc<Path>,
    running: Arc<Semaphore>,
    time_max: Duration,
}

impl Git {
    /// Mirrors under this folder, which is made when it is needed.
    #[must_use]
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into().into(), running: Arc::new(Semaphore::new(RUNNING_MAX)), time_max: TIME_MAX }
    }

    /// The same for who ends what takes too long by other means: a whole history may take long to fetch.
    #[must_use]
    pub fn patient(self, time_max: Duration) -> Self {
        Self { time_max, ..self }
    }

    /// Sees to it that the mirror has a commit: by its ref first, and where that is elsewhere by now, by its
    /// name. Without a name it is what the ref has at present. Answers the commit.
    ///
    /// # Errors
    /// The ref is none, git could not fetch, or the commit is not there.
    pub async fn fetch(&self, remote: &Remote, git_ref: &str, sha: Option<&Sha>) -> Result<Sha, GitError> {
        check_ref(git_ref).map_err(GitError::new)?;
        let mirror = self.lock(remote).await?;
        if let Some(sha) = sha
            && let Some(commit) = mirror.commit(sha.as_str()).await?
        {
            return Ok(commit);
        }
        let by_ref = mirror.fetch(git_ref).await;
        let (wanted, found) = match sha {
            None => {
                by_ref?;
                (git_ref.to_owned(), mirror.commit("FETCH_HEAD").await?)
            }
            Some(sha) => {
                let mut found = mirror.commit(sha.as_str()).await?;
                if found.is_none() {
                    // The ref may be elsewhere by now, or gone.
                    mirror.fetch(sha.as_str()).await.map_err(|error| by_ref.err().unwrap_or(error))?;
                    found = mirror.commit(sha.as_str()).await?;
                }
                (sha.to_string(), found)
            }
        };
        let absent = || GitError { absent: true, ..GitError::new(format!("{wanted} is not at {}", remote.url)) };
        let commit = found.ok_or_else(absent)?;
        mirror.keep(git_ref, &commit).await?;
        Ok(commit)
    }

    /// Tidies a mirror, beside those who fetch into it and read it: git lets one at a time do that. Not where
    /// commits are checked out, which does so itself.
    pub async fn tidy(&self, remote: &Remote) {
        if let Ok(mirror) = self.mirror(remote).await {
            mirror.tidy().await;
        }
    }

    /// The commit that a ref has at present, `HEAD` too, and nothing more: nothing is kept of it.
    ///
    /// # Errors
    /// It is not there, or could not be asked for.
    pub async fn default_branch(&self, remote: &Remote) -> Result<String, GitError> {
        let mirror = self.lock(remote).await?;
        let output = mirror.run(&["ls-remote", "--symref", "--", &remote.url, "HEAD"], LINE_BYTES_MAX).await?;
        let text = output.text();
        let branch = text.lines().find_map(|line| line.strip_prefix("ref: ")?.split('\t').next());
        let branch = branch.filter(|branch| check_ref(branch).is_ok());
        branch.map(str::to_owned).ok_or_else(|| {
            GitError::new(format!("the HEAD of {} names no branch that is there: say which with --ref", remote.url))
        })
    }

    /// What a commit that the mirror has keeps at a path. A plain file, and of `bytes_max` at most, or it is
    /// not read.
    ///
    /// # Errors
    /// Git could not read it.
    pub async fn file(&self, remote: &Remote, sha: &Sha, path: &str, bytes_max: usize) -> Result<Kept, GitError> {
        let mirror = self.mirror(remote).await?;
        let arguments = ["ls-tree", "-z", "--full-tree", "--long", sha.as_str(), "--", path];
        let listed = mirror.run(&arguments, LINE_BYTES_MAX).await?.text();
        if listed.is_empty() {
            return Ok(Kept::Nothing);
        }
        // MODE TYPE NAME SIZE<tab>PATH
        let fields: Vec<&str> = listed.split(['\0', '\t', ' ']).filter(|field| !field.is_empty()).collect();
        let [mode, "blob", name, size, ..] = fields.as_slice() else {
            return Ok(Kept::Odd(format!("{path} is no file in {}", sha.short())));
        };
        if *mode == "120000" {
            return Ok(Kept::Odd(format!("{path} is a link in {}: expected the file itself", sha.short())));
        }
        if !size.parse::<usize>().is_ok_and(|size| size <= bytes_max) {
            return Ok(Kept::Odd(format!("{path} is larger than {bytes_max} bytes in {}", sha.short())));
        }
        Ok(Kept::File(mirror.run(&["cat-file", "blob", name], bytes_max).await?.stdout))
    }

    /// The first line of a commit's message.
    ///
    /// # Errors
    /// The mirror does not have the commit.
    pub async fn title(&self, remote: &Remote, sha: &Sha) -> Result<String, GitError> {
        let mirror = self.mirror(remote).await?;
        let arguments = ["log", "-1", "--no-show-signature", "--format=%s", sha.as_str(), "--"];
        Ok(mirror.run(&arguments, LINE_BYTES_MAX).await?.text().trim().chars().take(200).collect())
    }

    /// The paths that differ between two commits that the mirror has, or, for a pull request, between the
    /// head and where it left its base.
    ///
    /// # Errors
    /// The mirror does not have them, or they have nothing in common.
    pub async fn changed(
        &self,
        remote: &Remote,
        base: &Sha,
        head: &Sha,
        from_merge_base: bool,
    ) -> Result<Changed, GitError> {
        let mirror = self.mirror(remote).await?;
        let range = format!("{base}{}{head}", if from_merge_base { "..." } else { ".." });
        let arguments = ["diff", "--name-only", "-z", "--no-renames", "--no-ext-diff", "--no-textconv", &range, "--"];
        let Some(output) = mirror.try_run(&arguments, PATHS_BYTES_MAX).await? else { return Ok(Changed::TooMany) };
        let text = output.text();
        let paths: Vec<String> = text.split('\0').filter(|path| !path.is_empty()).map(str::to_owned).collect();
        Ok(if paths.len() > PATHS_MAX { Changed::TooMany } else { Changed::Paths(paths) })
    }

    /// Checks a commit that the mirror has out into a folder that is not there yet. What comes is a repository
    /// of its own, with its history, on no branch; its `origin` is the remote, without credentials.
    ///
    /// # Errors
    /// Git's. The folder may be there half done then.
    pub async fn checkout(&self, remote: &Remote, sha: &Sha, folder: &Path) -> Result<(), GitError> {
        let mirror = self.lock(remote).await?;
        let from = mirror.path.as_os_str();
        let clone: [&OsStr; 9] = [
            "clone".as_ref(),
            "--quiet".as_ref(),
            "--local".as_ref(),
            "--no-checkout".as_ref(),
            "--no-tags".as_ref(),
            "--template=".as_ref(),
            "--".as_ref(),
            from,
            folder.as_os_str(),
        ];
        mirror.call(None, &clone, LINE_BYTES_MAX).await?;
        for arguments in [
            ["remote", "set-url", "origin", &remote.url].as_slice(),
            ["checkout", "--quiet", "--force", "--detach", sha.as_str(), "--"].as_slice(),
        ] {
            let arguments: Vec<&OsStr> = arguments.iter().map(OsStr::new).collect();
            mirror.call(Some(folder), &arguments, LINE_BYTES_MAX).await?;
        }
        // Under the lock: what is packed anew must not go away under a copy that is being made.
        mirror.tidy().await;
        Ok(())
    }

    /// The mirror, made where it is not there, and nobody else's until it is dropped.
    async fn lock<'g>(&'g self, remote: &'g Remote) -> Result<Mirror<'g>, GitError> {
        let mut mirror = self.mirror(remote).await?;
        let path = mirror.path.with_extension("lock");
        let file = File::options().create(true).truncate(false).write(true).open(&path);
        let file = file.map_err(|error| GitError::new(format!("{} cannot be opened: {error}", path.display())))?;
        let since = boot_now();
        while let Err(error) = file.try_lock() {
            let std::fs::TryLockError::WouldBlock = error else {
                return Err(GitError::new(format!("{} cannot be locked: {error}", path.display())));
            };
            if u128::from(boot_now().since(since)) > self.time_max.as_millis() {
                return Err(GitError::new(format!("another git uses the mirror of {} for too long", remote.url)));
            }
            sleep(LOCK_PAUSE).await;
        }
        mirror.lock = Some(file);
        if !mirror.path.join("HEAD").exists() {
            let path = mirror.path.as_os_str();
            let init = ["init".as_ref(), "--quiet".as_ref(), "--bare".as_ref(), "--template=".as_ref(), "--".as_ref()];
            let arguments: Vec<&OsStr> = init.into_iter().chain([path]).collect();
            mirror.call(None, &arguments, LINE_BYTES_MAX).await?;
        }
        Ok(mirror)
    }

    /// The mirror as it is.
    async fn mirror<'g>(&'g self, remote: &'g Remote) -> Result<Mirror<'g>, GitError> {
        let home = self.folder.join("home");
        let made = async {
            tokio::fs::create_dir_all(&home).await?;
            let config = home.join(".gitconfig");
            if !tokio::fs::try_exists(&config).await? {
                // A path in the configuration is trusted, whoever owns what is there.
                tokio::fs::write(&config, "[safe]\n\tdirectory = *\n").await?;
            }
            std::io::Result::Ok(())
        };
        let failed = |error| GitError::new(format!("{} cannot be made: {error}", home.display()));
        made.await.map_err(failed)?;
        Ok(Mirror { git: self, remote, home, path: self.folder.join(mirror_name(&remote.url)), lock: None })
    }
}

/// Names a mirror after its URL: something for people, and something of its own.
fn mirror_name(url: &str) -> String {
    let last = url.trim_end_matches('/').rsplit(['/', ':']).next().unwrap_or_default();
    let plain = last.trim_end_matches(".git").chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'));
    let plain: String = plain.take(40).collect();
    format!("{plain}-{}.git", &hex(&Sha256::digest(url.as_bytes()))[..16])
}

/// A repository's mirror.
struct Mirror<'g> {
    git: &'g Git,
    remote: &'g Remote,
    home: PathBuf,
    path: PathBuf,
    /// Held while this is, where the mirror is changed.
    lock: Option<File>,
}

impl Mirror<'_> {
    /// Fetches a ref or a commit.
    async fn fetch(&self, what: &str) -> Result<(), GitError> {
        let fetch =
            ["fetch", "--quiet", "--no-tags", "--no-recurse-submodules", "--force", "--", &self.remote.url, what];
        self.run(&fetch, LINE_BYTES_MAX).await?;
        Ok(())
    }

    /// The commit that a name stands for; `None` where the mirror has none.
    async fn commit(&self, name: &str) -> Result<Option<Sha>, GitError> {
        let name = format!("{name}^{{commit}}");
        let arguments = ["rev-parse", "--quiet", "--verify", "--end-of-options", &name];
        // It exits with 1, and says nothing, where there is none.
        let output = self.quiet(&arguments).await?;
        Ok(Sha::parse(output.text().trim()))
    }

    /// Keeps the commit from being tidied away, until another one of its ref takes its place.
    async fn keep(&self, git_ref: &str, commit: &Sha) -> Result<(), GitError> {
        let name = format!("refs/leasehold/{}", &hex(&Sha256::digest(git_ref.as_bytes()))[..32]);
        self.run(&["update-ref", "--no-deref", &name, commit.as_str()], LINE_BYTES_MAX).await.map(drop)
    }

    /// Packs what has gathered, which seldom has anything to do and then may take long.
    async fn tidy(&self) {
        if let Err(error) = self.run(&["gc", "--auto", "--quiet"], LINE_BYTES_MAX).await {
            tracing::info!(%error, url = %self.remote.url, "a mirror could not be tidied");
        }
    }

    async fn run(&self, arguments: &[&str], bytes_max: usize) -> Result<Output, GitError> {
        let too_much = || GitError::new(format!("git {} says too much", arguments[0]));
        self.try_run(arguments, bytes_max).await?.ok_or_else(too_much)
    }

    /// `None` where it says more than `bytes_max`.
    async fn try_run(&self, arguments: &[&str], bytes_max: usize) -> Result<Option<Output>, GitError> {
        let arguments: Vec<&OsStr> = arguments.iter().map(OsStr::new).collect();
        let output = self.output(Some(&self.path), &arguments, bytes_max).await?;
        if output.cut { Ok(None) } else { output.success(&arguments, self.remote).map(Some) }
    }

    /// Whatever it exits with.
    async fn quiet(&self, arguments: &[&str]) -> Result<Output, GitError> {
        let arguments: Vec<&OsStr> = arguments.iter().map(OsStr::new).collect();
        self.output(Some(&self.path), &arguments, LINE_BYTES_MAX).await
    }

    async fn call(&self, inside: Option<&Path>, arguments: &[&OsStr], bytes_max: usize) -> Result<(), GitError> {
        self.output(inside, arguments, bytes_max).await?.success(arguments, self.remote).map(|_| ())
    }

    async fn output(&self, inside: Option<&Path>, arguments: &[&OsStr], bytes_max: usize) -> Result<Output, GitError> {
        let _permit = self.git.running.acquire().await.map_err(|_| GitError::new("the broker stops"))?;
        let call = Call { home: &self.home, inside, arguments, bytes_max, login: self.remote };
        call.run(self.git.time_max).await
    }
}
