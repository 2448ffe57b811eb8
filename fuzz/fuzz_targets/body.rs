//! Whatever a body is: it is taken apart without a panic, every event has its verdict, and the record of what is taken
//! reads back.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use personas::clock::{Clock, IdMaker};
use personas::config::{Config, Sources};
use personas::domain::{EventType, SourceNo, SpaceNo, Timestamp};
use personas::engine::guard::Guards;
use personas::engine::keep_out::KeepOuts;
use personas::engine::meters::Meters;
use personas::ingest::{BatcherLimits, CallKind, Doors, Ingest, Sender, batcher};
use tokio::runtime::Runtime;

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().expect("a runtime"));

/// The door, in front of a database that is never asked.
static INGEST: LazyLock<Ingest> = LazyLock::new(|| {
    let _inside = RUNTIME.enter();
    let config = Config::load(&Sources::default()).expect("the defaults are good").ingest;
    let pool = sqlx::PgPool::connect_lazy("postgres://nobody@127.0.0.1:1/none").expect("it is not connected");
    let limits = BatcherLimits { queue_events_max: 1, flush_events_max: 1, flush_bytes_max: 1 };
    let (batcher, _) = batcher(pool, limits, tokio::sync::watch::channel(0).0, Meters::default());
    let clock = Clock::test(Timestamp::from_millis(1_700_000_000_000));
    let ids = IdMaker::seeded(clock.clone(), 1);
    let doors = Doors { guards: Guards::default(), keep_outs: KeepOuts::default(), meters: Meters::default() };
    Ingest::new(batcher, config.limits, doors, clock, ids)
});

fuzz_target!(|data: &[u8]| {
    let Some((first, body)) = data.split_first() else { return };
    let kind = match usize::from(*first) % 7 {
        6 => CallKind::Batch,
        no => CallKind::Single(EventType::ALL[no]),
    };
    let sender = Sender { space: SpaceNo(1), source: SourceNo(1), is_public: false, events_per_second_max: None, limits: None, may_warn: false };
    if let Ok(judged) = INGEST.judge(sender, kind, body, Timestamp::from_millis(1_700_000_000_000)) {
        assert!(judged.reads_back, "a record that was written does not read back");
    }
});
