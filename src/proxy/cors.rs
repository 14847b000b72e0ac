//! Cross-origin answers. With `mode: own` this proxy is the only one to set `Access-Control-*`, so that no browser
//! ever sees two of them; without `cors:` it sets none.

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, HeaderMap, HeaderName, HeaderValue, ORIGIN, VARY,
};
use http::{Method, StatusCode};
use pingora::Result;
use pingora::http::{RequestHeader, ResponseHeader};

use super::settings::{AllowOrigins, OwnCors};

const ALLOW_PRIVATE_NETWORK: HeaderName = HeaderName::from_static("access-control-allow-private-network");

/// What an upstream may have set and the proxy alone is to set.
const ANSWERS: [HeaderName; 7] = [
    ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_ALLOW_CREDENTIALS,
    ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_HEADERS,
    ACCESS_CONTROL_EXPOSE_HEADERS,
    ACCESS_CONTROL_MAX_AGE,
    ALLOW_PRIVATE_NETWORK,
];

/// Whether a request asks for permission before the real one (Fetch, "CORS-preflight request").
pub fn is_preflight(request: &RequestHeader) -> bool {
    request.method == Method::OPTIONS
        && request.headers.contains_key(ORIGIN)
        && request.headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

/// The answer to a preflight: 204, with permissions when the origin is allowed and without when it is not.
pub fn preflight(policy: &OwnCors, request: &RequestHeader) -> Result<ResponseHeader> {
    let mut answer = ResponseHeader::build(StatusCode::NO_CONTENT, Some(8))?;
    let asked = &request.headers;
    answer.insert_header(
        VARY,
        "Origin, Access-Control-Request-Method, Access-Control-Request-Headers",
    )?;
    let Some(origin) = allowed(policy, asked) else {
        return Ok(answer);
    };
    allow(policy, origin, &mut answer)?;
    let methods = listed(&policy.allow_methods, asked.get(ACCESS_CONTROL_REQUEST_METHOD));
    let headers = listed(&policy.allow_headers, asked.get(ACCESS_CONTROL_REQUEST_HEADERS));
    if let Some(methods) = methods {
        answer.insert_header(ACCESS_CONTROL_ALLOW_METHODS, methods)?;
    }
    if let Some(headers) = headers {
        answer.insert_header(ACCESS_CONTROL_ALLOW_HEADERS, headers)?;
    }
    answer.insert_header(ACCESS_CONTROL_MAX_AGE, policy.max_age.as_secs().to_string())?;
    Ok(answer)
}

/// Replaces whatever an upstream said about origins by this proxy's own answer. `Vary: Origin` is there whether the
/// request had an origin or not, because the response differs by it.
pub fn answer(policy: &OwnCors, request: &HeaderMap, response: &mut ResponseHeader) -> Result<()> {
    for name in &ANSWERS {
        response.remove_header(name);
    }
    if policy.allow_origins != AllowOrigins::Any && !varies_by_origin(&response.headers) {
        response.append_header(VARY, "Origin")?;
    }
    let Some(origin) = allowed(policy, request) else {
        return Ok(());
    };
    allow(policy, origin, response)?;
    if !policy.expose_headers.is_empty() {
        response.insert_header(ACCESS_CONTROL_EXPOSE_HEADERS, policy.expose_headers.join(", "))?;
    }
    Ok(())
}

fn allow(policy: &OwnCors, origin: HeaderValue, response: &mut ResponseHeader) -> Result<()> {
    response.insert_header(ACCESS_CONTROL_ALLOW_ORIGIN, origin)?;
    if policy.allow_credentials {
        response.insert_header(ACCESS_CONTROL_ALLOW_CREDENTIALS, "true")?;
    }
    Ok(())
}

/// The value of `Access-Control-Allow-Origin` for this request, if it may have one.
fn allowed(policy: &OwnCors, request: &HeaderMap) -> Option<HeaderValue> {
    let origin = request.get(ORIGIN)?;
    match &policy.allow_origins {
        AllowOrigins::Any => Some(HeaderValue::from_static("*")),
        AllowOrigins::These(list) => {
            let known = list.iter().any(|known| known.as_bytes() == origin.as_bytes());
            known.then(|| origin.clone())
        }
    }
}

fn listed(list: &[String], asked: Option<&HeaderValue>) -> Option<HeaderValue> {
    if list.is_empty() {
        return asked.cloned();
    }
    HeaderValue::try_from(list.join(", ")).ok()
}

fn varies_by_origin(response: &HeaderMap) -> bool {
    let mut fields = response.get_all(VARY).iter().filter_map(|v| v.to_str().ok());
    fields.any(|list| {
        let mut names = list.split(',').map(str::trim);
        names.any(|name| name == "*" || name.eq_ignore_ascii_case("origin"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn policy(credentials: bool) -> OwnCors {
        OwnCors {
            allow_origins: AllowOrigins::These(vec!["https://shop.example.com".to_owned()]),
            allow_credentials: credentials,
            allow_methods: Vec::new(),
            allow_headers: Vec::new(),
            expose_headers: vec!["X-A".to_owned(), "X-B".to_owned()],
            max_age: Duration::from_secs(600),
        }
    }

    fn request(method: &str, fields: &[(&'static str, &str)]) -> RequestHeader {
        let mut request = RequestHeader::build(method, b"/", None).expect("request");
        for (name, value) in fields {
            request.append_header(*name, *value).expect("field");
        }
        request
    }

    fn all(response: &ResponseHeader, name: &str) -> Vec<String> {
        let values = response.headers.get_all(name).iter();
        values.map(|v| v.to_str().expect("text").to_owned()).collect()
    }

    #[test]
    fn an_upstreams_own_answer_is_replaced_and_never_doubled() {
        let asked = request("GET", &[("Origin", "https://shop.example.com")]);
        let mut response = ResponseHeader::build(200, None).expect("response");
        for value in ["*", "https://evil.example"] {
            response
                .append_header("Access-Control-Allow-Origin", value)
                .expect("field");
        }
        response.append_header("Vary", "Accept").expect("field");
        answer(&policy(true), &asked.headers, &mut response).expect("answer");
        assert_eq!(
            all(&response, "access-control-allow-origin"),
            ["https://shop.example.com"]
        );
        assert_eq!(all(&response, "access-control-allow-credentials"), ["true"]);
        assert_eq!(all(&response, "access-control-expose-headers"), ["X-A, X-B"]);
        assert_eq!(all(&response, "vary"), ["Accept", "Origin"]);
    }

    #[test]
    fn an_origin_that_is_not_allowed_gets_no_permission_but_vary() {
        for fields in [&[("Origin", "https://evil.example")][..], &[]] {
            let asked = request("GET", fields);
            let mut response = ResponseHeader::build(200, None).expect("response");
            response
                .append_header("Access-Control-Allow-Origin", "*")
                .expect("field");
            response.append_header("Vary", "origin").expect("field");
            answer(&policy(false), &asked.headers, &mut response).expect("answer");
            assert!(all(&response, "access-control-allow-origin").is_empty());
            assert_eq!(all(&response, "vary"), ["origin"]);
        }
    }

    #[test]
    fn a_preflight_mirrors_what_was_asked_where_nothing_is_listed() {
        let asked = request(
            "OPTIONS",
            &[
                ("Origin", "https://shop.example.com"),
                ("Access-Control-Request-Method", "PUT"),
                ("Access-Control-Request-Headers", "x-user-id"),
            ],
        );
        assert!(is_preflight(&asked));
        let answer = preflight(&policy(false), &asked).expect("answer");
        assert_eq!(answer.status, 204);
        assert_eq!(all(&answer, "access-control-allow-methods"), ["PUT"]);
        assert_eq!(all(&answer, "access-control-allow-headers"), ["x-user-id"]);
        assert_eq!(all(&answer, "access-control-max-age"), ["600"]);
        assert!(!is_preflight(&request(
            "OPTIONS",
            &[("Origin", "https://shop.example.com")]
        )));
    }
}
