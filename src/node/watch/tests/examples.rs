//! What a watcher is told, case by case.

use super::*;

#[tokio::test]
async fn changes_reach_those_who_watch_the_key_and_no_others() {
    let mut bench = Bench::new();
    let (hub, _) = hub(&bench, Limits::default());
    let mut streams = Vec::new();
    for subject in [one("a"), one("b"), everything()] {
        let mut stream = hub.open().expect("room");
        stream.create(spec(subject, None)).expect("created");
        streams.push(stream);
    }
    bench.apply(vec![put("a", "1"), put("c", "2"), delete("a", "")]);
    feed_all(&hub);
    let told = streams.iter().map(|stream| told(&take_all(stream))).collect::<Vec<_>>();
    assert_eq!(told, [vec!["1 -"], vec![], vec!["1 2 -"]]);
}

#[tokio::test]
async fn a_watch_from_the_past_begins_there_and_goes_on() {
    let mut bench = Bench::new();
    bench.apply(vec![put("a", "1"), put("a", "2"), put("b", "x"), put("a", "3")]);
    let (hub, metrics) = hub(&bench, Limits::default());
    let mut stream = hub.open().expect("room");
    stream.create(spec(one("a"), Some(3))).expect("created");
    assert_eq!(told(&take_all(&stream)), ["2 3"]);
    bench.apply(vec![put("a", "4")]);
    feed_all(&hub);
    assert_eq!(told(&take_all(&stream)), ["4"]);
    assert_eq!((metrics.slow_watchers.get(), metrics.watch_events.get()), (0, 3));
}

#[tokio::test]
async fn a_watch_from_the_future_waits_for_it() {
    let mut bench = Bench::new();
    let (hub, _) = hub(&bench, Limits::default());
    let mut stream = hub.open().expect("room");
    stream.create(spec(one("a"), Some(4))).expect("created");
    for value in ["2", "3", "4", "5"] {
        bench.apply(vec![put("a", value)]);
        feed_all(&hub);
        let expected: &[&str] = if value < "4" { &[] } else { &[value] };
        assert_eq!(told(&take_all(&stream)), expected);
    }
}

#[tokio::test]
async fn a_watch_from_now_on_skips_what_the_feed_has_yet_to_hand_out() {
    let mut bench = Bench::new();
    let (hub, _) = hub(&bench, Limits::default());
    let mut other = hub.open().expect("room");
    other.create(spec(one("a"), None)).expect("created");
    bench.apply(vec![put("a", "before")]);
    let mut stream = hub.open().expect("room");
    stream.create(spec(one("a"), None)).expect("created");
    bench.apply(vec![put("a", "after")]);
    feed_all(&hub);
    assert_eq!(told(&take_all(&stream)), ["after"]);
    assert_eq!(told(&take_all(&other)), ["before after"]);
}

#[tokio::test]
async fn filters_leave_out_puts_or_deletes() {
    let mut bench = Bench::new();
    let (hub, _) = hub(&bench, Limits::default());
    let mut stream = hub.open().expect("room");
    for (puts, deletes) in [(true, false), (false, true), (false, false)] {
        let subject = Subject { puts, deletes, ..one("a") };
        stream.create(spec(subject, None)).expect("created");
    }
    bench.apply(vec![put("a", "1"), delete("a", ""), put("a", "2")]);
    feed_all(&hub);
    assert_eq!(told(&take_all(&stream)), ["1 2", "-"]);
}

#[tokio::test]
async fn who_wants_it_sees_what_was_replaced_even_if_it_is_in_the_table() {
    let mut bench = Bench::new();
    bench.apply(vec![put("a", "old")]);
    bench.flush().await;
    let (hub, _) = hub(&bench, Limits::default());
    let mut stream = hub.open().expect("room");
    stream.create(spec(Subject { previous: true, ..one("a") }, None)).expect("created");
    stream.create(spec(one("a"), None)).expect("created");
    bench.apply(vec![put("a", "new"), delete("a", ""), put("a", "again")]);
    feed_all(&hub);
    let previous = |delivery: &Delivery| match delivery {
        Delivery::Events { events, .. } => decode(events)
            .into_iter()
            .map(|event| event.prev_kv.map(|kv| kv.value).unwrap_or_default())
            .collect::<Vec<_>>(),
        other => panic!("no events: {other:?}"),
    };
    let deliveries = take_all(&stream);
    assert_eq!(previous(&deliveries[0]), ["old", "new", ""]);
    assert_eq!(previous(&deliveries[1]), ["", "", ""]);
}

#[tokio::test]
async fn ids_are_chosen_by_either_side_and_are_unique() {
    let bench = Bench::new();
    let (hub, _) = hub(&bench, Limits::default());
    let mut stream = hub.open().expect("room");
    let mut create = |id| stream.create(WatchSpec { id, ..spec(one("a"), None) });
    assert_eq!(create(Some(1)), Ok(1));
    assert_eq!(create(None), Ok(0));
    assert_eq!(create(None), Ok(2));
    assert_eq!(create(Some(1)), Err(RefusedWatch::DuplicateId));
    assert!(stream.cancel(1) && !stream.cancel(1));
    assert_eq!(stream.create(WatchSpec { id: Some(1), ..spec(one("a"), None) }), Ok(1));
}

#[tokio::test]
async fn a_cancelled_watch_hears_nothing_and_leaves_nothing() {
    let mut bench = Bench::new();
    let (hub, metrics) = hub(&bench, Limits::default());
    let mut stream = hub.open().expect("room");
    let id = stream.create(spec(one("a"), None)).expect("created");
    bench.apply(vec![put("a", "1")]);
    feed_all(&hub);
    assert!(stream.cancel(id));
    assert_eq!(take_all(&stream), []);
    assert_eq!(metrics.watchers.get(), 0);
    assert_eq!(hub.inner.state.lock().window_bytes(), 0);
    drop(stream);
    assert_eq!(metrics.watch_streams.get(), 0);
}

#[tokio::test]
async fn a_watch_below_the_compacted_revision_is_cancelled() {
    let mut bench = Bench::new();
    bench.apply(vec![put("a", "1"), put("a", "2"), put("a", "3"), compact(3)]);
    let (hub, metrics) = hub(&bench, Limits::default());
    let mut stream = hub.open().expect("room");
    stream.create(spec(one("a"), Some(2))).expect("created");
    let told_now = told(&take_all(&stream));
    assert_eq!(told_now.len(), 1);
    assert!(told_now[0].starts_with("compacted"), "{told_now:?}");
    assert_eq!((metrics.watchers.get(), metrics.slow_watchers.get()), (0, 0));
    // What it is told can be watched, can be.
    let oldest = told_now[0].trim_start_matches("compacted ").parse().expect("a revision");
    stream.create(spec(one("a"), Some(oldest))).expect("created");
    assert!(told(&take_all(&stream))[0].ends_with('3'));
}

#[tokio::test]
async fn a_slow_watcher_costs_no_memory_and_misses_nothing() {
    const CHANGES: usize = 2_000;
    let limits = Limits { window_bytes: 4_000, ..Limits::default() };
    let mut bench = Bench::new();
    let (hub, metrics) = hub(&bench, limits.clone());
    let [mut slow, mut fast] = [(); 2].map(|()| hub.open().expect("room"));
    slow.create(spec(everything(), None)).expect("created");
    fast.create(spec(everything(), None)).expect("created");
    let mut heard = 0;
    for n in 0..CHANGES {
        bench.apply(vec![put(format!("key {}", n % 7), format!("{n}"))]);
        feed_all(&hub);
        heard += told(&take_all(&fast)).len();
        assert!(hub.inner.state.lock().window_bytes() <= limits.window_bytes);
    }
    assert_eq!(heard, CHANGES, "the slow one held the fast one back");
    let first = take(&slow).expect("a page");
    assert_eq!(metrics.slow_watchers.get(), 1);
    let rest = told(&take_all(&slow)).join(" ");
    let all = format!("{} {rest}", told(&[first]).join(" "));
    assert_eq!(all, (0..CHANGES).map(|n| n.to_string()).collect::<Vec<_>>().join(" "));
    assert_eq!(metrics.slow_watchers.get(), 0);
    assert_eq!(hub.inner.state.lock().window_bytes(), 0);
}

#[tokio::test]
async fn one_revision_is_one_response_however_large() {
    let limits = Limits { response_bytes: 1, ..Limits::default() };
    let mut bench = Bench::new();
    let (hub, _) = hub(&bench, limits);
    let mut stream = hub.open().expect("room");
    stream.create(spec(everything(), None)).expect("created");
    let pair = |n: u32| (Bytes::from(format!("key {n}")), Bytes::from(n.to_string()));
    bench.apply(vec![puts(&[pair(1), pair(2), pair(3)]), put("key 4", "4")]);
    feed_all(&hub);
    assert_eq!(told(&take_all(&stream)), ["1 2 3", "4"]);
}

#[tokio::test]
async fn a_bookmark_comes_after_everything_up_to_it() {
    let mut bench = Bench::new();
    let (hub, _) = hub(&bench, Limits { response_bytes: 1, ..Limits::default() });
    let mut stream = hub.open().expect("room");
    stream.create(spec(one("a"), None)).expect("created");
    stream.create(spec(one("b"), None)).expect("created");
    bench.apply(vec![put("a", "1"), put("b", "2"), put("a", "3")]);
    // The feed has not come yet, so there is nothing to say.
    stream.ask_progress();
    assert_eq!(take(&stream), None);
    feed_all(&hub);
    let deliveries = told(&take_all(&stream));
    assert_eq!(deliveries.last().map(String::as_str), Some("progress None 4"), "{deliveries:?}");
    assert_eq!(deliveries.len(), 4);
    stream.ask_progress();
    assert_eq!(told(&take_all(&stream)), ["progress None 4"]);
}

#[tokio::test]
async fn a_quiet_watch_hears_the_revision_now_and_then() {
    tokio::time::pause();
    let mut bench = Bench::new();
    let (hub, _) = hub(&bench, Limits::default());
    let mut stream = hub.open().expect("room");
    let wants = WatchSpec { progress: true, ..spec(one("a"), None) };
    let id = stream.create(wants).expect("created");
    stream.create(spec(one("b"), None)).expect("created");
    bench.apply(vec![put("c", "1")]);
    feed_all(&hub);
    assert_eq!(stream.next().await, Ok(Delivery::Progress { id: Some(id), revision: 2 }));
    // Something happened: the next time passes in silence, the one after it does not.
    bench.apply(vec![put("a", "2")]);
    feed_all(&hub);
    let before = tokio::time::Instant::now();
    assert!(matches!(stream.next().await, Ok(Delivery::Events { .. })));
    assert_eq!(stream.next().await, Ok(Delivery::Progress { id: Some(id), revision: 3 }));
    assert!(before.elapsed() > Limits::default().progress_interval);
}

#[tokio::test]
async fn limits_are_refused_clearly_and_what_ends_makes_room() {
    let limits = Limits { streams: 2, watches_per_stream: 2, watches: 3, key_bytes: 20, ..Limits::default() };
    let bench = Bench::new();
    let (hub, _) = hub(&bench, limits);
    let (mut one_stream, mut other) = (hub.open().expect("room"), hub.open().expect("room"));
    assert_eq!(hub.open().err(), Some(RefusedWatch::TooManyStreams(2)));
    let long = subject(KeyRange::One("a key of more than twenty bytes".into()));
    assert_eq!(one_stream.create(spec(long, None)), Err(RefusedWatch::TooManyKeyBytes(20)));
    let first = one_stream.create(spec(one("a"), None)).expect("room");
    one_stream.create(spec(one("a"), None)).expect("room");
    assert_eq!(one_stream.create(spec(one("a"), None)), Err(RefusedWatch::TooManyOnStream(2)));
    other.create(spec(one("a"), None)).expect("room");
    assert_eq!(other.create(spec(one("a"), None)), Err(RefusedWatch::TooMany(3)));
    assert!(one_stream.cancel(first));
    other.create(spec(one("a"), None)).expect("room again");
    drop(one_stream);
    hub.open().expect("room again");
}

#[tokio::test]
async fn when_the_node_stops_all_streams_end() {
    let bench = Bench::new();
    let (hub, _) = hub(&bench, Limits::default());
    let mut stream = hub.open().expect("room");
    stream.create(spec(one("a"), None)).expect("created");
    let waiting = tokio::spawn(async move { stream.next().await });
    tokio::task::yield_now().await;
    hub.end(Ended::Stopping);
    assert_eq!(waiting.await.expect("no panic"), Err(Ended::Stopping));
}

/// The feed wakes whoever waits, and ends the streams when it can't go on.
#[tokio::test]
async fn the_feed_follows_what_is_applied() {
    let mut bench = Bench::new();
    let (hub, _) = hub(&bench, Limits::default());
    let applied = tokio::sync::watch::Sender::new(None);
    let feeding = tokio::spawn({
        let (hub, applied) = (hub.clone(), applied.subscribe());
        async move { hub.feed(applied, || true).await }
    });
    let mut stream = hub.open().expect("room");
    let id = stream.create(spec(one("a"), None)).expect("created");
    for revision in 2..5 {
        bench.apply(vec![put("a", "x")]);
        applied.send_replace(bench.store.applied().last);
        let Ok(Delivery::Events { revision: upto, .. }) = stream.next().await else { panic!("no events") };
        assert_eq!((upto, id), (revision, 0));
    }
    drop(applied);
    feeding.await.expect("no panic");
    assert_eq!(stream.next().await, Err(Ended::Stopping));
}

#[tokio::test]
async fn a_state_that_cannot_be_trusted_is_not_shown() {
    let mut bench = Bench::new();
    let (hub, _) = hub(&bench, Limits::default());
    let mut stream = hub.open().expect("room");
    stream.create(spec(one("a"), None)).expect("created");
    bench.apply(vec![put("a", "1")]);
    let applied = tokio::sync::watch::Sender::new(None);
    hub.feed(applied.subscribe(), || false).await;
    assert_eq!(stream.next().await, Err(Ended::Unsound));
}
