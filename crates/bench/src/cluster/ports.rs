//! Ports that nobody uses now.

use std::net::{Ipv4Addr, TcpListener};

use anyhow::{Context, Result};

/// Starting points tried before giving up on neighbours that are all free.
const TRIES: usize = 100;

/// This many different ports. They are free when this returns; nothing keeps them so.
pub fn free(count: usize) -> Result<Vec<u16>> {
    // All are held until all are known: else the same one might come twice.
    let held = (0..count).map(|_| bind(0)).collect::<Result<Vec<_>>>()?;
    held.iter().map(|listener| Ok(listener.local_addr()?.port())).collect()
}

/// The first of this many free ports in a row.
pub fn free_row(count: u16) -> Result<u16> {
    for _ in 0..TRIES {
        let first = bind(0)?.local_addr()?.port();
        let last = first.checked_add(count - 1);
        if last.is_some_and(|last| (first..=last).all(|port| bind(port).is_ok())) {
            return Ok(first);
        }
    }
    anyhow::bail!("no {count} free ports in a row found")
}

fn bind(port: u16) -> Result<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).context("looking for a free port")
}
