//! Files and addresses of one test.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Instant;

use crate::harness::{PATIENCE, program};

/// A fresh directory.
pub fn directory(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("switchyard-it-{}-{name}", std::process::id()));
    drop(std::fs::remove_dir_all(&path));
    std::fs::create_dir_all(&path).expect("directory");
    path
}

/// Addresses for a program that must know its own before it starts. The host is this call's alone, in the loopback's
/// network: a port that is only free of listeners can become the near end of anybody's connection to 127.0.0.1.
pub fn free<const N: usize>() -> [SocketAddr; N] {
    static NUMBER: AtomicU8 = AtomicU8::new(1);
    let [.., high, low] = std::process::id().to_be_bytes();
    let host = Ipv4Addr::new(127, high, low, NUMBER.fetch_add(1, Ordering::Relaxed));
    // Held together, so that they differ.
    let held = [(); N].map(|()| TcpListener::bind((host, 0)).expect("address"));
    held.each_ref().map(|listener| listener.local_addr().expect("address"))
}

/// Looks until it is so.
pub fn until(what: &str, is_so: impl Fn() -> bool) {
    let since = Instant::now();
    while !is_so() {
        assert!(since.elapsed() < PATIENCE, "not so: {what}");
        std::thread::yield_now();
    }
}

pub fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// What the program says that does not start with a configuration.
pub fn refused_start(file: &Path) -> String {
    let refused = std::process::Command::new(program())
        .args(["serve", "-c"])
        .arg(file)
        .output()
        .expect("it runs");
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{told}");
    told
}
