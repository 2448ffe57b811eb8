//! Kind `file`: changes as lines of JSON, in a folder of the server or in an S3-compatible store.
//!
//! One object for each batch and hour, `2026/01/02/03/20260102T030405678Z-5f2c….ndjson`: names sort by the time of the
//! first change in them, and the rest is made of the ids, so the same batch sent again replaces itself. An object is there
//! as a whole or not at all: a local file is written beside its place, synced and renamed. A line is an event as it is
//! sent everywhere else; its `messageId` tells those apart that come twice.

use std::fmt;
use std::ops::Range;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use object_store::aws::AmazonS3Builder;
use object_store::client::{ClientOptions, HttpClient, HttpConnector};
use object_store::local::LocalFileSystem;
use object_store::path::Path as ObjectPath;
use object_store::{Error as StoreError, ObjectStore, ObjectStoreExt, PutPayload, RetryConfig};
use serde::Deserialize;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use url::Url;

use crate::deliver::budget::Budget;
use crate::deliver::guard::Guard;
use crate::deliver::http::guarded_client;
use crate::deliver::kind::{Exchange, Invalid, Item, Kind, Reason, Sent, Verdict, placed};
use crate::deliver::reach::Reach;

/// Changes of a batch, where nothing is said.
const BATCH_DEFAULT: usize = 1_000;
/// The same, at most.
const BATCH_MAX: usize = 10_000;

/// Settings: `folder`, or `bucket` and what belongs to it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    /// Below the folder of the configuration.
    folder: Option<String>,
    bucket: Option<String>,
    #[serde(default = "region")]
    region: String,
    /// Of stores that are not Amazon's: `https://store.example.com`.
    endpoint: Option<String>,
    access_key_id: Option<String>,
    secret_access_key: Option<String>,
    /// Before all names.
    #[serde(default)]
    prefix: String,
    batch_max: Option<usize>,
}

fn region() -> String {
    "us-east-1".to_owned()
}

/// A place for files.
pub struct FileKind {
    store: Box<dyn ObjectStore>,
    /// Judged before each batch; none for a folder.
    endpoint: Option<(Url, Arc<Guard>)>,
    prefix: ObjectPath,
    batch_max: usize,
    timeout: Duration,
}

impl fmt::Debug for FileKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileKind").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

fn invalid(field: &str, message: impl Into<String>) -> Vec<Invalid> {
    vec![Invalid { field: field.to_owned(), message: message.into() }]
}

impl FileKind {
    /// Settings that are secret.
    pub const SECRETS: [&str; 1] = ["secret_access_key"];

    /// Reads and judges settings.
    pub fn open(settings: &Map<String, Value>, reach: &Reach) -> Result<Self, Vec<Invalid>> {
        let settings: Settings = serde_json::from_value(Value::Object(settings.clone()))
            .map_err(|error| invalid("settings", error.to_string()))?;
        let batch_max = settings.batch_max.unwrap_or(BATCH_DEFAULT);
        if !(1..=BATCH_MAX).contains(&batch_max) {
            return Err(invalid("batch_max", format!("it must be a whole number from 1 to {BATCH_MAX}")));
        }
        let prefix = ObjectPath::parse(&settings.prefix).map_err(|_| {
            invalid("prefix", "it must be names with `/` between them, such as exports/personas")
        })?;
        let (store, endpoint): (Box<dyn ObjectStore>, _) = match (&settings.folder, &settings.bucket) {
            (Some(folder), None) => (Box::new(local(folder, reach)?), None),
            (None, Some(bucket)) => {
                let (store, url) = s3(bucket, &settings, reach)?;
                (Box::new(store), Some((url, Arc::clone(&reach.guard))))
            }
            _ => return Err(invalid("folder", "one of `folder` and `bucket` has to be set")),
        };
        Ok(Self { store, endpoint, prefix, batch_max, timeout: reach.timeout })
    }

    /// Writes one object, and tells what became of it.
    async fn write(&self, items: &[Item], range: Range<usize>) -> (Verdict, Exchange) {
        let batch = items.get(range.clone()).unwrap_or_default();
        let path = self.name(batch);
        let lines = lines(batch);
        let request = format!("PUT {path} ({} changes, {} bytes)", batch.len(), lines.len());
        let started = Instant::now();
        let put = tokio::time::timeout(self.timeout, self.store.put(&path, PutPayload::from(lines)));
        let (verdict, response) = match put.await {
            Ok(Ok(_)) => (Verdict::Delivered, String::new()),
            Ok(Err(error)) => (judge(&error, self.endpoint.is_some()), error.to_string()),
            Err(_) => (retry("ETIMEDOUT", "it was not written in time"), String::new()),
        };
        (
            verdict,
            Exchange { items: range.collect(), request, status: None, response, took: started.elapsed() },
        )
    }

    fn name(&self, batch: &[Item]) -> ObjectPath {
        let at = batch.first().map(|item| item.at.to_utc()).unwrap_or_default();
        let mut hash = Sha256::new();
        for item in batch {
            hash.update(item.id.as_bytes());
            hash.update([0]);
        }
        let hash: String = hex::encode(hash.finalize()).chars().take(16).collect();
        let name = format!("{}-{hash}.ndjson", at.format("%Y%m%dT%H%M%S%3fZ"));
        let hour = at.format("%Y/%m/%d/%H").to_string();
        self.prefix.parts().chain(ObjectPath::from(hour).parts()).chain([name.into()]).collect()
    }
}

impl Kind for FileKind {
    fn batch_max(&self) -> usize {
        self.batch_max
    }

    fn send<'a>(&'a self, items: &'a [Item]) -> BoxFuture<'a, Sent> {
        Box::pin(async move {
            let (mut sent, budget) = (Sent::default(), Budget::begin(self.timeout, items.len()));
            if let Some(Err(blocked)) = self.endpoint.as_ref().map(|(url, guard)| guard.check_url(url)) {
                let reason = Reason { code: "BLOCKED".to_owned(), message: blocked.to_string() };
                sent.verdicts = vec![Verdict::Rejected(reason); items.len()];
                return sent;
            }
            for (range, hour) in placed(items.chunk_by(|one, next| hour_of(one) == hour_of(next))) {
                if !budget.allows_another() {
                    sent.verdicts.extend(vec![Budget::left_over(); hour.len()]);
                    continue;
                }
                let (verdict, exchange) = self.write(items, range).await;
                sent.verdicts.extend(vec![verdict; hour.len()]);
                sent.exchanges.push(exchange);
            }
            sent
        })
    }
}

fn hour_of(item: &Item) -> i64 {
    item.at.millis().div_euclid(3_600_000)
}

fn lines(batch: &[Item]) -> Vec<u8> {
    let mut lines = Vec::new();
    for item in batch {
        lines.extend_from_slice(item.event.to_string().as_bytes());
        lines.push(b'\n');
    }
    lines
}

fn retry(code: &str, message: impl Into<String>) -> Verdict {
    Verdict::Retry { reason: Reason { code: code.to_owned(), message: message.into() }, after: None }
}

/// What keys and names of a store do not allow stays so until they are changed (personas.md 7.6); all else may pass: a
/// folder is the operator's, who puts it right.
fn judge(error: &StoreError, is_remote: bool) -> Verdict {
    let rejected =
        |code: &str| Verdict::Rejected(Reason { code: code.to_owned(), message: error.to_string() });
    match error {
        _ if !is_remote => retry("UNAVAILABLE", error.to_string()),
        StoreError::Unauthenticated { .. } => rejected("401"),
        StoreError::PermissionDenied { .. } => rejected("403"),
        StoreError::NotFound { .. } => rejected("404"),
        _ => retry("UNAVAILABLE", error.to_string()),
    }
}

/// A folder below that of the configuration, made if it is not there.
fn local(folder: &str, reach: &Reach) -> Result<LocalFileSystem, Vec<Invalid>> {
    let Some(root) = &reach.folder else {
        return Err(invalid(
            "folder",
            "this server has no folder for destinations; set egress.folder to have one",
        ));
    };
    let is_below = Path::new(folder).components().all(|component| matches!(component, Component::Normal(_)));
    if folder.is_empty() || !is_below {
        return Err(invalid(
            "folder",
            "it must be names with `/` between them, below the folder of the server",
        ));
    }
    let path: PathBuf = root.join(folder);
    let made = std::fs::create_dir_all(&path).and_then(|()| Ok((path.canonicalize()?, root.canonicalize()?)));
    let (path, root) = made.map_err(|error| invalid("folder", format!("it cannot be made: {error}")))?;
    // A link must not lead out of it.
    if !path.starts_with(&root) {
        return Err(invalid("folder", "it leads out of the folder of the server"));
    }
    let store =
        LocalFileSystem::new_with_prefix(path).map_err(|error| invalid("folder", error.to_string()))?;
    Ok(store.with_fsync(true))
}

/// An S3-compatible store, and the URL that the guard judges.
fn s3(
    bucket: &str,
    settings: &Settings,
    reach: &Reach,
) -> Result<(object_store::aws::AmazonS3, Url), Vec<Invalid>> {
    let is_name = |text: &str| {
        (1..=63).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.')
    };
    for (field, text) in [("bucket", bucket), ("region", settings.region.as_str())] {
        if !is_name(text) {
            return Err(invalid(field, "it must be lower case letters, digits, `-` and `.`"));
        }
    }
    let secret = |field: &str, value: &Option<String>| {
        let given = value.clone().filter(|value| !value.is_empty());
        // Without keys the library would ask the cloud's metadata service for those of the machine.
        given.ok_or_else(|| invalid(field, "it is missing: a text that is not empty"))
    };
    let (id, key) = (
        secret("access_key_id", &settings.access_key_id)?,
        secret("secret_access_key", &settings.secret_access_key)?,
    );
    let amazon = format!("https://{bucket}.s3.{}.amazonaws.com", settings.region);
    let url = Url::parse(settings.endpoint.as_deref().unwrap_or(&amazon))
        .map_err(|error| invalid("endpoint", format!("it is no URL ({error})")))?;
    reach.guard.check_url(&url).map_err(|blocked| invalid("endpoint", blocked.to_string()))?;
    let client = guarded_client(Arc::clone(&reach.guard), Arc::clone(&reach.lookup))
        .map_err(|error| invalid("settings", error.to_string()))?;
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(bucket)
        .with_region(&settings.region)
        .with_access_key_id(id)
        .with_secret_access_key(key)
        .with_allow_http(url.scheme() == "http")
        // The workers decide when to try again.
        .with_retry(RetryConfig { max_retries: 0, ..RetryConfig::default() })
        .with_http_connector(Guarded(client));
    builder = match &settings.endpoint {
        // The bucket is in the path: other stores seldom have a host for each.
        Some(_) => builder.with_endpoint(url.as_str().trim_end_matches('/')),
        None => builder.with_virtual_hosted_style_request(true),
    };
    let store = builder.build().map_err(|error| invalid("settings", error.to_string()))?;
    Ok((store, url))
}

/// Gives the store the guarded client instead of one of its own.
#[derive(Debug)]
struct Guarded(reqwest::Client);

impl HttpConnector for Guarded {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.0.clone()))
    }
}

#[cfg(test)]
mod tests;
