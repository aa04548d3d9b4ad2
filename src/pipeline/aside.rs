//! A thread of one's own for work that makes and drops many things.
//!
//! The runtime's threads for such work take turns, and the allocator keeps for each of them what was dropped of what
//! it had made. One job leaves a few MiB behind; a thousand of them leave that behind once for every thread. Whoever
//! has much to do, and nobody waiting for it, does it on one thread, which ends with it.

use std::io;
use std::sync::mpsc;
use std::thread::Builder;

use tokio::sync::oneshot;

type Job = Box<dyn FnOnce() + Send>;

/// A thread that does one thing after the other, and ends when this is dropped.
#[derive(Debug)]
pub struct Aside {
    jobs: mpsc::Sender<Job>,
}

impl Aside {
    /// Starts it.
    ///
    /// # Errors
    /// When the system has no thread.
    pub fn start(name: &str) -> io::Result<Self> {
        let (jobs, waiting) = mpsc::channel::<Job>();
        Builder::new().name(name.to_owned()).spawn(move || waiting.into_iter().for_each(|job| job()))?;
        Ok(Self { jobs })
    }

    /// Does this there. One that is not waited for is done all the same.
    ///
    /// # Errors
    /// When that, or anything before it, panicked.
    pub async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
        let (tell, told) = oneshot::channel();
        let job = Box::new(move || drop(tell.send(work())));
        let gone = || io::Error::other("the thread that worked on it has ended");
        self.jobs.send(job).map_err(|_| gone())?;
        told.await.map_err(|_| gone())
    }
}

#[cfg(test)]
mod tests {
    use super::Aside;

    #[tokio::test]
    async fn all_is_done_on_one_thread_and_a_panic_is_an_error() {
        let aside = Aside::start("aside").unwrap();
        let id = || std::thread::current().id();
        let first = aside.run(id).await.unwrap();
        assert_ne!(first, id());
        assert_eq!(aside.run(id).await.unwrap(), first);
        assert!(aside.run(|| panic!("on purpose")).await.is_err());
        assert!(aside.run(id).await.is_err());
    }
}
