//! `switchyard user`

use http::Method;

use super::args::{Import, User, UserVerb};
use super::call::Call;
use super::explain;
use super::failure::Failure;
use super::list;
use super::moment;
use super::screen;
use super::session::{Session, post};
use super::show;
use crate::admin::wire::{self, UserBody};

/// Does what is asked.
///
/// # Errors
/// When it could not.
pub fn run(user: &User) -> Result<(), Failure> {
    let reach = &user.reach;
    let session = Session::new(reach)?;
    match &user.verb {
        UserVerb::Set {
            rollout,
            user,
            release,
            until,
            ask,
        } => {
            let body = UserBody {
                release: release.clone(),
                until: until.map(moment::text),
            };
            let call = Call::new(Method::PUT, &["rollouts", rollout.as_str(), "users", user]);
            session.change(ask, call.json(&body)?)
        }
        UserVerb::Unset { rollout, user, ask } => {
            let call = Call::new(Method::DELETE, &["rollouts", rollout.as_str(), "users", user]);
            session.change(ask, call)
        }
        UserVerb::Get { rollout, user } => {
            let call = Call::get(&["rollouts", rollout.as_str(), "users", user]);
            session.show(&call, |_, user| show::pinned(user))
        }
        UserVerb::Import(import) => self::import(&session, import),
        UserVerb::Export { rollout } => {
            let call = Call::get(&["rollouts", rollout.as_str(), "export"]);
            list::receive(session.client.stream(&call)?)
        }
        UserVerb::Explain(explain) => explain::run(&session, explain),
    }
}

fn import(session: &Session, import: &Import) -> Result<(), Failure> {
    let rollout = &import.rollout;
    let mode = if import.replace { "replace" } else { "merge" };
    if import.replace && session.asks(&import.ask) {
        let call = Call::get(&["rollouts", rollout.as_str()]);
        let (one, _) = session.client.read::<wire::Rollout>(&call)?;
        if one.users > 0 {
            let (users, file) = (screen::counted(one.users, "user"), &import.file);
            screen::confirm(&format!("unpin {users} of {rollout}, and pin those of {file}?"))?;
        }
    }
    let call = post(&["rollouts", rollout.as_str(), "users"])
        .query("mode", mode)
        .query("release", &import.release);
    let answer = list::send(session, &import.ask, call, &import.file, import.format)?;
    session.changed(&import.ask, &answer)
}
