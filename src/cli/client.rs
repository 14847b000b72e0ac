//! The admin API's client: one call, bounded in time, repeated where that is safe.

use std::io::{ErrorKind, Read};
use std::path::Path;
use std::time::Duration;

use http::{Method, Request, Response};
use serde::de::DeserializeOwned;
use ureq::{Agent, AsSendBody, Body, SendBody, Timeout};

use super::args::Reach;
use super::call::{Answer, Call};
use super::failure::Failure;
use crate::admin::wire::{self, Problem};

/// The server answers a change in at most five seconds; the rest is for a slow way there.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longer than the admin side reads a list, which says so itself.
const UPLOAD_TIMEOUT: Duration = wire::LIST_WITHIN.saturating_add(ANSWER_TIMEOUT);
/// A list of five million users is checked, committed and made live in that time.
const UPLOAD_ANSWER_TIMEOUT: Duration = Duration::from_secs(300);
/// Pauses before a call is repeated: two seconds in all, longer than an upgrade's moment of change.
const PAUSES: [Duration; 3] = [
    Duration::from_millis(200),
    Duration::from_millis(600),
    Duration::from_millis(1200),
];
/// The largest answer that is kept whole.
const ANSWER_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Calls the admin side.
pub struct Client {
    agent: Agent,
    admin: String,
    token: Option<String>,
}

impl Client {
    /// By the flags and the environment.
    ///
    /// # Errors
    /// When the URL is none, or the token's file cannot be read.
    pub fn new(reach: &Reach) -> Result<Self, Failure> {
        let admin = reach.admin.trim_end_matches('/').to_owned();
        let uri: Option<http::Uri> = admin.parse().ok();
        let host = uri
            .as_ref()
            .filter(|uri| uri.scheme().is_some())
            .and_then(http::Uri::host);
        let Some(host) = host else {
            return Err(Failure::Invalid(format!(
                "--admin {admin:?} is no URL: write one such as http://127.0.0.1:9180"
            )));
        };
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .user_agent(concat!("switchyard/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_recv_response(Some(ANSWER_TIMEOUT))
            .tls_config(
                ureq::tls::TlsConfig::builder()
                    .root_certs(ureq::tls::RootCerts::PlatformVerifier)
                    .build(),
            );
        // A proxy that the environment names cannot reach this machine's own loopback.
        let config = if is_loopback(host) { config.proxy(None) } else { config };
        Ok(Self {
            agent: config.build().new_agent(),
            admin,
            token: token(reach.token_file.as_deref())?,
        })
    }

    /// Calls, and repeats the call when the connection is lost or the admin side cannot for the moment. A change that
    /// is repeated carries its idempotency key.
    ///
    /// # Errors
    /// When there is no answer, or a refusal.
    pub fn call(&self, call: &Call) -> Result<Answer, Failure> {
        self.repeated(&mut || match &call.body {
            Some(body) => self.whole(self.send(call, body.as_slice(), ANSWER_TIMEOUT)),
            // Said to be empty: without a length it would be sent as chunks.
            None if call.method != Method::GET => self.whole(self.send(call, [].as_slice(), ANSWER_TIMEOUT)),
            None => self.whole(self.send(call, SendBody::none(), ANSWER_TIMEOUT)),
        })
    }

    /// Calls, and reads the answer as what it must be.
    ///
    /// # Errors
    /// When there is no answer, a refusal, or something else.
    pub fn read<T: DeserializeOwned>(&self, call: &Call) -> Result<(T, Answer), Failure> {
        let answer = self.call(call)?;
        Ok((self.understood(&answer)?, answer))
    }

    /// An answer as what it must be.
    ///
    /// # Errors
    /// When it is something else.
    pub fn understood<T: DeserializeOwned>(&self, answer: &Answer) -> Result<T, Failure> {
        serde_json::from_slice(&answer.body).map_err(|e| {
            let text = format!(
                "{} answers what this version does not understand: {e}: is that switchyard's admin side? --admin URL",
                self.admin
            );
            Failure::Unanswered(text)
        })
    }

    /// Sends a list; `open` yields it again for a repeated call, or nothing where it cannot.
    ///
    /// # Errors
    /// When there is no answer, or a refusal.
    pub fn upload<R: Read>(
        &self,
        call: &Call,
        open: &mut dyn FnMut() -> Result<Option<R>, Failure>,
    ) -> Result<Answer, Failure> {
        let mut first = Some(open()?);
        self.repeated(&mut || {
            let list = match first.take() {
                Some(list) => list,
                None => open().map_err(Trouble::Final)?,
            };
            let mut list = list.ok_or_else(|| {
                Trouble::Final(Failure::Unanswered(
                    "the connection was lost, and standard input cannot be sent twice: repeat the command".to_owned(),
                ))
            })?;
            let answer = self.whole(self.send(call, SendBody::from_reader(&mut list), UPLOAD_ANSWER_TIMEOUT));
            // It would be no faster.
            answer.map_err(|trouble| match trouble {
                Trouble::Refused(problem) if problem.kind == "timeout" => Trouble::Final(Failure::Refused(problem)),
                other => other,
            })
        })
    }

    /// The body of an answer while it comes, without a limit on its length or duration.
    ///
    /// # Errors
    /// When there is no answer, or a refusal.
    pub fn stream(&self, call: &Call) -> Result<impl Read + use<>, Failure> {
        let response = match self.send(call, SendBody::none(), ANSWER_TIMEOUT) {
            Ok(response) if response.status().is_success() => response,
            other => {
                return Err(match self.whole(other) {
                    Err(trouble) => self.failure(trouble),
                    Ok(answer) => Failure::Unanswered(format!("{} answers {}", self.admin, answer.status)),
                });
            }
        };
        Ok(response.into_body().into_with_config().limit(u64::MAX).reader())
    }

    fn repeated(&self, attempt: &mut dyn FnMut() -> Result<Answer, Trouble>) -> Result<Answer, Failure> {
        let mut pauses = PAUSES.iter();
        loop {
            let trouble = match attempt() {
                Ok(answer) => return Ok(answer),
                Err(trouble) => trouble,
            };
            match pauses.next() {
                Some(pause) if trouble.passes() => std::thread::sleep(*pause),
                Some(_) | None => return Err(self.failure(trouble)),
            }
        }
    }

    fn send(&self, call: &Call, body: impl AsSendBody, answer: Duration) -> Result<Response<Body>, ureq::Error> {
        let mut request = Request::builder()
            .method(call.method.clone())
            .uri(call.url(&self.admin));
        for (name, value) in &call.headers {
            request = request.header(*name, value);
        }
        if let Some(token) = &self.token {
            request = request.header(http::header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let request = self.agent.configure_request(request.body(body)?);
        let request = request
            .timeout_send_body(Some(UPLOAD_TIMEOUT))
            .timeout_recv_response(Some(answer));
        self.agent.run(request.build())
    }

    fn whole(&self, sent: Result<Response<Body>, ureq::Error>) -> Result<Answer, Trouble> {
        let response = sent.map_err(Trouble::Lost)?;
        let status = response.status();
        let body = response
            .into_body()
            .into_with_config()
            .limit(ANSWER_BYTES_MAX)
            .read_to_vec();
        let body = body.map_err(Trouble::Lost)?;
        if status.is_success() {
            return Ok(Answer {
                status: status.as_u16(),
                body,
            });
        }
        let problem = serde_json::from_slice(&body).unwrap_or_else(|_| Problem {
            kind: String::new(),
            title: format!("{} answers {status}", self.admin),
            status: status.as_u16(),
            detail: String::new(),
            problems: Vec::new(),
            revision: None,
        });
        Err(Trouble::Refused(Box::new(problem)))
    }

    fn failure(&self, trouble: Trouble) -> Failure {
        match trouble {
            Trouble::Final(failure) => failure,
            Trouble::Refused(problem) => Failure::Refused(problem),
            Trouble::Lost(error) => Failure::Unanswered(self.unanswered(&error)),
        }
    }

    /// Why there is no answer, and what to do.
    fn unanswered(&self, error: &ureq::Error) -> String {
        let admin = &self.admin;
        let again = "whether a change was made, `switchyard rollout history` says";
        match error {
            ureq::Error::Io(e) if e.kind() == ErrorKind::ConnectionRefused => {
                format!("cannot reach {admin}: connection refused: is switchyard running? else say where: --admin URL")
            }
            ureq::Error::HostNotFound => format!("cannot reach {admin}: there is no such host: say where: --admin URL"),
            ureq::Error::Timeout(Timeout::Connect | Timeout::Resolve) => format!(
                "cannot reach {admin}: no connection in {} s: is the address right? --admin URL",
                CONNECT_TIMEOUT.as_secs()
            ),
            ureq::Error::Timeout(_) => format!("{admin} does not answer in time: {again}"),
            ureq::Error::Io(e) => format!("the connection to {admin} was lost: {e}: {again}"),
            other => format!("cannot talk to {admin}: {other}: is that switchyard's admin side? --admin URL"),
        }
    }
}

/// Why an attempt brought no answer.
enum Trouble {
    /// The connection failed.
    Lost(ureq::Error),
    /// The admin side refused.
    Refused(Box<Problem>),
    /// Nothing that repeating would change.
    Final(Failure),
}

impl Trouble {
    /// Whether repeating may help. Nobody listening is told at once.
    fn passes(&self) -> bool {
        match self {
            Self::Lost(ureq::Error::Io(e)) => e.kind() != ErrorKind::ConnectionRefused,
            Self::Refused(problem) => matches!(problem.status, 429 | 503) && problem.kind != "read-only",
            Self::Lost(_) | Self::Final(_) => false,
        }
    }
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    let ip: Option<std::net::IpAddr> = address.parse().ok();
    ip.map_or(host == "localhost", |ip| ip.is_loopback())
}

/// A token from a file, or from the environment.
fn token(file: Option<&Path>) -> Result<Option<String>, Failure> {
    let text = match file {
        Some(path) => std::fs::read_to_string(path).map_err(|e| {
            Failure::Invalid(format!(
                "--token-file {}: {e}: write the path of a file with a token",
                path.display()
            ))
        })?,
        None => match std::env::var("SWITCHYARD_TOKEN") {
            Ok(text) => text,
            Err(_) => return Ok(None),
        },
    };
    let token = text.trim();
    if token.is_empty() || token.bytes().any(|b| !b.is_ascii_graphic()) {
        return Err(Failure::Invalid(
            "the token is not one word of visible ASCII characters: write the token alone".to_owned(),
        ));
    }
    Ok(Some(token.to_owned()))
}
