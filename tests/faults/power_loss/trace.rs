//! Reads what `strace -f -y -xx` writes: calls that ended well, in the order of their ends.

use std::collections::HashMap;

/// The calls that are recorded.
pub(super) const CALLS: &[&str] = &[
    "openat",
    "lseek",
    "write",
    "pwrite64",
    "writev",
    "pwritev",
    "fsync",
    "fdatasync",
    "ftruncate",
    "fallocate",
    "rename",
    "renameat",
    "renameat2",
    "link",
    "linkat",
    "unlink",
    "unlinkat",
    "copy_file_range",
];

/// A call that ended well.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) name: String,
    /// As they stand, but for quotes.
    pub(super) arguments: Vec<Argument>,
    /// The number that it answered.
    pub(super) result: i64,
    /// The path behind the number, when it is a descriptor.
    pub(super) opened: Option<String>,
}

/// An argument of a call.
#[derive(Debug)]
pub(super) enum Argument {
    /// A descriptor: its number and its path.
    File(i64, String),
    /// Bytes in quotes.
    Bytes(Vec<u8>),
    /// Anything else.
    Word(String),
}

/// The calls of a recording. A call that another thread interrupted stands in two lines.
pub(super) fn calls(recording: &str) -> impl Iterator<Item = Call> {
    let mut begun: HashMap<&str, &str> = HashMap::new();
    recording.lines().filter_map(move |line| {
        let (thread, line) = line.split_once(' ')?;
        let line = line.trim_start();
        if let Some(begin) = line.strip_suffix(" <unfinished ...>") {
            begun.insert(thread, begin);
            return None;
        }
        if let Some(rest) = line.strip_prefix("<... ") {
            let beginning = begun.remove(thread)?;
            let (_, end) = rest.split_once(" resumed>")?;
            return parse(&format!("{beginning}{end}"));
        }
        parse(line)
    })
}

fn parse(line: &str) -> Option<Call> {
    let (name, rest) = line.split_once('(')?;
    let (arguments, result) = rest.rsplit_once(" = ")?;
    let arguments = arguments.trim_end().strip_suffix(')')?;
    let (result, opened) = match result.split_once('<') {
        Some((number, path)) => (number, path.strip_suffix('>').map(path_of)),
        None => (result.split(' ').next()?, None),
    };
    let result = result.parse().ok().filter(|result| *result >= 0)?;
    let arguments = arguments.split(", ").map(argument).collect();
    Some(Call { name: name.to_owned(), arguments, result, opened })
}

fn argument(text: &str) -> Argument {
    if let Some(quoted) = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')) {
        return Argument::Bytes(bytes(quoted));
    }
    let file = text.split_once('<').and_then(|(number, path)| {
        Some(Argument::File(number.parse().ok()?, path_of(path.strip_suffix('>')?)))
    });
    file.unwrap_or_else(|| Argument::Word(text.to_owned()))
}

/// A path, each byte of which is written as a number.
fn path_of(text: &str) -> String {
    String::from_utf8(bytes(text)).unwrap()
}

/// `\x00\x01`.
fn bytes(text: &str) -> Vec<u8> {
    let digits = text.as_bytes().chunks_exact(4).map(|byte| &byte[2..]);
    digits.map(|digits| nibble(digits[0]) << 4 | nibble(digits[1])).collect()
}

fn nibble(digit: u8) -> u8 {
    char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok()).unwrap()
}

#[test]
fn a_recording_is_read_as_it_is_written() {
    let recording = "7 pwrite64(4<\\x2f\\x61>, \"\\x00\\xff\", 2, 4096) = 2\n\
                     7 fdatasync(4<\\x2f\\x61> <unfinished ...>\n\
                     8 write(5<\\x2f\\x62>, \"\\x6f\", 1) = 1\n\
                     7 <... fdatasync resumed>)          = 0\n\
                     7 openat(AT_FDCWD<\\x2f>, \"\\x61\", O_RDWR|O_CREAT, 0644) = 9<\\x2f\\x61>\n\
                     7 unlink(\"\\x61\") = -1 ENOENT (No such file or directory)\n";
    let calls: Vec<Call> = calls(recording).collect();
    let names: Vec<&str> = calls.iter().map(|call| call.name.as_str()).collect();
    assert_eq!(names, ["pwrite64", "write", "fdatasync", "openat"]);
    assert!(matches!(&calls[0].arguments[1], Argument::Bytes(bytes) if *bytes == [0, 255]));
    assert!(matches!(&calls[2].arguments[0], Argument::File(4, path) if path == "/a"));
    assert_eq!((calls[3].result, calls[3].opened.as_deref()), (9, Some("/a")));
}
