//! The disk that the databases are on: whether it is full, and the reserve that is freed when it is.
//!
//! All writers of a server share one [`Storage`]. The first write that finds the disk full makes it
//! `Full`: the reserve file is removed, so that what ends and cleans up still has room, and commands
//! that would take more are refused before they run ([`WhenFull`](crate::WhenFull)). A thread looks
//! at the disk until there is space again, makes the reserve anew and tells who waits.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use tokio::sync::watch;

use crate::StoreError;
use crate::figures::{Figures, WriterFigures};

/// The reserve, in the data directory.
const RESERVE_NAME: &str = "reserve";
/// Its size where there is room for it, in bytes.
const RESERVE_BYTES: u64 = 16 * 1024 * 1024;
/// The smallest one that is of use, in bytes.
const RESERVE_BYTES_MIN: u64 = 64 * 1024;
/// What part of the free space it takes at most.
const RESERVE_SHARE: u64 = 4;
/// How many times its size must be free before the disk counts as having space again: freeing the
/// reserve itself must not be enough.
const FREE_RESERVES: u64 = 2;
/// How often a full disk is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Free space below which a failure of the disk is one for want of space, in bytes.
const NOTHING_FREE_BYTES: u64 = 64 * 1024;
/// Bytes that are written at once where a file system cannot allocate.
const CHUNK_BYTES: usize = 64 * 1024;

/// Told when the disk becomes full, and when it has space again.
type Listener = Box<dyn Fn(bool) + Send + Sync>;

/// The disk of a data directory. Clones share it.
#[derive(Clone)]
pub struct Storage(Arc<Inner>);

struct Inner {
    directory: PathBuf,
    /// How large the reserve is, or will be again.
    reserve_bytes: AtomicU64,
    full: watch::Sender<bool>,
    /// Held while the state changes.
    changing: Mutex<()>,
    is_watched: AtomicBool,
    listener: Mutex<Option<Listener>>,
    figures: Figures,
    /// What tests want to be free; [`u64::MAX`] for what is.
    #[cfg(any(test, feature = "faults"))]
    pretended: AtomicU64,
}

/// How the disk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StorageStatus {
    /// Whether commands that take space are refused.
    pub is_full: bool,
    /// Bytes of the reserve, which is there while the disk is not full.
    pub reserve_bytes: u64,
    /// Bytes that are free; none when the system does not say.
    pub available_bytes: Option<u64>,
}

impl Storage {
    /// Looks at the disk of `directory` and makes sure of the reserve. A disk that is full already is
    /// no failure.
    ///
    /// # Errors
    /// `Internal` when the directory cannot be written.
    pub fn open(directory: &Path) -> Result<Self, StoreError> {
        let storage = Self(Arc::new(Inner {
            directory: directory.to_owned(),
            reserve_bytes: AtomicU64::new(RESERVE_BYTES_MIN),
            full: watch::Sender::new(false),
            changing: Mutex::default(),
            is_watched: AtomicBool::new(false),
            listener: Mutex::new(None),
            figures: Figures::default(),
            #[cfg(any(test, feature = "faults"))]
            pretended: AtomicU64::new(u64::MAX),
        }));
        match storage.0.make_reserve() {
            Err(StoreError::StorageFull) => storage.report_full(),
            made => made?,
        }
        Ok(storage)
    }

    /// Whether the disk is full: commands that take space are refused.
    pub fn is_full(&self) -> bool {
        *self.0.full.borrow()
    }

    /// Says that a write found the disk full. Waits for the disk when it is the first to say so.
    pub fn report_full(&self) {
        let changing = self.0.changing();
        if self.is_full() {
            return;
        }
        if let Err(error) = remove_if_there(&self.0.reserve()) {
            tracing::error!(%error, "the reserve could not be freed");
        }
        self.0.full.send_replace(true);
        drop(changing);
        tracing::error!(
            path = %self.0.directory.display(),
            "the disk is full: nothing is taken on until there is space"
        );
        self.0.tell(true);
        self.watch();
    }

    /// Says that a write outside of the databases found some disk full, which need not be this one.
    pub fn suspect_full(&self) {
        let least = self.0.reserve_bytes.load(Ordering::Relaxed);
        if self.0.available().is_some_and(|available| available < least) {
            self.report_full();
        }
    }

    /// Whether next to nothing is free: then a failure of the disk is one for want of space.
    pub(crate) fn has_nothing_free(&self) -> bool {
        self.0.available().is_some_and(|available| available < NOTHING_FREE_BYTES)
    }

    /// Looks whether there is space again. Answers whether the disk is not full (any more). Waits for
    /// the disk.
    pub fn look(&self) -> bool {
        self.0.look()
    }

    /// Waits until the disk is not full.
    pub async fn has_space(&self) {
        let mut full = self.0.full.subscribe();
        // Fails when the sender is gone, which this holds.
        drop(full.wait_for(|is_full| !is_full).await);
    }

    /// Calls `listener` with whether the disk is full whenever that changes, on the thread that
    /// notices; at once when it is full already. It must not block.
    pub fn on_change(&self, listener: impl Fn(bool) + Send + Sync + 'static) {
        if self.is_full() {
            listener(true);
        }
        *self.0.listener() = Some(Box::new(listener));
    }

    /// How the disk is. Waits for the system, not for the disk.
    pub fn status(&self) -> StorageStatus {
        StorageStatus {
            is_full: self.is_full(),
            reserve_bytes: self.0.reserve_bytes.load(Ordering::Relaxed),
            available_bytes: self.0.available(),
        }
    }

    /// What its writers did, and what they have before them. Waits for the system, not for the disk.
    pub fn writers(&self) -> WriterFigures {
        self.0.figures.read()
    }

    /// Where its writers count.
    pub(crate) fn figures(&self) -> &Figures {
        &self.0.figures
    }

    /// Makes the disk look as if that many bytes were free, or again as it is.
    #[cfg(any(test, feature = "faults"))]
    pub fn pretend_available(&self, bytes: Option<u64>) {
        self.0.pretended.store(bytes.unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Looks at the disk from a thread of its own for as long as it is full. That thread ends with the
    /// server.
    fn watch(&self) {
        if self.0.is_watched.swap(true, Ordering::AcqRel) {
            return;
        }
        let inner = Arc::downgrade(&self.0);
        let watching = thread::Builder::new().name("storage".to_owned());
        if let Err(error) = watching.spawn(move || watch(&inner)) {
            self.0.is_watched.store(false, Ordering::Release);
            tracing::error!(%error, "nothing looks whether the disk has space again");
        }
    }
}

fn watch(inner: &Weak<Inner>) {
    loop {
        thread::park_timeout(LOOK_EVERY);
        let Some(inner) = inner.upgrade() else { return };
        if inner.look() {
            inner.is_watched.store(false, Ordering::Release);
            // It may have become full again before that.
            if !*inner.full.borrow() || inner.is_watched.swap(true, Ordering::AcqRel) {
                return;
            }
        }
    }
}

impl Inner {
    fn reserve(&self) -> PathBuf {
        self.directory.join(RESERVE_NAME)
    }

    fn changing(&self) -> std::sync::MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn listener(&self) -> std::sync::MutexGuard<'_, Option<Listener>> {
        self.listener.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, is_full: bool) {
        if let Some(listener) = &*self.listener() {
            listener(is_full);
        }
    }

    fn look(&self) -> bool {
        let changing = self.changing();
        if !*self.full.borrow() {
            return true;
        }
        let wanted = self.reserve_bytes.load(Ordering::Relaxed).saturating_mul(FREE_RESERVES);
        // Where the system does not tell, making the reserve does.
        if self.available().is_some_and(|available| available < wanted) {
            return false;
        }
        if let Err(error) = self.make_reserve() {
            tracing::warn!(%error, "the reserve could not be made again");
            return false;
        }
        self.full.send_replace(false);
        drop(changing);
        tracing::warn!(path = %self.directory.display(), "the disk has space again");
        self.tell(false);
        true
    }

    /// Makes the reserve, as large as the disk allows; one that is large enough is kept.
    fn make_reserve(&self) -> Result<(), StoreError> {
        let path = self.reserve();
        let found = fs::metadata(&path).map_or(0, |file| file.len());
        let free = self.available().unwrap_or(u64::MAX).saturating_add(found);
        let wanted = (free / RESERVE_SHARE).min(RESERVE_BYTES);
        if wanted < RESERVE_BYTES_MIN {
            return Err(StoreError::StorageFull);
        }
        if (wanted..=RESERVE_BYTES).contains(&found) {
            self.reserve_bytes.store(found, Ordering::Relaxed);
            return Ok(());
        }
        remove_if_there(&path)?;
        let made = File::create(&path).and_then(|file| fill(&file, wanted));
        if let Err(error) = made {
            remove_if_there(&path)?;
            return Err(error.into());
        }
        self.reserve_bytes.store(wanted, Ordering::Relaxed);
        Ok(())
    }

    fn available(&self) -> Option<u64> {
        #[cfg(any(test, feature = "faults"))]
        {
            let pretended = self.pretended.load(Ordering::Relaxed);
            if pretended != u64::MAX {
                return Some(pretended);
            }
        }
        available(&self.directory)
    }
}

impl std::fmt::Debug for Storage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Storage").field(&self.status()).finish()
    }
}

/// Bytes that an ordinary user may still write on the disk of `directory`; none where nobody says.
#[cfg(unix)]
pub fn available(directory: &Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(directory).ok()?;
    Some(disk.f_bavail.saturating_mul(disk.f_frsize))
}

/// Bytes that may still be written on the disk of `directory`; none where nobody says.
#[cfg(not(unix))]
pub fn available(_: &Path) -> Option<u64> {
    None
}

/// Gives a new file blocks of its own on the disk.
fn fill(file: &File, bytes: u64) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    {
        use rustix::fs::{FallocateFlags, fallocate};
        match fallocate(file, FallocateFlags::empty(), 0, bytes) {
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {}
            allocated => return Ok(allocated?),
        }
    }
    let mut rest = io::repeat(0xa5).take(bytes);
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let count = rest.read(&mut chunk)?;
        if count == 0 {
            return file.sync_all();
        }
        let mut file = file;
        file.write_all(chunk.get(..count).unwrap_or_default())?;
    }
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[test]
    fn a_full_disk_has_its_reserve_freed_and_made_again_when_there_is_space() {
        let directory = tempfile::tempdir().unwrap();
        let storage = Storage::open(directory.path()).unwrap();
        let reserve = directory.path().join(RESERVE_NAME);
        let size = fs::metadata(&reserve).unwrap().len();
        assert_eq!(storage.status().reserve_bytes, size);
        assert!((RESERVE_BYTES_MIN..=RESERVE_BYTES).contains(&size) && !storage.is_full());
        let told = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&told);
        storage.on_change(move |is_full| {
            count.fetch_add(if is_full { 1 } else { 100 }, Ordering::SeqCst);
        });

        storage.pretend_available(Some(size));
        storage.report_full();
        storage.report_full();
        assert!(storage.is_full() && !reserve.exists());
        assert!(!storage.look(), "what the reserve freed is not space");
        assert_eq!(told.load(Ordering::SeqCst), 1);

        storage.pretend_available(Some(FREE_RESERVES * size));
        assert!(storage.look() && !storage.is_full());
        assert!(fs::metadata(&reserve).unwrap().len() >= RESERVE_BYTES_MIN);
        // The thread that watches may have been first; told it was once in any case.
        assert_eq!(told.load(Ordering::SeqCst), 101);
    }

    #[test]
    fn a_disk_that_is_full_at_the_start_is_no_failure() {
        let directory = tempfile::tempdir().unwrap();
        let storage = Storage::open(directory.path()).unwrap();
        storage.pretend_available(Some(0));
        remove_if_there(&directory.path().join(RESERVE_NAME)).unwrap();
        assert!(matches!(storage.0.make_reserve(), Err(StoreError::StorageFull)));
    }

    #[test]
    fn a_reserve_of_an_earlier_server_is_kept() {
        let directory = tempfile::tempdir().unwrap();
        let first = Storage::open(directory.path()).unwrap().status();
        assert_eq!(
            Storage::open(directory.path()).unwrap().status().reserve_bytes,
            first.reserve_bytes
        );
        let written = fill(&File::create(directory.path().join("other")).unwrap(), 100_000);
        written.unwrap();
    }

    #[tokio::test]
    async fn who_waits_for_space_goes_on_when_there_is_some() {
        let directory = tempfile::tempdir().unwrap();
        let storage = Storage::open(directory.path()).unwrap();
        storage.has_space().await;
        storage.pretend_available(Some(0));
        storage.report_full();
        let waiting = tokio::spawn({
            let storage = storage.clone();
            async move { storage.has_space().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        storage.pretend_available(None);
        assert!(storage.look());
        waiting.await.unwrap();
    }
}
