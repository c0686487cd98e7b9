//! The supervision log as the screen holds it: the newest records, and which of them are seen.

use std::collections::VecDeque;

use iris_protocol::SupervisionRecord;

/// Records that are kept; the oldest go first.
pub(super) const RECORDS_MAX: usize = 1_000;

/// The newest records, and the operator's place in them.
#[derive(Default)]
pub(super) struct Log {
    records: VecDeque<SupervisionRecord>,
    /// How the records come.
    pub(super) feed: Feed,
    /// Records after the last one that is seen; 0 follows the newest.
    pub(super) scroll: usize,
    /// The last record that is seen while the screen stands still.
    pub(super) frozen_at: Option<u64>,
}

/// How the records come.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) enum Feed {
    /// Not yet.
    #[default]
    Starting,
    /// As they happen.
    Live,
    /// From time to time: no socket gets through.
    Polling,
    /// Not now; they will be fetched.
    Lost,
    /// No more: the server refuses.
    Ended,
}

impl Log {
    /// Takes the newest record. What the operator looks at stays where it is.
    pub(super) fn push(&mut self, record: SupervisionRecord, under: Option<&str>) {
        if self.records.len() == RECORDS_MAX {
            self.records.pop_front();
        }
        let is_wanted = is_under(&record, under);
        self.records.push_back(record);
        if self.scroll > 0 && is_wanted && self.frozen_at.is_none() {
            self.scroll += 1;
        }
    }

    /// Stands still, or follows again.
    pub(super) fn freeze(&mut self, is_frozen: bool) {
        let last = self.records.back().map_or(0, |record| record.id);
        self.frozen_at = is_frozen.then_some(last);
    }

    /// The records of these actors that may be seen, the newest first.
    pub(super) fn wanted<'a>(
        &'a self,
        under: Option<&'a str>,
    ) -> impl Iterator<Item = &'a SupervisionRecord> {
        let newest_first = self.records.iter().rev();
        newest_first.filter(move |record| {
            is_under(record, under) && self.frozen_at.is_none_or(|last| record.id <= last)
        })
    }

    /// The records that are seen in so many lines, oldest first.
    pub(super) fn seen<'a>(
        &'a self,
        under: Option<&'a str>,
        lines: usize,
    ) -> Vec<&'a SupervisionRecord> {
        let mut seen: Vec<_> = self.wanted(under).skip(self.scroll).take(lines).collect();
        seen.reverse();
        seen
    }

    /// Scrolls no further than to the oldest record.
    pub(super) fn keep_in_view(&mut self, under: Option<&str>, lines: usize) {
        if self.scroll > 0 {
            let count = self.wanted(under).count();
            self.scroll = self.scroll.min(count.saturating_sub(lines));
        }
    }
}

/// Whether a record is about this actor or one under it; nothing stands for all.
fn is_under(record: &SupervisionRecord, under: Option<&str>) -> bool {
    under.is_none_or(|top| {
        record.path.strip_prefix(top).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    })
}
