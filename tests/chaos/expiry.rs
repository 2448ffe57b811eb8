//! F23: memberships run out by the clock while the process that has to see to it is killed. Each ends once, at its very instant.

use std::time::Duration;

use personas::clock::Clock;
use personas::domain::Timestamp;
use serde_json::json;

use crate::client;
use crate::ledger::Outcome;
use crate::plan::{Plan, wait};
use crate::report::Report;
use crate::server::{PATIENCE, errors_in};
use crate::stage::{Size, Stage};

const HOUR: i64 = 3_600_000;
/// The first runs out that long after everything was sent.
const BEGINS_MS: i64 = 3_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memberships_that_run_out_while_processes_are_killed_end_once_and_in_time() {
    let mut plan = Plan::new("expiry");
    let mut report = Report::new("expiry", &plan);
    let stage = Stage::shared(&plan, Size { users: 1, batch: 1, duplicates: 0 }).await;
    let recipe = stage.recipe("one").with("PERSONAS_PROCESSOR_LEASE_SECONDS", "1");
    let mut server = recipe.start().await;
    let url = server.url.clone();
    let body = json!({"key": "soon", "definition": {"type": "users", "query": "event('Seen').within(1 hour).count() >= 1"}});
    client::post(&stage.client, &url, "audiences", body).await;
    let (users, lasts_ms) = plan.tier.of((2_000, 4_000), (50_000, 40_000), (100_000, 60_000));
    // Each has an instant of its own.
    let first = Clock::System.now().millis() - HOUR + BEGINS_MS;
    let at = |user: i64| Timestamp::from_millis(first + user * lasts_ms / users);
    let calls: Vec<i64> = (0..users).collect();
    for some in calls.chunks(1_000) {
        let call = |user: &i64| json!({"type": "track", "event": "Seen", "userId": format!("u{user}"), "timestamp": at(*user).to_string()});
        let body = json!({"batch": some.iter().map(call).collect::<Vec<_>>()}).to_string();
        let taken = client::track(&stage.client, &url, body).await;
        assert!(matches!(taken, Outcome::Acknowledged(_)), "{taken:?}");
        report.acknowledged += some.len() as u64;
    }
    let db = stage.db.as_ref().unwrap();
    let count =
        async |sql: &'static str| -> i64 { sqlx::query_scalar(sql).fetch_one(&db.pool).await.unwrap() };
    let left = "SELECT count(*) FROM transition WHERE space_id = 1 AND NOT entered";
    while count(left).await < users && report.kills < plan.tier.of(4, 15, 50) {
        plan.moment(300..plan.tier.of(900, 3_000, 3_000)).await;
        server.kill();
        server = recipe.start().await;
        report.kills += 1;
        report.rounds += 1;
    }
    wait("all have run out", PATIENCE, async || {
        let so_far = count(left).await;
        if so_far >= users { Ok(()) } else { Err(format!("{so_far} of {users}")) }
    })
    .await;
    let sql = "SELECT (extract(epoch FROM at) * 1000)::bigint FROM transition
               WHERE space_id = 1 AND NOT entered ORDER BY at";
    let ends: Vec<i64> = sqlx::query_scalar(sql).fetch_all(&db.pool).await.unwrap();
    let expected: Vec<i64> = (0..users).map(|user| at(user).millis() + HOUR + 1).collect();
    report.double += (ends.len() as u64).saturating_sub(users as u64);
    assert_eq!(ends, expected, "each left once, at its own instant");
    let entered =
        count("SELECT count(DISTINCT profile_no) FROM transition WHERE space_id = 1 AND entered").await;
    assert_eq!(entered, users);
    assert_eq!(count("SELECT size FROM computation WHERE space_id = 1").await, 0);
    assert!(server.terminate().await.success());
    let errors = errors_in(&recipe.log(), &[]);
    assert!(errors.is_empty(), "{errors:#?}");
    report.note(format!(
        "{users} memberships ran out within {:.0} s",
        Duration::from_millis(lasts_ms as u64).as_secs_f64()
    ));
    report.print();
}
