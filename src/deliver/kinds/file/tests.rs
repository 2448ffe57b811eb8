//! What is written where, what is written twice, and where nothing may be written.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::sync::mpsc;

use serde_json::json;

use super::*;
use crate::deliver::guard::{Lookup, Settings as GuardSettings};
use crate::domain::{ProfileNo, Timestamp};

/// Every name is this machine.
#[derive(Debug)]
struct Loopback;

impl Lookup for Loopback {
    fn lookup(&self, _: String) -> BoxFuture<'static, std::io::Result<Vec<IpAddr>>> {
        Box::pin(async { Ok(vec![Ipv4Addr::LOCALHOST.into()]) })
    }
}

fn reach(folder: Option<&Path>) -> Reach {
    let settings = GuardSettings { allow_hosts: vec!["store.test".to_owned()], ..GuardSettings::default() };
    Reach {
        guard: Arc::new(Guard::new(&settings)),
        lookup: Arc::new(Loopback),
        folder: folder.map(Path::to_path_buf),
        timeout: Duration::from_secs(5),
    }
}

/// Objects by name, for looking at what was written.
async fn written(kind: &FileKind) -> BTreeMap<String, String> {
    use futures_util::TryStreamExt;
    let found: Vec<_> = kind.store.list(None).try_collect().await.expect("list");
    let mut objects = BTreeMap::new();
    for object in found {
        let bytes = kind.store.get(&object.location).await.expect("get").bytes().await.expect("bytes");
        objects.insert(object.location.to_string(), String::from_utf8(bytes.to_vec()).expect("text"));
    }
    objects
}

fn object(value: Value) -> Map<String, Value> {
    let Value::Object(object) = value else { panic!("an object") };
    object
}

fn item(id: &str, at: &str) -> Item {
    Item {
        id: id.to_owned(),
        profile: ProfileNo(1),
        profile_id: "prf_1".to_owned(),
        at: Timestamp::parse(at).expect("time"),
        attempts: 0,
        event: json!({"type": "identify", "messageId": id, "traits": {"text": "two\nlines"}}),
    }
}

fn items() -> [Item; 3] {
    [
        item("a", "2026-01-02T03:59:59.999Z"),
        item("b", "2026-01-02T03:59:59.999Z"),
        item("c", "2026-01-02T04:00:00Z"),
    ]
}

#[tokio::test]
async fn one_object_for_each_batch_and_hour() {
    let folder = tempfile::tempdir().expect("folder");
    let settings = object(json!({"folder": "exports/a", "prefix": "personas"}));
    let kind = FileKind::open(&settings, &reach(Some(folder.path()))).expect("settings");
    let sent = kind.send(&items()).await;
    assert_eq!(sent.verdicts, vec![Verdict::Delivered; 3]);
    assert_eq!(
        sent.exchanges.iter().map(|exchange| exchange.items.clone()).collect::<Vec<_>>(),
        [vec![0, 1], vec![2]]
    );
    let first = written(&kind).await;
    let names: Vec<&str> = first.keys().map(|name| name.rsplit_once('-').expect("hash").0).collect();
    assert_eq!(
        names,
        ["personas/2026/01/02/03/20260102T035959999Z", "personas/2026/01/02/04/20260102T040000000Z"]
    );
    let lines: Vec<Value> = first
        .values()
        .flat_map(|text| text.lines())
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(lines, items().map(|item| item.event));
    // Sent again it replaces itself; another batch is another object.
    kind.send(&items()).await;
    assert_eq!(written(&kind).await, first);
    kind.send(&items()[..1]).await;
    assert_eq!(written(&kind).await.len(), 3);
    let on_disk = folder.path().join("exports/a/personas/2026/01/02/03");
    assert!(
        std::fs::read_dir(on_disk)
            .expect("folder")
            .flatten()
            .all(|entry| { entry.path().extension().is_some_and(|extension| extension == "ndjson") })
    );
}

#[tokio::test]
async fn a_folder_that_cannot_be_written_is_tried_again() {
    let folder = tempfile::tempdir().expect("folder");
    let kind =
        FileKind::open(&object(json!({"folder": "a"})), &reach(Some(folder.path()))).expect("settings");
    // A file stands where the folder of the year has to be.
    std::fs::write(folder.path().join("a/2026"), "").expect("file");
    let sent = kind.send(&items()[..1]).await;
    assert!(matches!(&sent.verdicts[..], [Verdict::Retry { .. }]), "{:?}", sent.verdicts);
}

#[tokio::test]
async fn an_s3_store_is_asked_to_put_it() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("listener");
    let port = listener.local_addr().expect("address").port();
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        for (connection, status) in
            listener.incoming().flatten().zip(["200 OK", "403 Forbidden", "503 Slow Down"])
        {
            let mut connection = connection;
            let mut read = Vec::new();
            let mut buffer = [0; 4096];
            while !read.ends_with(b"}\n") {
                let length = connection.read(&mut buffer).expect("request");
                read.extend_from_slice(&buffer[..length]);
            }
            tell.send(String::from_utf8(read).expect("text")).expect("told");
            let head =
                format!("HTTP/1.1 {status}\r\nETag: \"x\"\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
            connection.write_all(head.as_bytes()).expect("answer");
        }
    });
    let settings = object(json!({
        "bucket": "the-bucket", "endpoint": format!("http://store.test:{port}"),
        "access_key_id": "AKIA", "secret_access_key": "s3cret",
    }));
    let kind = FileKind::open(&settings, &reach(None)).expect("settings");
    let batch = &items()[..1];
    assert_eq!(kind.send(batch).await.verdicts, [Verdict::Delivered]);
    let request = told.recv().expect("request");
    assert!(request.starts_with("PUT /the-bucket/2026/01/02/03/20260102T035959999Z-"), "{request}");
    assert!(request.contains("Credential=AKIA/") && !request.contains("s3cret"), "{request}");
    assert!(request.ends_with(&format!("{}\n", batch[0].event)), "{request}");
    assert!(
        matches!(&kind.send(batch).await.verdicts[..], [Verdict::Rejected(reason)] if reason.code == "403")
    );
    assert!(matches!(&kind.send(batch).await.verdicts[..], [Verdict::Retry { .. }]));
}

#[test]
fn settings_are_judged_when_they_are_saved() {
    let folder = tempfile::tempdir().expect("folder");
    std::os::unix::fs::symlink("/", folder.path().join("link")).expect("link");
    let s3 = |field: &str, value: &str| {
        let mut settings = json!({"bucket": "b", "access_key_id": "a", "secret_access_key": "s"});
        settings[field] = json!(value);
        settings
    };
    for (settings, field) in [
        (json!({}), "folder"),
        (json!({"folder": "a", "bucket": "b"}), "folder"),
        (json!({"folder": ""}), "folder"),
        (json!({"folder": "/etc"}), "folder"),
        (json!({"folder": "a/../../b"}), "folder"),
        (json!({"folder": "link/tmp"}), "folder"),
        (json!({"folder": "a", "batch_max": 0}), "batch_max"),
        (json!({"folder": "a", "prefix": "a//b"}), "prefix"),
        (json!({"surprise": 1}), "settings"),
        (json!({"bucket": "b"}), "access_key_id"),
        (json!({"bucket": "b", "access_key_id": "a"}), "secret_access_key"),
        (s3("bucket", "evil.example/x"), "bucket"),
        (s3("region", "x@y"), "region"),
        (s3("endpoint", "http://169.254.169.254"), "endpoint"),
        (s3("endpoint", "http://localhost:9000"), "endpoint"),
        (s3("endpoint", "nonsense"), "endpoint"),
    ] {
        let wrong =
            FileKind::open(&object(settings.clone()), &reach(Some(folder.path()))).expect_err("refused");
        assert_eq!(wrong[0].field, field, "{settings}: {wrong:?}");
    }
    let wrong = FileKind::open(&object(json!({"folder": "a"})), &reach(None)).expect_err("refused");
    assert!(wrong[0].message.contains("egress.folder"), "{wrong:?}");
}
