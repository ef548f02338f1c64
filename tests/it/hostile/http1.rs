//! Oversize and malformed requests over HTTP/1.1.

use crate::support::{Cluster, Peace, Raw};

/// What is sent, and the statuses that may come back; an empty list means any refusal. A
/// connection closed without a reply is always right.
struct Case {
    told: String,
    bytes: Vec<u8>,
    statuses: &'static [u16],
}

fn case(told: &str, bytes: impl Into<Vec<u8>>, statuses: &'static [u16]) -> Case {
    Case { told: told.to_owned(), bytes: bytes.into(), statuses }
}

fn get(target: &str, statuses: &'static [u16]) -> Case {
    let told: String = target.chars().take(80).collect();
    case(&format!("GET {told}"), format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"), statuses)
}

/// A write with these head lines and this body.
fn put(told: &str, head: &str, body: impl AsRef<[u8]>, statuses: &'static [u16]) -> Case {
    let mut bytes = format!("PUT /key/never HTTP/1.1\r\nHost: a\r\n{head}\r\n").into_bytes();
    bytes.extend_from_slice(body.as_ref());
    case(told, bytes, statuses)
}

/// A write of this text with its true length.
fn json(told: &str, text: &str) -> Case {
    put(told, &format!("Content-Length: {}\r\n", text.len()), text, &[400])
}

fn heads() -> Vec<Case> {
    let header = |line: &[u8]| [b"GET /key/a HTTP/1.1\r\nHost: a\r\n", line, b"\r\n\r\n"].concat();
    let many = "X: 1\r\n".repeat(200);
    vec![
        case("bytes that are no HTTP", b"\x00\x01\xff\xfe\x7f\r\n\r\n".as_slice(), &[400]),
        case("a TLS hello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n".as_slice(), &[400]),
        case("only line ends, then nonsense", "\r\n\r\n\r\nfoo\r\n\r\n", &[400]),
        case("a version that does not exist", "GET / HTTP/9.9\r\n\r\n", &[400]),
        case("no version", "GET /key/a\r\n\r\n", &[400]),
        case("an invented method", "BREW /key/a HTTP/1.1\r\nHost: a\r\n\r\n", &[405]),
        case("a method with a NUL", "GE\0T /key/a HTTP/1.1\r\nHost: a\r\n\r\n", &[400]),
        case("a method of 10,000 letters", format!("{} / HTTP/1.1\r\n\r\n", "A".repeat(10_000)), &[400, 404]),
        case("CONNECT", "CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n", &[400, 404, 405]),
        case(
            "bytes that are not UTF-8 in the path",
            b"GET /key/\xff\xfe HTTP/1.1\r\n\r\n".as_slice(),
            &[400],
        ),
        case("a space in the path", "GET /key/a b HTTP/1.1\r\n\r\n", &[400]),
        case("200 headers", header(many.trim_end().as_bytes()), &[431]),
        case("a header of 70 KiB", header(format!("X: {}", "x".repeat(70 * 1024)).as_bytes()), &[431]),
        case("a path of 70 KiB", format!("GET /key/{} HTTP/1.1\r\n\r\n", "k".repeat(70 * 1024)), &[414, 431]),
        case("a header's name with a space", header(b"X Y: 1"), &[400]),
        case("a header without a colon", header(b"nonsense"), &[400]),
        case("a NUL in a header", header(b"X: a\0b"), &[400]),
        case("a folded header", header(b"X: a\r\n b"), &[400, 404]),
        case("two different lengths", header(b"Content-Length: 1\r\nContent-Length: 2"), &[400]),
        case("an upgrade to HTTP/2", header(b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c"), &[404]),
    ]
}

fn targets() -> Vec<Case> {
    let mut cases = vec![
        get("/key/%2F", &[404]),
        get("/key/%00", &[404]),
        get("/key/%ff%fe", &[400]),
        get("/key/%c0%af", &[400]),
        get("/key/%", &[400]),
        get("/key/%4", &[400]),
        get("/key/%zz", &[400]),
        get("/key/", &[400]),
        get("/key/..", &[404]),
        get("/key/../../etc/passwd", &[404]),
        get("/key/..%2f..%2fetc%2fpasswd", &[404]),
        get("/status/../key/a", &[404]),
        get("//status", &[404]),
        get("*", &[400, 404]),
        get("http://elsewhere:1/key/absent", &[404]),
        get(&format!("/key/{}", "k".repeat(4097)), &[414]),
        get(&format!("/key/{}", "%41".repeat(4097)), &[414]),
        get("/v1/keys?limit=10001", &[400]),
        get("/v1/keys?limit=99999999999999999999", &[400]),
        get("/v1/keys?start=%zz", &[400]),
        get("/v1/changes?since=-1", &[400]),
        get("/v1/lab/network", &[404]),
        get("/status?limit=1001", &[400]),
        get("/key/a?revision=18446744073709551615", &[400]),
        get("/key/a?min_revision=18446744073709551615&timeout=1ms", &[504]),
        get(&format!("/key/a?{}", "x=1&".repeat(5000)), &[400]),
    ];
    let compact = "POST /v1/compact?revision=-1 HTTP/1.1\r\nHost: a\r\n\r\n";
    cases.push(case("a compaction of nothing", compact, &[400]));
    cases
}

fn bodies() -> Vec<Case> {
    let chunked = "Transfer-Encoding: chunked\r\n";
    let extension = format!("1;{}\r\n1\r\n0\r\n\r\n", "e".repeat(200 * 1024));
    let trailers = format!("1\r\n[\r\n0\r\n{}\r\n", "T: 1\r\n".repeat(20_000));
    let endless = format!("{:x}\r\n{}\r\n", 65536, "1".repeat(65536)).repeat(40);
    vec![
        json("brackets 200,000 deep", &"[".repeat(200_000)),
        json("closed brackets 200,000 deep", &format!("{}{}", "[".repeat(200_000), "]".repeat(200_000))),
        json("objects 100,000 deep", &format!("{}1{}", "{\"a\":".repeat(100_000), "}".repeat(100_000))),
        json("brackets 129 deep", &format!("{}{}", "[".repeat(129), "]".repeat(129))),
        json("no JSON", "nul"),
        json("two values", "1 2"),
        json("a control character in a string", "\"\n\""),
        put("bytes that are not UTF-8", "Content-Length: 4\r\n", b"\"\xff\xfe\"", &[400]),
        put("a negative length", "Content-Length: -1\r\n", "1", &[400]),
        put("a length in letters", "Content-Length: many\r\n", "1", &[400]),
        put("a length beyond 64 bits", "Content-Length: 18446744073709551616\r\n", "1", &[400]),
        put("a length of a petabyte", "Content-Length: 1125899906842624\r\n", "1", &[413]),
        put(
            "the same, and asking first",
            "Content-Length: 1125899906842624\r\nExpect: 100-continue\r\n",
            "",
            &[413],
        ),
        put("a body longer than its length", "Content-Length: 3\r\n", "nulGARBAGE\r\n\r\n", &[400]),
        put(
            "a length, and chunks",
            &format!("Content-Length: 3\r\n{chunked}"),
            "3\r\nnul\r\n0\r\n\r\n",
            &[400],
        ),
        put("chunks twice", &format!("{chunked}{chunked}"), "zz\r\n", &[400]),
        put("an encoding that nobody knows", "Transfer-Encoding: rot13\r\n", "1", &[400]),
        put("a chunk without a size", chunked, "zz\r\n1\r\n", &[400]),
        put("a chunk beyond 64 bits", chunked, "fffffffffffffffff\r\n1\r\n", &[400]),
        put("a chunk whose end is missing", chunked, "1\r\n1XX0\r\n\r\n", &[400]),
        put("a chunk's endless extension", chunked, extension, &[400]),
        put("20,000 trailers", chunked, trailers, &[400]),
        put("chunks beyond the largest body", chunked, endless, &[413]),
        put("a condition that is none", "If-Match: 7\r\nContent-Length: 1\r\n", "1", &[400]),
        put("two conditions", "If-Match: *\r\nIf-None-Match: *\r\nContent-Length: 1\r\n", "1", &[400]),
    ]
}

/// On a leader and on a follower: a follower may also refuse a write as one.
async fn try_all(cases: Vec<Case>) {
    let cluster = Cluster::started(3, &[]).await;
    let peace = Peace::of(&cluster).await;
    let mut wrong = Vec::new();
    for node in [peace.leader(), (peace.leader() + 1) % 3] {
        for Case { told, bytes, statuses } in &cases {
            let heard = Raw::exchange(cluster.port(node), bytes).await;
            let right = match heard.status() {
                Some(status) => statuses.contains(&status) || (status == 503 && node != peace.leader()),
                None => heard.closed,
            };
            if !right {
                let text: String = heard.text().chars().take(200).collect();
                wrong.push(format!(
                    "{told}, on {}: expected {statuses:?}, heard {text:?}",
                    cluster.name(node)
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    peace.expect_untouched(&cluster, "malformed HTTP/1.1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_heads_and_targets_are_refused_and_change_nothing() {
    try_all(heads().into_iter().chain(targets()).collect()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_bodies_are_refused_and_change_nothing() {
    try_all(bodies()).await;
}

/// A body that ends before its length is no value, however well it looks.
#[tokio::test(flavor = "multi_thread")]
async fn a_body_cut_short_is_not_written() {
    let cluster = Cluster::started(3, &[]).await;
    let peace = Peace::of(&cluster).await;
    for head in ["Content-Length: 100\r\n\r\n123", "Transfer-Encoding: chunked\r\n\r\n3\r\n123\r\n"] {
        let mut client = Raw::connect(cluster.port(peace.leader())).await.expect("the leader listens");
        assert!(client.send(format!("PUT /key/cut HTTP/1.1\r\nHost: a\r\n{head}").as_bytes()).await);
        client.half_close().await;
        let heard = client.hear_end().await;
        assert!(matches!(heard.status(), None | Some(400)) && heard.closed, "{heard:?}");
    }
    peace.expect_untouched(&cluster, "bodies cut short").await;
}

/// Requests sent in one go are all answered, in order, and no faster than they are read.
#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_requests_in_one_breath_are_answered_in_order() {
    const REQUESTS: usize = 10_000;
    let node = Cluster::started(1, &[]).await;
    let client = Raw::connect(node.port(0)).await.expect("the node listens");
    let answers = client.pipeline("GET /livez HTTP/1.1\r\nHost: a\r\n\r\n", REQUESTS, "\r\n\r\nok").await;
    assert_eq!(answers, REQUESTS);
}
