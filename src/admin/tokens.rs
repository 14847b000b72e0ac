//! Who may do what: lines of `ROLE NAME TOKEN`, read again when the file changes. Tokens are kept as digests only, and
//! are in no error and no log.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use log::{error, info, warn};
use parking_lot::Mutex;
use ring::digest::{SHA256, digest};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};
use thiserror::Error;

use crate::clock::{self, Tick};
use crate::control::OURSELVES;
use crate::telemetry::targets;

/// The shortest token that is taken: 128 bits, if they are random bytes.
const TOKEN_BYTES_MIN: usize = 16;
/// Longer ones are no tokens: a header line has to hold them.
const TOKEN_BYTES_MAX: usize = 1024;
/// The longest name, as it stands in the history.
const NAME_BYTES_MAX: usize = 63;
/// Room for thousands of lines.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// How often the file is looked at, in milliseconds.
const LOOK_EACH_MILLIS: u64 = 1_000;
/// Names that the program itself has in the history.
const RESERVED: [&str; 2] = ["local", OURSELVES];

/// What somebody may do; each may do what those before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Reads.
    Viewer,
    /// Makes changes.
    Operator,
    /// Tokens and shutdown.
    Admin,
}

impl Role {
    /// The word in the file.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }

    fn parse(word: &str) -> Option<Self> {
        [Self::Viewer, Self::Operator, Self::Admin]
            .into_iter()
            .find(|role| role.as_str() == word)
    }
}

/// Somebody who is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Who {
    /// As in the file; `local` without one.
    pub name: Arc<str>,
    /// What they may do.
    pub role: Role,
}

/// What is wrong with a file of tokens; never shows a token.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TokensError {
    /// It cannot be read.
    #[error("tokens file {file}: {cause}")]
    Unreadable {
        /// The file.
        file: String,
        /// Why.
        cause: String,
    },
    /// Lines of it.
    #[error("{}", .0.join("\n"))]
    Lines(Vec<String>),
}

#[derive(Debug)]
struct Token {
    who: Who,
    digest: [u8; 32],
}

/// The tokens of a file, as it is now.
#[derive(Debug)]
pub struct Tokens {
    path: PathBuf,
    kept: Mutex<Kept>,
}

#[derive(Debug)]
struct Kept {
    tokens: Arc<Vec<Token>>,
    /// Of the file that was read last, whether it could be used or not.
    stamp: Option<Stamp>,
    looked: Tick,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    modified: Option<SystemTime>,
    bytes: u64,
}

impl Tokens {
    /// Reads a file.
    ///
    /// # Errors
    /// When it cannot be read, or with all lines that are wrong.
    pub fn open(path: &Path) -> Result<Self, TokensError> {
        let stamp = stamp(path);
        let tokens = read(path)?;
        Ok(Self {
            path: path.to_owned(),
            kept: Mutex::new(Kept {
                tokens: Arc::new(tokens),
                stamp,
                looked: clock::tick(),
            }),
        })
    }

    /// Whose token that is. All are compared, each in the same time.
    pub fn find(&self, token: &[u8]) -> Option<Who> {
        self.find_at(token, clock::tick())
    }

    fn find_at(&self, token: &[u8], now: Tick) -> Option<Who> {
        let tokens = self.current(now);
        let asked = digest(&SHA256, token);
        let mut found = u64::MAX;
        for (place, known) in (0u64..).zip(tokens.iter()) {
            let same: Choice = known.digest.ct_eq(asked.as_ref());
            found = u64::conditional_select(&found, &place, same);
        }
        let place = usize::try_from(found).ok()?;
        tokens.get(place).map(|token| token.who.clone())
    }

    fn current(&self, now: Tick) -> Arc<Vec<Token>> {
        let mut kept = self.kept.lock();
        if now.millis() - kept.looked.millis().min(now.millis()) >= LOOK_EACH_MILLIS {
            kept.looked = now;
            let stamp = stamp(&self.path);
            if stamp != kept.stamp {
                kept.stamp = stamp;
                match read(&self.path) {
                    Ok(tokens) => {
                        kept.tokens = Arc::new(tokens);
                        info!(target: targets::ADMIN, "tokens are read again: {} of them", kept.tokens.len());
                    }
                    Err(e) => error!(target: targets::ADMIN, "the tokens from before stay in use: {e}"),
                }
            }
        }
        Arc::clone(&kept.tokens)
    }
}

fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = fs::metadata(path).ok()?;
    Some(Stamp {
        modified: metadata.modified().ok(),
        bytes: metadata.len(),
    })
}

fn read(path: &Path) -> Result<Vec<Token>, TokensError> {
    let file = path.display().to_string();
    let unreadable = |cause: String| TokensError::Unreadable {
        file: file.clone(),
        cause,
    };
    let metadata = fs::metadata(path).map_err(|e| unreadable(e.to_string()))?;
    if metadata.len() > FILE_BYTES_MAX {
        return Err(unreadable(format!("is larger than {FILE_BYTES_MAX} bytes")));
    }
    if metadata.permissions().mode() & 0o004 != 0 {
        warn!(target: targets::ADMIN, "tokens file {file} can be read by everyone on this machine: chmod o-r it");
    }
    let text = fs::read_to_string(path).map_err(|e| unreadable(e.to_string()))?;
    parse(&file, &text)
}

fn parse(file: &str, text: &str) -> Result<Vec<Token>, TokensError> {
    let mut tokens: Vec<Token> = Vec::new();
    let mut wrong = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        match token(line).and_then(|token| unlike(token, &tokens)) {
            Ok(token) => tokens.push(token),
            Err(why) => wrong.push(format!("{file}:{number}: {why}")),
        }
    }
    if tokens.is_empty() && wrong.is_empty() {
        wrong.push(format!("{file}: holds no token: write lines of ROLE NAME TOKEN"));
    }
    if wrong.is_empty() {
        Ok(tokens)
    } else {
        Err(TokensError::Lines(wrong))
    }
}

fn token(line: &str) -> Result<Token, String> {
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    let [role, name, secret] = words.as_slice() else {
        return Err(format!("has {} words, not three: write ROLE NAME TOKEN", words.len()));
    };
    let role = Role::parse(role).ok_or("its role is none of viewer, operator and admin")?;
    if name.len() > NAME_BYTES_MAX || name.chars().any(char::is_control) {
        return Err(format!(
            "its name is longer than {NAME_BYTES_MAX} bytes, or holds control characters"
        ));
    }
    if RESERVED.contains(name) {
        return Err(format!("the name {name} is the program's own: choose another"));
    }
    if secret.len() < TOKEN_BYTES_MIN {
        return Err(format!(
            "its token is shorter than {TOKEN_BYTES_MIN} bytes: make one with `openssl rand -hex 32`"
        ));
    }
    if secret.len() > TOKEN_BYTES_MAX || !secret.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(format!(
            "its token is longer than {TOKEN_BYTES_MAX} bytes, or not of visible ASCII characters"
        ));
    }
    let mut hashed = [0; 32];
    hashed.copy_from_slice(digest(&SHA256, secret.as_bytes()).as_ref());
    Ok(Token {
        who: Who {
            name: Arc::from(*name),
            role,
        },
        digest: hashed,
    })
}

fn unlike(token: Token, others: &[Token]) -> Result<Token, String> {
    if let Some(other) = others.iter().find(|other| other.digest == token.digest) {
        return Err(format!("its token is that of {}: each needs its own", other.who.name));
    }
    if others.iter().any(|other| other.who.name == token.who.name) {
        return Err(format!("the name {} is taken: each needs its own", token.who.name));
    }
    Ok(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_and_wrong_ones_told_without_their_tokens() {
        let good = "# comment\n\n viewer  v  0123456789abcdef\noperator o 1123456789abcdef\nadmin a 2123456789abcdef\n";
        let tokens = parse("t", good).expect("good");
        let who: Vec<_> = tokens.iter().map(|t| (t.who.name.as_ref(), t.who.role)).collect();
        assert_eq!(who, [("v", Role::Viewer), ("o", Role::Operator), ("a", Role::Admin)]);
        for (text, expected) in [
            ("", "t: holds no token"),
            ("viewer v", "t:1: has 2 words"),
            ("\nroot v 0123456789abcdef", "t:2: its role is none of"),
            ("viewer v tooshortsecret", "t:1: its token is shorter than 16 bytes"),
            (
                "viewer local 0123456789abcdef",
                "t:1: the name local is the program's own",
            ),
            (
                "viewer a 0123456789abcdef\nviewer b 0123456789abcdef",
                "t:2: its token is that of a",
            ),
            (
                "viewer a 0123456789abcdef\nadmin a 1123456789abcdef",
                "t:2: the name a is taken",
            ),
        ] {
            let said = parse("t", text).expect_err(text).to_string();
            assert!(said.starts_with(expected), "{text:?}: {said}");
            assert!(!said.contains("0123456789") && !said.contains("tooshort"), "{said}");
        }
    }

    #[test]
    fn a_changed_file_is_taken_up_and_a_broken_one_is_not() {
        let path = std::env::temp_dir().join(format!("switchyard-tokens-{}", std::process::id()));
        fs::write(&path, "viewer v 0123456789abcdef\n").expect("written");
        let tokens = Tokens::open(&path).expect("opened");
        let start = clock::tick();
        let finds = |token: &[u8], seconds: u64| {
            let who = tokens.find_at(token, start.after(std::time::Duration::from_secs(seconds)));
            who.map(|who| who.role)
        };
        assert_eq!(finds(b"0123456789abcdef", 0), Some(Role::Viewer));
        assert_eq!(finds(b"0123456789abcdeg", 0), None);
        fs::write(&path, "nonsense").expect("written");
        assert_eq!(finds(b"0123456789abcdef", 5), Some(Role::Viewer));
        fs::write(&path, "operator v fedcba9876543210\n").expect("written");
        // Not yet looked at again.
        assert_eq!(finds(b"0123456789abcdef", 5), Some(Role::Viewer));
        assert_eq!(finds(b"0123456789abcdef", 10), None);
        assert_eq!(finds(b"fedcba9876543210", 10), Some(Role::Operator));
        fs::remove_file(&path).expect("removed");
        assert_eq!(finds(b"fedcba9876543210", 20), Some(Role::Operator));
    }
}
