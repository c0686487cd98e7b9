//! Who works now and who waits: bounds of the whole server, of each project and of each user, and a fair
//! order for those who wait. Projects take turns, and within a project its users do, so that one that asks
//! for much holds up nobody else.
//!
//! Nothing here is durable: the store knows which runs are queued, and a session that has one asks again
//! after a restart. Runs then wait in the order in which they came into being.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use iris_protocol::{ProjectId, QueueReason, UserId};
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::Instant;

use crate::supervision::detached;

/// How often those who wait learn where they stand, at most.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// How many may work at once; none for no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LineLimits {
    /// In the whole server.
    pub server: Option<usize>,
    /// In each project.
    pub project: Option<usize>,
    /// Of each user, over all projects.
    pub user: Option<usize>,
}

impl LineLimits {
    /// No limit at all.
    pub const NONE: Self = Self { server: None, project: None, user: None };
}

/// What is limited on this machine, besides the rates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shares {
    /// Runs that work.
    pub runs: LineLimits,
    /// Commands of agents that run.
    pub commands: LineLimits,
    /// Bytes of the disk that each of them leaves free; 0 for no limit.
    pub disk_free_bytes_min: u64,
}

impl Shares {
    /// No limit at all.
    pub const NONE: Self =
        Self { runs: LineLimits::NONE, commands: LineLimits::NONE, disk_free_bytes_min: 0 };
}

/// For whom a place is, and which comes first of those of one user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Whose {
    pub(crate) project: ProjectId,
    pub(crate) user: UserId,
    /// Smaller ones first.
    pub(crate) rank: String,
}

/// Where somebody stands who waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Standing {
    /// From 1: as many places have to become free if all of them are for anybody.
    pub(crate) position: u32,
    /// What is waited for.
    pub(crate) reason: QueueReason,
}

/// What can be seen of a line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct LineFigures {
    /// Who work.
    pub(crate) working: usize,
    /// Who wait.
    pub(crate) waiting: usize,
    /// How long the one has waited who waits longest.
    pub(crate) longest: Duration,
}

/// The line of one kind of work. Clones share it.
#[derive(Clone)]
pub struct Line(Arc<Inner>);

struct Inner {
    state: Mutex<State>,
    /// Told after each change of who stands where.
    moved: Arc<Notify>,
    /// Hears how long each one waited who had to.
    waited: Box<dyn Fn(Duration) + Send + Sync>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.moved.notify_one();
    }
}

struct State {
    limits: LineLimits,
    /// Whether anybody new begins at all.
    is_open: bool,
    working: usize,
    of_projects: HashMap<ProjectId, usize>,
    of_users: HashMap<UserId, usize>,
    /// In the order of their turns.
    projects: VecDeque<InProject>,
    /// Tells those of equal rank apart.
    next_number: u64,
}

struct InProject {
    id: ProjectId,
    /// In the order of their turns.
    users: VecDeque<OfUser>,
}

struct OfUser {
    id: UserId,
    waiters: BTreeMap<(String, u64), Waiter>,
}

struct Waiter {
    since: Instant,
    enters: oneshot::Sender<Place>,
    stands: watch::Sender<Option<Standing>>,
}

/// One who may enter, outside of the lock.
type Entering = (oneshot::Sender<Place>, Whose, Instant);

/// What came of the wish for a place.
pub(crate) enum Entry {
    /// There is one.
    In(Place),
    /// There is none now.
    Waits(Waiting),
}

/// Somebody in the line; leaves it when dropped.
pub(crate) struct Waiting {
    pub(crate) ticket: Ticket,
    /// The place, once there is one.
    pub(crate) entered: oneshot::Receiver<Place>,
    /// Where it stands.
    pub(crate) stands: watch::Receiver<Option<Standing>>,
}

/// Keeps a place in the line until it is dropped.
pub(crate) struct Ticket {
    line: Line,
    whose: Whose,
    number: u64,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.line.leave(&self.whose, self.number);
    }
}

/// Leave to work, until it is dropped.
pub(crate) struct Place {
    line: Line,
    whose: Whose,
    rests: AtomicBool,
}

impl Place {
    /// Does not count while it rests, as one does who waits for a person. It goes on without a wait, so that
    /// more than the limit may work for a while, and nobody new begins meanwhile.
    pub(crate) fn rest(&self, rests: bool) {
        if self.rests.swap(rests, Ordering::Relaxed) == rests {
            return;
        }
        if rests {
            self.line.count_out(&self.whose);
        } else {
            self.line.0.state.lock().count_in(&self.whose);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.rests.load(Ordering::Relaxed) {
            self.line.count_out(&self.whose);
        }
    }
}

impl Line {
    /// An empty line that is open. `waited` hears how long each one waited who had to.
    pub fn new(limits: LineLimits, waited: impl Fn(Duration) + Send + Sync + 'static) -> Self {
        let state = State {
            limits,
            is_open: true,
            working: 0,
            of_projects: HashMap::new(),
            of_users: HashMap::new(),
            projects: VecDeque::new(),
            next_number: 0,
        };
        let waited = Box::new(waited);
        Self(Arc::new(Inner { state: Mutex::new(state), moved: Arc::default(), waited }))
    }

    /// Keeps those who wait informed, for as long as the line is there.
    pub(crate) fn inform(&self) {
        let (line, moved) = (Arc::downgrade(&self.0), Arc::clone(&self.0.moved));
        detached(async move {
            loop {
                moved.notified().await;
                let Some(inner) = line.upgrade() else { return };
                inner.state.lock().tell();
                drop(inner);
                tokio::time::sleep(TELL_EVERY).await;
            }
        });
    }

    /// Other limits, from now on. Nobody who works is stopped.
    pub(crate) fn limit(&self, limits: LineLimits) {
        self.admit(|state| state.limits = limits);
    }

    /// Whether anybody new may begin. Those who work go on.
    pub(crate) fn open(&self, is_open: bool) {
        self.admit(|state| state.is_open = is_open);
    }

    /// A place where there is one, else one in the line.
    pub(crate) fn enter(&self, whose: Whose) -> Entry {
        let mut state = self.0.state.lock();
        // Whoever waits could not begin now, or would have: nobody is overtaken.
        if state.held_up(&whose.project, &whose.user).is_none() {
            state.count_in(&whose);
            drop(state);
            return Entry::In(self.place(whose));
        }
        let (enters, entered) = oneshot::channel();
        let (stands, standing) = watch::channel(None);
        let number = state.add(&whose, Waiter { since: Instant::now(), enters, stands });
        drop(state);
        self.0.moved.notify_one();
        let ticket = Ticket { line: self.clone(), whose, number };
        Entry::Waits(Waiting { ticket, entered, stands: standing })
    }

    /// A place, as soon as there is one. Whoever has to wait hears where it stands, and in the end that it
    /// does not wait any more.
    pub(crate) async fn wait(&self, whose: Whose, stands: impl Fn(Option<Standing>)) -> Place {
        let Waiting { ticket: _ticket, mut entered, stands: mut standing } =
            match self.enter(whose.clone()) {
                Entry::In(place) => return place,
                Entry::Waits(waiting) => waiting,
            };
        loop {
            tokio::select! {
                place = &mut entered => {
                    stands(None);
                    // Nobody is forgotten while they hold a ticket.
                    return place.unwrap_or_else(|_| self.join(whose));
                }
                Ok(()) = standing.changed() => stands(*standing.borrow_and_update()),
            }
        }
    }

    /// A place beside the limits, for what belongs to something that works already. It counts.
    pub(crate) fn join(&self, whose: Whose) -> Place {
        self.0.state.lock().count_in(&whose);
        self.place(whose)
    }

    /// Where somebody of this rank stands; none for who does not wait.
    pub(crate) fn standing(&self, project: &ProjectId, rank: &str) -> Option<Standing> {
        let state = self.0.state.lock();
        if !state.projects.iter().any(|it| it.id == *project) {
            return None;
        }
        let in_order = state.in_order();
        let place = in_order.iter().position(|it| it.project == project && it.rank == rank)?;
        in_order.get(place).map(|it| state.standing(place, it))
    }

    pub(crate) fn figures(&self) -> LineFigures {
        let state = self.0.state.lock();
        let all = || state.projects.iter().flat_map(|it| &it.users).flat_map(|it| &it.waiters);
        let since = all().map(|(_, waiter)| waiter.since).min();
        LineFigures {
            working: state.working,
            waiting: all().count(),
            longest: since.map(|since| since.elapsed()).unwrap_or_default(),
        }
    }

    fn place(&self, whose: Whose) -> Place {
        Place { line: self.clone(), whose, rests: AtomicBool::new(false) }
    }

    fn count_out(&self, whose: &Whose) {
        self.admit(|state| state.count_out(whose));
    }

    fn leave(&self, whose: &Whose, number: u64) {
        self.admit(|state| drop(state.remove(whose, number)));
    }

    /// Changes something, and lets those in who may work then.
    fn admit(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.0.state.lock();
        change(&mut state);
        let entering = state.let_in();
        let has_waiters = !state.projects.is_empty();
        // Whoever does not want the place any more gives it back, which takes the lock again.
        drop(state);
        for (enters, whose, since) in entering {
            (self.0.waited)(since.elapsed());
            drop(enters.send(self.place(whose)));
        }
        if has_waiters {
            self.0.moved.notify_one();
        }
    }
}

/// Somebody who waits, as the order is made out.
struct Next<'a> {
    project: &'a ProjectId,
    user: &'a UserId,
    rank: &'a str,
    waiter: &'a Waiter,
}

impl State {
    /// What keeps somebody new of this project and user from working.
    fn held_up(&self, project: &ProjectId, user: &UserId) -> Option<QueueReason> {
        let is_full = |count: usize, limit: Option<usize>| limit.is_some_and(|it| count >= it);
        if !self.is_open {
            Some(QueueReason::Maintenance)
        } else if is_full(count_of(&self.of_users, user), self.limits.user) {
            Some(QueueReason::User)
        } else if is_full(count_of(&self.of_projects, project), self.limits.project) {
            Some(QueueReason::Project)
        } else {
            is_full(self.working, self.limits.server).then_some(QueueReason::Server)
        }
    }

    fn count_in(&mut self, whose: &Whose) {
        self.working += 1;
        *self.of_projects.entry(whose.project.clone()).or_default() += 1;
        *self.of_users.entry(whose.user.clone()).or_default() += 1;
    }

    fn count_out(&mut self, whose: &Whose) {
        self.working = self.working.saturating_sub(1);
        one_less(&mut self.of_projects, &whose.project);
        one_less(&mut self.of_users, &whose.user);
    }

    fn add(&mut self, whose: &Whose, waiter: Waiter) -> u64 {
        let number = self.next_number;
        self.next_number += 1;
        let place = self.projects.iter().position(|it| it.id == whose.project);
        let place = place.unwrap_or_else(|| {
            let id = whose.project.clone();
            self.projects.push_back(InProject { id, users: VecDeque::new() });
            self.projects.len() - 1
        });
        let Some(project) = self.projects.get_mut(place) else { return number };
        let place = project.users.iter().position(|it| it.id == whose.user);
        let place = place.unwrap_or_else(|| {
            let id = whose.user.clone();
            project.users.push_back(OfUser { id, waiters: BTreeMap::new() });
            project.users.len() - 1
        });
        if let Some(user) = project.users.get_mut(place) {
            user.waiters.insert((whose.rank.clone(), number), waiter);
        }
        number
    }

    fn remove(&mut self, whose: &Whose, number: u64) -> Option<Waiter> {
        let project = self.projects.iter_mut().find(|it| it.id == whose.project)?;
        let user = project.users.iter_mut().find(|it| it.id == whose.user)?;
        let removed = user.waiters.remove(&(whose.rank.clone(), number));
        project.users.retain(|it| !it.waiters.is_empty());
        self.projects.retain(|it| !it.users.is_empty());
        removed
    }

    /// Takes out and counts in all who may work now.
    fn let_in(&mut self) -> Vec<Entering> {
        let mut entering = Vec::new();
        while let Some((project, user)) = self.next_turn() {
            let Some(next) = self.take_turn(project, user) else { break };
            self.count_in(&next.1);
            entering.push(next);
        }
        entering
    }

    /// The first project whose turn it is, and the first of its users, that may work.
    fn next_turn(&self) -> Option<(usize, usize)> {
        self.projects.iter().enumerate().find_map(|(at, project)| {
            let may = |user: &OfUser| self.held_up(&project.id, &user.id).is_none();
            project.users.iter().position(may).map(|user| (at, user))
        })
    }

    /// Takes out the first of a user; after that it is the turn of others.
    fn take_turn(&mut self, project: usize, user: usize) -> Option<Entering> {
        let mut project = self.projects.remove(project)?;
        let mut user = project.users.remove(user)?;
        let next = user.waiters.pop_first();
        let whose = |rank| Whose { project: project.id.clone(), user: user.id.clone(), rank };
        let next = next.map(|((rank, _), it)| (it.enters, whose(rank), it.since));
        if !user.waiters.is_empty() {
            project.users.push_back(user);
        }
        if !project.users.is_empty() {
            self.projects.push_back(project);
        }
        next
    }

    /// Everybody who waits in the order in which they would begin, were all places for anybody.
    fn in_order(&self) -> Vec<Next<'_>> {
        let projects = self.projects.iter().map(|project| {
            let users = project.users.iter().map(|user| {
                user.waiters
                    .iter()
                    .map(|((rank, _), waiter)| Next {
                        project: &project.id,
                        user: &user.id,
                        rank,
                        waiter,
                    })
                    .collect()
            });
            taking_turns(users.collect()).into()
        });
        taking_turns(projects.collect())
    }

    fn standing(&self, place: usize, next: &Next<'_>) -> Standing {
        Standing {
            position: u32::try_from(place + 1).unwrap_or(u32::MAX),
            reason: self.held_up(next.project, next.user).unwrap_or(QueueReason::Server),
        }
    }

    /// Tells those who wait where they stand, as far as that changed.
    fn tell(&self) {
        for (place, next) in self.in_order().iter().enumerate() {
            let standing = Some(self.standing(place, next));
            next.waiter.stands.send_if_modified(|known| {
                let changed = *known != standing;
                *known = standing;
                changed
            });
        }
    }
}

/// One of each, then the second of each, and so on.
fn taking_turns<T>(mut lists: VecDeque<VecDeque<T>>) -> Vec<T> {
    let mut all = Vec::new();
    while let Some(mut list) = lists.pop_front() {
        all.extend(list.pop_front());
        if !list.is_empty() {
            lists.push_back(list);
        }
    }
    all
}

fn count_of<K: Eq + Hash>(counts: &HashMap<K, usize>, key: &K) -> usize {
    counts.get(key).copied().unwrap_or_default()
}

fn one_less<K: Eq + Hash>(counts: &mut HashMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count = count.saturating_sub(1);
        if *count == 0 {
            counts.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(limits: LineLimits) -> Line {
        Line::new(limits, |_| {})
    }

    fn whose(project: u128, user: u128, rank: u32) -> Whose {
        let (project, user) = (ProjectId::from_bits(project), UserId::from_bits(user));
        Whose { project, user, rank: format!("{rank:04}") }
    }

    #[track_caller]
    fn place(entry: Entry) -> Place {
        match entry {
            Entry::In(place) => place,
            Entry::Waits(_) => panic!("there is no place"),
        }
    }

    #[track_caller]
    fn waiting(entry: Entry) -> Waiting {
        match entry {
            Entry::In(_) => panic!("there is a place"),
            Entry::Waits(waiting) => waiting,
        }
    }

    fn rank_of(waiting: &mut [Waiting]) -> Option<(String, Place)> {
        waiting.iter_mut().find_map(|it| {
            let place = it.entered.try_recv().ok()?;
            Some((place.whose.rank.clone(), place))
        })
    }

    #[test]
    fn a_greedy_project_holds_up_nobody_and_neither_does_a_greedy_user() {
        let line = line(LineLimits { server: Some(1), ..LineLimits::NONE });
        let mut works = place(line.enter(whose(1, 1, 0)));
        let mut all: Vec<Waiting> = Vec::new();
        for rank in 1..=20 {
            all.push(waiting(line.enter(whose(1, 1, rank))));
        }
        all.push(waiting(line.enter(whose(1, 2, 100))));
        all.push(waiting(line.enter(whose(2, 3, 200))));
        all.push(waiting(line.enter(whose(2, 3, 201))));
        let stands = |project, rank: &str| {
            line.standing(&ProjectId::from_bits(project), rank).map(|it| it.position)
        };
        assert_eq!((stands(1, "0001"), stands(2, "0200")), (Some(1), Some(2)));
        assert_eq!((stands(1, "0100"), stands(2, "0201")), (Some(3), Some(4)));
        assert_eq!((stands(1, "0020"), stands(1, "0000")), (Some(23), None));
        let mut order = Vec::new();
        for _ in 0..6 {
            drop(works);
            let (rank, next) = rank_of(&mut all).expect("somebody enters");
            order.push(rank);
            works = next;
        }
        assert_eq!(order, ["0001", "0200", "0100", "0201", "0002", "0003"]);
        assert_eq!(line.figures().waiting, 17);
    }

    #[test]
    fn each_limit_holds_and_its_name_is_told() {
        let line = line(LineLimits { server: Some(3), project: Some(2), user: Some(1) });
        let first = place(line.enter(whose(1, 1, 0)));
        let mut same_user = waiting(line.enter(whose(2, 1, 1)));
        let second = place(line.enter(whose(1, 2, 2)));
        let mut same_project = waiting(line.enter(whose(1, 3, 3)));
        let third = place(line.enter(whose(2, 4, 4)));
        let mut full = waiting(line.enter(whose(3, 5, 5)));
        let reason =
            |project, rank| line.standing(&ProjectId::from_bits(project), rank).map(|it| it.reason);
        assert_eq!(reason(2, "0001"), Some(QueueReason::User));
        assert_eq!(reason(1, "0003"), Some(QueueReason::Project));
        assert_eq!(reason(3, "0005"), Some(QueueReason::Server));

        // Those before it are still held up by what is their own.
        drop(third);
        let _full = full.entered.try_recv().expect("a place of the server");
        assert!(same_user.entered.try_recv().is_err());
        drop(second);
        let _same_project = same_project.entered.try_recv().expect("a place of the project");
        drop(first);
        let _same_user = same_user.entered.try_recv().expect("a place of the user");
        assert_eq!(line.figures().working, 3);
    }

    #[test]
    fn who_rests_or_leaves_makes_room_and_who_joins_takes_it() {
        let line = line(LineLimits { server: Some(1), ..LineLimits::NONE });
        let first = place(line.enter(whose(1, 1, 0)));
        let left = waiting(line.enter(whose(1, 1, 1)));
        let mut stays = waiting(line.enter(whose(1, 1, 2)));
        drop(left);
        first.rest(true);
        first.rest(true);
        let second = stays.entered.try_recv().expect("a place");
        first.rest(false);
        assert_eq!(line.figures().working, 2);
        let mut third = waiting(line.enter(whose(2, 2, 3)));
        drop(second);
        assert!(third.entered.try_recv().is_err(), "one works still");
        let child = line.join(whose(1, 1, 4));
        drop(first);
        assert!(third.entered.try_recv().is_err(), "what joined counts");
        drop(child);
        assert!(third.entered.try_recv().is_ok());
        assert_eq!(line.figures(), LineFigures::default());
    }

    #[test]
    fn what_is_closed_lets_nobody_in_until_it_is_open() {
        let line = line(LineLimits::NONE);
        line.open(false);
        let mut waits = waiting(line.enter(whose(1, 1, 0)));
        let project = ProjectId::from_bits(1);
        let standing = Standing { position: 1, reason: QueueReason::Maintenance };
        assert_eq!(line.standing(&project, "0000"), Some(standing));
        line.open(true);
        assert!(waits.entered.try_recv().is_ok());
        line.limit(LineLimits { project: Some(0), ..LineLimits::NONE });
        let mut waits = waiting(line.enter(whose(1, 1, 0)));
        line.limit(LineLimits::NONE);
        assert!(waits.entered.try_recv().is_ok());
    }

    #[test]
    fn a_place_that_nobody_wants_any_more_goes_to_the_next() {
        let line = line(LineLimits { server: Some(1), ..LineLimits::NONE });
        let works = place(line.enter(whose(1, 1, 0)));
        let Waiting { ticket, entered, .. } = waiting(line.enter(whose(1, 1, 1)));
        let mut next = waiting(line.enter(whose(1, 1, 2)));
        // It does not wait any more, and has not left the line yet.
        drop(entered);
        drop(works);
        assert!(next.entered.try_recv().is_ok());
        drop(ticket);
        assert_eq!(line.figures(), LineFigures::default());
    }

    #[tokio::test(start_paused = true)]
    async fn those_who_wait_are_told_where_they_stand_once_a_second() {
        let telling = async {
            let line = line(LineLimits { server: Some(1), ..LineLimits::NONE });
            let works = place(line.enter(whose(1, 1, 0)));
            line.inform();
            let mut first = waiting(line.enter(whose(1, 1, 1)));
            let mut second = waiting(line.enter(whose(1, 1, 2)));
            second.stands.changed().await.expect("news");
            let at = Instant::now();
            assert_eq!(second.stands.borrow_and_update().map(|it| it.position), Some(2));
            drop(works);
            let _first = first.entered.try_recv().expect("a place");
            second.stands.changed().await.expect("news");
            assert_eq!(second.stands.borrow().map(|it| it.position), Some(1));
            assert!(at.elapsed() >= TELL_EVERY);
        };
        tokio::task::LocalSet::new().run_until(telling).await;
    }
}
