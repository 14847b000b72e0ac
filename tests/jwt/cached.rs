//! A token that was verified is known, for as long as checking it again would come to the same.

use std::time::Duration;

use serde_json::json;
use switchyard::identity::Refusal;
use switchyard::identity::jwt::{Fault, Settings};

use crate::dice::Dice;
use crate::signer::{Signer, set};
use crate::{Bench, NOW, SECRET, claims, claims_with, settings};

#[test]
fn a_known_token_needs_no_check_until_it_expires_and_never_after() {
    let signer = Signer::ed("ed");
    let bench = Bench::new(&settings(), &[&signer]);
    let token = signer.token(&claims());
    let expires = NOW + 600;
    assert!(!bench.knows(NOW, &token));
    assert!(bench.at(NOW, &token).is_ok());
    assert!(bench.knows(NOW, &token));
    assert!(bench.knows(expires - 1, &token));
    // Within the leeway it is checked each time; past it, refused.
    assert!(!bench.knows(expires, &token));
    assert!(bench.at(expires, &token).is_ok());
    assert!(!bench.knows(expires, &token));
    assert!(bench.at(expires + 59, &token).is_ok());
    assert_eq!(bench.at(expires + 60, &token), Err(Refusal::Token(Fault::Expired)));
}

#[test]
fn at_every_moment_a_reader_that_has_seen_a_token_says_what_a_fresh_one_says() {
    let signer = Signer::secret("hs", SECRET);
    let mut dice = Dice(4);
    for leeway in [0, 1, 60] {
        let settings = Settings {
            leeway: Duration::from_secs(leeway),
            ..settings()
        };
        let seasoned = Bench::new(&settings, &[&signer]);
        for _ in 0..40 {
            let (begins, expires) = (NOW + dice.below(200), NOW + dice.below(400));
            let mut claims = claims_with("exp", json!(expires));
            claims["nbf"] = begins.into();
            let token = signer.token(&claims);
            // Time goes on, as it does.
            let mut now = NOW - 100;
            while now < NOW + 600 {
                let fresh = Bench::new(&settings, &[&signer]);
                assert_eq!(
                    seasoned.at(now, &token),
                    fresh.at(now, &token),
                    "{begins} {expires} {now}"
                );
                let valid = begins <= now + leeway && now < expires + leeway;
                assert_eq!(seasoned.at(now, &token).is_ok(), valid, "{begins} {expires} {now}");
                now += dice.below(40);
            }
        }
    }
}

#[test]
fn a_new_key_disturbs_nobody_and_a_removed_one_ends_what_it_signed() {
    let (old, new) = (Signer::ed("old"), Signer::ec("new"));
    let bench = Bench::new(&settings(), &[&old]);
    let (by_old, by_new) = (old.token(&claims()), new.token(&claims()));
    assert!(bench.now(&by_old).is_ok());
    assert_eq!(bench.now(&by_new), Err(Refusal::Token(Fault::UnknownKey)));
    assert!(bench.take(&set(&[&old, &new])));
    assert!(bench.knows(NOW, &by_old), "verified before, and its key is still there");
    assert!(bench.now(&by_new).is_ok());
    assert!(!bench.take(&set(&[&old, &new])), "the same keys are no others");
    assert!(bench.knows(NOW, &by_new));
    assert!(bench.take(&set(&[&new])));
    assert_eq!(bench.now(&by_old), Err(Refusal::Token(Fault::UnknownKey)));
    assert!(bench.knows(NOW, &by_new));
    // Another key by the old one's name is another key.
    assert!(bench.take(&set(&[&new, &Signer::ed("old")])));
    assert_eq!(bench.now(&by_old), Err(Refusal::Token(Fault::Signature)));
}

#[test]
fn two_tokens_with_one_signature_are_two() {
    let signer = Signer::secret("hs", SECRET);
    let bench = Bench::new(&settings(), &[&signer]);
    let token = signer.token(&claims());
    assert!(bench.now(&token).is_ok());
    let other = signer.token(&claims_with("sub", json!("admin")));
    let (mine, theirs): (Vec<&str>, Vec<&str>) = (token.split('.').collect(), other.split('.').collect());
    let mixed = format!("{}.{}.{}", theirs[0], theirs[1], mine[2]);
    assert_eq!(bench.now(&mixed), Err(Refusal::Token(Fault::Signature)));
}
