//! `switchyard events`: what happens, one line an event, until interrupted.

use std::io::{BufRead, BufReader, Read};

use super::args::Events;
use super::call::Call;
use super::failure::Failure;
use super::screen;
use super::session::Session;
use super::show;
use crate::admin::wire::{EndpointHealth, Figures, LiveRevision};

/// An event's line is this long at most: the figures of a thousand releases have room in it.
const LINE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Follows until the connection ends.
///
/// # Errors
/// When it ends, or there is nowhere to print.
pub fn run(events: &Events) -> Result<(), Failure> {
    let session = Session::new(&events.reach)?;
    let call = Call::get(&["events"]).header("accept", "text/event-stream");
    let stream = session.client.stream(&call)?;
    let mut lines = BufReader::new(stream);
    let mut kind = String::new();
    let mut line = String::new();
    loop {
        line.clear();
        let read = lines.by_ref().take(LINE_BYTES_MAX).read_line(&mut line);
        let n = read.map_err(|e| Failure::Unanswered(format!("the connection was lost: {e}: repeat the command")))?;
        if n == 0 {
            let text = "the program ended the stream: repeat the command";
            return Err(Failure::Unanswered(text.to_owned()));
        }
        match line.trim_end().split_once(':') {
            Some(("event", name)) => name.trim().clone_into(&mut kind),
            Some(("data", data)) if kind != "figures" || events.figures => tell(&session, &kind, data.trim())?,
            // Ids, heartbeats, empty lines, and what is not asked for.
            Some(_) | None => {}
        }
    }
}

fn tell(session: &Session, kind: &str, data: &str) -> Result<(), Failure> {
    if session.is_json() {
        return screen::put(&format!("{{\"event\":\"{kind}\",\"data\":{data}}}"));
    }
    let text = match kind {
        "revision" => serde_json::from_str(data).map(|one: LiveRevision| show::revision(&session.screen, &one)),
        "health" => serde_json::from_str(data).map(|one: EndpointHealth| show::health(&session.screen, &one)),
        "figures" => serde_json::from_str(data).map(|one: Figures| show::figures(&one)),
        _ => Ok(format!("{kind} {data}")),
    };
    match text {
        Ok(text) => screen::put(&text),
        Err(e) => {
            let text = format!("an event {kind} that this version does not understand: {e}");
            Err(Failure::Unanswered(text))
        }
    }
}
