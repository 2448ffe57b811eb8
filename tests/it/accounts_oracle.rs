//! Definitions of accounts against a naive evaluation: random events, late ones too, links, merges of users, and time.

use std::collections::{BTreeMap, BTreeSet};

use personas::domain::Timestamp;
use serde_json::{Value, json};

use crate::harness::app::{TestApp, Wish};
use crate::verify::verify;

const START: &str = "2024-03-01T12:00:00.000Z";
const HOUR: i64 = 3_600_000;
const DAY: i64 = 24 * HOUR;
const ACCOUNTS: u64 = 4;

/// Audiences and computed traits: key, query.
const AUDIENCES: [(&str, &str); 6] = [
    ("any_two", "ANY event('A').within(2 days).count() >= 2"),
    ("all_active", "ALL (event('A').count() >= 1 OR trait('plan') = 'pro')"),
    ("quiet", "ANY event('A').within(1 day).count() = 0 AND ALL event('B').count() < 3"),
    ("spent", "event('A').within(2 days).sum(property('price')) > 20"),
    ("small", "NOT ANY audience('pro') AND trait('seats') >= 3"),
    ("mixed", "event('B').within(1 day).count() >= 2 OR NOT ALL event('*').within(3 days).count() >= 1"),
];
const TRAITS: [(&str, &str); 4] = [
    ("count", "event('A').count()"),
    ("recent", "event('*').within(1 day).sum(property('price'))"),
    ("latest", "event('B').last(property('price'))"),
    ("dearest", "event('A').within(3 days).max(property('price'))"),
];

/// Numbers that are the same for the same seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

struct Event {
    who: String,
    name: &'static str,
    at: i64,
    price: i64,
    account: Option<String>,
}

/// What has been sent, and nothing computed from it.
#[derive(Default)]
struct Model {
    now: i64,
    sent: u64,
    events: Vec<Event>,
    links: Vec<(String, String)>,
    /// Anonymous ids of users.
    merged: BTreeMap<String, String>,
    plans: BTreeMap<String, String>,
    seats: BTreeMap<String, i64>,
    accounts: BTreeSet<String>,
    /// Of each audience the accounts that were in it last.
    members: BTreeSet<(String, String)>,
    /// Audience, account, word and instant of each change.
    transitions: Vec<(String, String, &'static str, String)>,
}

impl Model {
    fn who(&self, id: &str) -> String {
        self.merged.get(id).cloned().unwrap_or_else(|| id.to_owned())
    }

    fn users(&self, account: &str) -> BTreeSet<String> {
        self.links.iter().filter(|(_, to)| to == account).map(|(who, _)| self.who(who)).collect()
    }

    /// Prices of a user's events that count for an account, by time.
    fn events(&self, user: &str, account: &str, names: &[&str], within: i64) -> Vec<(i64, i64)> {
        let counts = |e: &&Event| {
            names.contains(&e.name)
                && self.who(&e.who) == user
                && e.account.as_deref().is_none_or(|named| named == account)
                && e.at >= self.now.saturating_sub(within)
        };
        self.events.iter().filter(counts).map(|e| (e.at, e.price)).collect()
    }

    fn pooled(&self, account: &str, names: &[&str], within: i64) -> Vec<(i64, i64)> {
        let of = |user: &String| self.events(user, account, names, within);
        let mut pooled: Vec<_> = self.users(account).iter().flat_map(of).collect();
        pooled.sort_unstable();
        pooled
    }

    fn audience(&self, key: &str, account: &str) -> bool {
        let users = self.users(account);
        let count = |user: &str, name, within| self.events(user, account, &[name], within).len();
        let is_pro = |user: &String| self.plans.get(user).is_some_and(|plan| plan == "pro");
        let sum = |events: Vec<(i64, i64)>| events.iter().map(|(_, price)| price).sum::<i64>();
        let all = |holds: &dyn Fn(&String) -> bool| !users.is_empty() && users.iter().all(holds);
        match key {
            "any_two" => users.iter().any(|u| count(u, "A", 2 * DAY) >= 2),
            "all_active" => all(&|u| count(u, "A", i64::MAX) >= 1 || is_pro(u)),
            "quiet" => users.iter().any(|u| count(u, "A", DAY) == 0) && all(&|u| count(u, "B", i64::MAX) < 3),
            "spent" => sum(self.pooled(account, &["A"], 2 * DAY)) > 20,
            "small" => {
                !users.iter().any(|u| is_pro(u) && u.starts_with('u'))
                    && self.seats.get(account).is_some_and(|seats| *seats >= 3)
            }
            _ => {
                self.pooled(account, &["B"], DAY).len() >= 2
                    || !all(&|u| !self.events(u, account, &["A", "B"], 3 * DAY).is_empty())
            }
        }
    }

    fn computed(&self, key: &str, account: &str) -> Value {
        let price = |event: Option<&(i64, i64)>| event.map_or(Value::Null, |(_, price)| json!(price));
        match key {
            "count" => json!(self.pooled(account, &["A"], i64::MAX).len()),
            "recent" => {
                let events = self.pooled(account, &["A", "B"], DAY);
                let sum: i64 = events.iter().map(|(_, price)| price).sum();
                if events.is_empty() { Value::Null } else { json!(sum) }
            }
            "latest" => price(self.pooled(account, &["B"], i64::MAX).last()),
            _ => price(self.pooled(account, &["A"], 3 * DAY).iter().max_by_key(|(_, price)| price)),
        }
    }

    /// Notes who has entered and left.
    fn note(&mut self) {
        for (key, _) in AUDIENCES {
            for account in self.accounts.clone() {
                let is_in = self.audience(key, &account);
                let member = (key.to_owned(), account.clone());
                if is_in != self.members.contains(&member) {
                    let word = if is_in { "entered" } else { "left" };
                    let at = Timestamp::from_millis(self.now).to_string();
                    self.transitions.push((key.to_owned(), account.clone(), word, at));
                    if is_in {
                        self.members.insert(member)
                    } else {
                        self.members.remove(&member)
                    };
                }
            }
        }
    }

    /// Lets time pass, instant by instant.
    fn pass(&mut self, millis: i64) {
        let until = self.now + millis;
        let ends = self.events.iter().flat_map(|e| [DAY, 2 * DAY, 3 * DAY].map(|window| e.at + window + 1));
        let ends: BTreeSet<i64> = ends.filter(|at| *at > self.now && *at <= until).collect();
        for at in ends {
            self.now = at;
            self.note();
        }
        self.now = until;
    }

    /// A random call, noted.
    fn call(&mut self, dice: &mut Dice) -> Value {
        self.sent += 1;
        let anonymous = dice.roll(6);
        let user = dice.roll(3);
        let account = format!("g{}", dice.roll(ACCOUNTS));
        let is_anonymous = dice.roll(3) == 0;
        let id = if is_anonymous { format!("a{anonymous}") } else { format!("u{user}") };
        let field = if is_anonymous { "anonymousId" } else { "userId" };
        let mut call = json!({"messageId": format!("m{:06}", self.sent), field: id});
        match dice.roll(10) {
            0 | 1 => {
                let seats = dice.roll(6) as i64;
                call["type"] = "group".into();
                call["groupId"] = account.clone().into();
                call["traits"] = json!({"seats": seats});
                self.links.push((id, account.clone()));
                self.seats.insert(account.clone(), seats);
                self.accounts.insert(account);
            }
            2 => {
                let plan = if dice.roll(2) == 0 { "pro" } else { "free" };
                call["type"] = "identify".into();
                call["traits"] = json!({"plan": plan});
                self.plans.insert(self.who(&id), plan.to_owned());
            }
            3 if anonymous < 5 => {
                // Always the same pairs, so no identifier is ever refused.
                let (who, owner) = (format!("a{anonymous}"), format!("u{}", anonymous / 2));
                call = json!({"type": "identify", "messageId": call["messageId"], "anonymousId": who, "userId": owner});
                if let Some(plan) = self.plans.remove(&who).filter(|_| !self.merged.contains_key(&who)) {
                    // The newer one wins, and nobody knows here which that is: say it anew.
                    call["traits"] = json!({"plan": plan});
                    self.plans.insert(owner.clone(), plan);
                }
                self.merged.insert(who, owner);
            }
            _ => {
                let name = if dice.roll(3) == 0 { "B" } else { "A" };
                let late = if dice.roll(3) == 0 { dice.roll(80) as i64 * HOUR } else { 0 };
                let (at, price) = (self.now - late - self.sent as i64, dice.roll(15) as i64);
                call["type"] = "track".into();
                call["event"] = name.into();
                call["timestamp"] = Timestamp::from_millis(at).to_string().into();
                call["properties"] = json!({"price": price});
                let named = (dice.roll(4) == 0).then(|| account.clone());
                if let Some(account) = &named {
                    call["context"] = json!({"groupId": account});
                    self.accounts.insert(account.clone());
                }
                self.events.push(Event { who: id, name, at, price, account: named });
            }
        }
        call
    }
}

/// Compares all accounts with the model.
async fn compare(app: &TestApp, model: &Model, prefixes: &[&str], offset: u64, when: &str) {
    for account in &model.accounts {
        let path = format!(
            "/v1/spaces/default/collections/accounts/profiles/group_id:{account}/traits?limit=200&min_offset={offset}"
        );
        let traits = app.get(&path).await.expect(200).json["traits"].clone();
        for prefix in prefixes {
            for (key, _) in AUDIENCES {
                let found = traits[format!("{prefix}{key}")] == true;
                assert_eq!(
                    found,
                    model.audience(key, account),
                    "{when}: {prefix}{key} of {account}\n{traits}"
                );
            }
            for (key, _) in TRAITS {
                let found = &traits[format!("{prefix}{key}")];
                assert_eq!(
                    *found,
                    model.computed(key, account),
                    "{when}: {prefix}{key} of {account}\n{traits}"
                );
            }
        }
    }
    for prefix in prefixes {
        for (key, _) in AUDIENCES {
            let size = app.get(&format!("/v1/spaces/default/audiences/{prefix}{key}/size")).await.expect(200);
            let members = model.accounts.iter().filter(|account| model.audience(key, account)).count();
            assert_eq!(size.json["size"], members, "{when}: size of {prefix}{key}");
        }
    }
}

/// `rephrase` says the same so that no state of the others can be used.
async fn define(app: &TestApp, prefix: &str, rephrase: bool) {
    for (path, definitions) in [("audiences", &AUDIENCES[..]), ("computed-traits", &TRAITS[..])] {
        for (key, query) in definitions {
            let key = format!("{prefix}{key}");
            let query = if rephrase {
                ["A", "B", "*"].iter().fold((*query).to_owned(), |query, name| {
                    let said = format!("event('{name}')");
                    query.replace(&said, &format!("{said}.where(message_type() = 'track')"))
                })
            } else {
                (*query).to_owned()
            };
            let body = json!({"key": key, "definition": {"type": "accounts", "query": query}});
            app.post(&format!("/v1/spaces/default/{path}"), body).await.expect(201);
        }
        for (key, _) in definitions {
            app.live(path, &format!("{prefix}{key}")).await;
        }
    }
}

/// Whoever entered and left did so at the very instants.
async fn check_instants(app: &TestApp, model: &Model, seed: u64) {
    for account in &model.accounts {
        let profile = format!("/v1/spaces/default/collections/accounts/profiles/group_id:{account}");
        let told = app.get(&format!("{profile}/explain/live_quiet")).await.expect(200).json;
        for (key, _) in AUDIENCES {
            let path = format!("/v1/spaces/default/audiences/live_{key}/transitions?limit=1000");
            let list = app.get(&path).await.expect(200).json;
            let of_it = list["data"].as_array().unwrap().iter().rev();
            let of_it = of_it.filter(|one| one["profile_id"] == told["profile_id"]);
            let found: Vec<(&str, &str)> =
                of_it.map(|one| (one["transition"].as_str().unwrap(), one["at"].as_str().unwrap())).collect();
            let right = model.transitions.iter().filter(|(of, who, ..)| of == key && who == account);
            let right: Vec<(&str, &str)> = right.map(|(_, _, word, at)| (*word, at.as_str())).collect();
            assert_eq!(found, right, "seed {seed}: {key} of {account}");
        }
    }
}

/// A preview says of every definition what it says live.
async fn check_previews(app: &TestApp, model: &Model, seed: u64) {
    for (key, query) in AUDIENCES {
        let body = json!({"definition": {"type": "accounts", "query": query}});
        let found = app.post("/v1/spaces/default/audiences/preview", body).await.expect(200).json;
        let members = model.accounts.iter().filter(|account| model.audience(key, account)).count();
        assert_eq!(found["size"], members, "seed {seed}: preview of {key}: {found}");
    }
    for (key, query) in TRAITS {
        let body = json!({"definition": {"type": "accounts", "query": query}});
        let found = app.post("/v1/spaces/default/computed-traits/preview", body).await.expect(200).json;
        let mut right: Vec<Value> = model.accounts.iter().map(|of| model.computed(key, of)).collect();
        let mut sample: Vec<Value> =
            found["sample"].as_array().unwrap().iter().map(|one| one["value"].clone()).collect();
        right.retain(|value| !value.is_null());
        right.sort_by_key(Value::to_string);
        sample.sort_by_key(Value::to_string);
        assert_eq!(sample, right, "seed {seed}: preview of {key}");
    }
}

/// Members enter and leave in turn, at instants that never go back.
async fn check_transitions(app: &TestApp, prefixes: &[&str]) {
    for prefix in prefixes {
        for (key, _) in AUDIENCES {
            let path = format!("/v1/spaces/default/audiences/{prefix}{key}/transitions?limit=1000");
            let list = app.get(&path).await.expect(200).json;
            let mut last: BTreeMap<String, (String, String)> = BTreeMap::new();
            for told in list["data"].as_array().unwrap().iter().rev() {
                let text = |name: &str| told[name].as_str().unwrap().to_owned();
                let now = (text("transition"), text("at"));
                let before = last.insert(text("profile_id"), now.clone());
                let (word, at) = before.unwrap_or(("left".to_owned(), String::new()));
                assert!(word != now.0 && at <= now.1, "{prefix}{key}: {list}");
            }
        }
    }
}

async fn run(seed: u64) {
    let mut dice = Dice(seed);
    let mut app = Wish::default().at(START).start().await;
    let mut model = Model { now: Timestamp::parse(START).unwrap().millis(), ..Model::default() };
    app.make_live("audiences", "pro", "trait('plan') = 'pro'").await;
    define(&app, "live_", false).await;
    let mut prefixes = vec!["live_"];
    for round in 0..24 {
        let mut calls = Vec::new();
        for _ in 0..=dice.roll(12) {
            calls.push(model.call(&mut dice));
            model.note();
        }
        let offset = app.track("/v1/batch", json!({"batch": calls})).await.expect(200).offset();
        if dice.roll(2) == 0 {
            compare(&app, &model, &prefixes, offset, &format!("seed {seed}, round {round}")).await;
        }
        model.pass([HOUR, 7 * HOUR, DAY, 2 * DAY][dice.roll(4) as usize]);
        let now = Timestamp::from_millis(model.now).to_string();
        app.put("/v1/test-clock", json!({"now": now})).await.expect(200);
        compare(&app, &model, &prefixes, offset, &format!("seed {seed}, after round {round}")).await;
        if round == 10 {
            check_previews(&app, &model, seed).await;
            define(&app, "late_", true).await;
            prefixes.push("late_");
        }
        if round == 16 {
            app.running.stop(std::time::Duration::ZERO).await.unwrap();
            app = Wish::default().at(&now).start_on(app.db).await;
        }
    }
    check_transitions(&app, &prefixes).await;
    check_instants(&app, &model, seed).await;
    check_previews(&app, &model, seed).await;
    let (said, code) = verify(&app.db, &[]);
    assert_eq!(code, 0, "seed {seed}: {said}");
    assert!(said.contains(" values compared, 0 differ"), "{said}");
}

#[tokio::test]
async fn accounts_are_what_a_naive_evaluation_says() {
    for seed in 1..=4 {
        run(seed).await;
    }
}

/// Events of many days that nobody has processed meanwhile, with whatever was due between them.
async fn run_backlog(seed: u64) {
    let mut dice = Dice(seed);
    let mut app = Wish::default().at(START).start().await;
    let mut model = Model { now: Timestamp::parse(START).unwrap().millis(), ..Model::default() };
    app.make_live("audiences", "pro", "trait('plan') = 'pro'").await;
    define(&app, "live_", false).await;
    let lease = async |app: &TestApp, until: &str| {
        let sql = format!("UPDATE processor SET epoch = epoch + 1, lease_until = {until}");
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&app.db.pool).await.unwrap();
    };
    // Somebody in every account who is due several times and has no event any more.
    let mut calls = Vec::new();
    for account in (0..ACCOUNTS).map(|n| format!("g{n}")) {
        calls.push(json!({"type": "group", "userId": "u9", "groupId": account}));
        model.links.push(("u9".to_owned(), account.clone()));
        model.accounts.insert(account);
        model.note();
    }
    for n in 0..2 {
        let (at, id) = (model.now - 5 - n, format!("quiet{n}"));
        calls.push(json!({"type": "track", "messageId": id, "userId": "u9", "event": "A",
            "timestamp": Timestamp::from_millis(at).to_string(), "properties": {"price": 9}}));
        model.events.push(Event { who: "u9".to_owned(), name: "A", at, price: 9, account: None });
        model.note();
    }
    let offset = app.track("/v1/batch", json!({"batch": calls})).await.expect(200).offset();
    compare(&app, &model, &["live_"], offset, &format!("before the backlog of seed {seed}")).await;
    lease(&app, "'infinity'").await;
    let mut offset = 0;
    for _ in 0..8 {
        let mut calls = Vec::new();
        for _ in 0..2 + dice.roll(12) {
            calls.push(model.call(&mut dice));
            model.note();
        }
        offset = app.track("/v1/batch", json!({"batch": calls})).await.expect(200).offset();
        app.running.stop(std::time::Duration::ZERO).await.unwrap();
        model.pass([HOUR, 7 * HOUR, DAY, 2 * DAY][dice.roll(4) as usize]);
        app = Wish::default().at(&Timestamp::from_millis(model.now).to_string()).start_on(app.db).await;
    }
    lease(&app, "'-infinity'").await;
    let now = json!({"now": Timestamp::from_millis(model.now).to_string()});
    app.get(&format!("/v1/spaces/default/pipeline?min_offset={offset}")).await.expect(200);
    app.put("/v1/test-clock", now).await.expect(200);
    compare(&app, &model, &["live_"], offset, &format!("backlog of seed {seed}")).await;
    check_instants(&app, &model, seed).await;
    let (said, code) = verify(&app.db, &[]);
    assert_eq!(code, 0, "seed {seed}: {said}");
}

#[tokio::test]
async fn what_was_due_in_a_backlog_happens_between_its_events() {
    for seed in 11..=14 {
        run_backlog(seed).await;
    }
}
