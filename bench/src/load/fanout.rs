//! Members wait in syncs of one room while others send into it: is everything told, once, in order, and how late?

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use futures_util::future::try_join_all;
use serde_json::json;

use super::{QUIET, Shape, register};
use crate::{
    http::Http,
    matrix::{User, text},
    report::{Running, Times, Watched},
};

/// What one member has received.
struct Received {
    times: Times,
    /// (sender, number) in the order of arrival.
    order: Vec<(u64, u64)>,
    polls: u64,
    limited: u64,
}

pub(super) async fn fan_out(http: &Http, watched: &Watched, shape: &Shape, run: &str) -> Result<()> {
    let senders = register(http, shape.fanout_senders, |number| format!("f{number}-{run}")).await?;
    let members = register(http, shape.members, |number| format!("m{number}-{run}")).await?;
    let room = Arc::new(senders[0].create_room("Fan-out").await?);
    for user in senders[1..].iter().chain(&members) {
        user.join(&room).await?;
    }
    let mut tokens = Vec::new();
    for member in &members {
        tokens.push(text(&member.sync(None, QUIET, Duration::ZERO).await?.ok()?, "next_batch")?);
    }

    let per_sender = shape.messages / shape.fanout_senders;
    let expected = per_sender * shape.fanout_senders;
    let epoch = Instant::now();
    let until = epoch + shape.limit() + Duration::from_secs(10);
    let waiting: Vec<_> = members
        .into_iter()
        .zip(tokens)
        .map(|(member, token)| tokio::spawn(receive(member, token, Arc::clone(&room), expected, epoch, until)))
        .collect();
    // The first polls are to be waiting when the first message comes.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let running = Running::begin("fanout", watched).await;
    let filler = "x".repeat(usize::try_from(shape.bytes)?);
    let sent = try_join_all(senders.iter().enumerate().map(|(number, sender)| {
        let (room, filler) = (&room, &filler);
        async move {
            let mut sent = 0_u64;
            for index in 0..per_sender {
                if epoch.elapsed() >= shape.limit() {
                    break;
                }
                let body = format!("{number} {index} {} {filler}", epoch.elapsed().as_micros());
                sender.send(room, &format!("f{index}"), &body).await?.ok()?;
                sent += 1;
                if shape.fanout_pause_ms > 0 {
                    tokio::time::sleep(Duration::from_millis(shape.fanout_pause_ms)).await;
                }
            }
            anyhow::Ok(sent)
        }
    }))
    .await?;
    let sent: u64 = sent.iter().sum();

    let (mut times, mut delivered, mut lost, mut duplicated, mut out_of_order) = (Times::new(), 0, 0, 0, 0);
    let (mut polls, mut limited) = (0, 0);
    let mut first_order: Option<HashMap<(u64, u64), usize>> = None;
    for task in waiting {
        let received = task.await??;
        times.merge(&received.times);
        polls += received.polls;
        limited += received.limited;
        let distinct: HashSet<(u64, u64)> = received.order.iter().copied().collect();
        delivered += distinct.len() as u64;
        duplicated += (received.order.len() - distinct.len()) as u64;
        lost += sent.saturating_sub(distinct.len() as u64);
        // All members have to see the order that the first one saw, and each sender's numbers must rise.
        let mut last = HashMap::new();
        for (sender, number) in &received.order {
            if last.insert(*sender, *number).is_some_and(|before| before > *number) {
                out_of_order += 1;
            }
        }
        let places = first_order
            .get_or_insert_with(|| received.order.iter().enumerate().map(|(place, key)| (*key, place)).collect());
        let mine: Vec<usize> = received.order.iter().filter_map(|key| places.get(key).copied()).collect();
        out_of_order += mine.windows(2).filter(|pair| pair[0] > pair[1]).count() as u64;
    }
    let extra = json!({
        "members": shape.members, "senders": shape.fanout_senders, "sent": sent, "polls": polls, "limited": limited,
        "lost": lost, "duplicated": duplicated, "out_of_order": out_of_order,
    });
    running.end(delivered, 0, &times, extra).await;
    ensure!(
        lost + duplicated + out_of_order == 0,
        "fan-out: {lost} lost, {duplicated} duplicated, {out_of_order} out of order"
    );
    Ok(())
}

async fn receive(
    member: User,
    mut since: String,
    room: Arc<String>,
    expected: u64,
    epoch: Instant,
    until: Instant,
) -> Result<Received> {
    let mut received = Received { times: Times::new(), order: Vec::new(), polls: 0, limited: 0 };
    let mut distinct = HashSet::new();
    while (distinct.len() as u64) < expected && Instant::now() < until {
        let wait = until.saturating_duration_since(Instant::now()).min(Duration::from_secs(10));
        let reply = member.sync(Some(&since), QUIET, wait).await?;
        let arrived = epoch.elapsed();
        let reply = reply.ok()?;
        received.polls += 1;
        since = text(&reply, "next_batch")?;
        let timeline = &reply["rooms"]["join"][room.as_str()]["timeline"];
        received.limited += u64::from(timeline["limited"] == true);
        for event in timeline["events"].as_array().into_iter().flatten() {
            let mut words = event["content"]["body"].as_str().unwrap_or_default().split(' ').map(str::parse::<u64>);
            if let (Some(Ok(sender)), Some(Ok(number)), Some(Ok(sent))) = (words.next(), words.next(), words.next()) {
                received.times.add(arrived.saturating_sub(Duration::from_micros(sent)));
                received.order.push((sender, number));
                distinct.insert((sender, number));
            }
        }
    }
    Ok(received)
}
