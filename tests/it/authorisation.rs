//! Every route of the description, with every scope and role, in the own and in a foreign space, with tokens that are missing,
//! unknown, expired or revoked: as documented, without an exception.

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::app::{Answer, TOKEN, TestApp, WRITE_KEY, Wish, send};

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
            let is_tracking = security.iter().any(|need| need["write_key"].is_array());
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
        for token in invalid {
            assert_eq!(route.call(&app, "default", token).await.status, 401, "{shown} with {token:?}");
        }
        for (token, has) in &tokens {
            let answer = route.call(&app, "default", Some(token)).await;
            let is_refused = [401, 403].contains(&answer.status);
            assert_eq!(is_refused, !allows(has, scope), "{shown} with {has:?}: {}", answer.text);
        }
        let owners = route.call(&app, "default", Some(TOKEN)).await;
        assert!(![401, 403].contains(&owners.status), "{shown} as the owner: {}", owners.text);
        if route.path.contains("{space}") {
            let hidden = route.call(&app, "default", Some(secret(&foreign))).await;
            let missing = route.call(&app, "nowhere", Some(secret(&foreign))).await;
            assert_eq!(hidden.status, 404, "{shown}: {}", hidden.text);
            assert_eq!(words(&hidden), words(&missing).replace("nowhere", "default"), "{shown}");
        }
    }
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
