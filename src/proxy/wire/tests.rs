use super::*;

fn wire() -> Wire {
    Wire::new(Limits::default(), false)
}

fn text(wire: &Wire, bytes: &str) -> Result<(), Fault> {
    wire.read(bytes.as_bytes(), Instant::now)
}

const HEAD: &str = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";

#[test]
fn what_was_read_with_the_head_is_judged_with_it() {
    for (body, expected) in [
        ("", Ok(())),
        ("5\r\nhello\r\n0\r\n\r\n", Ok(())),
        ("5\r\nhello\r\n0\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Ok(())),
        ("5;\r\nhello\r\n0\r\n\r\n", Err("chunks")),
        ("\r\nhello\r\n0\r\n\r\n", Err("chunks")),
    ] {
        let whole = format!("{HEAD}{body}");
        for first in [0, 1, HEAD.len() - 2, HEAD.len() - 1] {
            let wire = wire();
            if first > 0 {
                assert_eq!(text(&wire, &whole[..first]), Ok(()));
            }
            assert_eq!(text(&wire, &whole[first..]), Ok(()));
            assert_eq!(
                wire.head_ends(HEAD.as_bytes(), Framing::Chunked),
                expected,
                "{body:?} {first}"
            );
        }
    }
}

#[test]
fn chunks_that_come_later_are_judged_as_they_come() {
    let wire = wire();
    assert_eq!(text(&wire, HEAD), Ok(()));
    assert_eq!(wire.head_ends(HEAD.as_bytes(), Framing::Chunked), Ok(()));
    assert_eq!(text(&wire, "5\r\nhel"), Ok(()));
    assert_eq!(text(&wire, "lo\r\n"), Ok(()));
    assert_eq!(text(&wire, "\r\n"), Err(Fault::Chunks));
    assert_eq!(wire.fault(), Some(Fault::Chunks));
}

#[test]
fn a_head_that_was_repaired_on_the_way_is_refused() {
    let sent = "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n";
    let repaired = sent.replace("a b", "a%20b");
    // What follows may fill up what the repair has added.
    for more in ["", "\r\n", "GET / HTTP/1.1\r\n\r\n"] {
        let wire = wire();
        assert_eq!(text(&wire, &format!("{sent}{more}")), Ok(()));
        for _ in 0..2 {
            let ended = wire.head_ends(repaired.as_bytes(), Framing::None);
            assert_eq!(ended, Err("head_repaired"), "{more:?}");
            wire.head_begins();
        }
    }
}

#[test]
fn a_head_is_due_from_its_first_byte_on_however_often_more_comes() {
    let wire = wire();
    let start = Instant::now();
    assert_eq!(wire.due(|| start), None, "an idle connection is not late");
    assert_eq!(wire.read(b"G", || start), Ok(()));
    let due = Some((start + Limits::default().header_timeout, Fault::SlowHead));
    assert_eq!(wire.due(|| start), due);
    assert_eq!(wire.read(b"E", || start + Duration::from_secs(9)), Ok(()));
    assert_eq!(wire.due(|| start + Duration::from_secs(9)), due);
    wire.head_ends(b"GE", Framing::None).expect("all of it came");
    assert_eq!(wire.due(|| start), None);
    wire.head_begins();
    assert_eq!(wire.due(|| start), None);
}

#[test]
fn a_body_earns_its_time_byte_by_byte_and_only_waiting_costs() {
    let wire = wire();
    let start = Instant::now();
    let later = |seconds| start + Duration::from_secs(seconds);
    assert_eq!(wire.read(HEAD.as_bytes(), || start), Ok(()));
    wire.head_ends(HEAD.as_bytes(), Framing::Length(481))
        .expect("all of it came");
    assert_eq!(wire.due(|| later(100)), Some((later(110), Fault::SlowBody)));
    // 8 seconds waited; 480 bytes are worth 2.
    assert_eq!(wire.read(&[b'x'; 480], || later(108)), Ok(()));
    assert_eq!(wire.due(|| later(200)), Some((later(204), Fault::SlowBody)));
    assert_eq!(wire.read(b"x", || later(201)), Ok(()));
    assert_eq!(wire.due(|| later(300)), None);
}

#[test]
fn a_head_past_its_bound_ends_and_http_2_has_no_head() {
    let line = [b'x'; 40 * 1024];
    let wire = wire();
    assert_eq!(wire.read(&line, Instant::now), Err(Fault::LargeHead));
    let whole = Wire::new(Limits::default(), false);
    assert_eq!(whole.read(&line[..32 * 1024 - 2], Instant::now), Ok(()));
    assert_eq!(
        whole.read(b"\r\n\r", Instant::now),
        Err(Fault::LargeHead),
        "it has not ended"
    );
    let with_body = Wire::new(Limits::default(), false);
    assert_eq!(with_body.read(b"GET / HTTP/1.1\r\n\r", Instant::now), Ok(()));
    let body = [b"\n", &line[..]].concat();
    assert_eq!(with_body.read(&body, Instant::now), Ok(()), "a body is no head");
    let blank = Wire::new(Limits::default(), false);
    assert_eq!(
        blank.read(&b"\r\n".repeat(20_000), Instant::now),
        Err(Fault::LargeHead),
        "empty lines end no head"
    );
    let h2 = Wire::new(Limits::default(), true);
    assert_eq!(h2.read(&line[..33], Instant::now), Ok(()));
    assert_eq!(h2.read(&line, Instant::now), Ok(()));
    assert_eq!(h2.read(&line, Instant::now), Ok(()));
    assert_eq!(h2.due(Instant::now), None);
}

/// Messages with their framing and what is wrong with them, if anything is.
type Message = (&'static str, &'static str, Framing);

const SOUND: [Message; 6] = [
    ("GET /1 HTTP/1.1\r\nHost: a\r\n\r\n", "", Framing::None),
    ("POST /2 HTTP/1.1\r\nHost: a\r\n\r\n", "0\r\n\r\n", Framing::Chunked),
    ("PUT /3 HTTP/1.1\r\nHost: a\r\n\r\n", "\r\n\r\nGET", Framing::Length(7)),
    (
        "PUT /4 HTTP/1.1\r\nHost: a\r\n\r\n",
        "5;x=y\r\nhello\r\n3\r\n\r\n\r\r\n0\r\nA: b\r\n\r\n",
        Framing::Chunked,
    ),
    ("\r\nGET /5 HTTP/1.1\r\nHost: a\r\n\r\n", "", Framing::None),
    ("GET /6 HTTP/1.1\r\nHost: a\r\n\r\n", "", Framing::None),
];

/// Plays a server that holds what it has read and no message takes, as Pingora does, over a pipeline that comes in
/// `pieces`; tells how many messages were taken and what ended it.
fn serve(pieces: &[&[u8]], messages: &[Message]) -> (usize, Option<&'static str>) {
    let wire = wire();
    let mut pieces = pieces.iter();
    let mut held = Vec::new();
    let mut more = |held: &mut Vec<u8>| {
        let piece = pieces.next().expect("a piece for every byte that is waited for");
        held.extend_from_slice(piece);
        wire.read(piece, Instant::now)
    };
    for (taken, (head, body, framing)) in messages.iter().enumerate() {
        wire.head_begins();
        while held.len() < head.len() {
            more(&mut held).expect("no head is at fault");
        }
        held.drain(..head.len());
        if let Err(cause) = wire.head_ends(head.as_bytes(), *framing) {
            return (taken, Some(cause));
        }
        while held.len() < body.len() {
            if more(&mut held).is_err() {
                return (taken, Some("chunks"));
            }
        }
        held.drain(..body.len());
        // While the answer is due, a byte of the next message may come.
        assert_eq!(wire.due(Instant::now), None, "message {taken} is whole");
    }
    assert_eq!(held, b"");
    (messages.len(), None)
}

fn bytes(messages: &[Message]) -> Vec<u8> {
    let parts = messages.iter().flat_map(|(head, body, _)| [*head, *body]);
    parts.collect::<String>().into_bytes()
}

/// Whole, in two pieces at every place, and byte by byte.
fn cuts(all: &[u8]) -> Vec<Vec<&[u8]>> {
    let halves = (1..all.len()).map(|cut| vec![&all[..cut], &all[cut..]]);
    halves.chain([vec![all], all.chunks(1).collect()]).collect()
}

#[test]
fn a_pipeline_is_followed_wherever_it_is_cut() {
    let all = bytes(&SOUND);
    for pieces in cuts(&all) {
        let cut = pieces[0].len();
        assert_eq!(serve(&pieces, &SOUND), (SOUND.len(), None), "cut at {cut}");
    }
}

#[test]
fn broken_chunks_are_found_wherever_they_are_in_a_pipeline() {
    for broken in ["5;\r\nhello\r\n0\r\n\r\n", "2\r\nxxx\r\n0\r\n\r\n", "0\n\r\n\r\n"] {
        let mut messages = SOUND;
        messages[4] = ("POST /5 HTTP/1.1\r\nHost: a\r\n\r\n", broken, Framing::Chunked);
        let all = bytes(&messages);
        for pieces in cuts(&all) {
            let cut = pieces[0].len();
            assert_eq!(
                serve(&pieces, &messages),
                (4, Some("chunks")),
                "{broken:?} cut at {cut}"
            );
        }
    }
}

#[test]
fn a_head_that_is_not_next_on_the_wire_is_refused_wherever_it_is_in_a_pipeline() {
    let all = bytes(&SOUND);
    for at in 0..SOUND.len() {
        let mut seen = SOUND;
        // As long as what was sent, so that lengths alone would not tell.
        let other = SOUND[at].0.replace("Host: a", "Host: b");
        seen[at].0 = Box::leak(other.into_boxed_str());
        for pieces in cuts(&all) {
            let cut = pieces[0].len();
            assert_eq!(serve(&pieces, &seen), (at, Some("head_repaired")), "{at} cut at {cut}");
        }
    }
}

#[test]
fn a_length_that_is_read_otherwise_leaves_no_head() {
    // The server takes 3 bytes less than the body has, and a head for what is in it.
    let wire = wire();
    let head = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 30\r\n\r\n";
    let hidden = "GET /x HTTP/1.1\r\nHost: a\r\n\r\n";
    assert_eq!(text(&wire, &format!("{head}abc{}", &hidden[..20])), Ok(()));
    assert_eq!(wire.head_ends(head.as_bytes(), Framing::Length(30)), Ok(()));
    wire.head_begins();
    assert_eq!(text(&wire, &hidden[20..]), Ok(()));
    assert_eq!(wire.head_ends(hidden.as_bytes(), Framing::None), Err("head_repaired"));
}

#[test]
fn a_head_that_came_in_part_behind_a_message_has_its_own_time_and_size() {
    let wire = wire();
    let start = Instant::now();
    let later = |seconds| start + Duration::from_secs(seconds);
    let first = SOUND[0].0;
    assert_eq!(wire.read(format!("{first}GET /").as_bytes(), || start), Ok(()));
    assert_eq!(wire.head_ends(first.as_bytes(), Framing::None), Ok(()));
    assert_eq!(wire.due(|| later(50)), None, "the answer takes its time");
    assert_eq!(wire.read(b"n", || later(51)), Ok(()), "while it is due");
    wire.head_begins();
    let due = Some((later(100) + Limits::default().header_timeout, Fault::SlowHead));
    assert_eq!(wire.due(|| later(100)), due);
    assert_eq!(wire.read(b"e", || later(109)), Ok(()));
    assert_eq!(wire.due(|| later(109)), due);
    let line = [b'x'; 32 * 1024];
    assert_eq!(wire.read(&line, || later(109)), Err(Fault::LargeHead));
}

#[test]
fn no_more_than_a_head_is_kept_while_an_answer_is_due() {
    let wire = wire();
    assert_eq!(text(&wire, SOUND[0].0), Ok(()));
    assert_eq!(wire.head_ends(SOUND[0].0.as_bytes(), Framing::None), Ok(()));
    let most = Limits::default().header_bytes_max;
    assert_eq!(wire.read(&vec![b'x'; most], Instant::now), Ok(()));
    assert_eq!(text(&wire, "x"), Err(Fault::Ahead));
    assert_eq!(wire.state.lock().ahead.len(), most);
}

#[test]
fn a_tunnel_is_not_looked_at() {
    let wire = wire();
    assert_eq!(text(&wire, SOUND[0].0), Ok(()));
    assert_eq!(wire.head_ends(SOUND[0].0.as_bytes(), Framing::None), Ok(()));
    wire.tunnel_begins();
    let line = [b'x'; 40 * 1024];
    for _ in 0..3 {
        assert_eq!(wire.read(&line, Instant::now), Ok(()));
        assert_eq!(wire.due(Instant::now), None);
    }
    assert_eq!(wire.state.lock().ahead.len(), 0);
    wire.head_begins();
    assert_eq!(text(&wire, SOUND[0].0), Ok(()));
    assert_eq!(
        wire.head_ends(SOUND[0].0.as_bytes(), Framing::None),
        Err("head_repaired"),
        "there is no head behind it"
    );
}
