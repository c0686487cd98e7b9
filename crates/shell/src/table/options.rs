//! Looking for options in arguments, too often rather than too seldom.

/// Whether `argument` may be the long option `option` (`--name`) or an abbreviation of it.
///
/// Programs that use `getopt_long` or the parser of git take every unambiguous beginning.
pub(super) fn may_be(argument: &str, option: &str) -> bool {
    let name = argument.split('=').next().unwrap_or_default();
    name.len() > 2 && name.starts_with("--") && option.starts_with(name)
}

/// Whether `argument` is a group of short options in which one of `letters` may stand.
///
/// What follows an option that takes a value is not known to be one, so that it counts as well.
pub(super) fn has_letter(argument: &str, letters: &str) -> bool {
    let is_short = argument.starts_with('-') && !argument.starts_with("--");
    is_short && argument.chars().skip(1).any(|c| letters.contains(c))
}

/// Whether `argument` may be one of these options; `--` ends nothing, since it may be a value itself.
pub(super) fn is_one_of(argument: &str, letters: &str, options: &[&str]) -> bool {
    has_letter(argument, letters) || options.iter().any(|option| may_be(argument, option))
}
