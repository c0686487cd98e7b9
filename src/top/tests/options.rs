//! The command line, and the output for scripts.

use std::time::Duration;

use clap::Parser;
use clap::error::ErrorKind;

use crate::top::{TopOptions, interval, once};

use super::page;

#[derive(Parser)]
struct Top {
    #[command(flatten)]
    options: TopOptions,
}

fn parse(args: &str) -> Result<TopOptions, ErrorKind> {
    let args = format!("top --token t {args}");
    let parsed = Top::try_parse_from(args.split_whitespace());
    parsed.map(|top| top.options).map_err(|error| error.kind())
}

#[test]
fn the_interval_is_a_time_within_bounds() {
    assert_eq!(interval("100ms"), Ok(Duration::from_millis(100)));
    assert_eq!(interval("2"), Ok(Duration::from_secs(2)));
    assert_eq!(interval("60m"), Ok(Duration::from_hours(1)));
    for bad in
        ["99ms", "61m", "", "s", "-1s", "1h", "99999999999999999999s", "18446744073709551615m"]
    {
        assert!(interval(bad).is_err(), "{bad}");
    }
}

#[test]
fn json_is_for_once_and_a_project_is_an_id() {
    assert_eq!(parse("--json").err(), Some(ErrorKind::MissingRequiredArgument));
    assert_eq!(parse("--project p").err(), Some(ErrorKind::ValueValidation));
    let options = parse("--once --json").unwrap();
    assert_eq!(options.remote.url, "http://127.0.0.1:4747");
    assert!(options.json);
}

#[test]
fn the_table_has_a_line_for_each_actor() {
    let mut page = page();
    page.node.draining = true;
    page.node.arbiters[1].blocked_ms = 12_300;
    page.node.arbiters[1].actor = Some("node/root".to_owned());
    page.node.arbiters[1].message = Some("Write\u{1b}".to_owned());
    insta::assert_snapshot!(once::table(&page));
}
