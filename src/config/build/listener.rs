//! TLS of listeners, and relays before them.

use std::net::SocketAddr;

use super::super::written as w;
use super::Building;
use crate::identity::{self, Peers, Source};
use crate::server;
use crate::server::settings::{ClientAuth, ListenerSettings, TlsFiles, TlsSettings};

pub(super) fn tls(work: &mut Building<'_>, key: &str, written: w::ListenerTls) -> TlsSettings {
    work.positive(&format!("{key}.handshake_timeout"), written.handshake_timeout);
    let first = TlsFiles {
        certificate: written.certificate,
        key: written.key,
    };
    let more = written.certificates.into_iter().map(|files| TlsFiles {
        certificate: files.certificate,
        key: files.key,
    });
    let settings = TlsSettings {
        certificates: std::iter::once(first).chain(more).collect(),
        client_auth: written.client_auth.map(|asked| ClientAuth {
            ca: asked.ca,
            required: asked.mode == w::ClientAuthMode::Required,
        }),
        handshake_timeout: written.handshake_timeout.0,
    };
    if files_are_there(work, key, &settings) {
        if let Err(e) = server::check_tls(&settings) {
            work.note(&format!("{key}.{}", e.key), e.text);
        }
    }
    settings
}

/// Tells where no two sockets can listen at once: at one address, or at one of those that another stands for all of.
pub(super) fn is_free(work: &mut Building<'_>, key: &str, address: SocketAddr, listeners: &[ListenerSettings]) {
    let (ip, port) = (address.ip(), address.port());
    let of_all =
        |other: SocketAddr| ip.is_ipv4() == other.is_ipv4() && (ip.is_unspecified() || other.ip().is_unspecified());
    let meets = |other: SocketAddr| port != 0 && port == other.port() && (ip == other.ip() || of_all(other));
    let other = listeners
        .iter()
        .map(|listener| listener.address)
        .find(|other| meets(*other));
    match other {
        None => {}
        Some(same) if same == address => work.note(
            key,
            format!("{address} is listened on twice: remove one, or write another port"),
        ),
        Some(other) => {
            let text = format!("{address} cannot be listened on beside {other}: write another port, or remove one");
            work.note(key, text);
        }
    }
}

pub(super) fn relays(work: &mut Building<'_>, key: &str, written: &[String]) -> Peers {
    let key = format!("{key}.proxy_protocol");
    if written.is_empty() {
        work.note(
            &key,
            "is empty: list your load balancers, such as 10.0.0.0/8, or leave it out",
        );
    }
    let peers = work.peers(&key, written);
    if peers.are_all() {
        work.warn(
            &key,
            "trusts everyone to say where they come from: list your load balancers instead",
        );
    }
    peers
}

pub(super) fn certificates_are_asked_for(
    work: &mut Building<'_>,
    identity: &identity::Settings,
    listeners: &[ListenerSettings],
) {
    let known = |source: &Source| matches!(source, Source::ClientCertificate(_));
    let asks = |listener: &ListenerSettings| listener.tls.as_ref().is_some_and(|tls| tls.client_auth.is_some());
    if identity.sources.iter().any(known) && !listeners.iter().any(asks) {
        work.warn(
            "identity.sources",
            "no listener asks for client certificates: write client_auth below its tls",
        );
    }
}

fn files_are_there(work: &mut Building<'_>, key: &str, settings: &TlsSettings) -> bool {
    let mut there = true;
    for (n, files) in settings.certificates.iter().enumerate() {
        let place = n
            .checked_sub(1)
            .map_or_else(|| key.to_owned(), |n| format!("{key}.certificates[{n}]"));
        there &= work.file(&format!("{place}.certificate"), &files.certificate);
        there &= work.file(&format!("{place}.key"), &files.key);
    }
    if let Some(asked) = &settings.client_auth {
        there &= work.file(&format!("{key}.client_auth.ca"), &asked.ca);
    }
    there
}
