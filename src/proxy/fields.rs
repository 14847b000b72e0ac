//! Which of the fields that the gateway acts on a message has, found in one pass over the names: most requests lack
//! most of them, and a look into the map costs more than the whole pass.

use http::header::HeaderName;
use http::{HeaderMap, HeaderValue};

/// A set of [`Field`]s, and whether any field of the message has several lines.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Fields {
    bits: u32,
    repeated: bool,
}

/// What a field means to the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Field {
    /// `Connection`.
    Connection = 1,
    /// `Upgrade`.
    Upgrade = 1 << 1,
    /// `Transfer-Encoding`.
    TransferEncoding = 1 << 2,
    /// `Content-Length`.
    ContentLength = 1 << 3,
    /// `Cookie`.
    Cookie = 1 << 4,
    /// `Origin`.
    Origin = 1 << 5,
    /// `Forwarded`.
    Forwarded = 1 << 6,
    /// `X-Forwarded-For`.
    ForwardedFor = 1 << 7,
    /// `X-Forwarded-Proto`.
    ForwardedProto = 1 << 8,
    /// `X-Forwarded-Host`.
    ForwardedHost = 1 << 9,
    /// `HTTP2-Settings`.
    Http2Settings = 1 << 10,
    /// `X-Request-Id`.
    RequestId = 1 << 11,
    /// `traceparent`.
    Traceparent = 1 << 12,
    /// Only this proxy may set it.
    Reserved = 1 << 13,
    /// It tells who asks.
    Identity = 1 << 14,
    /// It concerns the connection only (RFC 9110, 7.6.1), beside `Connection` and `Upgrade`.
    HopByHop = 1 << 15,
    /// `Content-Type`.
    ContentType = 1 << 16,
    /// `Accept`.
    Accept = 1 << 17,
}

/// What trusted peers alone may send.
const TRUSTED: u32 = Field::Forwarded as u32
    | Field::ForwardedFor as u32
    | Field::ForwardedProto as u32
    | Field::ForwardedHost as u32
    | Field::Identity as u32;

impl Fields {
    /// Of a message; `identity` names the fields that tell who asks.
    pub fn of(headers: &HeaderMap<HeaderValue>, identity: &[HeaderName]) -> Self {
        let mut bits = 0;
        for name in headers.keys() {
            bits |= match name.as_str() {
                "connection" => Field::Connection as u32,
                "upgrade" => Field::Upgrade as u32,
                "transfer-encoding" => Field::TransferEncoding as u32,
                "content-length" => Field::ContentLength as u32,
                "content-type" => Field::ContentType as u32,
                "accept" => Field::Accept as u32,
                "cookie" => Field::Cookie as u32,
                "origin" => Field::Origin as u32,
                "forwarded" => Field::Forwarded as u32,
                "x-forwarded-for" => Field::ForwardedFor as u32,
                "x-forwarded-proto" => Field::ForwardedProto as u32,
                "x-forwarded-host" => Field::ForwardedHost as u32,
                "http2-settings" => Field::Http2Settings as u32,
                "x-request-id" => Field::RequestId as u32,
                "traceparent" => Field::Traceparent as u32,
                "x-rollout" | "x-forwarded-user" => Field::Reserved as u32,
                "keep-alive" | "proxy-connection" | "proxy-authenticate" => Field::HopByHop as u32,
                _ => 0,
            };
            // Any field may be configured to be one that tells who asks.
            if identity.contains(name) {
                bits |= Field::Identity as u32;
            }
        }
        Self {
            bits,
            repeated: headers.len() != headers.keys_len(),
        }
    }

    /// Whether there is such a field.
    pub const fn has(self, field: Field) -> bool {
        self.bits & field as u32 != 0
    }

    /// Whether there is a field that trusted peers alone may send.
    pub const fn has_trusted(self) -> bool {
        self.bits & TRUSTED != 0
    }

    /// Whether any field has several lines.
    pub const fn repeated(self) -> bool {
        self.repeated
    }

    /// Without that field, which has been removed.
    pub const fn without(self, field: Field) -> Self {
        Self {
            bits: self.bits & !(field as u32),
            ..self
        }
    }

    /// Without those that trusted peers alone may send.
    pub const fn without_trusted(self) -> Self {
        Self {
            bits: self.bits & !TRUSTED,
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{headers, trace};
    use super::*;

    #[test]
    fn every_field_is_found_under_its_name() {
        let named = [
            (http::header::CONNECTION, Field::Connection),
            (http::header::UPGRADE, Field::Upgrade),
            (http::header::TRANSFER_ENCODING, Field::TransferEncoding),
            (http::header::CONTENT_LENGTH, Field::ContentLength),
            (http::header::CONTENT_TYPE, Field::ContentType),
            (http::header::ACCEPT, Field::Accept),
            (http::header::COOKIE, Field::Cookie),
            (http::header::ORIGIN, Field::Origin),
            (http::header::FORWARDED, Field::Forwarded),
            (headers::X_FORWARDED_FOR, Field::ForwardedFor),
            (headers::X_FORWARDED_PROTO, Field::ForwardedProto),
            (headers::X_FORWARDED_HOST, Field::ForwardedHost),
            (headers::HTTP2_SETTINGS, Field::Http2Settings),
            (trace::REQUEST_ID, Field::RequestId),
            (trace::TRACEPARENT, Field::Traceparent),
            (headers::X_ROLLOUT, Field::Reserved),
            (headers::X_FORWARDED_USER, Field::Reserved),
            (HeaderName::from_static("keep-alive"), Field::HopByHop),
            (HeaderName::from_static("x-user-id"), Field::Identity),
        ];
        let identity = [HeaderName::from_static("x-user-id")];
        for (name, field) in named {
            let mut map = HeaderMap::new();
            map.insert(http::header::USER_AGENT, HeaderValue::from_static("test"));
            assert_eq!(Fields::of(&map, &identity), Fields::default());
            map.insert(name.clone(), HeaderValue::from_static("x"));
            let fields = Fields::of(&map, &identity);
            assert!(fields.has(field) && !fields.repeated(), "{name}");
            assert_eq!(fields.without(field), Fields::default(), "{name}");
            map.append(name.clone(), HeaderValue::from_static("y"));
            assert!(Fields::of(&map, &identity).repeated(), "{name}");
        }
    }

    #[test]
    fn a_field_of_two_meanings_has_both() {
        let map: HeaderMap = [(http::header::COOKIE, HeaderValue::from_static("a=b"))]
            .into_iter()
            .collect();
        let fields = Fields::of(&map, &[http::header::COOKIE]);
        assert!(fields.has(Field::Cookie) && fields.has(Field::Identity) && fields.has_trusted());
        assert!(!fields.without_trusted().has(Field::Identity));
    }
}
