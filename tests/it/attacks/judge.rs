//! Whether what happened in a case is one of the things that may, and none of those that must not.

use super::case::{Accept, Case, Downstream, Kind, MustNot, Proto, Upstream};
use super::client::{Response, Seen};
use super::origin::{Arrived, Request};

/// All that is wrong; nothing is good.
pub fn judge(case: &Case, seen: &Seen, arrived: &Arrived, next: &str) -> Vec<String> {
    let outcome = Outcome {
        case,
        seen,
        arrived,
        next,
    };
    let mut wrong: Vec<String> = case.must_not.iter().filter_map(|m| outcome.violated(m)).collect();
    if !case.accept.iter().any(|accept| outcome.is(accept)) {
        let lines: Vec<&str> = arrived.requests.iter().map(|r| r.line.as_str()).collect();
        wrong.push(format!(
            "no accepted outcome: statuses {:?} closed {} upstream {lines:?}",
            outcome.statuses(),
            seen.closed
        ));
    }
    wrong
}

struct Outcome<'a> {
    case: &'a Case,
    seen: &'a Seen,
    arrived: &'a Arrived,
    next: &'a str,
}

impl Outcome<'_> {
    fn finals(&self) -> Vec<&Response> {
        self.seen.responses.iter().filter(|r| r.is_final()).collect()
    }

    fn statuses(&self) -> Vec<Option<u16>> {
        self.finals().iter().map(|r| r.status).collect()
    }

    fn is(&self, accept: &Accept) -> bool {
        let statuses = self.statuses();
        let first = statuses.first().copied().flatten();
        let nothing = self.arrived.requests.is_empty();
        let listed = first.is_some_and(|status| accept.status.contains(&status));
        match accept.kind {
            Kind::Reject | Kind::Local => listed && nothing,
            Kind::CloseWithoutResponse => self.seen.responses.is_empty() && self.seen.closed && nothing,
            Kind::IncompleteUpstream => nothing && first.is_none_or(|status| status >= 400),
            Kind::WaitThenTimeout => nothing,
            Kind::GatewayError => listed,
            Kind::DownstreamAborted => self.finals().first().is_some_and(|r| !r.complete) && self.seen.closed,
            Kind::H2StreamError | Kind::H2ConnectionError | Kind::H2Status => nothing && self.seen.ended,
            Kind::Forward => self.forwarded(accept, &statuses),
        }
    }

    fn forwarded(&self, accept: &Accept, statuses: &[Option<u16>]) -> bool {
        let requests = &self.arrived.requests;
        let number = requests.len() == accept.upstream_requests;
        let wanted: Vec<Option<u16>> = accept.status.iter().copied().map(Some).collect();
        let answered = match self.case.proto {
            Proto::H1 => number && statuses.starts_with(&wanted),
            Proto::H1Upstream => statuses.starts_with(&wanted),
            Proto::H2 => number && self.seen.ended,
        };
        let upstream = accept.upstream.as_ref().zip(requests.first());
        let finals = self.finals();
        let response = finals.first();
        let body = accept.body.as_ref().filter(|body| *body != "own");
        answered
            && upstream.is_none_or(|(wanted, request)| reached(wanted, request))
            && body.is_none_or(|body| response.is_some_and(|r| r.body == *body))
            && accept
                .body_len
                .is_none_or(|length| response.is_some_and(|r| r.body.len() == length))
            && accept
                .down
                .as_ref()
                .is_none_or(|down| response.is_some_and(|r| returned(down, r, &self.seen.raw)))
    }

    fn violated(&self, must_not: &MustNot) -> Option<String> {
        let requests = &self.arrived.requests;
        let finals = self.finals();
        let violated = match must_not {
            MustNot::UpstreamPathPrefix(prefix) => requests.iter().any(|r| prefix == "*" || r.path.starts_with(prefix)),
            MustNot::DownstreamResponsesGt(most) => {
                // An error that says so is no answer to what was smuggled.
                let refused = finals.len() == 2 && matches!(finals[1].status, Some(400) | None);
                finals.len() > *most && !refused
            }
            MustNot::UpstreamBareCr(_) => has_bare_cr(&self.arrived.raw),
            MustNot::UpstreamRawContains(text) => self.arrived.raw.contains(text),
            MustNot::DownstreamContains(text) => self.seen.raw.contains(text),
            MustNot::DownstreamStatus(status) => finals.iter().any(|r| r.status == Some(*status)),
            MustNot::NextResponseContains(text) => {
                self.next.contains(text) || finals.iter().skip(1).any(|r| r.body.contains(text))
            }
            MustNot::DownstreamComplete2xx(_) => finals
                .first()
                .is_some_and(|r| r.complete && r.status.is_some_and(|s| s / 100 == 2)),
            MustNot::InterimSentToHttp10(_) => self.seen.responses.iter().any(|r| r.status < Some(200)),
            MustNot::RoutedByIdentityButUpstreamHeaderAbsent(_) => {
                requests.first().is_some_and(|r| r.all("x-user-id").is_empty())
            }
            MustNot::UpstreamHost(host) => requests.first().is_some_and(|r| r.all("host").contains(&host.as_str())),
        };
        violated.then(|| format!("must not: {must_not:?}"))
    }
}

fn has_bare_cr(raw: &str) -> bool {
    let bytes = raw.as_bytes();
    bytes
        .iter()
        .enumerate()
        .any(|(place, b)| *b == b'\r' && bytes.get(place + 1).is_some_and(|next| *next != b'\n'))
}

fn reached(wanted: &Upstream, request: &Request) -> bool {
    let is = |value: &Option<String>, actual: &str| value.as_ref().is_none_or(|v| v == actual);
    let head = request.raw.split("\r\n\r\n").next().unwrap_or_default();
    let framing = request.all("content-length").len() + request.all("transfer-encoding").len();
    let last_for = || {
        let all = request.all("x-forwarded-for").join(",");
        all.rsplit(',').next().map(|v| v.trim().to_owned()).unwrap_or_default()
    };
    let claimed = ["canary", "99", "admin"];
    is(&wanted.body, &request.body)
        && wanted.body_len.is_none_or(|length| request.body.len() == length)
        && (!wanted.single_framing || framing <= 1)
        && wanted
            .header_equals
            .iter()
            .all(|(name, value)| request.all(name) == [value.as_str()])
        && wanted.header_absent.iter().all(|name| request.all(name).is_empty())
        && wanted
            .header_count
            .iter()
            .all(|(name, number)| request.all(name).len() == *number)
        && wanted.header_in.iter().all(|(name, values)| {
            let first = request.all(name).first().map(|v| (*v).to_owned());
            values.contains(&first)
        })
        && wanted
            .raw_contains
            .as_ref()
            .is_none_or(|text| request.raw.contains(text))
        && wanted
            .raw_not_contains
            .as_ref()
            .is_none_or(|text| !request.raw.contains(text))
        && wanted
            .host_count
            .is_none_or(|number| request.all("host").len() == number)
        && !(wanted.no_obs_fold && (head.contains("\r\n ") || head.contains("\r\n\t")))
        && is(&wanted.path, &request.path)
        && (wanted.path_any_of.is_empty() || wanted.path_any_of.contains(&request.path))
        && is(&wanted.request_line, &request.line)
        && wanted
            .client_value_absent
            .iter()
            .all(|name| !request.all(name).iter().any(|value| claimed.contains(value)))
        && wanted.xff_last.as_ref().is_none_or(|_| last_for().starts_with("127."))
        && wanted.trailer_not_promoted.as_ref().is_none_or(|name| {
            let smuggled = ["evil", "evil.example", "50"];
            !request.all(name).iter().any(|value| smuggled.contains(value))
        })
}

fn returned(wanted: &Downstream, response: &Response, raw: &str) -> bool {
    let head = raw.split("\r\n\r\n").next().unwrap_or_default();
    let framing = response.all("content-length").len() + response.all("transfer-encoding").len();
    wanted.header_absent.iter().all(|name| response.all(name).is_empty())
        && wanted
            .header_count
            .iter()
            .all(|(name, number)| response.all(name).len() == *number)
        && (!wanted.single_framing || framing <= 1)
        && !(wanted.no_obs_fold && (head.contains("\r\n ") || head.contains("\r\n\t")))
        && !(wanted.no_bare_lf && raw.replace("\r\n", "").contains('\n'))
}
