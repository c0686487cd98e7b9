//! Properties over generated lines.

use iris_shell::{COMMAND_BYTES_MAX, NESTING_MAX, Piece, Reason, read};
use proptest::prelude::*;

use crate::bodies;

/// Words that no table has as a name, with characters that the shell would read.
fn words() -> impl Strategy<Value = Vec<String>> {
    let name = "[a-z]{2,8}";
    let arguments = prop::collection::vec("[ -~é\n]{0,8}", 0..4);
    (name, arguments).prop_map(|(name, mut arguments)| {
        arguments.insert(0, format!("zq{name}"));
        arguments
    })
}

/// One of the ways to write `word`.
fn written(word: &str, way: u8) -> String {
    let single = || format!("'{}'", word.replace('\'', r"'\''"));
    match way % 4 {
        0 => single(),
        1 => {
            let escape = |c: char| match c {
                '"' | '\\' | '$' | '`' => format!("\\{c}"),
                c => c.to_string(),
            };
            format!("\"{}\"", word.chars().map(escape).collect::<String>())
        }
        2 if !word.is_empty() && !word.contains('\n') => {
            word.chars().flat_map(|c| ['\\', c]).collect()
        }
        3 if !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric()) => word.to_owned(),
        _ => {
            let middle = word.char_indices().nth(word.chars().count() / 2).map_or(0, |(at, _)| at);
            let (left, right) = word.split_at(middle);
            format!("'{}'\"\"{}", left.replace('\'', r"'\''"), written(right, 1))
        }
    }
}

fn commands(pieces: &[Piece]) -> Vec<Vec<String>> {
    let words = pieces.iter().filter_map(|piece| match piece {
        Piece::Command { words, .. } => Some(words.clone()),
        Piece::Write { .. } | Piece::Read { .. } | Piece::Opaque { .. } => None,
    });
    words.collect()
}

const OPERATORS: &[&str] = &[" && ", "||", " | ", ";", "&", "\n", " |& ", " ; \n", "&&\n"];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_text_is_read_and_always_the_same(text in any::<String>()) {
        bodies::reads(text.as_bytes());
    }

    #[test]
    fn any_line_of_shell_characters_is_read(text in "[a-z0-9 \n\t;&|<>(){}\\[\\]'\"`$\\\\!*?~#=,.-]{0,60}") {
        bodies::reads(text.as_bytes());
        bodies::shows(text.as_bytes());
    }

    #[test]
    fn every_way_to_quote_a_word_gives_the_same_words(
        words in words(),
        ways in prop::collection::vec(any::<u8>(), 5),
    ) {
        let line: Vec<String> =
            words.iter().zip(&ways).map(|(word, way)| written(word, *way)).collect();
        let pieces = read(&line.join(" ")).pieces;
        let found = commands(&pieces);
        prop_assert!(found.contains(&words), "{line:?}: {pieces:?}");
    }

    #[test]
    fn every_command_of_a_list_is_a_piece(
        lists in prop::collection::vec((words(), prop::sample::select(OPERATORS)), 1..6),
        ways in prop::collection::vec(any::<u8>(), 5),
        group in 0_u8..4,
    ) {
        let mut line = String::new();
        for (words, operator) in &lists {
            let words = words.iter().zip(&ways).map(|(word, way)| written(word, *way));
            if !line.is_empty() {
                line.push_str(operator);
            }
            line.push_str(&words.collect::<Vec<_>>().join(" "));
        }
        let line = match group {
            0 => format!("({line})"),
            1 => format!("{{ {line}; }}"),
            2 => format!("if {line}; then {line}; fi"),
            _ => line,
        };
        let pieces = read(&line).pieces;
        let found = commands(&pieces);
        for (words, _) in &lists {
            prop_assert!(found.contains(words), "{words:?} in {line:?}: {pieces:?}");
        }
    }

    #[test]
    fn a_command_inside_of_a_substitution_is_a_piece_and_the_outer_one_is_opaque(
        words in words(),
        form in prop::sample::select(&["$(@)", "`@`", "\"$(@)\"", "<(@)", ">(@)", "a$(@)b"][..]),
    ) {
        let inner: Vec<String> = words.iter().map(|word| written(word, 0)).collect();
        let inner = inner.join(" ");
        prop_assume!(!(form.contains('`') && inner.contains(['\\', '`'])));
        let line = format!("ls {}", form.replace('@', &inner));
        let pieces = read(&line).pieces;
        prop_assert!(pieces.iter().any(|piece| matches!(piece, Piece::Opaque { .. })), "{line:?}");
        prop_assert!(commands(&pieces).contains(&words), "{line:?}: {pieces:?}");
    }
}

fn reasons(line: &str) -> Vec<Reason> {
    let reasons = read(line).pieces.into_iter().filter_map(|piece| match piece {
        Piece::Opaque { why, .. } => Some(why),
        Piece::Command { .. } | Piece::Write { .. } | Piece::Read { .. } => None,
    });
    reasons.collect()
}

#[test]
fn a_line_is_read_up_to_its_limit_and_asked_beyond() {
    let fits = format!("echo {}", "x".repeat(COMMAND_BYTES_MAX - 5));
    assert_eq!(reasons(&fits), []);
    assert_eq!(reasons(&(fits + "x")), [Reason::TooLong]);
}

#[test]
fn a_long_line_that_is_not_literal_is_asked_about_as_a_whole() {
    let line = |len: usize| format!("rm $X {}", "x".repeat(len - 6));
    assert_eq!(reasons(&line(4096)), [Reason::Variable]);
    assert_eq!(reasons(&line(4097)), [Reason::TooComplex]);
    // What is literal is read up to the limit of all.
    assert_eq!(reasons(&format!("cat <<'E'\n{}\nE", "$x ".repeat(5_000))), []);
}

#[test]
fn nesting_is_read_up_to_its_limit_and_asked_beyond() {
    let nested = |depth: usize| format!("{}ls{}", "(".repeat(depth), ")".repeat(depth));
    let spaced = |depth: usize| nested(depth).replace('(', "( ");
    // The list and the command count as well.
    assert_eq!(reasons(&spaced(NESTING_MAX - 1)), []);
    assert!(reasons(&spaced(NESTING_MAX + 1)).contains(&Reason::TooDeep));
    let chain = vec!["ls"; 2 * NESTING_MAX].join(" && ");
    assert!(reasons(&chain).contains(&Reason::TooDeep));
}

#[test]
fn substitutions_are_read_up_to_the_limit_of_nesting_and_asked_beyond() {
    let nested = |depth: usize| format!("{}rm x{}", "ls $(".repeat(depth), ")".repeat(depth));
    let finds_inner = |depth: usize| {
        let rm = ["rm".to_owned(), "x".to_owned()];
        commands(&read(&nested(depth)).pieces).contains(&rm.to_vec())
    };
    assert!(finds_inner(NESTING_MAX / 4));
    assert!(!reasons(&nested(NESTING_MAX / 4)).contains(&Reason::TooDeep));
    assert!(!finds_inner(NESTING_MAX));
    assert!(reasons(&nested(NESTING_MAX)).contains(&Reason::TooDeep));
}

#[test]
fn prefixes_are_read_up_to_sixteen_and_asked_beyond() {
    let wrap = |count: usize| format!("{}ls", "nice ".repeat(count));
    assert_eq!(reasons(&wrap(16)), []);
    assert_eq!(reasons(&wrap(17)), [Reason::TooDeep]);
    // It ends, however many there are.
    assert_eq!(reasons(&wrap(3_000)), [Reason::TooDeep]);
}

#[test]
fn what_is_not_literal_is_listed_up_to_a_number_of_places() {
    let line = |count: usize| {
        (0..count)
            .map(|index| format!("for a{index} in b; do ls; done"))
            .collect::<Vec<_>>()
            .join(";")
    };
    assert_eq!(reasons(&line(64)).len(), 64);
    assert_eq!(reasons(&line(70)).len(), 64);
}

#[test]
fn shells_in_shells_are_read_up_to_four_and_asked_beyond() {
    let wrap = |line: String| format!("bash -c '{}'", line.replace('\'', r"'\''"));
    let mut line = "ls".to_owned();
    for _ in 0..4 {
        line = wrap(line);
        assert_eq!(reasons(&line), [], "{line}");
    }
    assert_eq!(reasons(&wrap(line)), [Reason::TooDeep]);
}

#[test]
fn every_reason_has_a_sentence_of_its_own() {
    let mut sentences: Vec<&str> = crate::corpus::entries()
        .iter()
        .flat_map(|entry| reasons(&entry.command))
        .map(Reason::sentence)
        .collect();
    sentences.sort_unstable();
    sentences.dedup();
    // All but those of limits, which the tests above reach.
    assert!(sentences.len() >= 36, "{}: {sentences:#?}", sentences.len());
    assert!(sentences.iter().all(|text| text.ends_with('.') && text.len() < 80));
}
