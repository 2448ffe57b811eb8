//! The engine against the naive evaluator: random queries over random events, at random instants. The two meet only in
//! the query's text.

use personas::domain::{EventType, Timestamp, Value};
use personas::engine::{Kind, LeafStates, Limits, compile};
use proptest::prelude::*;

use crate::harness::*;
use crate::naive::*;
use crate::naive_funnel::*;
use crate::naive_items::*;

/// Event times and windows are multiples of this, so that few instants matter.
pub(crate) const STEP: i64 = 500;

/// The tests live in the first 20 seconds of 2024-06-01, so that dates are ordinary ones.
pub(crate) const START: i64 = NOW;

pub(crate) fn naive() -> impl Strategy<Value = Naive> {
    prop_oneof![
        1 => Just(Naive::Null),
        4 => prop::sample::select(vec![1000, 2000, 1500, -100, 100, 200, 0]).prop_map(Naive::Number),
        3 => prop::sample::select(vec!["1.5", "2", "a", "b", "true", "10"]).prop_map(|t| Naive::Text(t.to_owned())),
        1 => any::<bool>().prop_map(Naive::Truth),
    ]
}

fn tags() -> impl Strategy<Value = Option<Vec<Naive>>> {
    prop::option::weighted(0.8, prop::collection::vec(naive(), 0..3))
}

fn items() -> impl Strategy<Value = Vec<RawItem>> {
    let date = prop::option::weighted(0.8, -10..60_i64);
    let one = (prop::option::weighted(0.8, naive()), date);
    let one = one.prop_map(|(a, d)| RawItem { a, d: d.map(|steps| START + steps * STEP) });
    prop::collection::vec(one, 0..3)
}

pub(crate) fn events() -> impl Strategy<Value = Vec<RawEvent>> {
    let date = prop::option::weighted(0.9, -10..60_i64);
    let name = prop::sample::select(vec!["A", "A", "B", "BA"]);
    let call = prop::sample::select(vec!["track", "track", "track", "page", "screen", "identify"]);
    let sent = (call, prop::sample::select(vec!["web", "app"]));
    let lists = (tags(), items());
    let one = (name, sent, 0..40_i64, 0..40_i64, naive(), naive(), date, lists);
    prop::collection::vec(one, 0..16).prop_map(|raw| {
        raw.into_iter()
            .enumerate()
            .map(|(i, (name, (call, source), at, delay, x, y, date, (tags, items)))| {
                // Calls of this kind have no name.
                let name = if call == "identify" { "" } else { name };
                let at = START + at * STEP;
                // Most events are received after they happened, some before.
                let received_at = (at + (delay - 10) * STEP).clamp(START, START + 20 * SECOND);
                let d = date.map(|steps| START + steps * STEP);
                RawEvent {
                    name,
                    call,
                    source,
                    at,
                    received_at,
                    id: format!("m{}", (i * 7) % 16),
                    x,
                    y,
                    d,
                    tags,
                    items,
                }
            })
            .collect()
    })
}

pub(crate) fn reducer() -> impl Strategy<Value = Reducer> {
    prop::sample::select(vec![
        Reducer::Count,
        Reducer::Count,
        Reducer::Count,
        Reducer::Sum,
        Reducer::Average,
        Reducer::Min,
        Reducer::MaxString,
        Reducer::First,
        Reducer::Last,
        Reducer::Distinct,
        Reducer::Mode(1),
        Reducer::Mode(2),
        Reducer::ModeArray,
        Reducer::MinString,
        Reducer::MaxNumber,
        Reducer::ModeString,
        Reducer::ModeNumber,
        Reducer::FirstTime,
        Reducer::LastTime,
    ])
}

fn read() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["x", "x", "tags.$", "items.$.a"])
}

fn comparators() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "=",
        "!=",
        ">",
        ">=",
        "<",
        "<=",
        ".contains",
        ".omits",
        ".exists",
        ".absent",
        ".starts_with",
        ".ends_with",
        ".one_of",
        ".none_of",
        ".matches",
    ])
}

/// An instant among those of the events and dates.
fn instant() -> impl Strategy<Value = i64> {
    (-10..60_i64).prop_map(|steps| START + steps * STEP)
}

fn fixed_date() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["before_date", "after_date"])
}

/// A condition on one item.
fn item() -> impl Strategy<Value = Item> {
    let a = (comparators(), naive()).prop_map(|(op, literal)| Item::A(op, literal));
    let d = (relative(), 0..9_i64).prop_map(|(op, seconds)| Item::D(op, seconds));
    prop_oneof![2 => a, 1 => d].prop_recursive(2, 4, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 2..3).prop_map(Item::And),
            prop::collection::vec(inner.clone(), 2..3).prop_map(Item::Or),
            inner.prop_map(|part| Item::Not(Box::new(part))),
        ]
    })
}

fn list() -> impl Strategy<Value = (&'static str, &'static str, Naive)> {
    (prop::sample::select(vec!["tags.$", "items.$.a"]), comparators(), naive())
}

/// What more than the event decides; `depth` children may stand inside of each other.
fn more(depth: u32) -> BoxedStrategy<Where> {
    let values = prop::sample::select(vec!["=", "!=", ">=", "<"]);
    let plan = values.prop_map(More::Plan);
    let seen = (relative(), 0..9_i64).prop_map(|(op, seconds)| More::Seen(op, seconds));
    if depth == 0 {
        return prop_oneof![2 => plan, 1 => seen].prop_map(Where::More).boxed();
    }
    prop_oneof![1 => plan, 1 => seen, 3 => child(depth)].prop_map(Where::More).boxed()
}

pub(crate) fn child(depth: u32) -> impl Strategy<Value = More> {
    let parent =
        prop::sample::select(vec!["=", "!=", ">=", "<"]).prop_map(|op| Where::More(More::Parent(op)));
    let filter = junctions(prop_oneof![2 => still(), 2 => dates(), 2 => parent, 1 => more(depth - 1)]);
    let name = prop::sample::select(vec!["A", "B", "*", "B*"]);
    let bounds = (prop::option::weighted(0.7, 0..8_i64), prop::option::weighted(0.2, 1..8_i64));
    let reducer = prop::sample::select(vec![Reducer::Count, Reducer::Count, Reducer::Sum, Reducer::Last]);
    let op = prop::sample::select(vec!["=", "!=", ">", ">=", "<", "<="]);
    let literal = prop_oneof![1 => naive(), 3 => (0..3_i64).prop_map(|n| Naive::Number(n * 1000))];
    (name, prop::option::of(filter), bounds, reducer, op, literal).prop_map(
        |(name, filter, (after, window), reducer, op, literal)| {
            More::Child(Box::new(Child { name, filter, after, window, reducer, op, literal }))
        },
    )
}

/// A filter that more than the event decides.
fn dynamic() -> impl Strategy<Value = Where> {
    let list = (relative(), 0..9_i64).prop_map(|(op, seconds)| Where::ListDate(op, seconds));
    junctions(prop_oneof![3 => still(), 2 => dates(), 1 => list, 4 => more(2)])
}

fn dates() -> impl Strategy<Value = Where> {
    let read = prop::sample::select(vec!["property('d')", "property('d')", "context('d')", "timestamp()"]);
    (read, relative(), 0..9_i64).prop_map(|(read, op, seconds)| Where::Date(read, op, seconds))
}

pub(crate) fn filter() -> impl Strategy<Value = Where> {
    let list = prop_oneof![
        1 => (relative(), 0..9_i64).prop_map(|(op, seconds)| Where::ListDate(op, seconds)),
        2 => item().prop_map(Where::AnyItem),
    ];
    junctions(prop_oneof![7 => still(), 5 => dates(), 3 => list])
}

/// What does not depend on the time of the evaluation.
fn still() -> impl Strategy<Value = Where> {
    let source = prop::sample::select(vec!["web", "app"]).prop_map(Where::Source);
    let call = prop::sample::select(vec!["track", "page", "screen"]);
    let call = (prop::sample::select(vec!["=", "!="]), call).prop_map(|(op, call)| Where::Type(op, call));
    let y = (comparators(), naive()).prop_map(|(op, literal)| Where::Y(op, literal));
    let list = list().prop_map(|(path, op, literal)| Where::List(path, op, literal));
    let item = (comparators(), naive()).prop_map(|(op, literal)| Where::AnyItem(Item::A(op, literal)));
    let read = prop::sample::select(vec!["property('d')", "context('d')", "timestamp()"]);
    let fixed = (read, fixed_date(), instant()).prop_map(|(read, op, at)| Where::Fixed(read, op, at));
    prop_oneof![4 => y, 1 => source, 1 => call, 2 => list, 1 => item, 1 => fixed]
}

fn junctions(one: impl Strategy<Value = Where> + 'static) -> impl Strategy<Value = Where> {
    one.prop_recursive(3, 6, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 2..4).prop_map(Where::And),
            prop::collection::vec(inner.clone(), 2..4).prop_map(Where::Or),
            inner.prop_map(|part| Where::Not(Box::new(part))),
        ]
    })
}

fn relative() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["within_last", "within_next", "before_last", "after_next"])
}

pub(crate) fn scalar(reducer: impl Strategy<Value = Reducer>) -> impl Strategy<Value = Scalar> {
    let name = prop::sample::select(vec!["A", "A", "A", "B", "*", "B*", "*A"]);
    let without = prop::option::weighted(0.2, prop::sample::select(vec!["web", "app"]));
    let window =
        prop::option::of((0..4_i64, 0..8_i64).prop_map(|(newest, more)| (newest, newest + more.max(1))));
    let windowed = (prop::option::of(prop_oneof![2 => filter(), 1 => dynamic()]), window);
    let windowed = windowed.prop_map(|(filter, window)| (filter, window, None, None));
    let session = (prop::option::of(junctions(still())), 1..6_i64);
    let session = session.prop_map(|(filter, gap)| (filter, None, Some(gap), None));
    let fixed = (prop::option::of(prop_oneof![2 => filter(), 1 => dynamic()]), instant(), 1..30_i64);
    let fixed = fixed.prop_map(|(filter, from, more)| (filter, None, None, Some((from, from + more * STEP))));
    let when = prop_oneof![6 => windowed, 2 => session, 1 => fixed];
    (name, without, when, reducer, read()).prop_map(
        |(name, without, (filter, window, session, fixed), reducer, read)| Scalar::Event {
            name,
            filter,
            without,
            window,
            session,
            fixed,
            reducer,
            read,
        },
    )
}

fn comparison() -> impl Strategy<Value = Query> {
    let ops = comparators;
    let pair = prop::sample::select(vec!["=", "!=", ">=", "<"]);
    let pair = (scalar(reducer()), pair, prop_oneof![3 => scalar(reducer()), 1 => Just(Scalar::Plan)]);
    let pair = pair.prop_filter_map("averages are binary fractions there", |(a, op, b)| {
        let is_average = |scalar: &Scalar| matches!(scalar, Scalar::Event { reducer: Reducer::Average, .. });
        (!is_average(&a) && !is_average(&b)).then(|| Query::Pair(Box::new((a, op, b))))
    });
    let last_seen = (scalar(Just(Reducer::LastTime)), relative(), 0..9_i64);
    let literal = prop_oneof![naive(), (0..5_i64).prop_map(|n| Naive::Number(n * 1000))];
    prop_oneof![
        6 => (scalar(reducer()), ops(), literal).prop_filter_map("averages are not text", |(scalar, op, literal)| {
            let average = matches!(scalar, Scalar::Event { reducer: Reducer::Average, .. });
            let numeric = literal.number().is_some() && !op.starts_with('.');
            (!average || numeric).then_some(Query::Compare(scalar, op, literal))
        }),
        1 => (ops(), naive()).prop_map(|(op, literal)| Query::Compare(Scalar::Plan, op, literal)),
        1 => (relative(), 1..9_i64).prop_map(|(op, seconds)| Query::Seen(op, seconds)),
        1 => (fixed_date(), instant()).prop_map(|(op, at)| Query::SeenFixed(op, at)),
        1 => pair,
        1 => last_seen.prop_map(|(scalar, op, seconds)| Query::LastSeen(scalar, op, seconds)),
        1 => list().prop_map(|(path, op, literal)| Query::TraitList(path, op, literal)),
        1 => item().prop_map(Query::TraitItem),
        1 => (1..9_i64).prop_map(Query::Held),
        1 => (370..380_i64).prop_map(Query::Bucket),
    ]
}

pub(crate) fn query() -> impl Strategy<Value = Query> {
    comparison().prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 2..4).prop_map(Query::And),
            prop::collection::vec(inner.clone(), 2..4).prop_map(Query::Or),
            inner.prop_map(|part| Query::Not(Box::new(part))),
        ]
    })
}

pub(crate) fn engine_events(events: &[RawEvent]) -> Vec<Event> {
    let field = |name: &str, value: &Naive| match value {
        Naive::Null => format!("\"{name}\":null"),
        other => format!("\"{name}\" : {}", other.json()),
    };
    let date = |e: &RawEvent| match e.d {
        None => "{\"d\":\"soon\"}".to_owned(),
        Some(at) => format!("{{\"d\":\"{}\"}}", Timestamp::from_millis(at)),
    };
    let convert = |(i, e): (usize, &RawEvent)| Event {
        received_at: e.received_at,
        context: date(e),
        message_id: e.id.clone(),
        offset: i as u64 + 1,
        call: EventType::parse(e.call).expect("a call"),
        source: if e.source == "web" { 1 } else { 2 },
        ..event(
            e.name,
            e.at,
            &format!(
                "{{ \"z\":[{{}}], {}, {}, \"tags\": {}, \"items\" :{}, {}",
                field("x", &e.x),
                field("y", &e.y),
                tags_json(e.tags.as_ref()),
                items_json(&e.items),
                &date(e)[1..]
            ),
        )
    };
    events.iter().enumerate().map(convert).collect()
}

pub(crate) fn tags_json(tags: Option<&Vec<Naive>>) -> String {
    tags.map_or_else(|| "\"none\"".to_owned(), |tags| Naive::List(tags.clone()).json())
}

pub(crate) fn items_json(items: &[RawItem]) -> String {
    let item = |item: &RawItem| {
        let a = item.a.as_ref().map(|a| format!("\"a\": {}", a.json()));
        let d = item.d.map(|at| format!("\"d\":\"{}\"", Timestamp::from_millis(at)));
        format!("{{{}}}", a.into_iter().chain(d).collect::<Vec<_>>().join(" ,"))
    };
    format!("[{}]", items.iter().map(item).collect::<Vec<_>>().join(", "))
}

pub(crate) fn world() -> impl Strategy<Value = World> {
    (events(), naive(), 0..60_i64, tags(), items()).prop_map(|(events, plan, seen, tags, items)| World {
        events,
        plan,
        seen: START + seen * STEP,
        tags,
        items,
    })
}

/// A space for a query of any length.
pub(crate) fn space(text: &str, kind: Kind) -> Space {
    let limits = Limits { expressions: 1_000, nesting: 100, ..Limits::default() };
    Space::of(compile(text, kind, limits).unwrap_or_else(|errors| panic!("{text}\n{errors:#?}")))
}

/// The same with the traits of the world.
pub(crate) fn with_traits(space: Space, world: &World) -> Space {
    space
        .with_trait("plan", &world.plan.json())
        .with_trait("seen", &format!("\"{}\"", Timestamp::from_millis(world.seen)))
        .with_trait("tags", &tags_json(world.tags.as_ref()))
        .with_trait("items", &items_json(&world.items))
}

/// All instants at which anything could change, and those right after: dates and events of at most 30 s, distances and
/// windows of at most 11 s.
fn instants(from: i64) -> impl Iterator<Item = i64> {
    (0..140).flat_map(|i| [START + i * STEP, START + i * STEP + 1]).filter(move |at| *at >= from)
}

/// No event may be received after the evaluation.
fn now_after(events: &[RawEvent], steps: i64, odd: bool) -> i64 {
    let received = events.iter().map(|e| e.received_at).max().unwrap_or(START);
    received + steps * STEP + i64::from(odd)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1_000) })]

    #[test]
    fn audiences_are_what_the_naive_evaluator_says(
        query in query(),
        world in world(),
        steps in 0..12_i64,
        odd: bool,
        split in any::<prop::sample::Index>(),
    ) {
        let text = query.text();
        let mut space = with_traits(space(&text, Kind::Audience), &world);
        // Two profiles that are merged have what one would have.
        let folded = engine_events(&world.events);
        let (left, right) = folded.split_at(split.index(folded.len() + 1));
        space.fold(right);
        let absorbed = std::mem::take(&mut space.profile.states);
        space.fold(left);
        space.profile.states.merge(&absorbed);
        let now = now_after(&world.events, steps, odd);
        let holds = |at: i64| query.holds(&world, at);
        let evaluation = space.at(now);
        prop_assert_eq!(truth(&evaluation), holds(now), "{}", text);
        prop_assert!(evaluation.changes_at.is_none_or(|at| at.millis() > now));

        // Until it says it may change, it does not.
        let until = evaluation.changes_at.map_or(i64::MAX, Timestamp::millis);
        for at in instants(now).take_while(|at| *at < until) {
            prop_assert_eq!(holds(at), holds(now), "{} at {} of {}, until {}", text, at - START, now - START, until - START);
        }
        // A count compared with a number changes exactly then.
        if let Query::Compare(Scalar::Event { reducer: Reducer::Count, session: None, ref filter, .. }, ..) = query
            && filter.as_ref().is_none_or(|filter| !filter.is_dynamic())
        {
            let change = instants(now).find(|at| holds(*at) != holds(now));
            prop_assert_eq!(evaluation.changes_at.map(Timestamp::millis), change, "{}", text);
        }
        // Compaction keeps the meaning, now and later.
        space.program.compact(&mut space.profile.states, Timestamp::from_millis(now));
        for at in instants(now) {
            prop_assert_eq!(truth(&space.at(at)), holds(at), "{} compacted, at {}", text, at - START);
        }
    }

    #[test]
    fn values_are_what_the_naive_evaluator_says(
        scalar in scalar(prop_oneof![reducer(), Just(Reducer::Unique)]),
        world in world(),
        steps in 0..12_i64,
        order in any::<prop::sample::Index>(),
    ) {
        let average = matches!(scalar, Scalar::Event { reducer: Reducer::Average, .. });
        let text = scalar.text();
        let mut space = with_traits(space(&text, Kind::ComputedTrait), &world);
        let mut folded = engine_events(&world.events);
        let first = if folded.is_empty() { 0 } else { order.index(folded.len()) };
        folded.rotate_left(first);
        space.fold(&folded);
        let now = now_after(&world.events, steps, false);
        let compare = |space: &Space, at: i64| {
            let (found, naive) = (space.at(at).value, scalar.value(&world, at));
            match (&found, &naive) {
                (Value::Number(number), Naive::Text(float)) if average => {
                    let (a, b): (f64, f64) = (number.to_string().parse().unwrap(), float.parse().unwrap());
                    (a - b).abs() <= b.abs() * 1e-11
                }
                _ => found.to_json() == naive.json(),
            }
        };
        let evaluation = space.at(now);
        for at in instants(now) {
            prop_assert!(compare(&space, at), "{} {:?} {:?}", text, space.at(at), scalar.value(&world, at));
        }
        let until = evaluation.changes_at.map_or(i64::MAX, Timestamp::millis);
        for at in instants(now).take_while(|at| *at < until) {
            prop_assert_eq!(&space.at(at).value, &evaluation.value);
        }
        // States survive their stored form.
        let read = LeafStates::stored(stored(&space.profile.states).into());
        prop_assert_eq!(&read, &space.profile.states);
        space.program.compact(&mut space.profile.states, Timestamp::from_millis(now));
        for at in instants(now) {
            prop_assert!(compare(&space, at), "{} compacted", text);
        }
    }
}
