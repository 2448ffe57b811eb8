//! The commands of the pages for operators run as they stand there, on a server of its own with what they are about.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::docs::{CURL, blocks};
use crate::harness::process::Server;

const TOKEN: &str = "tok_docs";
const WRITE_KEY: &str = "wk_docs";
const VARIABLES: [(&str, &str); 2] =
    [("PERSONAS_BOOTSTRAP_TOKEN", TOKEN), ("PERSONAS_BOOTSTRAP_WRITE_KEY", WRITE_KEY)];

const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Pages, and how many of their blocks run while the server does.
const PAGES: [(&str, usize); 4] =
    [("docs/console.md", 1), ("docs/destinations.md", 1), ("docs/operations.md", 5), ("docs/privacy.md", 6)];

/// What the blocks stand for: their variables, the binary, and two commands that end by themselves nowhere or are not everywhere.
fn prelude(server: &Server, data: &Path) -> String {
    let (url, data, binary) = (&server.url, data.display(), env!("CARGO_BIN_EXE_personas"));
    format!(
        r#"{CURL}
export PERSONAS_URL={url} PERSONAS_TOKEN={TOKEN} TOKEN={TOKEN} OWNER={TOKEN} URL={url} S={url}/v1/spaces/default RECIPIENT=nobody
personas() {{
    local folder={data}
    [ "$1" != import-space ] || folder={data}.other
    env -u DATABASE_URL PERSONAS_DATA_DIR=$folder {binary} "$@"
}}
age() {{ cat; }}
tailed() {{ local said; said=$(command curl -fsSN --max-time 2 "$@") || true; [ -n "$said" ]; }}
cd {data}.work
"#
    )
}

fn run(prelude: &str, page: &str, block: &str) {
    let script = format!("{prelude}{block}");
    let ran = tokio::task::block_in_place(|| Command::new("bash").arg("-c").arg(&script).output()).unwrap();
    let said = String::from_utf8_lossy(&ran.stdout);
    assert!(ran.status.success(), "{page}:\n{block}\n{said}{}", String::from_utf8_lossy(&ran.stderr));
}

async fn track(server: &Server, kind: &str, call: Value) {
    let request = reqwest::Client::builder().build().unwrap().post(format!("{}/v1/{kind}", server.url));
    let answer = request.basic_auth(WRITE_KEY, Some("")).body(call.to_string()).send().await.unwrap();
    assert!(answer.status().is_success(), "{call}");
}

/// Waits until the audience is computed, by the settings of now.
async fn live(server: &Server) {
    loop {
        let found = server.get("audiences/buyers").await;
        if found["status"] == "live" && found["serving_version"] == found["version"] {
            return;
        }
        assert_ne!(found["status"], "failed", "{found}");
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Those the commands are about; the ids of a destination, of a merge and of a regulation, and the version of settings, which
/// the pages leave out.
async fn people(server: &Server) -> [(&'static str, String); 4] {
    for (kind, call) in [
        ("identify", json!({"userId": "u1", "traits": {"plan": "pro"}})),
        ("identify", json!({"userId": "u2", "traits": {"plan": "free"}})),
        ("identify", json!({"anonymousId": "a1", "traits": {"email": "a@b.c"}})),
        ("identify", json!({"userId": "ada", "traits": {"email": "ada@example.com"}})),
        ("group", json!({"userId": "u1", "groupId": "g1"})),
        ("track", json!({"userId": "m1", "event": "Seen"})),
        ("track", json!({"anonymousId": "m2", "event": "Seen"})),
    ] {
        track(server, kind, call).await;
    }
    let client = reqwest::Client::builder().build().unwrap();
    let space = client.post(format!("{}/v1/spaces", server.url)).bearer_auth(TOKEN);
    let space = space.body(json!({"id": "acme"}).to_string()).send().await.unwrap();
    assert!(space.status().is_success());
    server
        .post("audiences", json!({"key": "buyers", "definition": {"query": "trait('plan') = 'pro'"}}))
        .await;
    let hook = json!({"name": "Docs", "kind": "webhook", "settings": {"url": "https://hook.invalid/"}});
    let hook = server.post("destinations", hook).await;
    let look = "collections/users/profiles/anonymous_id:m2/metadata";
    while server.get(look).await["metadata"].is_null() {
        tokio::time::sleep(LOOK_EVERY).await;
    }
    server.post("identity/merges", json!({"profiles": ["user_id:m1", "anonymous_id:m2"]})).await;
    let merged = server.get("collections/users/profiles/user_id:m1/identity").await;
    let nobody = json!({"regulation_type": "SUPPRESS_ONLY", "subject_ids": ["nobody"]});
    let regulation = server.post("regulations", nobody).await;
    let settings = server.get("identity/settings").await;
    let id = |of: &Value| of.as_str().unwrap().to_owned();
    [
        ("dst_…", id(&hook["id"])),
        ("mrg_…", id(&merged["merges"][0]["id"])),
        ("reg_…", id(&regulation["id"])),
        ("\"version\":…", format!("\"version\":{}", settings["version"])),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn the_commands_of_the_pages_for_operators_work() {
    let dir = crate::backup::open_folder();
    let data = dir.path().join("data");
    for folder in ["data.work", "backups"] {
        std::fs::create_dir(dir.path().join(folder)).unwrap();
    }
    let server = Server::start(&data, TOKEN, &VARIABLES).await;
    let ids = people(&server).await;
    Server::start(&dir.path().join("data.other"), TOKEN, &VARIABLES).await.kill();
    let prelude = prelude(&server, &data);
    let mut later = Vec::new();
    for (page, expected) in PAGES {
        let mut ran = 0;
        for block in blocks(page) {
            let block = block
                .replace("http://127.0.0.1:8080", &server.url)
                .replace("/backups/", &format!("{}/backups/", dir.path().display()))
                .replace("curl -N", "tailed");
            let block = ids.iter().fold(block, |block, (left_out, id)| block.replace(left_out, id));
            if block.contains("personas restore") {
                later.push((page, block));
                continue;
            }
            // What is exported while it is computed anew is imported, but not derived.
            if block.contains("personas export") {
                live(&server).await;
            }
            run(&prelude, page, &block);
            ran += 1;
        }
        assert!(ran >= expected, "{page}: {ran} blocks");
    }
    assert_eq!(later.len(), 1, "{later:?}");
    server.kill();
    for (page, block) in later {
        run(&prelude, page, &block);
    }
}
