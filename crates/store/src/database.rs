//! Database files: made whole or not at all, and checked before anything touches them.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};
use rusqlite_migration::Migrations;

use crate::migration::migrate;
pub(crate) use crate::migration::migrations;
use crate::{StoreError, wal};

/// "IRIS", in the header of each database file.
pub(crate) const APPLICATION_ID: i32 = 0x4952_4953;

/// Bytes of the header of a database file (SQLite file format, section 1.3).
const HEADER_BYTES: u64 = 100;
/// Every page has a multiple of so many bytes (SQLite, "Database File Format", 1.3.2).
const PAGE_BYTES_UNIT: u64 = 512;

/// For connections that write. Sizes are KiB for the cache, bytes for the log; the wait is
/// milliseconds, the checkpoint pages: everybody waits for one, so that they are small.
const WRITER_PRAGMAS: &str = "
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = FULL;
    PRAGMA busy_timeout = 5000;
    PRAGMA foreign_keys = ON;
    PRAGMA temp_store = MEMORY;
    PRAGMA journal_size_limit = 67108864;
    PRAGMA wal_autocheckpoint = 250;
    PRAGMA cache_size = -2048;";

/// Statements that each connection of a writer keeps prepared.
const STATEMENTS_KEPT: usize = 128;

/// Makes a new database at `path`: every migration of `schema` (SQL, oldest first), then `fill`.
///
/// The file appears under its name only when it is whole and on the disk.
///
/// # Errors
/// `Conflict` with `database_exists`; `Corrupt` when the write-ahead log of a lost database lies
/// there; `StorageFull`; `Internal` for other failures of the disk.
pub(crate) fn create(
    path: &Path,
    schema: &[&'static str],
    fill: impl FnOnce(&Connection) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    if path.try_exists()? {
        return Err(StoreError::conflict("database_exists", "the database exists already"));
    }
    // A log that outlived its database would be replayed into the new one.
    if has_log(path) {
        return Err(StoreError::corrupt("the file is missing, its write-ahead log is not"));
    }
    let unfinished = path_with(path, ".new");
    remove_if_there(&unfinished)?;
    let written = write_new(&unfinished, schema, fill);
    if written.is_err() {
        remove_if_there(&unfinished)?;
    }
    written?;
    fs::rename(&unfinished, path)?;
    sync_directory_of(path)
}

/// Opens the database at `path` for its writer and brings it to the newest schema.
///
/// The header, the schema version and then `identify` look at it first, through a connection that
/// cannot write: a file that is refused is left as it is.
///
/// # Errors
/// `Corrupt` for a file that is missing, empty, cut off or no database of ours; `Newer`; what
/// `identify` answers.
pub(crate) fn open(
    path: &Path,
    schema: &[&'static str],
    identify: impl FnOnce(&Connection) -> Result<(), StoreError>,
) -> Result<Connection, StoreError> {
    check_file(path)?;
    wal::check(&log_of(path))?;
    let conn = open_to_look(path)?;
    check_application(&conn)?;
    let migrations = migrations(schema);
    check_length(path, &conn)?;
    check_version(&conn, &migrations)?;
    identify(&conn)?;
    drop(conn);

    let read_write = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut conn = Connection::open_with_flags(path, read_write)?;
    // Should it turn out to be damaged now: closing it changes nothing.
    leave_as_it_is(&conn, true)?;
    plan_once(&conn)?;
    conn.execute_batch(WRITER_PRAGMAS)?;
    conn.set_prepared_statement_cache_capacity(STATEMENTS_KEPT);
    migrate(path, &mut conn, &migrations)?;
    leave_as_it_is(&conn, false)?;
    Ok(conn)
}

/// A connection that changes nothing, not even what lies beside the file. With a log that is only the
/// index of it.
fn open_to_look(path: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let uri = path.to_str().filter(|_| !has_log(path)).map(immutable);
    Ok(match uri {
        Some(uri) => Connection::open_with_flags(uri, flags | OpenFlags::SQLITE_OPEN_URI)?,
        None => Connection::open_with_flags(path, flags)?,
    })
}

/// The name of a file that nobody changes meanwhile (SQLite, "URI filenames").
fn immutable(path: &str) -> String {
    let path = path.replace('%', "%25").replace('?', "%3f").replace('#', "%23");
    format!("file:{path}?immutable=1")
}

/// Whether closing the connection leaves the file and its write-ahead log as they are.
pub(crate) fn leave_as_it_is(conn: &Connection, leave: bool) -> Result<(), StoreError> {
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, leave)?;
    Ok(())
}

/// A statement is planned for all values of its parameters, once. Otherwise SQLite plans some of them anew each
/// time that they get values, in case a partial index fits these.
fn plan_once(conn: &Connection) -> Result<(), StoreError> {
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    Ok(())
}

fn write_new(
    path: &Path,
    schema: &[&'static str],
    fill: impl FnOnce(&Connection) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    fs::write(path, blank(path, schema)?)?;
    let conn = open_unfinished(path)?;
    fill(&conn)?;
    // The file says so from the beginning: a change while it is in use goes through a rollback journal,
    // and after a crash in the middle no connection that only reads could open it.
    conn.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
    conn.close().map_err(|(_, error)| error)?;
    File::open(path)?.sync_all()?;
    Ok(())
}

/// A database that its schema alone has made.
struct Blank {
    schema: Vec<&'static str>,
    file: Arc<[u8]>,
}

/// Each is made once, and copied from then on: the statements of a schema are many.
static BLANKS: Mutex<Vec<Blank>> = Mutex::new(Vec::new());

/// What a new database of that schema consists of. The first one is made at `path`, where nothing is yet.
fn blank(path: &Path, schema: &[&'static str]) -> Result<Arc<[u8]>, StoreError> {
    let mut blanks = BLANKS.lock();
    if let Some(blank) = blanks.iter().find(|blank| blank.schema == schema) {
        return Ok(Arc::clone(&blank.file));
    }
    let mut conn = open_unfinished(path)?;
    conn.pragma_update(None, "application_id", APPLICATION_ID)?;
    migrations(schema).to_latest(&mut conn)?;
    conn.close().map_err(|(_, error)| error)?;
    let file: Arc<[u8]> = fs::read(path)?.into();
    blanks.push(Blank { schema: schema.to_vec(), file: Arc::clone(&file) });
    Ok(file)
}

/// A connection to a database that has no name yet: it is synced once, before it gets that, in place of several
/// times in each transaction.
fn open_unfinished(path: &Path) -> Result<Connection, StoreError> {
    let conn = Connection::open(path)?;
    conn.execute_batch("PRAGMA journal_mode = MEMORY; PRAGMA synchronous = OFF;")?;
    Ok(conn)
}

/// Refuses what is no file of ours, without opening it.
///
/// Only SQLite may open a database's file in this process. Closing any other handle of it takes away
/// the locks that all connections of this process hold on it (fcntl(2)), and the next program that
/// closes its own connection then removes the write-ahead log under ours.
fn check_file(path: &Path) -> Result<(), StoreError> {
    match path.metadata() {
        Ok(found) if found.is_dir() => Err(StoreError::corrupt("the file is a directory")),
        Ok(found) if found.len() < HEADER_BYTES => {
            Err(StoreError::corrupt("the file is empty or cut off"))
        }
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            Err(StoreError::corrupt("the file is missing"))
        }
        Err(error) => Err(error.into()),
    }
}

fn check_application(conn: &Connection) -> Result<(), StoreError> {
    let found = conn.pragma_query_value(None, "application_id", |row| row.get::<_, i32>(0));
    match found {
        Ok(APPLICATION_ID) => Ok(()),
        Ok(_) => Err(StoreError::corrupt("the file is a database of another program")),
        Err(error) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::NotADatabase) => {
            Err(StoreError::corrupt("the file is not a database"))
        }
        Err(error) => Err(error.into()),
    }
}

/// A connection that cannot write to a database of ours, whoever has it open. `pragmas` come before
/// anything is read.
pub(crate) fn open_to_read(path: &Path, pragmas: &str) -> Result<Connection, StoreError> {
    check_file(path)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags)?;
    plan_once(&conn)?;
    conn.execute_batch(pragmas)?;
    check_application(&conn)?;
    Ok(conn)
}

/// SQLite notices a file that lacks whole pages, and reads a page that is cut off as zeros.
pub(crate) fn check_length(path: &Path, conn: &Connection) -> Result<(), StoreError> {
    if has_log(path) {
        return Ok(());
    }
    let length = path.metadata()?.len();
    // What is missing may be a part of the schema, without which SQLite counts nothing.
    if length % PAGE_BYTES_UNIT != 0 {
        return Err(StoreError::corrupt("the file is cut off"));
    }
    let pages: u64 = conn.pragma_query_value(None, "page_count", |row| row.get(0))?;
    let page_bytes: u64 = conn.pragma_query_value(None, "page_size", |row| row.get(0))?;
    if length < pages.saturating_mul(page_bytes) {
        return Err(StoreError::corrupt("the file is cut off"));
    }
    Ok(())
}

pub(crate) fn check_version(
    conn: &Connection,
    migrations: &Migrations<'_>,
) -> Result<(), StoreError> {
    let found: i64 = conn.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let pending = migrations.pending_migrations(conn)?;
    if pending < 0 {
        return Err(StoreError::Newer { found, known: found + i64::from(pending) });
    }
    Ok(())
}

/// Whether a write-ahead log holds anything that is not in the file yet.
fn has_log(path: &Path) -> bool {
    log_of(path).metadata().is_ok_and(|log| log.len() > 0)
}

/// The write-ahead log of the database at `path`.
pub(crate) fn log_of(path: &Path) -> PathBuf {
    path_with(path, "-wal")
}

pub(crate) fn path_with(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

pub(crate) fn remove_if_there(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error.into()),
        Ok(()) | Err(_) => Ok(()),
    }
}

pub(crate) fn sync_directory_of(path: &Path) -> Result<(), StoreError> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(parent.unwrap_or(Path::new(".")))?.sync_all()?;
    Ok(())
}
