//! A bare Pingora proxy with one fixed peer: what `make bench-peers` holds Switchyard against to see its own share.
//!
//! `bare --listen ADDR --upstream ADDR` serves with one thread until it is killed. The listener, keep-alive, pool and
//! timeouts are those of Switchyard's defaults; nothing is routed, logged, counted or rewritten.
//! `--pingora-defaults` leaves every timeout unset, as Pingora does. Without arguments it prints its usage and exits 0.

#[path = "bare/proxy.rs"]
mod proxy;

use std::net::SocketAddr;
use std::process::ExitCode;

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: switchyard::allocator::Mimalloc = switchyard::allocator::Mimalloc;

#[cfg(all(feature = "jemalloc", not(feature = "mimalloc")))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const ALLOCATOR_NAME: &str = if cfg!(feature = "mimalloc") {
    "mimalloc"
} else if cfg!(feature = "jemalloc") {
    "jemalloc"
} else {
    "system"
};

const USAGE: &str = "usage: bare --listen ADDR --upstream ADDR [--pingora-defaults] | --version";

struct Arguments {
    listen: String,
    upstream: SocketAddr,
    pingora_defaults: bool,
}

/// Flags that it does not know, such as the `--bench` that cargo adds, are passed over.
fn parse(mut words: impl Iterator<Item = String>) -> Result<Option<Arguments>, String> {
    let (mut listen, mut upstream, mut pingora_defaults) = (None, None, false);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--listen" => listen = words.next(),
            "--upstream" => upstream = words.next(),
            "--pingora-defaults" => pingora_defaults = true,
            _unknown => {}
        }
    }
    match (listen, upstream) {
        (None, None) => Ok(None),
        (Some(listen), Some(upstream)) => {
            let upstream = upstream.parse().map_err(|e| format!("--upstream {upstream}: {e}"))?;
            Ok(Some(Arguments {
                listen,
                upstream,
                pingora_defaults,
            }))
        }
        (Some(_), None) => Err("--upstream is missing".to_owned()),
        (None, Some(_)) => Err("--listen is missing".to_owned()),
    }
}

fn main() -> ExitCode {
    if std::env::args().any(|word| word == "--version") {
        println!("bare Pingora 0.9.1, {ALLOCATOR_NAME}");
        return ExitCode::SUCCESS;
    }
    match parse(std::env::args().skip(1)) {
        Ok(Some(Arguments {
            listen,
            upstream,
            pingora_defaults,
        })) => proxy::serve(&listen, upstream, pingora_defaults),
        Ok(None) => {
            println!("{USAGE}");
            ExitCode::SUCCESS
        }
        Err(problem) => {
            eprintln!("bare: {problem}\n{USAGE}");
            ExitCode::from(2)
        }
    }
}
