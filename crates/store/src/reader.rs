//! Reading: a pool of read-only connections for each open database, off the async threads.
//!
//! A connection that only waits takes a tenth of a megabyte, and a thousand databases may be open: so
//! only those that were read last keep theirs.

use std::path::Path;
use std::sync::{Arc, LazyLock, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use r2d2::Pool;
use r2d2_sqlite::SqliteConnectionManager;
use rusqlite::{Connection, OpenFlags};
use scheduled_thread_pool::ScheduledThreadPool;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use crate::condition::Condition;
use crate::{StoreError, database};

/// Most connections of one pool, and most queries of one database that run or wait for a connection.
const CONNECTIONS_MAX: u32 = 4;
/// Databases that keep connections to be read.
const POOLS_MAX: usize = 64;
/// Most queries of all databases that run at the same time.
const QUERIES_MAX: usize = 16;
/// Longest wait for a connection of the pool.
const CONNECTION_WAIT_MAX: Duration = Duration::from_secs(5);
/// Statements that each connection keeps prepared: more than a run reads with.
const STATEMENTS_KEPT: usize = 48;
/// Run once on each new connection. The cache is in KiB, the wait in milliseconds.
const PRAGMAS: &str = "
    PRAGMA query_only = ON;
    PRAGMA busy_timeout = 5000;
    PRAGMA temp_store = MEMORY;
    PRAGMA cache_size = -256;";

// A pool of its own would cost each database three threads.
static POOL_THREADS: LazyLock<Arc<ScheduledThreadPool>> = LazyLock::new(|| {
    Arc::new(
        ScheduledThreadPool::builder().num_threads(1).thread_name_pattern("db-pool-{}").build(),
    )
});

static PERMITS: Semaphore = Semaphore::const_new(QUERIES_MAX);

/// The pools of the databases that were read last, the last one at the end.
static LAST_READ: Mutex<Vec<Weak<Connections>>> = Mutex::new(Vec::new());

/// The pool of one database; none before it is read, and none once many others were.
type Connections = Mutex<Option<Pool<SqliteConnectionManager>>>;

/// Anything that is read.
type Query = Box<dyn FnOnce(&Connection) -> Result<(), StoreError> + Send>;

/// One state of an open database, or a later one: from its first transaction that ends on there is another.
///
/// What was read after this was taken holds for as long as it is equal to the newest one: a change that
/// anybody has heard of makes another.
#[derive(Debug, Clone)]
pub struct State {
    condition: Arc<Condition>,
    transaction: u64,
}

impl PartialEq for State {
    fn eq(&self, other: &Self) -> bool {
        self.transaction == other.transaction && Arc::ptr_eq(&self.condition, &other.condition)
    }
}

impl Eq for State {}

/// Runs queries on one database. A clone reads through the same pool.
#[derive(Debug, Clone)]
pub struct Reader {
    connections: Arc<Connections>,
    /// One for each connection: who waits for another query of the same database must not keep one of
    /// the permits that all databases share.
    turns: Arc<Semaphore>,
    condition: Arc<Condition>,
}

impl Reader {
    /// A reader of a database that a writer has open. Connects at the first query.
    pub(crate) fn new(condition: Arc<Condition>) -> Self {
        let turns = Arc::new(Semaphore::new(CONNECTIONS_MAX as usize));
        Self { connections: Arc::default(), turns, condition }
    }

    /// The state that a query would see now or later; none once damage was seen.
    pub(crate) fn state(&self) -> Option<State> {
        let transaction = self.condition.transactions();
        let condition = Arc::clone(&self.condition);
        self.condition.damage().is_none().then_some(State { condition, transaction })
    }

    fn pool(&self) -> Pool<SqliteConnectionManager> {
        let this = Arc::downgrade(&self.connections);
        let surplus = {
            let mut last = LAST_READ.lock();
            last.retain(|other| other.strong_count() > 0 && !other.ptr_eq(&this));
            last.push(this);
            (last.len() > POOLS_MAX).then(|| last.remove(0))
        };
        // Closing its connections waits for the disk. A query that runs on one of them goes on.
        drop(surplus.and_then(|surplus| surplus.upgrade()?.lock().take()));
        self.connections.lock().get_or_insert_with(|| new_pool(self.condition.path())).clone()
    }

    /// Runs `f` on a blocking thread, inside one read transaction: it sees one state.
    ///
    /// Waits for its turn at this database, then for one of the permits that all databases share, then
    /// at most 5 s for a connection.
    /// Dropping the future lets a query that runs already run to its end.
    ///
    /// # Errors
    /// What `f` answers; `Internal` when no connection comes free or `f` panics; `Corrupt` once damage
    /// was seen.
    pub async fn read<T: Send + 'static>(
        &self,
        f: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let found = Arc::new(Mutex::new(None));
        let place = Arc::clone(&found);
        let query = move |conn: &Connection| {
            *place.lock() = Some(f(conn)?);
            Ok(())
        };
        self.run(Box::new(query)).await?;
        let found = found.lock().take();
        found.ok_or_else(|| StoreError::internal("a query has no answer"))
    }

    /// One function for all queries: the compiler would make hundreds of what runs them.
    async fn run(&self, query: Query) -> Result<(), StoreError> {
        let turn = Arc::clone(&self.turns).acquire_owned().await.map_err(StoreError::internal)?;
        let permit = PERMITS.acquire().await.map_err(StoreError::internal)?;
        let reader = self.clone();
        let query = move || {
            let _held = (turn, permit);
            reader.read_blocking(query)
        };
        spawn_blocking(query).await.map_err(StoreError::internal)?
    }

    /// As [`Reader::read`], on this thread: for work on a blocking thread that reads again and again.
    ///
    /// # Errors
    /// As [`Reader::read`]; `Internal` outside of a runtime.
    pub(crate) fn read_here<T>(
        &self,
        f: impl FnOnce(&Connection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let runtime = tokio::runtime::Handle::try_current().map_err(StoreError::internal)?;
        let _turn = runtime.block_on(self.turns.acquire()).map_err(StoreError::internal)?;
        let _permit = runtime.block_on(PERMITS.acquire()).map_err(StoreError::internal)?;
        self.read_blocking(f)
    }

    /// As [`Reader::read`], on this thread and without a permit: for opening a database.
    pub(crate) fn read_blocking<T>(
        &self,
        f: impl FnOnce(&Connection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.condition.check()?;
        self.condition.judge(self.query(f))
    }

    fn query<T>(
        &self,
        f: impl FnOnce(&Connection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut conn = self.pool().get().map_err(|error| {
            // The pool says that it waited, not for what.
            let tried = database::open_to_read(self.condition.path(), PRAGMAS);
            tried.err().unwrap_or_else(|| error.into())
        })?;
        let tx = conn.transaction()?;
        f(&tx)
    }
}

fn new_pool(path: &Path) -> Pool<SqliteConnectionManager> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let manager = SqliteConnectionManager::file(path).with_flags(flags).with_init(|conn| {
        conn.set_prepared_statement_cache_capacity(STATEMENTS_KEPT);
        conn.execute_batch(PRAGMAS)
    });
    Pool::builder()
        .max_size(CONNECTIONS_MAX)
        .min_idle(Some(0))
        // With either of these r2d2 starts a job that looks at the pool twice a minute, and goes on when
        // the pool is gone. Pools come and go all the time, and few have connections.
        .idle_timeout(None)
        .max_lifetime(None)
        .connection_timeout(CONNECTION_WAIT_MAX)
        .test_on_check_out(false)
        .thread_pool(Arc::clone(&POOL_THREADS))
        .build_unchecked(manager)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn numbers(conn: &Connection) -> Result<i64, StoreError> {
        Ok(conn.query_row("SELECT count(*) FROM numbers", [], |row| row.get(0))?)
    }

    /// A database with an empty table, and the connection that writes it.
    fn database() -> (tempfile::TempDir, Connection, Reader) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("numbers.db");
        let conn = Connection::open(&path).unwrap();
        conn.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE numbers (n INTEGER)").unwrap();
        let reader = Reader::new(Arc::new(Condition::new(&path).unwrap()));
        (directory, conn, reader)
    }

    #[tokio::test]
    async fn a_query_sees_one_state_while_another_is_written() {
        let (_directory, writer, reader) = database();
        let query = move |conn: &Connection| {
            let before = numbers(conn)?;
            writer.execute("INSERT INTO numbers VALUES (1)", [])?;
            Ok((before, numbers(conn)?))
        };
        assert_eq!(reader.read(query).await.unwrap(), (0, 0));
        assert_eq!(reader.read(numbers).await.unwrap(), 1);
    }

    #[tokio::test]
    async fn a_query_that_writes_or_panics_fails_alone() {
        let (_directory, _writer, reader) = database();
        let write = |conn: &Connection| Ok(conn.execute("INSERT INTO numbers VALUES (1)", [])?);
        assert!(matches!(reader.read(write).await, Err(StoreError::Internal { .. })));
        for _ in 0..=CONNECTIONS_MAX {
            let panics = |_: &Connection| -> Result<(), StoreError> { panic!("on purpose") };
            assert!(matches!(reader.read(panics).await, Err(StoreError::Internal { .. })));
        }
        assert_eq!(reader.read(numbers).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn only_databases_that_were_read_last_keep_connections() {
        let databases: Vec<_> = (0..=POOLS_MAX).map(|_| database()).collect();
        let has_pool = |n: usize| databases[n].2.connections.lock().is_some();
        assert!(!has_pool(0));
        for (_, _, reader) in &databases {
            assert_eq!(reader.read(numbers).await.unwrap(), 0);
        }
        assert!(!has_pool(0) && has_pool(POOLS_MAX));
        // One whose connections were taken away under a query, and whose next one connects again.
        let (_, _, last) = databases.last().unwrap();
        let others: Vec<Reader> = databases.iter().map(|(_, _, reader)| reader.clone()).collect();
        let query = move |conn: &Connection| {
            others
                .iter()
                .take(POOLS_MAX)
                .try_for_each(|other| other.read_blocking(numbers).map(drop))?;
            numbers(conn)
        };
        assert_eq!(last.read(query).await.unwrap(), 0);
        assert!(!has_pool(POOLS_MAX));
        assert_eq!(last.read(numbers).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn queries_that_wait_for_a_busy_database_keep_none_from_another() {
        let ((_one, _, busy), (_two, _, other)) = (database(), database());
        let (runs, mut running) = tokio::sync::mpsc::unbounded_channel();
        let mut queries = tokio::task::JoinSet::new();
        let mut held = Vec::new();
        for _ in 0..CONNECTIONS_MAX {
            let (reader, runs) = (busy.clone(), runs.clone());
            let (release, released) = std::sync::mpsc::channel::<()>();
            held.push(release);
            let query = move |conn: &Connection| {
                runs.send(()).unwrap();
                // Fails once it is released.
                released.recv().unwrap_err();
                numbers(conn)
            };
            queries.spawn(async move { reader.read(query).await });
        }
        for _ in 0..CONNECTIONS_MAX {
            running.recv().await.unwrap();
        }
        for _ in 0..QUERIES_MAX {
            let reader = busy.clone();
            queries.spawn(async move { reader.read(numbers).await });
        }
        // Lets each of them come as far as it can.
        tokio::task::yield_now().await;
        assert_eq!(other.read(numbers).await.unwrap(), 0);
        assert!(queries.try_join_next().is_none());
        drop(held);
        for counted in queries.join_all().await {
            assert_eq!(counted.unwrap(), 0);
        }
    }

    #[test]
    fn a_pool_has_no_timeouts_for_which_a_job_would_go_on_without_it() {
        let pool = new_pool(Path::new("nowhere.db"));
        assert_eq!((pool.idle_timeout(), pool.max_lifetime()), (None, None));
    }

    #[tokio::test]
    async fn queries_of_all_databases_share_their_permits() {
        let databases: Vec<_> = (0..8).map(|_| database()).collect();
        let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let mut queries = tokio::task::JoinSet::new();
        for n in 0..QUERIES_MAX * 4 {
            let reader = databases[n % databases.len()].2.clone();
            let (running, most) = (Arc::clone(&running), Arc::clone(&most));
            queries.spawn(async move {
                let query = move |conn: &Connection| {
                    let now = running.fetch_add(1, Ordering::SeqCst) + 1;
                    most.fetch_max(now, Ordering::SeqCst);
                    let counted = numbers(conn);
                    running.fetch_sub(1, Ordering::SeqCst);
                    counted
                };
                reader.read(query).await
            });
        }
        for counted in queries.join_all().await {
            assert_eq!(counted.unwrap(), 0);
        }
        assert!((1..=QUERIES_MAX).contains(&most.load(Ordering::SeqCst)));
    }
}
