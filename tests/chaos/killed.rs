//! F01, F04, F13, F14: the service and its private Postgres, killed in every way there is while calls come in, are processed
//! and delivered.

use std::time::{Duration, Instant};

use crate::checker::{Depth, check_live, check_stored};
use crate::load::Targets;
use crate::plan::Plan;
use crate::report::Report;
use crate::server::{Recipe, Server, children, send_signal};
use crate::stage::{Size, Stage};

/// What the service says while its Postgres is gone.
const WITHOUT_POSTGRES: [&str; 6] = [
    "Postgres ended",
    "could not append",
    "stopping, because",
    "failed:",
    "ended by itself",
    "after_connect",
];

#[derive(Debug, Clone, Copy)]
enum Kill {
    /// The service, with -9.
    Service,
    /// The service asked to end.
    Terminate,
    /// The first process of Postgres.
    Postmaster,
    /// All processes of Postgres.
    Postgres,
    /// Postgres ends at once, or with its clients cut off.
    Immediate,
    FastShutdown,
    /// The sessions of the service, one after the other.
    Sessions,
}

const KILLS: [Kill; 10] = [
    Kill::Service,
    Kill::Postmaster,
    Kill::Sessions,
    Kill::Postgres,
    Kill::Terminate,
    Kill::Service,
    Kill::Immediate,
    Kill::Service,
    Kill::FastShutdown,
    Kill::Service,
];

/// Makes it happen; the server that runs afterwards, and how long nobody was there.
async fn make(
    kill: Kill,
    mut server: Server,
    recipe: &Recipe,
    plan: &mut Plan,
) -> (Server, Option<Duration>) {
    let began = Instant::now();
    match kill {
        Kill::Service => server.kill(),
        Kill::Terminate => {
            let status = server.terminate().await;
            assert!(status.success(), "asked to end: {status}");
        }
        Kill::Sessions => {
            end_sessions(&server, plan).await;
            return (server, None);
        }
        _ => {
            let pid = server.postgres_pid();
            let (signal, mut pids) = match kill {
                Kill::Immediate => ("-QUIT", Vec::new()),
                Kill::FastShutdown => ("-INT", Vec::new()),
                Kill::Postgres => ("-KILL", children(&pid)),
                _ => ("-KILL", Vec::new()),
            };
            pids.insert(0, pid);
            send_signal(signal, &pids);
            // Without its Postgres a server ends with an error instead of pretending.
            let status = server.ended().await;
            assert!(!status.success(), "{kill:?}: {status}");
        }
    }
    (recipe.start().await, Some(began.elapsed()))
}

/// Ends sessions of the service by `pg_terminate_backend`, which is what an operator or a failover does.
async fn end_sessions(server: &Server, plan: &mut Plan) {
    let options = personas::embedded::Postgres::beside(&server.folder).unwrap().expect("it runs");
    let Ok(pool) = sqlx::postgres::PgPoolOptions::new().max_connections(1).connect_with(options).await else {
        panic!("Postgres takes no connections")
    };
    let mut all = 0;
    for _ in 0..3 {
        plan.moment(10..80).await;
        let sql = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                   WHERE application_name = 'personas' AND backend_type = 'client backend'";
        let ended: i64 = sqlx::query_scalar(sql).fetch_one(&pool).await.unwrap();
        all += ended;
    }
    assert!(all > 0, "there were no sessions");
    pool.close().await;
}

/// When it is over.
struct Goal {
    kills: u64,
    events: u64,
    limit: Duration,
    clients: usize,
    depth: Depth,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_in_every_way_under_load() {
    let mut plan = Plan::new("killed");
    let size = plan.tier.of(
        Size { users: 60, batch: 50, duplicates: 30 },
        Size { users: 4_000, batch: 1_000, duplicates: 30 },
        Size { users: 20_000, batch: 1_000, duplicates: 30 },
    );
    let minutes = |n| Duration::from_mins(n);
    let goal = plan.tier.of(
        Goal { kills: 7, events: 0, limit: minutes(1), clients: 3, depth: Depth::Whole },
        Goal { kills: 160, events: 10_000_000, limit: minutes(7), clients: 4, depth: Depth::Verified },
        Goal { kills: 3_000, events: 100_000_000, limit: minutes(180), clients: 4, depth: Depth::Whole },
    );
    let mut report = Report::new("killed", &plan);
    let stage = Stage::private(&plan, size).await;
    let recipe = stage.recipe("one");
    let recipe = if plan.tier == crate::plan::Tier::Fast {
        // Small, so that kills find all of it at work.
        recipe
            .with("PERSONAS_PROCESSOR_BATCH_EVENTS_MAX", "300")
            .with("PERSONAS_PROCESSOR_DEDUP_RECENT_MAX", "2000")
    } else {
        recipe
    };
    let mut server = stage.open(&recipe).await;
    let load = stage.load(&Targets::new(&[recipe.url()]), goal.clients);
    let (began, mut longest) = (Instant::now(), [Duration::ZERO; 2]);
    let enough =
        |report: &Report| report.kills >= goal.kills && stage.ledger.summary().acknowledged >= goal.events;
    // Kills are spread over the time there is.
    let pause = plan.tier.of(400, 3_000, 3_000);
    while !enough(&report) && began.elapsed() < goal.limit {
        plan.moment(50..pause).await;
        let kill = KILLS[report.kills as usize % KILLS.len()];
        let (next, outage) = make(kill, server, &recipe, &mut plan).await;
        server = next;
        let of_postgres = usize::from(!matches!(kill, Kill::Service | Kill::Terminate));
        longest[of_postgres] = longest[of_postgres].max(outage.unwrap_or_default());
        report.kills += 1;
        report.rounds += 1;
    }
    let pipeline = stage.settle(load, &recipe.url()).await;
    let loaded = began.elapsed();
    check_live(&stage, &recipe.url(), &pipeline, &mut report).await;
    assert!(server.terminate().await.success());
    check_stored(&stage, goal.depth, &WITHOUT_POSTGRES, &mut report).await;
    let summary = stage.ledger.summary();
    report.note(format!(
        "{} batches sent again, {} told to come again, longest outage of the service {:.1} s, of Postgres {:.1} s, \
         {:.0} events a second, {} deliveries",
        summary.unknown,
        summary.deferred.values().sum::<u64>(),
        longest[0].as_secs_f64(),
        longest[1].as_secs_f64(),
        report.acknowledged as f64 / loaded.as_secs_f64(),
        stage.receiver.count(),
    ));
    report.print();
}
