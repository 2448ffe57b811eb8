//! The console in a real browser: scripts/console/walk.mjs says what is looked at. Where there is no Chromium, no Node or none of
//! the two packages it needs, that is said and nothing is looked at; `scripts/setup.sh` installs all of it.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::Command;

use crate::harness::app::TOKEN;
use crate::harness::destinations::sending;
use crate::harness::receiver::Receiver;

/// Names the browser goes by.
const BROWSERS: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];

fn find(name: &str) -> Option<PathBuf> {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&folders).map(|folder| folder.join(name)).find(|path| path.is_file())
}

/// The browser and what drives it; what is missing otherwise.
fn tools() -> Result<(PathBuf, PathBuf), &'static str> {
    let named = std::env::var_os("CHROMIUM").map(PathBuf::from);
    let browser = named.or_else(|| BROWSERS.into_iter().find_map(find)).ok_or("Chromium")?;
    let node = find("node").ok_or("Node")?;
    let packages = Path::new("scripts/console/node_modules/puppeteer-core");
    if packages.is_dir() { Ok((browser, node)) } else { Err("the packages of scripts/console") }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newcomer_walks_from_signing_in_to_an_audience_that_fills() {
    let (browser, node) = match tools() {
        Ok(tools) => tools,
        Err(missing) => {
            eprintln!(
                "NOTE: {missing} is not here (scripts/setup.sh installs it): the console was not looked at"
            );
            return;
        }
    };
    let app = sending().start().await;
    let receiver = Receiver::start().await;
    app.make_webhook("Hook", &receiver, serde_json::json!({})).await;
    let walk = Command::new(node)
        .arg("walk.mjs")
        .current_dir("scripts/console")
        .env("CHROMIUM", browser)
        .env("CONSOLE_URL", &app.url)
        .env("CONSOLE_TOKEN", TOKEN)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&walk.stdout).into_owned() + &String::from_utf8_lossy(&walk.stderr);
    assert!(walk.status.success(), "{said}");
    println!("{said}");
}
