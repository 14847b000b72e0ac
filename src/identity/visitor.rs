//! The cookie of those who are not known: a random id and its HMAC-SHA256, so that nobody can choose a bucket.

use ring::hmac;

use super::id::UserId;
use super::settings::Secret;

/// A year: longer than any rollout, and the longest that browsers keep a cookie (RFC 6265bis, 5.5).
const MAX_AGE_SECONDS: u32 = 365 * 24 * 3600;
const ID_DIGITS: usize = 32;

/// Makes and reads the cookie.
pub(super) struct VisitorCookie {
    name: String,
    key: hmac::Key,
}

/// A new visitor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Minted {
    /// What is bucketed.
    pub id: UserId,
    /// The value of `Set-Cookie`.
    pub set_cookie: String,
}

impl VisitorCookie {
    pub(super) fn new(name: String, secret: &Secret) -> Self {
        Self {
            name,
            key: hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()),
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// A visitor with that randomness.
    pub(super) fn mint(&self, random: [u8; 16], secure: bool) -> Option<Minted> {
        let digits = hex(&random);
        let signature = hex(hmac::sign(&self.key, digits.as_bytes()).as_ref());
        let secure = if secure { "; Secure" } else { "" };
        Some(Minted {
            id: UserId::new(digits.as_bytes()).ok()?,
            set_cookie: format!(
                "{}={digits}.{signature}; Path=/; Max-Age={MAX_AGE_SECONDS}; HttpOnly; SameSite=Lax{secure}",
                self.name
            ),
        })
    }

    /// The id in a cookie of ours; a forged one is none.
    pub(super) fn read(&self, value: &[u8]) -> Option<UserId> {
        let (digits, signature) = value.split_at_checked(ID_DIGITS)?;
        let signature = unhex(signature.strip_prefix(b".")?)?;
        hmac::verify(&self.key, digits, &signature).ok()?;
        UserId::new(digits).ok()
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn unhex(digits: &[u8]) -> Option<Vec<u8>> {
    let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    digits.chunks(2).map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cookie(secret: &[u8]) -> VisitorCookie {
        VisitorCookie::new("sy".to_owned(), &Secret::new(secret.to_vec()).expect("long enough"))
    }

    #[test]
    fn a_minted_cookie_is_read_back_and_a_forged_one_is_not() {
        let own = cookie(b"0123456789abcdef");
        let minted = own.mint([7; 16], true).expect("minted");
        let value = minted
            .set_cookie
            .strip_prefix("sy=")
            .and_then(|rest| rest.split(';').next());
        let value = value.expect("a value").to_owned();
        assert!(minted.set_cookie.ends_with("; HttpOnly; SameSite=Lax; Secure"));
        assert_eq!(own.read(value.as_bytes()), Some(minted.id));
        assert_eq!(cookie(b"another secret, as long").read(value.as_bytes()), None);
        for place in 0..value.len() {
            let mut forged = value.clone().into_bytes();
            forged[place] = if forged[place] == b'0' { b'1' } else { b'0' };
            assert_eq!(own.read(&forged), None, "{place}");
        }
        for broken in ["", ".", "00", &value[..40], &format!("{value}0")] {
            assert_eq!(own.read(broken.as_bytes()), None, "{broken}");
        }
    }
}
