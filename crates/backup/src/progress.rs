//! Telling how far the reading and writing of archives is, to whoever waits for it.
//!
//! All of it happens on the thread that called: who wants to be told says so for that thread, and
//! nothing in between has to pass it on.

use std::cell::RefCell;
use std::io::{self, Read};
use std::rc::Rc;

/// What is being done with a project.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Its database and files are written to an archive.
    Writing,
    /// An archive is read whole, to be checked or to be unpacked.
    Reading,
}

/// Hears how far it is.
pub trait Progress {
    /// A project of several is next: so many are done, of so many.
    fn project(&self, done: usize, all: usize);

    /// So many bytes of contents are to go by.
    fn begin(&self, stage: Stage, bytes: u64);

    /// So many of them more did.
    fn passed(&self, bytes: u64);
}

thread_local! {
    static WATCHER: RefCell<Option<Rc<dyn Progress>>> = const { RefCell::new(None) };
}

/// Tells `watcher` how far the archives are that `work` writes and reads, on this thread.
pub fn watched<T>(watcher: Rc<dyn Progress>, work: impl FnOnce() -> T) -> T {
    struct Watching(Option<Rc<dyn Progress>>);
    impl Drop for Watching {
        fn drop(&mut self) {
            WATCHER.set(self.0.take());
        }
    }
    let _watching = Watching(WATCHER.replace(Some(watcher)));
    work()
}

pub(crate) fn project(done: usize, all: usize) {
    tell(|watcher| watcher.project(done, all));
}

pub(crate) fn begin(stage: Stage, bytes: impl FnOnce() -> u64) {
    tell(|watcher| watcher.begin(stage, bytes()));
}

pub(crate) fn passed(bytes: usize) {
    tell(|watcher| watcher.passed(bytes as u64));
}

fn tell(what: impl FnOnce(&dyn Progress)) {
    let watcher = WATCHER.with_borrow(Clone::clone);
    if let Some(watcher) = watcher {
        what(watcher.as_ref());
    }
}

/// Tells of what is read through it.
pub(crate) struct Watched<R>(pub(crate) R);

impl<R: Read> Read for Watched<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.0.read(buffer)?;
        passed(count);
        Ok(count)
    }
}
