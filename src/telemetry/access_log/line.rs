//! One request as one line: a JSON object, or the combined format of nginx and Apache.

use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use xxhash_rust::xxh3::xxh3_64;

use super::escape::{push_combined, push_hex, push_json};
use super::record::AccessRecord;
use crate::telemetry::settings::UserIdShown;
use crate::telemetry::timestamp::{DateWriter, push_digits};

const MICROS_PER_SECOND: u64 = 1_000_000;

/// Appends `record` as one JSON object and a line end. Every field is there, in the order of the interface.
pub(super) fn push_json_line(out: &mut Vec<u8>, record: &AccessRecord<'_>, shown: UserIdShown, dates: &mut DateWriter) {
    out.extend_from_slice(b"{\"time\":\"");
    dates.push(out, record.unix_micros / MICROS_PER_SECOND);
    out.push(b'.');
    push_digits(out, record.unix_micros % MICROS_PER_SECOND, 6);
    out.extend_from_slice(b"Z\"");

    text(out, b",\"request_id\":", record.request_id);
    word(out, b",\"trace_id\":", record.trace_id);
    client(out, b",\"client\":", record.client);
    text(out, b",\"method\":", Some(record.method));
    text(out, b",\"host\":", record.host);
    text(out, b",\"path\":", Some(record.path));
    number(out, b",\"status\":", Some(u64::from(record.status)));
    number(out, b",\"bytes_in\":", Some(record.bytes_in));
    number(out, b",\"bytes_out\":", Some(record.bytes_out));
    milliseconds(out, b",\"duration_ms\":", Some(record.duration));
    word(out, b",\"route\":", record.route);
    word(out, b",\"rollout\":", record.rollout);
    word(out, b",\"release\":", record.release);
    word(out, b",\"reason\":", record.reason);
    number(out, b",\"bucket\":", record.bucket.map(u64::from));
    number(out, b",\"revision\":", Some(record.revision));
    word(out, b",\"source\":", record.source);
    user(out, b",\"user\":", record.user, shown);
    word(out, b",\"pool\":", record.pool);
    text(out, b",\"endpoint\":", record.endpoint.map(str::as_bytes));
    number(out, b",\"upstream_status\":", record.upstream_status.map(u64::from));
    milliseconds(out, b",\"upstream_ms\":", record.upstream_duration);
    boolean(out, b",\"reused\":", record.reused);
    number(out, b",\"retries\":", Some(u64::from(record.retries)));
    word(out, b",\"abort\":", record.abort);
    out.extend_from_slice(b"}\n");
}

/// Appends `record` in the combined format and a line end:
/// `ADDRESS - USER [TIME] "METHOD PATH VERSION" STATUS BYTES "REFERER" "USER-AGENT"`.
pub(super) fn push_combined_line(
    out: &mut Vec<u8>,
    record: &AccessRecord<'_>,
    shown: UserIdShown,
    dates: &mut DateWriter,
) {
    match record.client {
        Some(client) => push_address(out, client.ip()),
        None => out.push(b'-'),
    }
    out.extend_from_slice(b" - ");
    match (record.user, shown) {
        (Some(user), UserIdShown::Hashed) => push_hex(out, xxh3_64(user)),
        (Some(user), UserIdShown::Plain) if !user.is_empty() => push_combined(out, user, true),
        (Some(_) | None, _) => out.push(b'-'),
    }
    out.extend_from_slice(b" [");
    dates.push(out, record.unix_micros / MICROS_PER_SECOND);
    out.extend_from_slice(b"] \"");
    push_combined(out, record.method, false);
    out.push(b' ');
    push_combined(out, record.path, false);
    out.push(b' ');
    out.extend_from_slice(record.http_version.as_str().as_bytes());
    out.extend_from_slice(b"\" ");
    push_number(out, u64::from(record.status));
    out.push(b' ');
    push_number(out, record.bytes_out);
    for header in [record.referer, record.user_agent] {
        out.extend_from_slice(b" \"");
        push_combined(out, header.unwrap_or(b"-"), false);
        out.push(b'"');
    }
    out.push(b'\n');
}

fn text(out: &mut Vec<u8>, key: &[u8], value: Option<&[u8]>) {
    out.extend_from_slice(key);
    let Some(value) = value else {
        return push_null(out);
    };
    out.push(b'"');
    push_json(out, value);
    out.push(b'"');
}

/// What is written by us, or was checked to be a name: nothing in it needs escaping.
fn word(out: &mut Vec<u8>, key: &[u8], value: Option<&(impl AsRef<[u8]> + ?Sized)>) {
    out.extend_from_slice(key);
    let Some(value) = value else {
        return push_null(out);
    };
    out.push(b'"');
    out.extend_from_slice(value.as_ref());
    out.push(b'"');
}

fn number(out: &mut Vec<u8>, key: &[u8], value: Option<u64>) {
    out.extend_from_slice(key);
    match value {
        Some(value) => push_number(out, value),
        None => push_null(out),
    }
}

fn boolean(out: &mut Vec<u8>, key: &[u8], value: Option<bool>) {
    out.extend_from_slice(key);
    match value {
        Some(true) => out.extend_from_slice(b"true"),
        Some(false) => out.extend_from_slice(b"false"),
        None => push_null(out),
    }
}

/// Milliseconds with three decimals.
fn milliseconds(out: &mut Vec<u8>, key: &[u8], value: Option<Duration>) {
    out.extend_from_slice(key);
    let Some(value) = value else {
        return push_null(out);
    };
    let micros = u64::from(value.subsec_micros());
    // A duration of more than 584 million years is cut to that.
    push_number(
        out,
        value.as_secs().saturating_mul(1_000).saturating_add(micros / 1_000),
    );
    out.push(b'.');
    push_digits(out, micros % 1_000, 3);
}

fn client(out: &mut Vec<u8>, key: &[u8], value: Option<SocketAddr>) {
    out.extend_from_slice(key);
    let Some(value) = value else {
        return push_null(out);
    };
    out.push(b'"');
    match value.ip().to_canonical() {
        ip @ IpAddr::V4(_) => push_address(out, ip),
        ip @ IpAddr::V6(_) => {
            out.push(b'[');
            push_address(out, ip);
            out.push(b']');
        }
    }
    out.push(b':');
    push_number(out, u64::from(value.port()));
    out.push(b'"');
}

fn user(out: &mut Vec<u8>, key: &[u8], value: Option<&[u8]>, shown: UserIdShown) {
    match (value, shown) {
        (Some(user), UserIdShown::Hashed) => {
            out.extend_from_slice(key);
            out.push(b'"');
            push_hex(out, xxh3_64(user));
            out.push(b'"');
        }
        (user, UserIdShown::Plain) => text(out, key, user),
        (Some(_), UserIdShown::None) | (None, _) => text(out, key, None),
    }
}

/// An IPv4 address that came in through an IPv6 socket is shown as IPv4.
fn push_address(out: &mut Vec<u8>, address: IpAddr) {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            let [first, rest @ ..] = v4.octets();
            push_number(out, u64::from(first));
            for octet in rest {
                out.push(b'.');
                push_number(out, u64::from(octet));
            }
        }
        IpAddr::V6(v6) => write!(out, "{v6}")
            // invariant: writing to a Vec cannot fail.
            .expect("writing to memory"),
    }
}

fn push_number(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

fn push_null(out: &mut Vec<u8>) {
    out.extend_from_slice(b"null");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::access_log::HttpVersion;
    use crate::telemetry::timestamp::DateForm;

    fn json_line(record: &AccessRecord<'_>, shown: UserIdShown) -> String {
        let mut out = Vec::new();
        push_json_line(&mut out, record, shown, &mut DateWriter::new(DateForm::Rfc3339));
        String::from_utf8(out).expect("JSON text is UTF-8")
    }

    fn combined_line(record: &AccessRecord<'_>, shown: UserIdShown) -> String {
        let mut out = Vec::new();
        push_combined_line(&mut out, record, shown, &mut DateWriter::new(DateForm::CommonLog));
        String::from_utf8(out).expect("the combined format is ASCII")
    }

    fn full_record() -> AccessRecord<'static> {
        AccessRecord {
            unix_micros: 1_795_478_400_000_042,
            request_id: Some(b"0190"),
            trace_id: Some(b"4bf9"),
            client: Some(SocketAddr::from(([192, 0, 2, 1], 50_000))),
            method: b"GET",
            host: Some(b"shop.example.com"),
            path: b"/checkout?a=1",
            http_version: HttpVersion::Http2,
            status: 200,
            bytes_in: 0,
            bytes_out: 512,
            duration: Duration::from_micros(1_002_003),
            route: Some("shop.example.com/checkout"),
            rollout: Some("checkout"),
            release: Some("canary"),
            reason: Some("split"),
            bucket: Some(123_456),
            revision: 17,
            source: Some("header"),
            user: Some(b"42"),
            pool: Some("canary"),
            endpoint: Some("127.0.0.1:9002"),
            upstream_status: Some(200),
            upstream_duration: Some(Duration::from_nanos(999_999)),
            reused: Some(true),
            retries: 1,
            abort: None,
            referer: Some(b"https://example.com/"),
            user_agent: Some(b"curl/8 \"x\""),
        }
    }

    #[test]
    fn a_full_line_has_every_field_in_the_order_of_the_interface() {
        let expected = concat!(
            r#"{"time":"2026-11-24T00:00:00.000042Z","request_id":"0190","trace_id":"4bf9","#,
            r#""client":"192.0.2.1:50000","method":"GET","host":"shop.example.com","path":"/checkout?a=1","#,
            r#""status":200,"bytes_in":0,"bytes_out":512,"duration_ms":1002.003,"#,
            r#""route":"shop.example.com/checkout","rollout":"checkout","release":"canary","reason":"split","#,
            r#""bucket":123456,"revision":17,"source":"header","user":"42","pool":"canary","#,
            r#""endpoint":"127.0.0.1:9002","upstream_status":200,"upstream_ms":0.999,"reused":true,"#,
            r#""retries":1,"abort":null}"#,
            "\n"
        );
        assert_eq!(json_line(&full_record(), UserIdShown::Plain), expected);
    }

    #[test]
    fn an_empty_line_has_every_field_too() {
        let full: serde_json::Value =
            serde_json::from_str(&json_line(&full_record(), UserIdShown::Hashed)).expect("JSON");
        let empty: serde_json::Value =
            serde_json::from_str(&json_line(&AccessRecord::default(), UserIdShown::Hashed)).expect("JSON");
        let keys = |value: &serde_json::Value| -> Vec<String> {
            value.as_object().expect("an object").keys().cloned().collect()
        };
        assert_eq!(keys(&empty), keys(&full));
        assert!(empty["client"].is_null() && empty["user"].is_null() && empty["upstream_ms"].is_null());
    }

    #[test]
    fn a_user_is_shown_as_the_settings_say() {
        let record = full_record();
        let hash = format!("\"user\":\"{:016x}\"", xxh3_64(b"42"));
        assert!(json_line(&record, UserIdShown::Hashed).contains(&hash));
        assert!(json_line(&record, UserIdShown::Plain).contains("\"user\":\"42\""));
        assert!(json_line(&record, UserIdShown::None).contains("\"user\":null"));
        assert!(combined_line(&record, UserIdShown::Hashed).contains(&format!(" - {:016x} [", xxh3_64(b"42"))));
        assert!(combined_line(&record, UserIdShown::Plain).contains(" - 42 ["));
        assert!(combined_line(&record, UserIdShown::None).contains(" - - ["));
    }

    #[test]
    fn a_combined_line_is_that_of_nginx() {
        let expected = concat!(
            r#"192.0.2.1 - 42 [24/Nov/2026:00:00:00 +0000] "GET /checkout?a=1 HTTP/2.0" 200 512 "#,
            r#""https://example.com/" "curl/8 \x22x\x22""#,
            "\n"
        );
        assert_eq!(combined_line(&full_record(), UserIdShown::Plain), expected);
        let bare = AccessRecord {
            method: b"GET",
            path: b"/",
            ..AccessRecord::default()
        };
        let expected = "- - - [01/Jan/1970:00:00:00 +0000] \"GET / HTTP/1.1\" 0 0 \"-\" \"-\"\n";
        assert_eq!(combined_line(&bare, UserIdShown::Hashed), expected);
    }

    #[test]
    fn clients_are_shown_with_their_port() {
        for (client, expected) in [
            ("[2001:db8::1]:443", "\"[2001:db8::1]:443\""),
            ("[::ffff:192.0.2.1]:80", "\"192.0.2.1:80\""),
            ("255.255.255.255:65535", "\"255.255.255.255:65535\""),
        ] {
            let record = AccessRecord {
                client: Some(client.parse().expect("an address")),
                ..AccessRecord::default()
            };
            assert!(json_line(&record, UserIdShown::None).contains(expected), "{client}");
        }
    }

    /// Knuth's generator: the same bytes in every run.
    struct Bytes(u64);

    impl Bytes {
        fn next(&mut self) -> u8 {
            self.0 = self
                .0
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 56) as u8
        }

        /// Often what is special: quotes, controls, the beginnings and ends of UTF-8.
        fn hostile(&mut self) -> Vec<u8> {
            const SPECIAL: &[u8] = b"\"\\\n\r\0\x7f\x80\xc3\xa9\xe2\x80\xa8\xf0\x9f\xa6\x80\xff\xed\xa0\x80";
            let length = self.next() % 40;
            let mut byte = || match self.next() {
                even if even % 2 == 0 => SPECIAL[usize::from(even / 2) % SPECIAL.len()],
                odd => odd.wrapping_mul(31),
            };
            (0..length).map(|_| byte()).collect()
        }
    }

    #[test]
    fn hostile_bytes_make_one_valid_line() {
        let mut bytes = Bytes(1);
        for _ in 0..5_000 {
            let [path, host, user, agent, id] = std::array::from_fn(|_| bytes.hostile());
            let record = AccessRecord {
                request_id: Some(&id),
                host: Some(&host),
                method: &agent,
                path: &path,
                user: Some(&user),
                user_agent: Some(&agent),
                referer: Some(&host),
                ..full_record()
            };
            let line = json_line(&record, UserIdShown::Plain);
            let read: serde_json::Value = serde_json::from_str(&line).expect("valid JSON");
            for (key, sent) in [("path", &path), ("host", &host), ("user", &user), ("request_id", &id)] {
                assert_eq!(read[key], String::from_utf8_lossy(sent).as_ref(), "{key}");
            }
            assert_eq!(line.find(|c: char| c.is_control()), Some(line.len() - 1));

            let combined = combined_line(&record, UserIdShown::Plain);
            assert_eq!(combined.find(|c: char| c.is_control()), Some(combined.len() - 1));
            assert!(combined.is_ascii());
            assert_eq!(combined.matches('"').count(), 6);
            assert_eq!(combined.split(' ').nth(3), Some("[24/Nov/2026:00:00:00"));
        }
    }
}
