//! The cache against a model of two spaces in a database: whatever is interleaved with whatever, what it answers is
//! what is committed.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const KEYS: u64 = 5;
const PROFILES: u64 = 4;
const LEASE: Duration = Duration::from_secs(10);

/// A space as the database has it.
#[derive(Debug, Clone, Default)]
struct Database {
    /// The profile that brought an identifier.
    owners: BTreeMap<u64, u64>,
    redirects: BTreeMap<u64, u64>,
    values: BTreeMap<u64, u64>,
    version: i64,
    epoch: i64,
    leased_until: Duration,
}

impl Database {
    fn live(&self, no: u64) -> u64 {
        self.redirects.get(&no).copied().unwrap_or(no)
    }

    fn find(&self, space: SpaceNo, key: u64) -> Option<Found> {
        let no = self.live(*self.owners.get(&key)?);
        let state = format!("{space}:{no}:{}", self.values.get(&no)?).into();
        Some(Found { key: IdKey(u128::from(key)), no: ProfileNo(no), state })
    }
}

/// What a transaction does, to profiles and identifiers by number.
#[derive(Debug, Clone, Copy)]
enum Change {
    Update(u64),
    Bring(u64, u64),
    TakeAway(u64),
    Merge(u64, u64),
    Reconfigure,
}

/// What happens next, in one of the two spaces.
#[derive(Debug, Clone)]
enum Step {
    Begin(Vec<Change>),
    Commit,
    Confirm,
    /// The outcome stays unknown.
    Lose,
    Ask(u64),
    Send,
    /// The snapshot of the oldest look-up is taken.
    See,
    Answer,
    Wait(u64),
    Renew,
    /// Another process takes a lease that has run out, and writes.
    TakeOver(Vec<Change>),
    /// This process finds out, and takes the lease again once it can.
    TakeBack,
    ReconfigureHere,
    ReconfigureElsewhere,
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        4 => (0..PROFILES).prop_map(Change::Update),
        3 => (0..KEYS, 0..PROFILES).prop_map(|(key, no)| Change::Bring(key, no)),
        2 => (0..KEYS).prop_map(Change::TakeAway),
        1 => (0..PROFILES, 0..PROFILES).prop_map(|(a, b)| Change::Merge(a, b)),
        1 => Just(Change::Reconfigure),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let changes = || proptest::collection::vec(change(), 1..3);
    prop_oneof![
        4 => changes().prop_map(Step::Begin),
        4 => Just(Step::Commit),
        4 => Just(Step::Confirm),
        2 => Just(Step::Lose),
        12 => (0..KEYS).prop_map(Step::Ask),
        6 => Just(Step::Send),
        6 => Just(Step::See),
        6 => Just(Step::Answer),
        2 => (1_u64..90).prop_map(Step::Wait),
        1 => (9_000_u64..11_000).prop_map(Step::Wait),
        1 => Just(Step::Renew),
        1 => changes().prop_map(Step::TakeOver),
        1 => Just(Step::TakeBack),
        1 => Just(Step::ReconfigureHere),
        1 => Just(Step::ReconfigureElsewhere),
    ]
}

type Seen = (Standing, Vec<Found>);

struct World {
    cache: ReadCache,
    space: SpaceNo,
    started: Instant,
    now: Duration,
    database: Database,
    hold: Option<Hold>,
    /// The transaction under way, the database after it, and whether it is committed. Without the first, we have lost
    /// sight of it.
    writing: Option<(Option<Writing>, Database, bool)>,
    /// Look-ups under way, and what they have seen.
    looks: Vec<(Option<Look>, Option<Seen>)>,
    /// Versions of the configuration, and from when on they must be seen.
    acknowledged: Vec<(i64, Duration)>,
    values: u64,
}

impl World {
    fn new(cache: &ReadCache, space: SpaceNo) -> Self {
        let (started, now) = (Instant::now(), Duration::ZERO);
        let database = Database { epoch: 1, leased_until: LEASE, ..Database::default() };
        let hold = Some(cache.hold(space, 1));
        Self {
            cache: cache.clone(),
            space,
            started,
            now,
            database,
            hold,
            writing: None,
            looks: Vec::new(),
            acknowledged: Vec::new(),
            values: 0,
        }
    }

    /// The database after some changes, and what the processor says of them.
    fn changed(&mut self, changes: &[Change]) -> (Database, Writes) {
        let (mut after, mut profiles, mut keys, mut anything) =
            (self.database.clone(), vec![], vec![], false);
        for change in changes {
            self.values += 1;
            let touched = match *change {
                Change::Update(no) => after.live(no),
                Change::Bring(key, no) => *after.owners.entry(key).or_insert(no),
                Change::TakeAway(key) => {
                    keys.push(IdKey(u128::from(key)));
                    after.owners.remove(&key);
                    continue;
                }
                Change::Merge(a, b) => {
                    let (survivor, absorbed) = (after.live(a), after.live(b));
                    if survivor == absorbed {
                        continue;
                    }
                    profiles.push(ProfileNo(absorbed));
                    after.redirects.values_mut().filter(|to| **to == absorbed).for_each(|to| *to = survivor);
                    after.redirects.insert(absorbed, survivor);
                    survivor
                }
                Change::Reconfigure => {
                    anything = true;
                    after.version += 1;
                    continue;
                }
            };
            let touched = after.live(touched);
            // A profile that is new to the database is not announced: nobody can have read it.
            if self.database.values.contains_key(&touched) {
                profiles.push(ProfileNo(touched));
            }
            after.values.insert(touched, self.values);
        }
        profiles.sort_unstable();
        keys.sort_unstable();
        (after, if anything { Writes::Anything } else { Writes::Only { profiles, keys } })
    }

    fn take(&mut self, step: Step) {
        match step {
            // It has to wait for the one before, if that is still somewhere.
            Step::Begin(changes) if self.may_begin() => {
                let (after, writes) = self.changed(&changes);
                let writing = self.hold.as_ref().unwrap().begin(writes);
                self.writing = Some((Some(writing), after, false));
            }
            Step::Commit => self.commit(),
            Step::Confirm if self.writing.as_ref().is_some_and(|(_, _, committed)| *committed) => {
                if let Some((Some(writing), ..)) = self.writing.take() {
                    writing.committed();
                }
            }
            Step::Lose => self.writing.iter_mut().for_each(|(writing, ..)| *writing = None),
            Step::Ask(key) => self.ask(key),
            Step::Send if self.looks.len() < 3 => {
                self.looks.push((self.cache.look(self.space, self.started + self.now), None));
            }
            Step::See => self.see(),
            Step::Answer if !self.looks.is_empty() => {
                if let (Some(look), Some((standing, found))) = self.looks.remove(0) {
                    look.keep(standing, found);
                }
            }
            Step::Wait(ms) => self.now += Duration::from_millis(ms),
            Step::Renew if self.is_ours() => self.database.leased_until = self.now + LEASE,
            Step::TakeOver(changes) if self.now >= self.database.leased_until => {
                self.database = self.changed(&changes).0;
                self.database.epoch += 1;
                self.database.leased_until = self.now + LEASE;
            }
            Step::TakeBack if self.now >= self.database.leased_until => {
                (self.writing, self.hold) = (None, None);
                self.database.epoch += 1;
                self.database.leased_until = self.now + LEASE;
                self.hold = Some(self.cache.hold(self.space, self.database.epoch));
            }
            Step::ReconfigureHere if self.writing.is_none() => {
                let changing = self.cache.change(self.space);
                self.database.version += 1;
                drop(changing);
                if self.cache.is_held(self.space, self.database.epoch) {
                    self.acknowledged.push((self.database.version, self.now));
                }
            }
            Step::ReconfigureElsewhere if self.writing.is_none() => {
                self.database.version += 1;
                self.acknowledged.push((self.database.version, self.now + TRUST));
            }
            _ => {}
        }
    }

    fn may_begin(&self) -> bool {
        self.hold.is_some() && self.writing.as_ref().is_none_or(|(writing, ..)| writing.is_none())
    }

    fn is_ours(&self) -> bool {
        self.cache.is_held(self.space, self.database.epoch)
    }

    /// The database does what it was told, unless the lease is another one's.
    fn commit(&mut self) {
        if !self.is_ours() {
            return;
        }
        if let Some((_, after, committed)) = self.writing.as_mut().filter(|(_, _, committed)| !committed) {
            if after.version > self.database.version {
                self.acknowledged.push((after.version, self.now));
            }
            self.database = after.clone();
            self.database.leased_until = self.now + LEASE;
            *committed = true;
        }
    }

    fn see(&mut self) {
        let Some((_, seen)) = self.looks.iter_mut().find(|(_, seen)| seen.is_none()) else { return };
        let standing = Standing {
            version: self.database.version,
            epoch: self.database.epoch,
            is_leased: self.database.leased_until > self.now + LEASE_LEFT_MIN,
        };
        *seen = Some((standing, (0..KEYS).filter_map(|key| self.database.find(self.space, key)).collect()));
    }

    fn ask(&self, key: u64) {
        let answered = self.cache.get(self.space, IdKey(u128::from(key)), self.started + self.now);
        let Some((state, version)) = answered else { return };
        let found = self.database.find(self.space, key);
        assert_eq!(Some(state), found.map(|f| f.state), "identifier {key}");
        for (acknowledged, at) in &self.acknowledged {
            assert!(version >= *acknowledged || self.now < *at, "version {version} is not {acknowledged}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    #[test]
    fn what_it_answers_is_committed(
        steps in proptest::collection::vec((any::<bool>(), step()), 0..120),
        bytes_max in 300_usize..3_000,
    ) {
        let cache = ReadCache::new(bytes_max);
        let mut worlds = [World::new(&cache, SpaceNo(1)), World::new(&cache, SpaceNo(2))];
        for (which, step) in steps {
            worlds[usize::from(which)].take(step);
        }
    }
}

/// A cache with one profile in it, as of `now`.
fn filled(now: Instant) -> (ReadCache, Hold) {
    let cache = ReadCache::new(10_000);
    let hold = cache.hold(SpaceNo(1), 7);
    fill(&cache, now);
    (cache, hold)
}

fn fill(cache: &ReadCache, now: Instant) {
    let found = Found { key: IdKey(1), no: ProfileNo(1), state: Bytes::from_static(b"one") };
    let standing = Standing { version: 3, epoch: 7, is_leased: true };
    cache.look(SpaceNo(1), now).unwrap().keep(standing, [found]);
}

#[test]
fn it_answers_what_was_read_for_as_long_as_the_lease_is_known() {
    let now = Instant::now();
    let (cache, hold) = filled(now);
    let get = |at| cache.get(SpaceNo(1), IdKey(1), at);
    assert_eq!(get(now), Some((Bytes::from_static(b"one"), 3)));
    assert!(get(now + TRUST / 2).is_some());
    assert_eq!(get(now + TRUST), None, "nobody has looked since");
    assert_eq!(cache.get(SpaceNo(2), IdKey(1), now), None);
    let other = Standing { version: 3, epoch: 8, is_leased: true };
    cache.look(SpaceNo(1), now).unwrap().keep(other, []);
    assert_eq!(get(now), None, "another process has the lease");
    fill(&cache, now);
    assert!(get(now).is_some());
    drop(hold);
    assert_eq!(get(now), None);
    assert!(cache.look(SpaceNo(1), now).is_none());
}

#[test]
fn nothing_is_answered_while_it_is_written_or_reconfigured() {
    let now = Instant::now();
    let (cache, hold) = filled(now);
    let get = || cache.get(SpaceNo(1), IdKey(1), now).is_some();
    let only = |no| Writes::Only { profiles: vec![ProfileNo(no)], keys: Vec::new() };
    let other = hold.begin(only(2));
    assert!(get(), "another profile is written");
    other.committed();
    let writing = hold.begin(only(1));
    fill(&cache, now);
    assert!(!get());
    writing.committed();
    assert!(!get());
    fill(&cache, now);
    assert!(get());
    let changing = cache.change(SpaceNo(1));
    fill(&cache, now);
    assert!(!get());
    drop(changing);
    assert!(!get());
    fill(&cache, now);
    assert!(get());
    // The outcome is unknown: only after the next commit it can be known what there is.
    drop(hold.begin(only(2)));
    fill(&cache, now);
    assert!(!get());
    hold.begin(only(2)).committed();
    fill(&cache, now);
    assert!(get());
}

#[test]
fn with_no_bytes_it_is_off() {
    let cache = ReadCache::new(0);
    let _hold = cache.hold(SpaceNo(1), 7);
    assert!(cache.look(SpaceNo(1), Instant::now()).is_none());
    assert!(cache.is_held(SpaceNo(1), 7) && !cache.is_held(SpaceNo(1), 8));
}
