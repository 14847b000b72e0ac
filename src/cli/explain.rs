//! `switchyard user explain`: by the running program, or offline by a configuration file; the same way either way.

use std::net::IpAddr;
use std::path::Path;

use http::HeaderName;
use serde_json::json;

use super::args::{Explain, Pair};
use super::failure::Failure;
use super::screen;
use super::session::{Session, post};
use super::show;
use crate::admin::wire::{ExplainBody, Explained, Explanation, Named, Values};
use crate::config;
use crate::identity::jwt::Claims;
use crate::identity::{Identity, Normaliser};
use crate::rollout::{Attributes, Known, Members, PoolIdx, PoolName, RolloutSpec, Step, Table};

/// Explains.
///
/// # Errors
/// When there is nothing to explain, or nobody to ask.
pub fn run(session: &Session, explain: &Explain) -> Result<(), Failure> {
    let who = match &explain.user {
        Some(user) => format!("user {user}"),
        None => "nobody known".to_owned(),
    };
    let rollout = explain.rollout.as_str();
    if let Some(file) = &explain.config {
        return offline(session, &who, explain, file);
    }
    let body = ExplainBody {
        user: explain.user.clone(),
        headers: fields(&explain.headers),
        cookies: by_name(&explain.cookies),
        query: by_name(&explain.query),
        path: Some(explain.path.clone()),
        client: explain.client,
        claims: by_name(&explain.claims),
    };
    let call = post(&["rollouts", rollout, "explain"]).json(&body)?;
    session.show(&call, |screen, explained: &Explained| {
        show::explained(screen, &who, rollout, explained)
    })
}

fn by_name(pairs: &[Pair]) -> Named {
    let each = pairs.iter();
    Values::by_name(each.map(|pair| (pair.name.clone(), pair.value.clone())))
}

/// Of names that are the same whatever their case, in the order of the request.
fn fields(pairs: &[Pair]) -> Named {
    let each = pairs.iter();
    Values::by_name(each.map(|pair| (pair.name.to_ascii_lowercase(), pair.value.clone())))
}

fn offline(session: &Session, who: &str, explain: &Explain, file: &Path) -> Result<(), Failure> {
    let config = config::load(file).map_err(|e| Failure::Invalid(e.to_string()))?;
    let wanted = &explain.rollout;
    let found = config.rollouts.iter().find(|(name, _)| name == wanted);
    let Some((name, spec)) = found else {
        let names: Vec<&str> = config.rollouts.iter().map(|(name, _)| name.as_str()).collect();
        let (file, names) = (file.display(), names.join(", "));
        let text = format!("{file}: has no rollout {wanted}: it has {names}");
        return Err(Failure::Invalid(text));
    };
    let place = |pool: &PoolName| {
        let place = config.pools.iter().position(|known| known.name == *pool)?;
        u16::try_from(place).ok().map(PoolIdx)
    };
    let known = Known {
        pool: &place,
        segment: &|_| Some(Members::none()),
    };
    let table = Table::compile(name, spec, &known).map_err(|problems| {
        let each = problems.into_iter().map(|p| format!("{}: {}", p.path, p.message));
        Failure::Invalid(each.collect::<Vec<_>>().join("\n"))
    })?;
    let request = Typed::new(explain)?;
    let identity = identity(&Normaliser::new(&config.identity.normalise), explain)?;
    let (decision, mut explanation) = table.explain(spec, &identity, &request);
    let other = explain
        .user
        .as_ref()
        .and_then(|user| Step::of_identity(user, &identity));
    explanation.steps.splice(..0, other);
    let pool = table.release(decision.release).pool;
    let pool = config.pools.get(usize::from(pool.0)).map(|pool| pool.name.as_str());
    print(session, who, explain, spec, &explanation, pool.unwrap_or_default())
}

fn print(
    session: &Session,
    who: &str,
    explain: &Explain,
    spec: &RolloutSpec,
    explanation: &Explanation,
    pool: &str,
) -> Result<(), Failure> {
    if session.is_json() {
        return screen::put(&json!({ "explanation": explanation, "pool": pool }).to_string());
    }
    let mut lines = show::decided(&session.screen, who, explain.rollout.as_str(), explanation);
    lines.push(format!("pool {pool}"));
    if spec.targets.iter().any(|target| target.segment.is_some()) {
        lines.push("segments are empty here: their users are known to the running program only".to_owned());
    }
    screen::put(&lines.join("\n"))
}

fn identity(normaliser: &Normaliser, explain: &Explain) -> Result<Identity, Failure> {
    let Some(user) = &explain.user else {
        return Ok(Identity::Anonymous);
    };
    let identity = normaliser.identity(user);
    identity.map_err(|e| Failure::Invalid(format!("user id {user:?} {e}")))
}

/// A request as it is typed.
struct Typed<'a> {
    explain: &'a Explain,
    headers: Vec<(HeaderName, &'a str)>,
    /// Those of `Cookie:` fields, after those that were given alone.
    cookies: Vec<(&'a str, &'a str)>,
    claims: Claims,
}

impl<'a> Typed<'a> {
    fn new(explain: &'a Explain) -> Result<Self, Failure> {
        let mut headers = Vec::with_capacity(explain.headers.len());
        let mut cookies: Vec<(&str, &str)> = Vec::new();
        for Pair { name, value } in &explain.cookies {
            cookies.push((name, value));
        }
        for Pair { name, value } in &explain.headers {
            let field = HeaderName::from_bytes(name.as_bytes());
            let field = field.map_err(|_| Failure::Invalid(format!("-H {name:?} is no header field name")))?;
            if field == http::header::COOKIE {
                cookies.extend(value.split(';').filter_map(|pair| pair.trim().split_once('=')));
            }
            headers.push((field, value.as_str()));
        }
        let claims = explain.claims.iter();
        Ok(Self {
            explain,
            headers,
            cookies,
            claims: Claims::of(claims.map(|pair| (pair.name.clone(), pair.value.clone()))),
        })
    }
}

impl Attributes for Typed<'_> {
    fn header(&self, name: &HeaderName) -> Option<&[u8]> {
        let field = self.headers.iter().find(|(field, _)| field == name)?;
        Some(field.1.as_bytes())
    }

    fn cookie(&self, name: &str) -> Option<&[u8]> {
        let cookie = self.cookies.iter().find(|(known, _)| *known == name)?;
        Some(cookie.1.as_bytes())
    }

    fn query(&self, name: &str) -> Option<&[u8]> {
        let pair = self.explain.query.iter().find(|pair| pair.name == name)?;
        Some(pair.value.as_bytes())
    }

    fn path(&self) -> &str {
        &self.explain.path
    }

    fn client_ip(&self) -> Option<IpAddr> {
        self.explain.client
    }

    fn claims(&self) -> Option<&Claims> {
        Some(&self.claims)
    }
}
