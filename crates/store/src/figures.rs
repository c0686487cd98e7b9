//! What the writers of a server did, in plain counters for whoever watches it. Counted where it happens,
//! without a lock; read seldom.

use std::path::PathBuf;
use std::sync::Weak;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

/// The upper bounds that sizes of commits are sorted by, in commands.
const COMMIT_SIZES: [u64; 9] = [1, 2, 4, 8, 16, 32, 64, 128, 256];
/// The upper bounds that times of commits are sorted by, in microseconds.
const COMMIT_MICROS: [u64; 12] =
    [250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000, 5_000_000];

/// What the writers of one server count.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    sizes: Histogram<{ COMMIT_SIZES.len() }>,
    micros: Histogram<{ COMMIT_MICROS.len() }>,
    lost: AtomicU64,
    open: Mutex<Vec<Open>>,
}

/// A database that has, or had, a writer.
#[derive(Debug)]
struct Open {
    log: PathBuf,
    /// Held once by the writer, and by each command that waits for it.
    waiting: Weak<()>,
}

/// How often values were found between bounds.
#[derive(Debug)]
struct Histogram<const N: usize> {
    counts: [AtomicU64; N],
    beyond: AtomicU64,
    sum: AtomicU64,
}

impl<const N: usize> Default for Histogram<N> {
    fn default() -> Self {
        let counts = [const { AtomicU64::new(0) }; N];
        Self { counts, beyond: AtomicU64::new(0), sum: AtomicU64::new(0) }
    }
}

impl<const N: usize> Histogram<N> {
    fn observe(&self, bounds: &[u64; N], value: u64) {
        let place = bounds.iter().position(|bound| value <= *bound);
        let count = place.and_then(|place| self.counts.get(place)).unwrap_or(&self.beyond);
        count.fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    /// As it is now, in units that have so many of what was observed.
    fn read(&self, bounds: &[u64; N], unit: f64) -> Distribution {
        let counts = self.counts.iter().map(|count| count.load(Ordering::Relaxed));
        let bounds = bounds.iter().map(|bound| as_f64(*bound) / unit);
        let mut buckets: Vec<(f64, u64)> = bounds.zip(counts).collect();
        buckets.push((f64::INFINITY, self.beyond.load(Ordering::Relaxed)));
        Distribution { buckets, sum: as_f64(self.sum.load(Ordering::Relaxed)) / unit }
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts beyond 2^53 are not reached")]
fn as_f64(count: u64) -> f64 {
    count as f64
}

/// How often values were found between bounds.
#[derive(Debug, Clone, PartialEq)]
pub struct Distribution {
    /// Upper bounds, the last one infinite, with the values between each and the one before.
    pub buckets: Vec<(f64, u64)>,
    /// Of all values.
    pub sum: f64,
}

impl Distribution {
    /// How many values there were.
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|(_, count)| count).sum()
    }
}

/// What the writers of a server did since it started, and what they have before them.
#[derive(Debug, Clone, PartialEq)]
pub struct WriterFigures {
    /// Commands in one commit.
    pub commit_sizes: Distribution,
    /// How long a commit took with its commands, in seconds.
    pub commit_seconds: Distribution,
    /// Transactions that were lost.
    pub lost: u64,
    /// Databases that are open to be written.
    pub open: u64,
    /// Commands that wait for their writers.
    pub waiting: u64,
    /// Commands that wait for the writer for which most do.
    pub waiting_most: u64,
    /// Bytes of all write-ahead logs.
    pub log_bytes: u64,
    /// Bytes of the largest one.
    pub log_bytes_most: u64,
}

impl Figures {
    /// A writer began whose write-ahead log is `log`.
    pub(crate) fn opened(&self, log: PathBuf, waiting: Weak<()>) {
        let mut open = self.open.lock();
        open.retain(|open| open.waiting.strong_count() > 0);
        open.push(Open { log, waiting });
    }

    /// So many commands were committed, within this time.
    pub(crate) fn committed(&self, commands: usize, time: Duration) {
        self.sizes.observe(&COMMIT_SIZES, commands as u64);
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.micros.observe(&COMMIT_MICROS, micros);
    }

    /// A transaction was lost.
    pub(crate) fn lost(&self) {
        self.lost.fetch_add(1, Ordering::Relaxed);
    }

    /// What there is to say now. Asks the system for the size of each log.
    pub(crate) fn read(&self) -> WriterFigures {
        let open: Vec<(PathBuf, u64)> = {
            let open = self.open.lock();
            let open = open.iter().filter_map(|Open { log, waiting }| {
                // One is the writer's own.
                let waiting = waiting.strong_count().checked_sub(1)?;
                Some((log.clone(), waiting as u64))
            });
            open.collect()
        };
        let sizes = open.iter().map(|(log, _)| log.metadata().map_or(0, |log| log.len()));
        let sizes: Vec<u64> = sizes.collect();
        WriterFigures {
            commit_sizes: self.sizes.read(&COMMIT_SIZES, 1.0),
            commit_seconds: self.micros.read(&COMMIT_MICROS, 1e6),
            lost: self.lost.load(Ordering::Relaxed),
            open: open.len() as u64,
            waiting: open.iter().map(|(_, waiting)| waiting).sum(),
            waiting_most: open.iter().map(|(_, waiting)| *waiting).max().unwrap_or(0),
            log_bytes: sizes.iter().sum(),
            log_bytes_most: sizes.iter().copied().max().unwrap_or(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn commits_are_sorted_by_their_bounds() {
        let figures = Figures::default();
        for (commands, micros) in [(1, 100), (3, 250), (4, 251), (256, 9_000_000)] {
            figures.committed(commands, Duration::from_micros(micros));
        }
        figures.lost();
        let WriterFigures { commit_sizes, commit_seconds, lost, .. } = figures.read();
        assert_eq!((commit_sizes.count(), commit_sizes.sum, lost), (4, 264.0, 1));
        assert_eq!(commit_sizes.buckets.get(..3), Some(&[(1.0, 1), (2.0, 0), (4.0, 2)][..]));
        assert_eq!(commit_sizes.buckets.last(), Some(&(f64::INFINITY, 0)));
        let seconds = commit_seconds.buckets;
        assert_eq!(seconds.get(..2), Some(&[(0.00025, 2), (0.0005, 1)][..]));
        assert_eq!(seconds.last(), Some(&(f64::INFINITY, 1)));
    }

    #[test]
    fn what_waits_is_counted_as_long_as_there_is_a_writer() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("a-wal");
        std::fs::write(&log, [0; 10]).unwrap();
        let (figures, writer) = (Figures::default(), Arc::new(()));
        figures.opened(log, Arc::downgrade(&writer));
        let command = Arc::clone(&writer);
        let WriterFigures { open, waiting, waiting_most, log_bytes, .. } = figures.read();
        assert_eq!((open, waiting, waiting_most, log_bytes), (1, 1, 1, 10));
        drop((command, writer));
        assert_eq!(figures.read().open, 0);
    }
}
