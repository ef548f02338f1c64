//! Broken and flooding HTTP/2, frame by frame.

use crate::support::{Cluster, PATIENT, Peace, Peak, Raw, Request, Rng, alone, env_number};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// `GET / HTTP`, scheme http, authority a: names from HPACK's static table.
const GET: &[u8] = b"\x82\x84\x86\x41\x01a";
/// Frames of one flood: a client at full speed sends them in a moment.
const FLOOD: usize = 20_000;
/// What a node may take for one flood, however long it is. The buffers of one connection
/// are below 1 MiB; the rest is what an allocator keeps.
const MAX_GROWTH_BYTES: u64 = 64 * 1024 * 1024;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a short payload").to_be_bytes();
    let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
    [&head, payload].concat()
}

fn settings(id: u16, value: u32) -> Vec<u8> {
    frame(SETTINGS, 0, 0, &[&id.to_be_bytes()[..], &value.to_be_bytes()].concat())
}

fn hello() -> Vec<u8> {
    [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()
}

fn get(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_STREAM | END_HEADERS, stream, GET)
}

/// Client streams have odd numbers.
fn stream(number: usize) -> u32 {
    u32::try_from(2 * number + 1).expect("few streams")
}

/// Frames after the hello that break the protocol: each ends the connection.
fn broken() -> Vec<(&'static str, Vec<u8>)> {
    let header_block = |block: &[u8]| frame(HEADERS, END_STREAM | END_HEADERS, 1, block);
    vec![
        ("a frame of 16 MiB", b"\xff\xff\xff\x00\x00\x00\x00\x00\x01".to_vec()),
        ("data on stream 0", frame(DATA, 0, 0, b"x")),
        ("data on a stream that was never opened", frame(DATA, 0, 7, b"x")),
        ("a stream with an even number", get(2)),
        ("a stream number that goes down", [get(5), get(3)].concat()),
        ("headers on stream 0", get(0)),
        ("HPACK garbage", header_block(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff")),
        ("an HPACK index that is not there", header_block(b"\xfe")),
        ("a continuation of nothing", frame(CONTINUATION, END_HEADERS, 1, GET)),
        ("another frame amid headers", [frame(HEADERS, 0, 1, GET), frame(PING, 0, 0, &[0; 8])].concat()),
        ("settings of seven bytes", frame(SETTINGS, 0, 0, &[0; 7])),
        ("a window beyond the largest", settings(4, u32::MAX)),
        ("a frame size below the smallest", settings(5, 1)),
        ("a ping of three bytes", frame(PING, 0, 0, &[0; 3])),
        ("a window that grows by nothing", frame(WINDOW_UPDATE, 0, 0, &[0; 4])),
        ("a window that overflows", frame(WINDOW_UPDATE, 0, 0, &0x7fff_ffff_u32.to_be_bytes()).repeat(2)),
        ("a reset of a stream that was never opened", frame(RST_STREAM, 0, 9, &[0; 4])),
    ]
}

/// What is sent in a flood, and whether the server must end the connection for it.
fn floods() -> Vec<(&'static str, Vec<u8>, bool)> {
    let pings = frame(PING, 0, 0, &[7; 8]).repeat(FLOOD);
    let many_settings = settings(3, 100).repeat(FLOOD);
    let priorities: Vec<u8> =
        (0..FLOOD).flat_map(|n| frame(PRIORITY, 0, stream(n), &[0, 0, 0, 0, 1])).collect();
    // Rapid reset: every request is taken back at once, so no limit of requests at once holds.
    let resets: Vec<u8> = (0..FLOOD)
        .flat_map(|n| [get(stream(n)), frame(RST_STREAM, 0, stream(n), &[0, 0, 0, 8])].concat())
        .collect();
    // Headers that never end; each piece is a literal field of 16,000 bytes.
    let piece = [b"\x00\x01x\x7f\x81\x7c".as_slice(), &[b'v'; 16_000]].concat();
    let endless =
        [frame(HEADERS, END_STREAM, 1, GET), frame(CONTINUATION, 0, 1, &piece).repeat(2_000)].concat();
    // One large header into the dynamic table, then 10,000 times from there: 40 MB of headers.
    let bomb = [GET, b"\x40\x01x\x7f\xa1\x1e", &[b'v'; 4000], &vec![0xbe; 10_000]].concat();
    let bomb = frame(HEADERS, END_STREAM | END_HEADERS, 1, &bomb);
    let opened = frame(HEADERS, END_HEADERS, 1, GET);
    let empty_data = [opened, frame(DATA, 0, 1, &[]).repeat(FLOOD)].concat();
    vec![
        ("pings", pings, false),
        ("settings", many_settings, false),
        ("priorities", priorities, false),
        ("rapid resets", resets, true),
        ("headers without an end", endless, true),
        ("an HPACK bomb", bomb, false),
        ("empty data", empty_data, false),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_http2_ends_its_connection_and_changes_nothing() {
    let cluster = Cluster::started(3, &[]).await;
    let peace = Peace::of(&cluster).await;
    let port = cluster.port(peace.leader());
    let mut wrong = Vec::new();
    let mut cases = broken();
    cases.push(("a preface that goes wrong", b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n".to_vec()));
    for (told, frames) in cases {
        let bytes = if frames.starts_with(b"PRI") { frames } else { [hello(), frames].concat() };
        let mut client = Raw::connect(port).await.expect("the leader listens");
        client.send(&bytes).await;
        if !client.hear_end().await.closed {
            wrong.push(told);
        }
    }
    assert!(wrong.is_empty(), "the connection was kept after {wrong:#?}");
    peace.expect_untouched(&cluster, "broken HTTP/2").await;
}

/// Floods cost the flooder its connection, or nothing but time: others are served.
#[tokio::test(flavor = "multi_thread")]
async fn http2_floods_are_ended_or_borne_in_bounded_memory() {
    let _alone = alone().await;
    let cluster = Cluster::started(3, &[PATIENT]).await;
    let peace = Peace::of(&cluster).await;
    let port = cluster.port(peace.leader());
    for (told, frames, must_end) in floods() {
        let memory = Peak::watch(cluster.pid(peace.leader()));
        let mut flooder = Raw::connect(port).await.expect("the leader listens");
        // Nothing is read meanwhile: the answers pile up on the server's side.
        flooder.send(&[hello(), frames].concat()).await;
        cluster.get(peace.leader(), "/key/a?consistency=linearizable").await.expect(404);
        if must_end {
            assert!(flooder.hear_end().await.closed, "{told} did not end the connection");
        }
        drop(flooder);
        let grown = memory.growth();
        assert!(grown < MAX_GROWTH_BYTES, "{told} cost {grown} bytes");
        println!("{told}: {} KiB", grown / 1024);
    }
    peace.expect_untouched(&cluster, "floods over HTTP/2").await;
}

/// Frames with random heads and payloads, some sent to a node that speaks HTTP/2 already,
/// some from the first byte on.
#[tokio::test(flavor = "multi_thread")]
async fn random_bytes_change_nothing() {
    let seed = env_number("BELLWETHER_SEED", 1);
    println!("reproduce: BELLWETHER_SEED={seed} cargo test --test it random_bytes_change_nothing");
    let cluster = Cluster::started(3, &[]).await;
    let peace = Peace::of(&cluster).await;
    let mut rng = Rng::new(seed);
    for round in 0..300 {
        let mut bytes = if round % 3 == 0 { Vec::new() } else { hello() };
        for _ in 0..rng.below(20) {
            let payload: Vec<u8> = (0..rng.below(200)).map(|_| rng.next().to_le_bytes()[0]).collect();
            match round % 3 {
                2 => bytes.extend(frame(
                    rng.below(12) as u8,
                    rng.below(256) as u8,
                    rng.below(8) as u32,
                    &payload,
                )),
                _ => bytes.extend(payload),
            }
        }
        let mut client = Raw::connect(cluster.port(round % 3)).await.expect("the node listens");
        client.send(&bytes).await;
    }
    cluster.ask(peace.leader(), Request::get("/livez")).await.expect(200);
    peace.expect_untouched(&cluster, "random bytes").await;
}
