//! F20: an empty database and three processes that start at once, killed in the middle of the migrations and started again.

use sqlx::postgres::PgPool;

use crate::client::{self, TOKEN};
use crate::harness::cluster::TestDb;
use crate::ledger::Outcome;
use crate::plan::Plan;
use crate::report::Report;
use crate::server::{Recipe, Server, errors_in};

async fn count(pool: &PgPool, sql: &'static str) -> i64 {
    sqlx::query_scalar(sql).fetch_one(pool).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_start_at_once_on_an_empty_database_and_are_killed_while_they_migrate() {
    let mut plan = Plan::new("starts");
    let mut report = Report::new("starts", &plan);
    let client = client::new();
    for round in 1..=plan.tier.of(1, 20, 200) {
        let (db, folder) = (TestDb::of("template0").await, tempfile::tempdir().unwrap());
        let recipes =
            ["one", "two", "three"].map(|name| Recipe::new(folder.path().join(name), Some(db.url())));
        let mut servers: Vec<Server> = recipes.iter().map(Recipe::launch).collect();
        for _ in 0..round % 4 {
            plan.moment(20..700).await;
            let place = plan.roll(3) as usize;
            servers.remove(place).kill();
            servers.insert(place, recipes[place].launch());
            report.kills += 1;
        }
        for server in &mut servers {
            server.ready().await;
        }
        assert_eq!(count(&db.pool, "SELECT count(*) FROM space").await, 1, "one space was made");
        assert_eq!(count(&db.pool, "SELECT count(*) FROM _sqlx_migrations WHERE NOT success").await, 0);
        for server in &servers {
            let call = r#"{"batch":[{"type":"track","event":"Seen","userId":"u1"}]}"#.to_owned();
            let taken = client::track(&client, &server.url, call).await;
            assert!(matches!(taken, Outcome::Acknowledged(_)), "{taken:?}");
            let spaces =
                client.get(format!("{}/v1/spaces", server.url)).bearer_auth(TOKEN).send().await.unwrap();
            assert!(spaces.status().is_success());
            report.acknowledged += 1;
        }
        for server in servers {
            assert!(server.terminate().await.success());
        }
        for recipe in &recipes {
            let errors = errors_in(&recipe.log(), &[]);
            assert!(errors.is_empty(), "{errors:#?}");
        }
        report.rounds += 1;
    }
    report.print();
}
