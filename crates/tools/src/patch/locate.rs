//! Finding the one place of a text that a hunk means.

use super::{Hunk, LineKind, PatchError, shown};

/// The part of a text in which the next hunk may be.
pub(super) struct Place<'a> {
    /// Lines without their ends.
    pub(super) text: &'a [&'a str],
    /// The first line that no hunk has dealt with.
    pub(super) from: usize,
}

impl Place<'_> {
    /// The index of the line at which `hunk` begins.
    ///
    /// A line number counts when the lines are there; else they are looked for, as if there were none.
    pub(super) fn of(&self, hunk: &Hunk<'_>) -> Result<usize, PatchError> {
        let old = hunk.lines.iter().filter(|line| line.kind != LineKind::Add);
        let old: Vec<&str> = old.map(|line| line.text).collect();
        let refused = |problem: String| Err(PatchError::at(hunk.line, problem));
        if hunk.is_at_end {
            let start = self.text.len().checked_sub(old.len());
            return match start.filter(|start| self.has(*start, &old)) {
                Some(start) => Ok(start),
                None => refused(self.missing(&old, "at the end of the file")),
            };
        }
        if let Some(at) = hunk.at.filter(|at| self.has(*at, &old)) {
            return Ok(at);
        }
        let headings = self.headings(hunk)?;
        if old.is_empty() && headings.is_empty() && self.text.len() > self.from {
            let problem =
                "nothing says where to add its lines: put lines around them that are there";
            return refused(problem.to_owned());
        }
        let found = if old.is_empty() { Found::Anywhere } else { Found::At(self.all(&old)) };
        let mut places = Places::default();
        if headings.is_empty() {
            match &found {
                Found::Anywhere => places.add(self.from),
                Found::At(starts) => starts.iter().for_each(|start| places.add(*start)),
            }
        } else {
            below(&headings, &found, &mut places);
        }
        match (places.first, places.count) {
            (Some(start), 1) => Ok(start),
            (None, _) => {
                let place = if headings.is_empty() { "there" } else { "below its heading" };
                refused(self.missing(&old, place))
            }
            (Some(_), count) => refused(format!(
                "its lines occur at {count} places: give more lines around the change, or a heading \
                 behind `@@`"
            )),
        }
    }

    fn missing(&self, old: &[&str], place: &str) -> String {
        let rest = if self.from == 0 {
            String::new()
        } else {
            format!(" behind line {}, where the hunk before it ends", self.from)
        };
        let first =
            old.first().map_or_else(String::new, |line| format!(", from {} on,", shown(line)));
        format!("its lines{first} are not {place}{rest}; they must match exactly")
    }

    /// Whether the lines `old` are at `start`.
    fn has(&self, start: usize, old: &[&str]) -> bool {
        start >= self.from
            && start.checked_add(old.len()).and_then(|end| self.text.get(start..end)) == Some(old)
    }

    /// Where each heading of the hunk occurs. White space around a heading does not count: it says
    /// where to look, not what is changed.
    fn headings(&self, hunk: &Hunk<'_>) -> Result<Vec<Vec<usize>>, PatchError> {
        let positions = hunk.headings.iter().map(|heading| {
            let lines = self.text.iter().enumerate().skip(self.from);
            let found = lines.filter(|(_, line)| line.trim() == *heading);
            let found: Vec<usize> = found.map(|(index, _)| index).collect();
            if found.is_empty() {
                let problem = format!("its heading {} does not occur", shown(heading));
                return Err(PatchError::at(hunk.line, problem));
            }
            Ok(found)
        });
        positions.collect()
    }

    /// Where the lines `old` occur, overlaps included: the algorithm of Knuth, Morris and Pratt, so that
    /// texts that repeat themselves cost no more than others.
    fn all(&self, old: &[&str]) -> Vec<usize> {
        let borders = borders(old);
        let mut starts = Vec::new();
        let mut matched = 0;
        for (index, line) in self.text.iter().enumerate().skip(self.from) {
            while matched > 0 && old.get(matched) != Some(line) {
                matched = border(&borders, matched);
            }
            if old.get(matched) == Some(line) {
                matched += 1;
            }
            if matched == old.len() {
                starts.push(index + 1 - matched);
                matched = border(&borders, matched);
            }
        }
        starts
    }
}

/// For each beginning of `lines`, the length of the longest shorter one that is also its end.
fn borders(lines: &[&str]) -> Vec<usize> {
    let mut borders = vec![0];
    let mut matched = 0;
    for line in lines.iter().skip(1) {
        while matched > 0 && lines.get(matched) != Some(line) {
            matched = border(&borders, matched);
        }
        if lines.get(matched) == Some(line) {
            matched += 1;
        }
        borders.push(matched);
    }
    borders
}

fn border(borders: &[usize], matched: usize) -> usize {
    matched.checked_sub(1).and_then(|last| borders.get(last)).copied().unwrap_or(0)
}

/// Where the old lines of a hunk are.
enum Found {
    /// There are none.
    Anywhere,
    /// Sorted.
    At(Vec<usize>),
}

/// Different places, as they rise.
#[derive(Default)]
struct Places {
    first: Option<usize>,
    last: Option<usize>,
    count: usize,
}

impl Places {
    fn add(&mut self, place: usize) {
        if self.last != Some(place) {
            self.first = self.first.or(Some(place));
            self.last = Some(place);
            self.count += 1;
        }
    }
}

/// The places that are meant by headings: for each occurrence of the outermost one the next occurrence
/// of the next one, and so on, and the next place of the lines. A heading may be the first of the lines.
fn below(headings: &[Vec<usize>], found: &Found, places: &mut Places) {
    let Some((outermost, inner)) = headings.split_first() else { return };
    for start in outermost {
        let mut at = *start;
        for positions in inner {
            let next = positions.partition_point(|position| *position <= at);
            let Some(position) = positions.get(next) else { return };
            at = *position;
        }
        match found {
            Found::Anywhere => places.add(at + 1),
            Found::At(starts) => {
                let Some(start) = starts.get(starts.partition_point(|start| *start < at)) else {
                    return;
                };
                places.add(*start);
            }
        }
    }
}
