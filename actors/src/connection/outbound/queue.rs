//! What waits in the queue of one reader, counted.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use bytes::Bytes;
use iris_protocol::limits::{
    OUTBOUND_BYTES_MAX, OUTBOUND_BYTES_SOFT_MAX, OUTBOUND_FRAMES_MAX, OUTBOUND_FRAMES_SOFT_MAX,
};
use iris_protocol::{PartId, ProjectId};
use serde::Deserialize;
use tokio::time::Instant;

use super::{About, CloseReason, OutFrame};

/// How many times as long as a frame may wait replays may take.
const REPLAYS_TAKE_MAX: u32 = 6;

/// What every frame looks at comes first, in few of the processor's cache lines: with thousands of
/// readers nearly all of them are somewhere in memory when the next frame comes.
#[derive(Debug, Default)]
#[repr(C)]
pub(super) struct Queue {
    /// There while the transport has nothing to write.
    pub(super) waker: Option<Waker>,
    /// The last delivery of its courier that came here, or is for others; later ones have higher numbers.
    brought: u64,
    /// There while its reader is slow, or was not long ago.
    pub(super) slow: Option<Box<Slow>>,
    /// In the order in which they go out. A room's events keep theirs when it is joined again.
    pub(super) frames: VecDeque<Arc<OutFrame>>,
    /// Frames that are none of a replay.
    pub(super) live_frames: usize,
    /// Their JSON.
    pub(super) live_bytes: usize,
    /// Of the largest frame since nothing waited. It does not count: one large answer is no slow
    /// reader.
    pub(super) largest_bytes: usize,
    /// Frames that ever came, and how many of them went out.
    pub(super) came: u64,
    went: u64,
    /// A ping goes out before everything that waits.
    pub(super) ping_is_due: bool,
    /// A close frame is queued, or the transport is gone: nothing more is taken.
    pub(super) is_closed: bool,
    /// The transport is gone.
    pub(super) is_abandoned: bool,
    /// Chunks of files of projects, which go out when nothing else waits, or one behind what does.
    pub(super) chunks: VecDeque<(ProjectId, Arc<OutFrame>)>,
    /// Of replays, which count against no limit but their own.
    pub(super) replay_bytes: usize,
    /// Rooms that are being joined and have something to replay.
    pub(super) replays_due: usize,
    /// Since when replays wait without a pause.
    replays_since: Option<Instant>,
    /// Projects that were lost since somebody asked.
    pub(super) lost: Vec<ProjectId>,
    /// How often one was.
    pub(super) losses: u32,
    /// How many had come when somebody looked, as long as some of them still wait.
    looks: VecDeque<(u64, Instant)>,
    /// How many had gone out at the last look.
    went_before: u64,
}

/// What is known of a slow reader.
#[derive(Debug, Default)]
pub(super) struct Slow {
    /// Parts of which pieces were left out, and whether somebody asks for a snapshot of them already.
    /// At most as many as frames may wait. The ids are those of the frames, which all readers share.
    behind: HashMap<Arc<PartId>, bool>,
    /// Where these ids are in memory, sorted, for pieces whose ids are the same and not only equal: hundreds of
    /// slow readers are asked for each piece, and this way little of each has to come from memory.
    places: Vec<usize>,
    /// What came for it and goes out when nothing else waits.
    pub(super) latest: HashMap<About, Arc<OutFrame>>,
}

impl Slow {
    /// Nothing of a part is missing any more.
    fn forget(&mut self, part_id: &PartId) {
        if let Some((kept, _)) = self.behind.remove_entry(part_id)
            && let Ok(at) = self.places.binary_search(&place(&kept))
        {
            self.places.remove(at);
        }
    }
}

/// Where a shared id is in memory: no other one is there as long as somebody holds it.
pub(super) fn place(part_id: &Arc<PartId>) -> usize {
    Arc::as_ptr(part_id).addr()
}

impl Queue {
    /// One that takes nothing and has nothing.
    pub(super) fn abandoned() -> Self {
        Self { is_closed: true, is_abandoned: true, ..Self::default() }
    }

    /// Of its courier's deliveries, the last one that came here.
    pub(super) fn brought(&self) -> u64 {
        self.brought
    }

    /// Whether a delivery is none that was brought before; from now on it is one.
    pub(super) fn gets(&mut self, number: u64) -> bool {
        let is_new = number > self.brought;
        self.brought = self.brought.max(number);
        is_new
    }

    /// Whether what comes now can be written at once: nothing waits, neither here nor at the transport,
    /// and nothing is left out.
    pub(super) fn is_idle(&self) -> bool {
        debug_assert!(self.waker.is_none() || self.frames.is_empty(), "whoever waits is woken");
        self.waker.is_some() && self.slow.is_none()
    }

    /// The frame that goes out next.
    pub(super) fn next(&mut self) -> Option<Arc<OutFrame>> {
        if std::mem::take(&mut self.ping_is_due) {
            return Some(Arc::new(OutFrame::Ping));
        }
        let Some(frame) = self.frames.pop_front() else { return self.next_latest() };
        self.gone(&frame);
        Some(frame)
    }

    /// The chunk that goes out next.
    pub(super) fn next_chunk(&mut self) -> Option<Arc<OutFrame>> {
        self.chunks.pop_front().map(|(_, chunk)| chunk)
    }

    /// Ends the connection: its reader is too slow.
    pub(super) fn give_up(&mut self) {
        if !self.is_closed {
            self.end(CloseReason::new(super::SLOW_READER, "slow reader"));
        }
    }

    /// Frees what waits and ends the connection, also one whose close frame waits behind it.
    pub(super) fn end(&mut self, reason: CloseReason) {
        let is_over = self.is_closed && self.frames.is_empty();
        if !is_over && !self.is_abandoned {
            let waker = self.waker.take();
            *self = Self { waker, ..Self::default() };
            self.close(reason);
        }
    }

    /// Drops what waits of a project but for what says that its rooms were left.
    pub(super) fn forget(&mut self, project_id: &ProjectId) {
        let frames = std::mem::take(&mut self.frames);
        let is_its =
            |frame: &OutFrame| frame.json().is_some_and(|json| is_event_of(project_id, json));
        for frame in frames {
            if is_its(&frame) && !matches!(*frame, OutFrame::Left(..)) {
                self.gone(&frame);
            } else {
                self.frames.push_back(frame);
            }
        }
        self.chunks.retain(|(of, _)| of != project_id);
        let (mut dropped, mut bytes) = (0, 0);
        if let Some(slow) = &mut self.slow {
            slow.latest.retain(|_, frame| {
                let is_its = is_its(frame);
                if is_its {
                    (dropped, bytes) = (dropped + 1, bytes + frame.bytes());
                }
                !is_its
            });
        }
        self.live_frames = self.live_frames.saturating_sub(dropped);
        self.live_bytes = self.live_bytes.saturating_sub(bytes);
        self.losses = self.losses.saturating_add(1);
        if !self.lost.contains(project_id) {
            self.lost.push(project_id.clone());
        }
    }

    /// Looks whether the oldest frame is too old.
    pub(super) fn is_late(&mut self, age_max: Duration, now: Instant) -> bool {
        // A replay may take its time as long as it gets on, and so what waits behind it; but not forever.
        if self.replay_bytes == 0 {
            self.replays_since = None;
        } else {
            let since = *self.replays_since.get_or_insert(now);
            let may_go_on = now.duration_since(since) < age_max * REPLAYS_TAKE_MAX;
            if self.went > self.went_before && may_go_on {
                self.looks.clear();
            }
        }
        self.went_before = self.went;
        while self.looks.front().is_some_and(|(came, _)| *came <= self.went) {
            self.looks.pop_front();
        }
        if self.came > self.looks.back().map_or(self.went, |(came, _)| *came) {
            self.looks.push_back((self.came, now));
        }
        self.looks.front().is_some_and(|(_, at)| now.duration_since(*at) >= age_max)
    }

    pub(super) fn is_full_for(&self, bytes: usize) -> bool {
        // The largest may be gone already while others still wait.
        let counted = (self.live_bytes + bytes).saturating_sub(self.largest_bytes.max(bytes));
        self.live_frames >= OUTBOUND_FRAMES_MAX || counted > OUTBOUND_BYTES_MAX
    }

    /// Whether so much waits that pieces of text are better left out.
    pub(super) fn is_slow(&self) -> bool {
        let counted = self.live_bytes.saturating_sub(self.largest_bytes);
        self.live_frames >= OUTBOUND_FRAMES_SOFT_MAX || counted > OUTBOUND_BYTES_SOFT_MAX
    }

    /// Whether pieces of a part were left out, and its snapshot has not come.
    pub(super) fn is_behind(&self, part_id: &Arc<PartId>) -> bool {
        self.is_behind_all(&[place(part_id)])
            || self.slow.as_ref().is_some_and(|slow| slow.behind.contains_key(part_id))
    }

    /// Whether that is so of the parts whose ids are at these places, which are sorted and differ. False where
    /// they are not the very ids.
    pub(super) fn is_behind_all(&self, places: &[usize]) -> bool {
        self.slow.as_ref().is_some_and(|slow| {
            let mut known = slow.places.iter();
            places.iter().all(|place| known.any(|known| known == place))
        })
    }

    /// Notes that a piece of a part was left out. False when there are too many such parts.
    pub(super) fn leave_out(&mut self, part_id: &Arc<PartId>) -> bool {
        let slow = self.slow.get_or_insert_default();
        if slow.behind.len() >= OUTBOUND_FRAMES_MAX {
            return false;
        }
        slow.behind.insert(Arc::clone(part_id), false);
        if let Err(at) = slow.places.binary_search(&place(part_id)) {
            slow.places.insert(at, place(part_id));
        }
        true
    }

    /// A snapshot of a part has come.
    pub(super) fn is_whole(&mut self, part_id: &PartId) {
        if let Some(slow) = &mut self.slow {
            slow.forget(part_id);
        }
    }

    /// A snapshot of a part will not come, unless it has.
    pub(super) fn is_given_up(&mut self, part_id: &PartId) {
        if let Some(slow) = &mut self.slow
            && slow.behind.get(part_id) == Some(&true)
        {
            slow.forget(part_id);
        }
    }

    /// Whether snapshots are wanted that nobody has asked for yet.
    pub(super) fn wants_any(&self) -> bool {
        self.slow.as_ref().is_some_and(|slow| slow.behind.values().any(|is_asked| !is_asked))
    }

    /// Whether a frame that says all of something waits for a later one.
    pub(super) fn keeps_latest(&self, about: &About) -> bool {
        self.slow.as_ref().is_some_and(|slow| slow.latest.contains_key(about))
    }

    /// The parts of which snapshots are wanted now, and nobody has asked for yet.
    pub(super) fn wanted(&mut self) -> Vec<PartId> {
        if !self.frames.is_empty() || self.is_closed {
            return Vec::new();
        }
        let Some(slow) = &mut self.slow else { return Vec::new() };
        let wanted = slow.behind.iter_mut().filter(|(_, is_asked)| !**is_asked);
        wanted
            .map(|(part_id, is_asked)| {
                *is_asked = true;
                PartId::clone(part_id)
            })
            .collect()
    }

    /// Queues a frame; its reader is to be woken.
    pub(super) fn take(&mut self, frame: Arc<OutFrame>) -> bool {
        if self.is_closed {
            return false;
        }
        let bytes = frame.bytes();
        self.live_bytes += bytes;
        self.largest_bytes = self.largest_bytes.max(bytes);
        self.live_frames += 1;
        self.came += 1;
        self.frames.push_back(frame);
        true
    }

    /// Queues a frame of a replay in front of all others, or behind them.
    pub(super) fn take_replay(&mut self, json: Bytes, is_first: bool) {
        self.replay_bytes += json.len();
        self.came += 1;
        let frame = Arc::new(OutFrame::Replay(json));
        if is_first { self.frames.push_front(frame) } else { self.frames.push_back(frame) }
    }

    /// Counts a frame that waits no longer.
    fn gone(&mut self, frame: &OutFrame) {
        self.went += 1;
        match frame {
            OutFrame::Replay(json) => {
                self.replay_bytes = self.replay_bytes.saturating_sub(json.len());
            }
            OutFrame::Text(_)
            | OutFrame::Delta(..)
            | OutFrame::Snapshot(..)
            | OutFrame::Latest(..)
            | OutFrame::Left(..)
            | OutFrame::Binary(_)
            | OutFrame::Ping
            | OutFrame::Pong(_)
            | OutFrame::Close(_) => self.is_less_by(frame),
        }
    }

    fn is_less_by(&mut self, frame: &OutFrame) {
        self.live_bytes = self.live_bytes.saturating_sub(frame.bytes());
        self.live_frames = self.live_frames.saturating_sub(1);
        if self.live_frames == 0 {
            self.largest_bytes = 0;
        }
    }

    /// Keeps a frame in the place of an earlier one about the same, until nothing else waits; its reader
    /// is to be woken.
    pub(super) fn put(&mut self, about: &About, frame: Arc<OutFrame>) -> bool {
        if self.is_closed {
            return false;
        }
        self.remove_latest(about);
        self.live_bytes += frame.bytes();
        self.live_frames += 1;
        self.slow.get_or_insert_default().latest.insert(about.clone(), frame);
        true
    }

    fn remove_latest(&mut self, about: &About) -> Option<Arc<OutFrame>> {
        let frame = self.slow.as_mut()?.latest.remove(about)?;
        self.is_less_by(&frame);
        Some(frame)
    }

    fn next_latest(&mut self) -> Option<Arc<OutFrame>> {
        let slow = self.slow.as_mut()?;
        let Some(about) = slow.latest.keys().next().cloned() else {
            // It has caught up, unless snapshots are still to come.
            if slow.behind.is_empty() {
                self.slow = None;
            }
            return None;
        };
        self.remove_latest(&about)
    }

    pub(super) fn close(&mut self, reason: CloseReason) {
        if !self.is_closed {
            if let Some(slow) = &mut self.slow {
                slow.latest.clear();
            }
            self.chunks.clear();
            self.live_frames += 1;
            self.frames.push_back(Arc::new(OutFrame::Close(reason)));
            self.is_closed = true;
            self.wake();
        }
    }

    pub(super) fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

/// Whether a frame is an event in a room of this project.
fn is_event_of(project_id: &ProjectId, json: &[u8]) -> bool {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Head<'a> {
        #[serde(borrow)]
        project_id: Option<&'a str>,
        #[serde(borrow)]
        room: Option<&'a str>,
    }
    let head = serde_json::from_slice(json);
    head.is_ok_and(|head: Head<'_>| {
        head.room.is_some() && head.project_id == Some(project_id.as_str())
    })
}
