//! The demo's origins: small HTTP servers that say which release they are.

use std::net::{SocketAddr, TcpListener};

use axum::Router;
use axum::extract::Request;
use axum::routing::{any, get};

/// Serves one release on a port of its own, on a thread of its own; the address is where.
///
/// # Errors
/// When no port is to be had.
pub fn spawn(release: &'static str) -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new()
        .name(format!("origin {release}"))
        .spawn(move || {
            runtime.block_on(async move {
                let answer = move |request: Request| async move { describe(release, &request) };
                let router = Router::new().route("/slow", get(slow)).fallback(any(answer));
                let listener = tokio::net::TcpListener::from_std(listener)?;
                axum::serve(listener, router).await
            })
        })?;
    Ok(address)
}

async fn slow() -> &'static str {
    tokio::time::sleep(std::time::Duration::from_secs(10)).await;
    "done\n"
}

fn describe(release: &str, request: &Request) -> String {
    let field = |name: &str| {
        let value = request.headers().get(name).and_then(|v| v.to_str().ok());
        value.unwrap_or("-").to_owned()
    };
    format!("{release}: user {} ({})\n", field("x-user-id"), field("x-rollout"))
}
