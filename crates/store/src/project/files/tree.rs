//! The files of a project without a directory: each is the newest version of its path.

use rusqlite::{Connection, Row, params};

use crate::StoreError;
use crate::project::blobs::{self, BlobHash};
use crate::project::queries;

/// With what only the version knows.
const FILE: &str = "SELECT f.size, f.hash, f.updated_at, v.mode, v.blob
     FROM files AS f JOIN file_versions AS v ON v.path = f.path AND v.version = f.version
     WHERE f.path = ?1";
const FROM: &str = "SELECT path, size, hash, updated_at FROM files WHERE path >= ?1 ORDER BY path";

/// A file that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreeFile {
    /// Bytes.
    pub size: u64,
    /// SHA-256, 64 hex digits.
    pub hash: String,
    /// Permission bits, where they are known.
    pub mode: Option<u32>,
    /// When it was changed last, in milliseconds since 1970 UTC.
    pub updated_at: i64,
}

/// A name in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreeEntry {
    /// The name.
    pub name: String,
    /// The file, without its permission bits; none for a directory.
    pub file: Option<TreeFile>,
}

fn tree_file(row: &Row<'_>) -> rusqlite::Result<TreeFile> {
    Ok(TreeFile {
        size: row.get("size")?,
        hash: row.get("hash")?,
        mode: row.get("mode")?,
        updated_at: row.get("updated_at")?,
    })
}

/// The file at a path.
pub(in crate::project) fn file(
    conn: &Connection,
    path: &str,
) -> Result<Option<TreeFile>, StoreError> {
    queries::first(conn, FILE, [path], tree_file)
}

/// The file at a path with its content.
pub(in crate::project) fn read(
    conn: &Connection,
    path: &str,
) -> Result<Option<(TreeFile, Vec<u8>)>, StoreError> {
    let found = queries::first(conn, FILE, [path], |row| {
        Ok((tree_file(row)?, row.get::<_, Option<Vec<u8>>>("blob")?))
    })?;
    let Some((file, blob)) = found else { return Ok(None) };
    let blob = blob.ok_or_else(|| StoreError::corrupt("a file without its content"))?;
    let bytes = blobs::get(conn, BlobHash::from_column(&blob)?)?;
    Ok(Some((file, bytes)))
}

/// What stands in a directory, whose path is empty for that of the project, at most `entries_max` names. What is
/// below the directories in it is passed over.
pub(in crate::project) fn entries(
    conn: &Connection,
    directory: &str,
    entries_max: usize,
) -> Result<Vec<TreeEntry>, StoreError> {
    let prefix = if directory.is_empty() { String::new() } else { format!("{directory}/") };
    let (mut entries, mut from) = (Vec::new(), Some(prefix.clone()));
    let mut statement = conn.prepare_cached(FROM)?;
    while let Some(start) = from.take() {
        let mut rows = statement.query(params![start])?;
        while let Some(row) = rows.next()? {
            let path: String = row.get(0)?;
            let Some(rest) = path.strip_prefix(&prefix) else { return Ok(entries) };
            if entries.len() >= entries_max {
                return Ok(entries);
            }
            if let Some((name, _)) = rest.split_once('/') {
                // The first path behind all that begin with `name/`.
                from = Some(format!("{prefix}{name}0"));
                entries.push(TreeEntry { name: name.to_owned(), file: None });
                break;
            }
            let file = TreeFile {
                size: row.get(1)?,
                hash: row.get(2)?,
                mode: None,
                updated_at: row.get(3)?,
            };
            entries.push(TreeEntry { name: rest.to_owned(), file: Some(file) });
        }
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::database;
    use crate::project::SCHEMA;

    #[test]
    fn a_directory_has_the_names_in_it_and_passes_over_what_is_below() {
        let mut conn = Connection::open_in_memory().unwrap();
        database::migrations(SCHEMA).to_latest(&mut conn).unwrap();
        let paths = ["a", "a.txt", "b/c/d", "b/c0", "b/c/e", "b0", "b-/x", "ab/z", "z", "ä/ö"];
        for path in paths {
            let sql = "INSERT INTO files (path, size, version, hash, updated_at)
                       VALUES (?1, 1, 1, 'h', 7)";
            conn.execute(sql, [path]).unwrap();
        }
        let names = |directory: &str, max| -> Vec<(String, bool)> {
            let entries = entries(&conn, directory, max).unwrap();
            let mut names: Vec<_> =
                entries.into_iter().map(|it| (it.name, it.file.is_some())).collect();
            names.sort();
            names
        };
        let expect = |names: &[(&str, bool)]| -> Vec<(String, bool)> {
            names.iter().map(|(name, is_file)| ((*name).to_owned(), *is_file)).collect()
        };
        let root = [
            ("a", true),
            ("a.txt", true),
            ("ab", false),
            ("b", false),
            ("b-", false),
            ("b0", true),
            ("z", true),
            ("ä", false),
        ];
        assert_eq!(names("", 99), expect(&root));
        assert_eq!(names("b", 99), expect(&[("c", false), ("c0", true)]));
        assert_eq!(names("b/c", 99), expect(&[("d", true), ("e", true)]));
        assert_eq!(names("ä", 99), expect(&[("ö", true)]));
        assert_eq!(names("", 3).len(), 3);
        assert_eq!(names("none", 99), []);
        assert_eq!(names("z", 99), []);
    }
}
