//! Every route of the description, with every scope and role, in the own and in a foreign space, with tokens that are missing,
//! unknown, expired or revoked: as documented, without an exception.

use futures_util::StreamExt;
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::app::{Answer, TOKEN, TestApp, WRITE_KEY, Wish, send};
use crate::harness::destinations::sending;
use crate::harness::receiver::Receiver;

const SCOPES: [&str; 5] = ["read", "write", "admin", "privacy", "pii:read"];
const ROLES: [(&str, &[&str]); 5] = [
    ("owner", &SCOPES),
    ("admin", &["read", "write", "admin"]),
    ("editor", &["read", "write"]),
    ("viewer", &["read"]),
    ("privacy", &["read", "privacy", "pii:read"]),
];

/// A route and the scope the description names for it; none where no token is needed.
struct Route {
    method: Method,
    path: String,
    scope: Option<String>,
    is_tracking: bool,
}

/// All routes of the description.
fn routes(description: &Value) -> Vec<Route> {
    let mut routes = Vec::new();
    for (path, item) in description["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let security = operation["security"].as_array().unwrap();
            let scope =
                |kind: &str| security.iter().find_map(|need| need[kind][0].as_str()).map(str::to_owned);
            // A write key in the path is what lets one in, too.
            let is_tracking =
                security.iter().any(|need| need["write_key"].is_array()) || path.contains("{write_key}");
            let is_open = security.iter().all(|need| need.as_object().unwrap().is_empty());
            let scope = (!is_tracking && !is_open).then(|| scope("token").expect("a scope"));
            let method = method.to_uppercase().parse().unwrap();
            routes.push(Route { method, path: path.clone(), scope, is_tracking });
        }
    }
    routes
}

impl Route {
    /// Calls it with something that names nothing there is.
    async fn call(&self, app: &TestApp, space: &str, token: Option<&str>) -> Answer {
        let path = self.path.replace("{space}", space).replace("{profile}", "user_id:nobody");
        let path = path.replace("{collection}", "users").replace(['{', '}'], "");
        let request = app.request(self.method.clone(), &path).json(&json!({}));
        send(if let Some(token) = token { request.bearer_auth(token) } else { request }).await
    }

    fn shown(&self) -> String {
        format!("{} {}", self.method, self.path)
    }
}

async fn token(app: &TestApp, space: &str, body: Value) -> Value {
    let mut body = body;
    body["name"] = json!("t");
    app.post(&format!("/v1/spaces/{space}/tokens"), body).await.expect(201).json
}

fn secret(made: &Value) -> &str {
    made["token"].as_str().unwrap()
}

/// What a scope allows, as the description says it.
fn allows(has: &[&str], needed: &str) -> bool {
    has.contains(&needed) || needed == "privacy" && has.contains(&"admin")
}

#[tokio::test]
async fn every_route_does_as_documented_for_every_token() {
    let app = Wish::default().at("2024-03-01T12:00:00Z").start().await;
    app.post("/v1/spaces", json!({"id": "acme"})).await.expect(201);
    let mut tokens: Vec<(String, Vec<&str>)> = Vec::new();
    for scope in SCOPES {
        tokens.push((
            secret(&token(&app, "default", json!({"scopes": [scope]})).await).to_owned(),
            vec![scope],
        ));
    }
    for (role, scopes) in ROLES {
        let made = token(&app, "default", json!({"role": role})).await;
        assert_eq!((&made["role"], &made["scopes"]), (&json!(role), &json!(scopes)));
        tokens.push((secret(&made).to_owned(), scopes.to_vec()));
    }
    let foreign = token(&app, "acme", json!({"role": "owner"})).await;
    let expired =
        token(&app, "default", json!({"role": "owner", "expires_at": "2024-03-01T12:00:01Z"})).await;
    let revoked = token(&app, "default", json!({"role": "owner"})).await;
    app.delete(&format!("/v1/spaces/default/tokens/{}", revoked["id"].as_str().unwrap())).await.expect(204);
    app.put("/v1/test-clock", json!({"now": "2024-03-01T12:00:01Z"})).await.expect(200);
    let invalid =
        [None, Some("tok_unknown"), Some(secret(&expired)), Some(secret(&revoked)), Some(WRITE_KEY)];

    let routes = routes(&app.get("/openapi.json").await.expect(200).json);
    assert!(routes.iter().filter(|route| route.scope.is_some()).count() > 90);
    for route in &routes {
        let shown = route.shown();
        let Some(scope) = route.scope.as_deref() else {
            check_open(&app, route, secret(&foreign)).await;
            continue;
        };
        for (token, has) in &tokens {
            let answer = route.call(&app, "default", Some(token)).await;
            let is_refused = [401, 403].contains(&answer.status);
            assert_eq!(is_refused, !allows(has, scope), "{shown} with {has:?}: {}", answer.text);
        }
        let owners = route.call(&app, "default", Some(TOKEN)).await;
        assert!(![401, 403].contains(&owners.status), "{shown} as the owner: {}", owners.text);
    }
    // Whatever is not known is looked for once more, five times a second at most: so all of them at once.
    let refusals = routes.iter().filter(|route| route.scope.is_some()).flat_map(|route| {
        let app = &app;
        invalid.iter().map(move |token| async move {
            assert_eq!(
                route.call(app, "default", *token).await.status,
                401,
                "{} with {token:?}",
                route.shown()
            );
        })
    });
    futures_util::stream::iter(refusals).buffer_unordered(64).collect::<Vec<()>>().await;
    let hidden = routes.iter().filter(|route| route.path.contains("{space}")).map(|route| {
        let (app, foreign) = (&app, Some(secret(&foreign)));
        async move {
            let hidden = route.call(app, "default", foreign).await;
            let missing = route.call(app, "nowhere", foreign).await;
            assert_eq!(hidden.status, 404, "{}: {}", route.shown(), hidden.text);
            assert_eq!(words(&hidden), words(&missing).replace("nowhere", "default"), "{}", route.shown());
        }
    });
    futures_util::stream::iter(hidden).buffer_unordered(64).collect::<Vec<()>>().await;
}

/// The body without what is different each time.
fn words(answer: &Answer) -> String {
    let mut json = answer.json.clone();
    if let Some(map) = json.as_object_mut() {
        map.remove("request_id");
    }
    json.to_string()
}

/// A route without a token: tracking calls want a write key, which no token is; the rest is open to all.
async fn check_open(app: &TestApp, route: &Route, token: &str) {
    let answer = route.call(app, "default", Some(token)).await;
    let drops = ["/v1/m", "/analytics.js/v1/{write_key}/analytics.min.js"].contains(&route.path.as_str());
    if route.is_tracking && !drops {
        assert_eq!(answer.status, 401, "{}: {}", route.shown(), answer.text);
    } else {
        assert!(![401, 403].contains(&answer.status), "{}: {}", route.shown(), answer.text);
    }
}

/// Rows of the first space, as text, but for when keys and tokens were used and who looked.
async fn rows(app: &TestApp) -> Vec<String> {
    let tables = "SELECT c.relname::text FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
         WHERE a.attname = 'space_id' AND c.relkind IN ('r', 'p') AND NOT c.relispartition
             AND c.relnamespace = 'public'::regnamespace
             AND c.relname NOT LIKE 'audit%' AND c.relname NOT IN ('processor', 'destination_worker')
         ORDER BY c.relname";
    let tables: Vec<String> = sqlx::query_scalar(tables).fetch_all(&app.db.pool).await.unwrap();
    let mut all = Vec::new();
    for table in tables {
        let sql = format!(
            "SELECT '{table} ' || (to_jsonb(t) - 'last_used_at')::text FROM {table} t WHERE space_id = 1 ORDER BY 1"
        );
        let rows: Vec<String> =
            sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_all(&app.db.pool).await.unwrap();
        all.extend(rows);
    }
    all
}

/// A space full of things, and somebody of another space who knows what they are called.
pub(crate) struct Burglary {
    pub(crate) app: TestApp,
    /// Owner of the other space.
    thief: String,
    /// Every route about one thing, asked of the other space with the ids of the first.
    pub(crate) attempts: Vec<(Method, String, String)>,
    before: Vec<String>,
    _receiver: Receiver,
}

impl Burglary {
    pub(crate) async fn prepare() -> Self {
        const SPACE: &str = "/v1/spaces/default";
        let app = sending().at("2024-03-01T12:00:00Z").start().await;
        app.post("/v1/spaces", json!({"id": "acme"})).await.expect(201);
        let thief = secret(&token(&app, "acme", json!({"role": "owner"})).await).to_owned();
        app.make_live("audiences", "canary_seen", "event('Seen').count() >= 1").await;
        app.make_live("computed-traits", "canary_n", "event('Seen').count()").await;
        let receiver = Receiver::start().await;
        let hook = app.make_webhook("canary hook", &receiver, json!({})).await;
        let subscription = app.subscribe(&hook, json!({"subject": "audience", "key": "canary_seen"})).await;
        let call = |user: &str| json!({"userId": user, "event": "Seen", "properties": {"sku": "canary"}});
        app.processed("/v1/track", call("canary-1")).await;
        app.processed("/v1/track", json!({"anonymousId": "canary-2", "event": "Seen"})).await;
        let pair = json!({"profiles": ["user_id:canary-1", "anonymous_id:canary-2"]});
        app.post(&format!("{SPACE}/identity/merges"), pair).await.expect(200);
        let category = json!({"id": "ads", "name": "canary ads"});
        app.post(&format!("{SPACE}/consent/categories"), category).await.expect(201);
        let regulation = app.regulate("SUPPRESS_ONLY", "USER_ID", &["canary-9"]).await;
        receiver.wait_taken(1).await;
        app.wait_sent(&hook).await;
        let profile = format!("{SPACE}/collections/users/profiles/user_id:canary-1");
        let identity = app.get(&format!("{profile}/identity")).await.expect(200).json;
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let first =
            async |path: &str| app.get(&format!("{SPACE}{path}")).await.expect(200).json["data"][0].clone();
        let (delivery, source) = (first("/deliveries").await, first("/sources").await);
        let own = token(&app, "default", json!({"role": "viewer"})).await;
        let known = Known {
            delivery: text(&delivery["id"]),
            source: text(&source["id"]),
            token: text(&own["id"]),
            destination: text(&hook["id"]),
            subscription: text(&subscription["id"]),
            merge: text(&identity["merges"][0]["id"]),
            profile: text(&identity["profile_id"]),
            regulation: text(&regulation["id"]),
            prefix: text(&source["write_keys"][0]["prefix"]),
        };
        let about_one = |route: &Route| {
            route.path.strip_prefix("/v1/spaces/{space}/").is_some_and(|rest| rest.contains('{'))
        };
        let routes = routes(&app.get("/openapi.json").await.expect(200).json);
        let attempts: Vec<_> = routes
            .into_iter()
            .filter(about_one)
            .map(|route| (route.method.clone(), known.path(&route), route.path))
            .collect();
        assert!(attempts.len() > 40, "{}", attempts.len());
        let before = rows(&app).await;
        Self { app, thief, attempts, before, _receiver: receiver }
    }

    pub(crate) async fn attempt(&self, method: &Method, path: &str) -> Answer {
        self.app.call_as(&self.thief, method.clone(), path, Some(json!({}))).await
    }

    /// Whether an answer tells what its question did not say.
    pub(crate) fn tells(answer: &Answer) -> bool {
        let mut said = answer.text.clone();
        for asked in ["canary_seen", "canary_n", "user_id:canary-1", "user_id:canary-9"] {
            said = said.replace(asked, "");
        }
        said.contains("canary")
    }

    pub(crate) async fn check_nothing_changed(&self) {
        assert_eq!(rows(&self.app).await, self.before, "something was changed");
    }
}

/// What there is in the first space.
struct Known {
    delivery: String,
    source: String,
    token: String,
    destination: String,
    subscription: String,
    merge: String,
    profile: String,
    regulation: String,
    prefix: String,
}

impl Known {
    /// A route's path in the other space.
    fn path(&self, route: &Route) -> String {
        let id = match route.path.split('/').nth(4) {
            Some("deliveries") => &self.delivery,
            Some("sources") => &self.source,
            Some("tokens") => &self.token,
            _ => &self.destination,
        };
        let key = if route.path.contains("computed-traits") { "canary_n" } else { "canary_seen" };
        let given = |name: &str| match name {
            "space" => "acme".to_owned(),
            "id" => id.clone(),
            "key" | "other" => key.to_owned(),
            "merge" => self.merge.clone(),
            "subscription" => self.subscription.clone(),
            "profile" => format!("profile_id:{}", self.profile),
            "collection" => "users".to_owned(),
            "regulation" => self.regulation.clone(),
            "category" => "ads".to_owned(),
            "selector" => "user_id:canary-9".to_owned(),
            "identifier" => "user_id:canary-1".to_owned(),
            "name" => "Seen".to_owned(),
            "prefix" => self.prefix.clone(),
            other => panic!("what is {other}?"),
        };
        let part = |part: &str| {
            let name = part.strip_prefix('{').and_then(|p| p.strip_suffix('}'));
            name.map_or_else(|| part.to_owned(), &given)
        };
        route.path.split('/').map(part).collect::<Vec<_>>().join("/")
    }
}

#[tokio::test]
async fn ids_of_one_space_are_nothing_in_another() {
    let burglary = Burglary::prepare().await;
    for (method, path, route) in &burglary.attempts {
        let answer = burglary.attempt(method, path).await;
        // Without a body that could be used some are refused for that.
        let is_list = ["{collection}/profiles", "{name}/properties"].iter().any(|end| route.ends_with(end));
        assert!((400..500).contains(&answer.status) || is_list, "{method} {route}: {}", answer.text);
        assert!(!Burglary::tells(&answer), "{method} {route}: {}", answer.text);
    }
    burglary.check_nothing_changed().await;
}

#[tokio::test]
async fn nobody_gives_away_what_is_not_theirs() {
    let app = TestApp::start().await;
    let admin = token(&app, "default", json!({"role": "admin"})).await;
    let make = async |body: Value| {
        app.call_as(secret(&admin), Method::POST, "/v1/spaces/default/tokens", Some(body)).await
    };
    make(json!({"name": "x", "role": "editor"})).await.expect(201);
    for body in [json!({"name": "x", "role": "owner"}), json!({"name": "x", "scopes": ["pii:read"]})] {
        let answer = make(body).await.expect_problem(403, "forbidden");
        assert!(answer.json["detail"].as_str().unwrap().contains("pii:read"), "{}", answer.text);
    }
    for (body, field) in [
        (json!({"name": "x", "role": "root"}), "role"),
        (json!({"name": "x", "role": "viewer", "scopes": ["read"]}), "role"),
        (json!({"name": "x"}), "scopes"),
        (json!({"name": "x", "role": "viewer", "expires_at": "2001-01-01"}), "expires_at"),
        (json!({"name": "x", "role": "viewer", "expires_at": "soon"}), "expires_at"),
    ] {
        assert_eq!(make(body).await.expect_problem(422, "invalid").json["field"], field);
    }
}
