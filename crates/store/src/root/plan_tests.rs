//! No query of the root database reads a table from end to end.

use iris_protocol::SupervisionKind;
use rusqlite::Connection;

use super::{SCHEMA, SupervisionQuery, backups, logins, queries, supervision};
use crate::database;

/// What SQLite would do to run a statement, one line a step.
fn plan(conn: &Connection, sql: &str) -> Vec<String> {
    let mut statement = conn.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
    let mut rows = statement.raw_query();
    let mut steps = Vec::new();
    while let Some(row) = rows.next().unwrap() {
        steps.push(row.get(3).unwrap());
    }
    steps
}

#[test]
fn every_statement_finds_its_rows_through_an_index() {
    let mut conn = Connection::open_in_memory().unwrap();
    database::migrations(SCHEMA).to_latest(&mut conn).unwrap();
    let statements = [
        queries::statements(),
        logins::statements(),
        supervision::statements(),
        backups::statements(),
    ];
    for sql in statements.into_iter().flatten() {
        let steps = plan(&conn, &sql);
        assert!(!steps.is_empty(), "{sql}");
        assert!(!steps.iter().any(|step| step.starts_with("SCAN")), "{sql}\n{steps:#?}");
    }
}

#[test]
fn a_page_of_projects_is_read_in_the_order_of_its_index() {
    let mut conn = Connection::open_in_memory().unwrap();
    database::migrations(SCHEMA).to_latest(&mut conn).unwrap();
    let steps = plan(&conn, &queries::projects_sql());
    assert!(!steps.iter().any(|step| step.contains("TEMP B-TREE")), "{steps:#?}");
}

#[test]
fn the_supervision_log_of_one_kind_is_read_in_the_order_of_its_index() {
    let mut conn = Connection::open_in_memory().unwrap();
    database::migrations(SCHEMA).to_latest(&mut conn).unwrap();
    for since in [None, Some(1)] {
        let kind = Some(SupervisionKind::Stuck);
        let query = SupervisionQuery { since, kind, path: None, limit: 1 };
        let steps = plan(&conn, &query.sql());
        assert!(steps.iter().any(|step| step.contains("supervision_log_by_kind")), "{steps:#?}");
        assert!(!steps.iter().any(|step| step.contains("TEMP B-TREE")), "{steps:#?}");
    }
}
