//! Receivers that mean no good, or cannot do better: each call ends in time, with little read, and is told by its name.

use std::io::Write;
use std::net::{Shutdown, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use personas::deliver::http::{BODY_MAX, Code};

use crate::egress::{answering, call, read_request, receiver, request, transport};

/// How long a call may take in these tests, and how much longer it is let to notice.
const TIMEOUT_MS: u64 = 400;
const SLACK: Duration = Duration::from_secs(2);

async fn fails_with(port: u16, code: Code) {
    let started = Instant::now();
    let failure = call(port, TIMEOUT_MS).await.expect_err(code.as_str());
    assert_eq!(failure.code, code, "{failure}");
    assert!(started.elapsed() < Duration::from_millis(TIMEOUT_MS) + SLACK, "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_receiver_that_says_nothing_is_not_waited_for() {
    let port = receiver(|mut connection| {
        read_request(&mut connection);
        thread::sleep(Duration::from_secs(30));
        drop(connection);
    });
    fails_with(port, Code::TimedOut).await;
}

#[tokio::test]
async fn one_byte_at_a_time_is_not_waited_for() {
    let slow = |text: &'static str| {
        receiver(move |mut connection| {
            read_request(&mut connection);
            for byte in text.bytes().cycle() {
                if connection.write_all(&[byte]).is_err() {
                    return;
                }
                thread::sleep(Duration::from_millis(100));
            }
        })
    };
    fails_with(slow("HTTP/1.1 200 OK\r\nX: "), Code::TimedOut).await;
    let port = receiver(|mut connection| {
        read_request(&mut connection);
        connection.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n").unwrap();
        while connection.write_all(b"x").is_ok() {
            thread::sleep(Duration::from_millis(100));
        }
    });
    fails_with(port, Code::TimedOut).await;
}

#[tokio::test]
async fn of_an_endless_body_little_is_read() {
    let written = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&written);
    let port = receiver(move |mut connection| {
        read_request(&mut connection);
        connection
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 10000000000\r\n\r\n")
            .unwrap();
        let chunk = [b'x'; 8192];
        while connection.write_all(&chunk).is_ok() {
            counted.fetch_add(chunk.len(), Ordering::SeqCst);
        }
        counted.fetch_add(1, Ordering::SeqCst);
    });
    let answer = call(port, 5_000).await.unwrap();
    assert_eq!((answer.status, answer.body.len()), (200, BODY_MAX));
    // An odd number: the receiver has noticed that nobody listens any more. What it wrote is in the system's buffers.
    let until = Instant::now() + Duration::from_secs(5);
    while written.load(Ordering::SeqCst).is_multiple_of(2) {
        assert!(Instant::now() < until, "the connection is still open");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(written.load(Ordering::SeqCst) < 16 << 20, "{}", written.load(Ordering::SeqCst));
}

#[tokio::test]
async fn endless_headers_are_not_read() {
    for line in
        ["X-Many: 1\r\n".to_owned(), format!("X-Large: {}\r\n", "x".repeat(1 << 20)), "x".repeat(1 << 20)]
    {
        let port = receiver(move |mut connection| {
            read_request(&mut connection);
            let mut is_open = connection.write_all(b"HTTP/1.1 200 OK\r\n").is_ok();
            while is_open {
                is_open = connection.write_all(line.as_bytes()).is_ok();
            }
        });
        fails_with(port, Code::Protocol).await;
    }
    let port = receiver(|mut connection| {
        read_request(&mut connection);
        while connection.write_all(b"HTTP/1.1 103 Early Hints\r\n\r\n").is_ok() {}
    });
    fails_with(port, Code::TimedOut).await;
}

#[tokio::test]
async fn what_is_not_http_is_told() {
    fails_with(answering("SSH-2.0-OpenSSH_9.2\r\n"), Code::Protocol).await;
    fails_with(answering("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"), Code::Protocol)
        .await;
}

#[tokio::test]
async fn cut_connections_are_told() {
    let port = receiver(|mut connection| {
        read_request(&mut connection);
        connection.shutdown(Shutdown::Both).unwrap();
    });
    fails_with(port, Code::Reset).await;
    // Closed with unread bytes the system answers with a reset.
    fails_with(receiver(drop), Code::Reset).await;
    fails_with(answering("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"), Code::Reset).await;
    fails_with(answering("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhal"), Code::Reset).await;
}

#[tokio::test]
async fn nobody_there_is_told() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    fails_with(port, Code::Refused).await;
    let transport = transport(vec![80], Duration::from_secs(5));
    let failure = transport.call(&request("http://nowhere.example/")).await.expect_err("no such name");
    assert_eq!(failure.code, Code::NotFound, "{failure}");
}

#[tokio::test]
async fn tls_that_cannot_be_agreed_upon_is_told() {
    for greeting in ["HTTP/1.1 400 Bad Request\r\n\r\n", "\u{15}\u{3}\u{3}\0\u{2}\u{2}\u{28}"] {
        let port = receiver(move |mut connection| {
            let mut hello = [0; 64];
            std::io::Read::read(&mut connection, &mut hello).unwrap();
            connection.write_all(greeting.as_bytes()).unwrap();
            thread::sleep(Duration::from_millis(200));
        });
        let transport = transport(vec![port], Duration::from_secs(5));
        let url = format!("https://receiver.test:{port}/");
        let failure = transport.call(&request(&url)).await.expect_err("no TLS");
        assert_eq!(failure.code, Code::Tls, "{failure}");
    }
}

#[tokio::test]
async fn retry_after_is_seconds_or_a_date() {
    for (headers, seconds) in [
        ("Retry-After: 120\r\n", Some(120)),
        ("retry-after:  7 \r\n", Some(7)),
        // By the receiver's clock, or else by ours, which stands at the new year of 2026.
        ("Date: Sun, 01 Mar 2026 10:00:00 GMT\r\nRetry-After: Sun, 01 Mar 2026 10:01:30 GMT\r\n", Some(90)),
        ("Retry-After: Thu, 01 Jan 2026 00:00:45 GMT\r\n", Some(45)),
        ("Retry-After: Mon, 01 Jan 2024 00:00:00 GMT\r\n", Some(0)),
        ("Retry-After: soon\r\n", None),
        ("Retry-After: -5\r\n", None),
        ("", None),
    ] {
        let port = answering(format!("HTTP/1.1 429 Too Many Requests\r\n{headers}Content-Length: 0\r\n\r\n"));
        let answer = call(port, 5_000).await.expect(headers);
        assert_eq!((answer.status, answer.retry_after), (429, seconds.map(Duration::from_secs)), "{headers}");
    }
}

#[tokio::test]
async fn a_body_of_just_the_longest_length_is_whole() {
    for length in [BODY_MAX - 1, BODY_MAX, BODY_MAX + 1] {
        let body = "é".repeat(length / 2) + &"x".repeat(length % 2);
        let port = answering(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}"));
        assert_eq!(call(port, 5_000).await.unwrap().body.len(), length.min(BODY_MAX));
    }
}
