//! Ids that follow a request: `X-Request-Id` and `traceparent`, kept where the client's are sound, made otherwise.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::fields::{Field, Fields};

/// Carried to the upstream, into the access log and into error answers.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// W3C Trace Context.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The longest request id that is kept.
const REQUEST_ID_MAX: usize = 128;
/// `00-` trace id `-` parent id `-` flags.
const TRACEPARENT_LENGTH: usize = 55;
/// The two digits of every byte.
const PAIRS: [[u8; 2]; 256] = {
    let digits = b"0123456789abcdef";
    let mut pairs = [[0; 2]; 256];
    let mut byte = 0;
    while byte < 256 {
        pairs[byte] = [digits[byte >> 4], digits[byte & 15]];
        byte += 1;
    }
    pairs
};

/// The ids of one request.
#[derive(Debug, Clone)]
pub struct Ids {
    pub request_id: HeaderValue,
    pub traceparent: HeaderValue,
}

impl Ids {
    /// Of a request that has none of its own.
    pub fn none() -> Self {
        Self {
            request_id: HeaderValue::from_static("-"),
            traceparent: HeaderValue::from_static(""),
        }
    }

    /// The client's request id if it is 1 to 128 visible characters and there is one, or a new one of 32 hex digits; the
    /// client's `traceparent` if it is valid and there is one, or a new one that is not sampled: whether to record is
    /// for those to say who record.
    pub fn of(headers: &HeaderMap, fields: Fields) -> Self {
        let kept_id = fields
            .has(Field::RequestId)
            .then(|| kept(headers, &REQUEST_ID, is_request_id));
        let kept_parent = fields
            .has(Field::Traceparent)
            .then(|| kept(headers, &TRACEPARENT, is_traceparent));
        match (kept_id.flatten(), kept_parent.flatten()) {
            (Some(request_id), Some(traceparent)) => Self {
                request_id,
                traceparent,
            },
            (request_id, traceparent) => {
                let made = Self::made();
                Self {
                    request_id: request_id.unwrap_or(made.request_id),
                    traceparent: traceparent.unwrap_or(made.traceparent),
                }
            }
        }
    }

    /// New ones, which share one allocation.
    fn made() -> Self {
        let mut text = *b"00000000000000000000000000000000\
                          00-00000000000000000000000000000000-0000000000000000-00";
        hex(fastrand::u128(..), &mut text[..32]);
        hex(fastrand::u128(1..), &mut text[35..67]);
        hex(u128::from(fastrand::u64(1..)), &mut text[68..84]);
        let text = Bytes::copy_from_slice(&text);
        let value = |text| HeaderValue::from_maybe_shared(text).unwrap_or_else(|_| HeaderValue::from_static("0"));
        Self {
            request_id: value(text.slice(..32)),
            // Hex digits and dashes are always a valid value.
            traceparent: value(text.slice(32..)),
        }
    }
}

/// The trace id inside a `traceparent`.
pub fn trace_id(traceparent: &HeaderValue) -> Option<&[u8]> {
    traceparent.as_bytes().get(3..35)
}

fn kept(headers: &HeaderMap, name: &HeaderName, sound: fn(&[u8]) -> bool) -> Option<HeaderValue> {
    let mut values = headers.get_all(name).iter();
    let only = values.next().filter(|_| values.next().is_none())?;
    sound(only.as_bytes()).then(|| only.clone())
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

/// The last digits of `number`, as many as there is room for, which is even.
fn hex(number: u128, digits: &mut [u8]) {
    let mut rest = number;
    for pair in digits.rchunks_exact_mut(2) {
        pair.copy_from_slice(&PAIRS[(rest & 0xff) as usize]);
        rest >>= 8;
    }
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

    fn ids(name: HeaderName, values: &[&str]) -> Ids {
        let headers = headers(name, values);
        Ids::of(&headers, Fields::of(&headers, &[]))
    }

    #[test]
    fn a_sound_request_id_is_kept_and_any_other_replaced() {
        let of = |values: &[&str]| ids(REQUEST_ID, values).request_id;
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
        let of = |values: &[&str]| ids(TRACEPARENT, values).traceparent;
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
