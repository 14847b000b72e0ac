//! Ids that follow a request: `X-Request-Id` and `traceparent`, kept where the client's are sound, made otherwise.

use http::{HeaderMap, HeaderName, HeaderValue};

/// Carried to the upstream, into the access log and into error answers.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// W3C Trace Context.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The longest request id that is kept.
const REQUEST_ID_MAX: usize = 128;
/// `00-` trace id `-` parent id `-` flags.
const TRACEPARENT_LENGTH: usize = 55;
const HEX: &[u8; 16] = b"0123456789abcdef";

/// The client's request id if it is 1 to 128 visible characters and there is one, or a new one of 32 hex digits.
pub fn request_id(headers: &HeaderMap) -> HeaderValue {
    match only(headers, &REQUEST_ID) {
        Some(id) if is_request_id(id.as_bytes()) => id.clone(),
        Some(_) | None => new_request_id(),
    }
}

/// The client's `traceparent` if it is valid and there is one, or a new one that is not sampled: whether to record is
/// for those to say who record.
pub fn traceparent(headers: &HeaderMap) -> HeaderValue {
    match only(headers, &TRACEPARENT) {
        Some(parent) if is_traceparent(parent.as_bytes()) => parent.clone(),
        Some(_) | None => new_traceparent(),
    }
}

/// The trace id inside a `traceparent`.
pub fn trace_id(traceparent: &HeaderValue) -> Option<&[u8]> {
    traceparent.as_bytes().get(3..35)
}

fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    let mut values = headers.get_all(name).iter();
    values.next().filter(|_| values.next().is_none())
}

fn is_request_id(id: &[u8]) -> bool {
    (1..=REQUEST_ID_MAX).contains(&id.len()) && id.iter().all(u8::is_ascii_graphic)
}

fn is_traceparent(text: &[u8]) -> bool {
    let lower_hex = |b: &u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
    let parts: [&[u8]; 3] = match text {
        [b'0', b'0', b'-', rest @ ..] if text.len() == TRACEPARENT_LENGTH => [
            rest.get(..32).unwrap_or_default(),
            rest.get(33..49).unwrap_or_default(),
            rest.get(50..).unwrap_or_default(),
        ],
        _ => return false,
    };
    let nonzero = |part: &[u8]| part.iter().any(|b| *b != b'0');
    text[35] == b'-'
        && text[52] == b'-'
        && parts.iter().all(|part| part.iter().all(lower_hex))
        && nonzero(parts[0])
        && nonzero(parts[1])
}

fn new_request_id() -> HeaderValue {
    let mut id = [0; 32];
    hex(fastrand::u128(..), &mut id);
    value(&id)
}

fn new_traceparent() -> HeaderValue {
    let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
    hex(fastrand::u128(1..), &mut text[3..35]);
    hex(u128::from(fastrand::u64(1..)), &mut text[36..52]);
    value(&text)
}

/// The last digits of `number`, as many as there is room for.
fn hex(number: u128, digits: &mut [u8]) {
    let mut rest = number;
    for digit in digits.iter_mut().rev() {
        *digit = HEX[(rest & 0xf) as usize];
        rest >>= 4;
    }
}

fn value(text: &[u8]) -> HeaderValue {
    // Hex digits and dashes are always a valid value.
    HeaderValue::from_bytes(text).unwrap_or_else(|_| HeaderValue::from_static("0"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: HeaderName, values: &[&str]) -> HeaderMap {
        let list = values
            .iter()
            .map(|v| (name.clone(), HeaderValue::from_str(v).expect("value")));
        list.collect()
    }

    #[test]
    fn a_sound_request_id_is_kept_and_any_other_replaced() {
        let of = |values: &[&str]| request_id(&headers(REQUEST_ID, values));
        assert_eq!(of(&["abc-1"]), "abc-1");
        for unsound in [&[][..], &[""], &["a b"], &["a", "b"], &[&"x".repeat(129)]] {
            let made = of(unsound);
            assert_eq!(made.len(), 32, "{unsound:?}");
            assert_ne!(made, of(unsound));
        }
    }

    #[test]
    fn a_valid_traceparent_is_kept_and_any_other_replaced() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let of = |values: &[&str]| traceparent(&headers(TRACEPARENT, values));
        assert_eq!(of(&[good]), good);
        assert_eq!(trace_id(&of(&[good])), Some(&b"4bf92f3577b34da6a3ce929d0e0e4736"[..]));
        for bad in [
            "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736",
            "",
        ] {
            let made = of(&[bad]);
            assert_ne!(made, bad);
            assert!(is_traceparent(made.as_bytes()), "{made:?}");
        }
    }
}
