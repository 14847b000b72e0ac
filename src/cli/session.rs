//! What a verb works with: the admin side, the screen, and the way of every change.

use std::time::Duration;

use http::Method;
use ring::rand::{SecureRandom, SystemRandom};

use super::args::{Ask, Output, Reach};
use super::call::{Answer, Call, escaped_where_needed};
use super::client::Client;
use super::failure::Failure;
use super::moment;
use super::screen::{self, Screen};
use super::show;
use crate::admin::wire::{self, Changed, Status};

/// How often `--wait` asks whether a change is live, and how often at most: a minute.
const WAIT_STEP: Duration = Duration::from_millis(200);
const WAIT_STEPS_MAX: u32 = 300;

/// A verb's surroundings.
pub struct Session {
    /// The admin side.
    pub client: Client,
    /// Where it prints.
    pub screen: Screen,
    output: Output,
}

impl Session {
    /// By the flags and the environment.
    ///
    /// # Errors
    /// When a flag is wrong.
    pub fn new(reach: &Reach) -> Result<Self, Failure> {
        Ok(Self {
            client: Client::new(reach)?,
            screen: Screen::detect(),
            output: reach.output,
        })
    }

    /// Whether output is for programs.
    pub fn is_json(&self) -> bool {
        self.output == Output::Json
    }

    /// Reads, and prints as a table that `show` makes, or as it came.
    ///
    /// # Errors
    /// When there is no answer, a refusal, or nowhere to print.
    pub fn show<T: serde::de::DeserializeOwned>(
        &self,
        call: &Call,
        show: impl FnOnce(&Screen, &T) -> String,
    ) -> Result<(), Failure> {
        let answer = self.client.call(call)?;
        self.print(&answer, show)
    }

    /// Prints an answer as a table that `show` makes, or as it came.
    ///
    /// # Errors
    /// When it is not what it must be, or there is nowhere to print.
    pub fn print<T: serde::de::DeserializeOwned>(
        &self,
        answer: &Answer,
        show: impl FnOnce(&Screen, &T) -> String,
    ) -> Result<(), Failure> {
        match self.output {
            Output::Json => screen::put(&String::from_utf8_lossy(&answer.body)),
            Output::Table => screen::put(&show(&self.screen, &self.client.understood(answer)?)),
        }
    }

    /// Makes a change, and says what became of it.
    ///
    /// # Errors
    /// When it was not made, or is not live.
    pub fn change(&self, ask: &Ask, call: Call) -> Result<(), Failure> {
        let answer = self.client.call(&conditions(call, ask)?)?;
        self.changed(ask, &answer)
    }

    /// Says what became of a change, and waits until it is live where that is asked for.
    ///
    /// # Errors
    /// When the change is not live.
    pub fn changed(&self, ask: &Ask, answer: &Answer) -> Result<(), Failure> {
        let mut changed: Changed = self.client.understood(answer)?;
        let pending = changed.scheduled.is_none() && !changed.dry_run;
        if pending && !changed.live && ask.wait {
            changed.live = self.wait_live(changed.revision)?;
        }
        match self.output {
            Output::Json => screen::put(&String::from_utf8_lossy(&answer.body))?,
            Output::Table => screen::put(&show::changed(&self.screen, &changed, ask.at))?,
        }
        if pending && !changed.live {
            return Err(Failure::NotLive(format!(
                "revision {} is committed, but not yet live: --wait waits for it, `switchyard status` says what is live",
                changed.revision
            )));
        }
        Ok(())
    }

    fn wait_live(&self, revision: u64) -> Result<bool, Failure> {
        for _ in 0..WAIT_STEPS_MAX {
            let (status, _) = self.client.read::<Status>(&Call::get(&["status"]))?;
            if status.revision >= revision {
                return Ok(true);
            }
            std::thread::sleep(WAIT_STEP);
        }
        Ok(false)
    }

    /// Whether to ask before something is lost: somebody sits there, and has not said yes already.
    pub fn asks(&self, ask: &Ask) -> bool {
        !ask.yes && !ask.dry_run && screen::attended()
    }
}

/// The call with the conditions of the change.
///
/// # Errors
/// When there is no randomness for the idempotency key.
pub fn conditions(call: Call, ask: &Ask) -> Result<Call, Failure> {
    let mut call = call.header(wire::X_SOURCE, "cli");
    if let Some(reason) = &ask.reason {
        call = call.header(wire::X_REASON, escaped_where_needed(reason));
    }
    if let Some(revision) = ask.if_match {
        call = call.header("if-match", format!("\"{revision}\""));
    }
    if ask.allow_flips {
        call = call.query("allow_flips", true);
    }
    if let Some(at) = ask.at {
        call = call.query("at", moment::text(at));
    }
    if ask.dry_run {
        return Ok(call.query("dry_run", true));
    }
    let mut random = [0; 16];
    let filled = SystemRandom::new().fill(&mut random);
    filled.map_err(|_| Failure::Unanswered("the system has no randomness for an idempotency key".to_owned()))?;
    let key: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(call.header(wire::IDEMPOTENCY_KEY, key))
}

/// A change's call.
pub fn post(segments: &[&str]) -> Call {
    Call::new(Method::POST, segments)
}
