//! Why somebody gets a release: a request that is described in JSON, decided as the proxy decides.

use std::net::IpAddr;
use std::str::FromStr;

use axum::Json;
use axum::extract::State as Shared;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};

use super::document::{Api, Operation};
use super::parameters::{Named, Parameters};
use super::refusal::{Kind, Refusal};
use super::rollouts::known;
use super::sent::Sent;
use super::state::State;
use super::wire::{ExplainBody, Explained, ProblemItem, Values};
use crate::identity::jwt::Claims;
use crate::identity::{Identity, Normaliser};
use crate::rollout::{Attributes, RolloutName, Step};

/// The operation.
pub fn operations(api: Api) -> Api {
    api.add(
        Operation::read(
            "post",
            "/api/v1/rollouts/{rollout}/explain",
            "explain",
            "Who gets what, and why; nothing is changed.",
        )
        .takes::<ExplainBody>(true)
        .answer::<Explained>(200, "Every step."),
        explain,
    )
}

async fn explain(
    Shared(state): Shared<State>,
    Named(name): Named<RolloutName>,
    query: Parameters,
    Sent(body, _): Sent<ExplainBody>,
) -> Result<Json<Explained>, Refusal> {
    query.end()?;
    let snapshot = state.pin();
    let live = known(&snapshot, &name)?;
    let user = body.user.clone();
    let identity = identity(&state.normaliser, user.as_deref())?;
    let request = Described::new(body)?;
    let table = live.table();
    let (decision, mut explanation) = table.explain(live.spec(), &identity, &request);
    let other = user.and_then(|user| Step::of_identity(&user, &identity));
    explanation.steps.splice(..0, other);
    let pool = table.release(decision.release).pool;
    let available = state.pools.any_available(pool);
    let fallback = table.fallback(&decision).filter(|_| !available);
    Ok(Json(Explained {
        revision: live.as_of().0,
        explanation,
        pool: state.pools.get(pool).name().clone(),
        pool_available: available,
        fallback: fallback.map(|decision| table.release(decision.release).name.clone()),
    }))
}

fn identity(normaliser: &Normaliser, user: Option<&str>) -> Result<Identity, Refusal> {
    let Some(user) = user else {
        return Ok(Identity::Anonymous);
    };
    let identity = normaliser.identity(user);
    identity.map_err(|e| Refusal::at(Kind::Invalid, "user", e.to_string()))
}

/// A request in words.
struct Described {
    headers: HeaderMap,
    cookies: Vec<(String, String)>,
    query: Vec<(String, String)>,
    path: String,
    client: Option<IpAddr>,
    claims: Claims,
}

impl Described {
    fn new(body: ExplainBody) -> Result<Self, Refusal> {
        let mut headers = HeaderMap::new();
        let mut problems = Vec::new();
        for (name, value) in Values::pairs(body.headers) {
            match (HeaderName::from_str(&name), HeaderValue::from_str(&value)) {
                (Ok(name), Ok(value)) => {
                    headers.append(name, value);
                }
                (Err(_), _) => problems.push(("is no name of a header field", name)),
                (Ok(_), Err(_)) => problems.push(("has a value that no header field can have", name)),
            }
        }
        if !problems.is_empty() {
            let item = |(message, name): (&str, String)| ProblemItem {
                key: format!("headers.{name}"),
                message: message.to_owned(),
            };
            let items = problems.into_iter().map(item).collect();
            return Err(Refusal::new(Kind::Invalid, "header fields that cannot be").with(items));
        }
        let path = body.path.unwrap_or_else(|| "/".to_owned());
        if !path.starts_with('/') || path.contains('?') {
            return Err(Refusal::at(
                Kind::Invalid,
                "path",
                "begins with no /, or has a query in it",
            ));
        }
        Ok(Self {
            headers,
            cookies: Values::pairs(body.cookies).collect(),
            query: Values::pairs(body.query).collect(),
            path,
            client: body.client.map(|ip| ip.to_canonical()),
            claims: Claims::of(Values::pairs(body.claims)),
        })
    }
}

impl Attributes for Described {
    fn header(&self, name: &HeaderName) -> Option<&[u8]> {
        self.headers.get(name).map(HeaderValue::as_bytes)
    }

    fn cookie(&self, name: &str) -> Option<&[u8]> {
        if let Some((_, value)) = self.cookies.iter().find(|(known, _)| known == name) {
            return Some(value.as_bytes());
        }
        let lines = self.headers.get_all(header::COOKIE).iter();
        let mut pairs = lines.flat_map(|line| line.as_bytes().split(|b| *b == b';'));
        pairs.find_map(|pair| pair.trim_ascii().strip_prefix(name.as_bytes())?.strip_prefix(b"="))
    }

    fn query(&self, name: &str) -> Option<&[u8]> {
        let (_, value) = self.query.iter().find(|(known, _)| known == name)?;
        Some(value.as_bytes())
    }

    fn path(&self) -> &str {
        &self.path
    }

    fn client_ip(&self) -> Option<IpAddr> {
        self.client
    }

    fn claims(&self) -> Option<&Claims> {
        Some(&self.claims)
    }
}
