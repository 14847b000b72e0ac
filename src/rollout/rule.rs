//! Compiled `when:` rules.

use std::net::IpAddr;

use http::HeaderName;
use ipnet::IpNet;
use regex::bytes::{Regex, RegexBuilder};
use semver::{Version, VersionReq};

use super::decision::Attributes;
use super::prefix::check_prefix;
use super::spec::When;

/// A compiled expression may not be larger: a rule is looked at for every request.
const REGEX_BYTES_MAX: usize = 1 << 20;

/// A rule on one attribute.
#[derive(Debug, Clone)]
pub struct Rule {
    attribute: Attribute,
    test: Test,
}

#[derive(Debug, Clone)]
enum Attribute {
    Header(HeaderName),
    Cookie(String),
    Query(String),
    Claim(String),
    Path,
    Client,
}

#[derive(Debug, Clone)]
enum Test {
    Equals(Vec<u8>),
    Prefix(Vec<u8>),
    Regex(Regex),
    Semver(VersionReq),
    Segments(String),
    Net(IpNet),
}

/// So many digits fit 64 bits whatever they are; a longer number is left to the full grammar.
const DIGITS_MAX: u32 = 19;

/// What is wrong with a rule: the key below `when`, empty for the rule as a whole, and why.
pub type RuleProblem = (&'static str, String);

impl Rule {
    /// Compiles a rule, with everything that is wrong with it.
    pub fn compile(when: &When) -> Result<Self, Vec<RuleProblem>> {
        let attributes = [
            ("header", &when.header),
            ("cookie", &when.cookie),
            ("query", &when.query),
            ("path", &when.path),
            ("cidr", &when.cidr),
            ("claim", &when.claim),
        ];
        let mut written = attributes
            .iter()
            .filter_map(|(key, value)| Some((*key, value.as_deref()?)));
        let (Some((key, value)), None) = (written.next(), written.next()) else {
            let text = "names not exactly one attribute: write one of header, cookie, query, claim, path and cidr";
            return Err(vec![("", text.to_owned())]);
        };
        match key {
            "path" => whole(when, path(value)),
            "cidr" => whole(when, cidr(value)),
            _ => named(when, key, value),
        }
    }

    /// Whether a request meets the rule.
    pub fn matches(&self, request: &impl Attributes) -> bool {
        match &self.attribute {
            Attribute::Header(name) => self.test.holds(request.header(name)),
            Attribute::Cookie(name) => self.test.holds(request.cookie(name)),
            Attribute::Query(name) => self.test.holds(request.query(name)),
            Attribute::Claim(name) => request.claims().is_some_and(|claims| {
                let mut values = claims.values(name);
                values.any(|value| self.test.holds(Some(value.as_bytes())))
            }),
            Attribute::Path => self.test.holds(Some(request.path().as_bytes())),
            Attribute::Client => self.test.holds_for(request.client_ip()),
        }
    }
}

impl Test {
    fn holds(&self, value: Option<&[u8]>) -> bool {
        let Some(value) = value else {
            return false;
        };
        match self {
            Self::Equals(wanted) => value == wanted.as_slice(),
            Self::Prefix(wanted) => value.starts_with(wanted),
            Self::Regex(regex) => regex.is_match(value),
            Self::Semver(range) => version(value).is_some_and(|version| range.matches(&version)),
            Self::Segments(prefix) => {
                let rest = value.strip_prefix(prefix.trim_end_matches('/').as_bytes());
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
            }
            Self::Net(_) => false,
        }
    }

    fn holds_for(&self, client: Option<IpAddr>) -> bool {
        match self {
            Self::Net(net) => client.is_some_and(|ip| net.contains(&ip.to_canonical())),
            _ => false,
        }
    }
}

fn operators(when: &When) -> Vec<(&'static str, &str)> {
    [
        ("equals", &when.equals),
        ("prefix", &when.prefix),
        ("regex", &when.regex),
        ("semver", &when.semver),
    ]
    .into_iter()
    .filter_map(|(key, value)| Some((key, value.as_deref()?)))
    .collect()
}

/// A rule whose attribute says everything.
fn whole(when: &When, rule: Result<Rule, RuleProblem>) -> Result<Rule, Vec<RuleProblem>> {
    let extra = operators(when).into_iter();
    let mut problems: Vec<RuleProblem> = extra
        .map(|(key, _)| (key, "has no place beside path or cidr: remove it".to_owned()))
        .collect();
    match rule {
        Ok(rule) if problems.is_empty() => Ok(rule),
        Ok(_) => Err(problems),
        Err(problem) => {
            problems.push(problem);
            Err(problems)
        }
    }
}

fn path(value: &str) -> Result<Rule, RuleProblem> {
    check_prefix(value).map_err(|problem| ("path", problem))?;
    Ok(Rule {
        attribute: Attribute::Path,
        test: Test::Segments(value.to_owned()),
    })
}

fn cidr(value: &str) -> Result<Rule, RuleProblem> {
    let net = value
        .parse::<IpNet>()
        .or_else(|_| value.parse::<IpAddr>().map(IpNet::from));
    let net = net.map_err(|_| ("cidr", format!("{value:?} is no network: write one such as 10.0.0.0/8")))?;
    Ok(Rule {
        attribute: Attribute::Client,
        test: Test::Net(net),
    })
}

fn named(when: &When, key: &'static str, name: &str) -> Result<Rule, Vec<RuleProblem>> {
    let mut problems = Vec::new();
    let attribute = match key {
        _ if name.is_empty() => Err((key, "is empty: write a name".to_owned())),
        "header" => HeaderName::from_bytes(name.as_bytes())
            .map(Attribute::Header)
            .map_err(|_| {
                (
                    key,
                    format!("{name:?} is no header field name: write one such as X-App-Version"),
                )
            }),
        "cookie" => Ok(Attribute::Cookie(name.to_owned())),
        "claim" => Ok(Attribute::Claim(name.to_owned())),
        _ => Ok(Attribute::Query(name.to_owned())),
    };
    let test = match operators(when).as_slice() {
        [(operator, value)] => test(operator, value),
        _ => Err((
            "",
            format!("says not exactly one thing about {key} {name:?}: write one of equals, prefix, regex and semver"),
        )),
    };
    match (attribute, test) {
        (Ok(attribute), Ok(test)) => return Ok(Rule { attribute, test }),
        (attribute, test) => {
            problems.extend(attribute.err());
            problems.extend(test.err());
        }
    }
    Err(problems)
}

fn test(operator: &str, value: &str) -> Result<Test, RuleProblem> {
    match operator {
        "equals" => Ok(Test::Equals(value.as_bytes().to_vec())),
        "prefix" => Ok(Test::Prefix(value.as_bytes().to_vec())),
        "regex" => RegexBuilder::new(value)
            .size_limit(REGEX_BYTES_MAX)
            .build()
            .map(Test::Regex)
            .map_err(|e| {
                (
                    "regex",
                    format!("{value:?} is no regular expression: {}", last_line(&e.to_string())),
                )
            }),
        _ => VersionReq::parse(value).map(Test::Semver).map_err(|e| {
            (
                "semver",
                format!("{value:?} is no version range ({e}): write one such as >=5.2.0"),
            )
        }),
    }
}

fn last_line(text: &str) -> &str {
    text.lines().last().unwrap_or(text).trim_start_matches("error: ")
}

/// A version as people send it: `v5.2` is 5.2.0. Plain numbers, which most are, are read without the full grammar.
fn version(value: &[u8]) -> Option<Version> {
    let text = value.trim_ascii();
    let text = text.strip_prefix(b"v").unwrap_or(text);
    plain_version(text).or_else(|| Version::parse(std::str::from_utf8(text).ok()?).ok())
}

/// One to three numbers, without zeros before them in a full version (Semantic Versioning 2.0.0, 2).
fn plain_version(text: &[u8]) -> Option<Version> {
    let mut numbers = [0_u64; 3];
    let (mut part, mut digits, mut zeros) = (0, 0, false);
    for byte in text {
        match byte {
            b'0'..=b'9' if digits < DIGITS_MAX => {
                let number = numbers.get_mut(part)?;
                zeros |= digits > 0 && *number == 0;
                *number = *number * 10 + u64::from(byte - b'0');
                digits += 1;
            }
            b'.' if digits > 0 => {
                part += 1;
                digits = 0;
            }
            _ => return None,
        }
    }
    let [major, minor, patch] = numbers;
    let whole = digits > 0 && (part < 2 || !zeros);
    whole.then(|| Version::new(major, minor, patch))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_people_write_them() {
        for (written, expected) in [
            ("5.1.9", Some("5.1.9")),
            (" v5.2 ", Some("5.2.0")),
            ("5", Some("5.0.0")),
            ("05.1", Some("5.1.0")),
            ("5.1.9-rc.1+b2", Some("5.1.9-rc.1+b2")),
            ("18446744073709551615.0.0", Some("18446744073709551615.0.0")),
            ("18446744073709551616.0.0", None),
            ("05.1.9", None),
            ("5.1.9.2", None),
            ("5..1", None),
            ("5.", None),
            ("", None),
            ("v", None),
            ("5.x", None),
            ("5.1.\u{ff}", None),
        ] {
            let read = version(written.as_bytes()).map(|v| v.to_string());
            assert_eq!(read.as_deref(), expected, "{written:?}");
        }
    }
}
