//! Programs that end in the middle: killed, without room, with a failing disk. The test runs itself again as the program
//! that is killed, and compares what is left with a history that both can roll.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use switchyard::rollout::{Fact, Revision};
use switchyard::store::{EmbeddedSettings, EmbeddedStore, HistoryQuery, Store};

use crate::dice::Dice;
use crate::embedded::Folder;
use crate::history;
use crate::make::{commit, group, load, must, pins, put};
use crate::model::Model;

/// Says to the program under test which store to write.
const STORE: &str = "SWITCHYARD_TEST_STORE";
/// What it prints before the number of a commit that is done.
const DONE: &str = "done ";
/// What it prints before the number of a commit that was refused, and why.
const REFUSED: &str = "refused ";

fn is_long() -> bool {
    std::env::var_os("SWITCHYARD_LONG").is_some()
}

/// The change that every program makes as this revision.
fn change(state: &Model, revision: u64) -> Vec<Fact> {
    let mut dice = Dice(revision);
    let mut facts = vec![put("big", &revision.to_string())];
    if revision.is_multiple_of(5) {
        // Large enough to be interrupted half-way.
        let users: Vec<String> = (0..600).map(|n| format!("{}-{n}", dice.below(9))).collect();
        let users: Vec<&str> = users.iter().map(String::as_str).collect();
        facts.push(pins(
            "big",
            dice.chance(4),
            &[],
            vec![group("canary", Some(revision), &users)],
        ));
    }
    facts.extend(history::roll(&mut dice, state, revision));
    facts
}

/// Not a test of its own: the program that is killed. Commits until it is, and says what is done.
#[test]
fn program() {
    let Some(path) = std::env::var_os(STORE) else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("runtime");
    runtime.block_on(async {
        let store = match EmbeddedStore::open(&settings(Path::new(&path))) {
            Ok(store) => store,
            Err(error) => return refused(0, &error.to_string()),
        };
        let (Revision(mut at), facts) = load(&store).await;
        let mut state = Model::of(&facts);
        loop {
            let facts = change(&state, at + 1);
            match store.commit(Revision(at), commit(facts.clone())).await {
                Ok(_) => println!("\n{DONE}{}", at + 1),
                Err(error) => {
                    // It goes on serving what it has.
                    assert_eq!(Model::of(&load(&store).await.1), state);
                    return refused(at + 1, &error.to_string());
                }
            }
            state.apply_all(&facts);
            at += 1;
        }
    });
}

/// Says so, and goes on until the end is put to it.
fn refused(revision: u64, why: &str) {
    println!("\n{REFUSED}{revision} {why}");
    std::io::stdout().flush().expect("told");
    loop {
        std::thread::park();
    }
}

fn settings(path: &Path) -> EmbeddedSettings {
    EmbeddedSettings {
        copy_every: Duration::from_millis(20),
        ..EmbeddedSettings::new(path)
    }
}

fn open(path: &Path) -> EmbeddedStore {
    EmbeddedStore::open(&settings(path)).expect("opens")
}

/// A running program, killed at the latest when dropped.
struct Program(Child, BufReader<std::process::ChildStdout>);

impl Program {
    fn start(path: &Path, before: &[&str]) -> Self {
        let this = std::env::current_exe().expect("this program");
        let this = this.to_str().expect("text");
        let words: Vec<&str> = before
            .iter()
            .copied()
            .chain([this, "crash::program", "--exact", "--nocapture"])
            .collect();
        let mut child = Command::new(words[0]);
        child
            .args(&words[1..])
            .env(STORE, path)
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let mut child = child.spawn().expect("starts");
        let said = BufReader::new(child.stdout.take().expect("piped"));
        Self(child, said)
    }

    /// The next thing it says that begins so.
    fn says(&mut self, begins: &[&str]) -> Option<String> {
        let mut line = String::new();
        while self.1.read_line(&mut line).expect("readable") > 0 {
            if begins.iter().any(|begins| line.starts_with(begins)) {
                return Some(line.trim().to_owned());
            }
            line.clear();
        }
        None
    }

    /// Kills it; yields what it had said to be done, where that is more than `done`.
    fn kill(mut self, mut done: u64) -> u64 {
        self.0.kill().expect("killed");
        self.0.wait().expect("ended");
        while let Some(line) = self.says(&[DONE]) {
            done = number(&line);
        }
        done
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if let Err(error) = self.0.kill().and_then(|()| self.0.wait()) {
            eprintln!("{error}");
        }
    }
}

fn number(line: &str) -> u64 {
    line.split(' ')
        .nth(1)
        .and_then(|number| number.parse().ok())
        .expect("a number")
}

/// The state after each revision, rolled as far as it is needed.
struct Expected(Vec<Model>);

impl Expected {
    fn new() -> Self {
        Self(vec![Model::default()])
    }

    fn at(&mut self, revision: u64) -> &Model {
        let revision = usize::try_from(revision).expect("fits");
        while self.0.len() <= revision {
            let mut state = self.0.last().expect("a state").clone();
            let facts = change(&state, self.0.len() as u64);
            state.apply_all(&facts);
            self.0.push(state);
        }
        &self.0[revision]
    }

    /// All acknowledged is there, and nothing half; yields the revision.
    async fn check(&mut self, store: &EmbeddedStore, done: u64) -> u64 {
        let (Revision(there), facts) = load(store).await;
        assert!(
            there == done || there == done + 1,
            "{done} was acknowledged, {there} is there"
        );
        assert!(
            Model::of(&facts) == *self.at(there),
            "the state at {there} is not whole"
        );
        let all = HistoryQuery {
            limit: usize::MAX,
            ..HistoryQuery::default()
        };
        let revisions = store
            .history(&all)
            .await
            .expect("history")
            .into_iter()
            .map(|entry| entry.revision.0);
        assert!(revisions.eq((1..=there).rev()), "the history has a gap");
        let to = there.saturating_sub(7);
        let mut back = self.at(there).clone();
        back.apply_all(&store.undoing(Revision(to)).await.expect("undoing"));
        assert!(back == *self.at(to), "undoing from {there} to {to}");
        there
    }
}

#[tokio::test]
async fn a_program_killed_at_any_moment_loses_nothing_acknowledged_and_leaves_nothing_half() {
    let rounds = if is_long() { 1_000 } else { 100 };
    let mut dice = Dice(11);
    let (mut folder, mut expected, mut done) = (Folder::new(), Expected::new(), 0);
    for round in 0..rounds {
        if round % 20 == 0 {
            (folder, expected, done) = (Folder::new(), Expected::new(), 0);
        }
        // In some rounds another program has the store open meanwhile, so that nobody recovers the log.
        let other = (round % 3 == 0).then(|| open(&folder.path()));
        let mut program = Program::start(&folder.path(), &[]);
        for _ in 0..=dice.below(4) {
            done = number(&program.says(&[DONE]).expect("it commits"));
        }
        // Any moment will do; nothing is expected of it.
        std::thread::sleep(Duration::from_micros(dice.below(4_000)));
        done = program.kill(done);
        done = match &other {
            Some(other) => expected.check(other, done).await,
            None => expected.check(&open(&folder.path()), done).await,
        };
    }
}

/// Runs the program until a change is refused, kills it, and looks that the change never appears.
async fn a_refused_change_never_appears(path: PathBuf, before: &[&str], reason: &str) {
    let mut program = Program::start(&path, before);
    let mut done = 0;
    let refused = loop {
        let line = program.says(&[DONE, REFUSED]).expect("it says so");
        if line.starts_with(REFUSED) {
            break line;
        }
        done = number(&line);
    };
    assert!(refused.contains(reason), "{refused}");
    assert!(refused.contains("rollouts.db"), "{refused}");
    program.kill(done);
    let (mut expected, store) = (Expected::new(), open(&path));
    assert_eq!(expected.check(&store, done).await, done, "what was refused is there");
    drop(store);
    let store = open(&path);
    assert_eq!(expected.check(&store, done).await, done);
    must(&store, done, change(&expected.at(done).clone(), done + 1)).await;
}

#[tokio::test]
async fn a_change_that_the_file_has_no_room_for_is_refused() {
    for blocks in [200, 333, 512, 800] {
        let folder = Folder::new();
        // The system refuses to let files grow further, as a full disk does.
        let limit = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" \"$@\"");
        a_refused_change_never_appears(folder.path(), &["sh", "-c", &limit], "nothing of the change is kept").await;
    }
}

#[tokio::test]
async fn a_change_is_refused_when_the_disk_is_full_or_fails() {
    if !is_long() {
        return;
    }
    for kib in [512, 600, 777, 1024, 2048] {
        let folder = Folder::new();
        let disk = folder.path().with_file_name("disk");
        std::fs::create_dir(&disk).expect("folder");
        let size = format!("size={kib}k");
        run(&[
            "mount",
            "-t",
            "tmpfs",
            "-o",
            &size,
            "tmpfs",
            disk.to_str().expect("text"),
        ]);
        let full = full(&disk.join("rollouts.db")).await;
        run(&["umount", disk.to_str().expect("text")]);
        assert!(full.contains("make room"), "{full}");
    }
    // Counted in each thread, so that it is the thread that commits which meets it.
    let moments = [
        ("fsync,fdatasync", ["9", "12", "21", "25+", "33"]),
        ("pwrite64", ["150", "200+", "301", "450", "700+"]),
    ];
    for (call, moments) in moments {
        for when in moments {
            let folder = Folder::new();
            let inject = format!("inject={call}:error=EIO:when={when}");
            let before = ["strace", "-D", "-f", "-qq", "-o", "/dev/null", "-e", &inject];
            a_refused_change_never_appears(folder.path(), &before, "").await;
        }
    }
}

/// What a store on a full disk says, and that it stands as before, also after making room.
async fn full(path: &Path) -> String {
    let mut program = Program::start(path, &[]);
    let mut done = 0;
    let refused = loop {
        let line = program.says(&[DONE, REFUSED]).expect("it says so");
        if line.starts_with(REFUSED) {
            break line;
        }
        done = number(&line);
    };
    program.kill(done);
    run(&[
        "mount",
        "-o",
        "remount,size=64m",
        path.parent().and_then(Path::to_str).expect("text"),
    ]);
    let (mut expected, store) = (Expected::new(), open(path));
    assert_eq!(expected.check(&store, done).await, done, "what was refused is there");
    must(&store, done, change(&expected.at(done).clone(), done + 1)).await;
    refused
}

fn run(words: &[&str]) {
    let status = Command::new(words[0]).args(&words[1..]).status().expect("starts");
    assert!(status.success(), "{words:?}: {status}");
}
