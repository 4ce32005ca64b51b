use proptest::prelude::*;
use types::Domain;

use super::super::config::{AuthOffer, Protocol, SessionLimits, TlsOffer};
use super::*;

fn config(line_ends: LineEnds, line_max: usize, octets_max: u64) -> SessionConfig {
    SessionConfig {
        hostname: Domain::parse("mx.example").unwrap(),
        protocol: Protocol::Smtp,
        tls: TlsOffer::Off,
        auth: AuthOffer { offered: false, required: false, without_tls: false },
        line_ends,
        limits: SessionLimits { text_line_max_bytes: line_max, message_max_bytes: octets_max, ..Default::default() },
    }
}

/// What became of a text: what was handed out, or the fault, and what was left of the input behind the end.
#[derive(Debug, PartialEq, Eq, Clone)]
enum Found {
    Unfinished,
    Text(Vec<u8>, Vec<u8>),
    Fault(Reason, Vec<u8>),
}

/// Feeds `input` cut at `cuts`.
fn dotted(config: &SessionConfig, input: &[u8], cuts: &[usize]) -> Found {
    let mut text = Text::dotted(config);
    let (mut buffer, mut out, mut from) = (BytesMut::new(), Vec::new(), 0);
    for to in cuts.iter().copied().chain([input.len()]) {
        buffer.extend_from_slice(&input[from..to]);
        from = to;
        let taken = text.take(&mut buffer);
        out.extend_from_slice(&taken.chunk.unwrap_or_default());
        if taken.end {
            buffer.extend_from_slice(&input[from..]);
            return match text.fault() {
                Some(reason) => Found::Fault(reason, buffer.to_vec()),
                None => Found::Text(out, buffer.to_vec()),
            };
        }
    }
    assert!(buffer.len() <= 2, "only what cannot be told yet is left");
    Found::Unfinished
}

/// The same by looking at one octet after the other, over the whole.
fn by_the_book(config: &SessionConfig, input: &[u8]) -> Found {
    let (mut out, mut at, mut line, mut fault) = (Vec::new(), 0, 0usize, None);
    let mut start = true;
    let line_max = config.limits.text_line_max_bytes - 2;
    let normalise = config.line_ends == LineEnds::Normalise;
    while at < input.len() {
        let rest = &input[at..];
        if start && rest.starts_with(b".\r\n") {
            return match fault {
                Some(reason) => Found::Fault(reason, rest[3..].to_vec()),
                None => Found::Text(out, rest[3..].to_vec()),
            };
        }
        if start && rest.starts_with(b".") {
            (start, at) = (false, at + 1);
            continue;
        }
        start = false;
        let mut set = |reason| fault = fault.or(Some(reason));
        if rest.starts_with(b"\r\n") {
            out.extend_from_slice(b"\r\n");
            (start, at, line) = (true, at + 2, 0);
        } else if matches!(rest[0], b'\r' | b'\n' | 0) {
            if !normalise {
                set(Reason::LineEnds);
            }
            if rest[0] != 0 {
                out.extend_from_slice(b"\r\n");
                line = 0;
            }
            at += 1;
        } else {
            out.push(rest[0]);
            (at, line) = (at + 1, line + 1);
        }
        if out.len() as u64 > config.limits.message_max_bytes {
            set(Reason::TooLarge);
        }
        if line > line_max {
            set(Reason::LineTooLong);
        }
    }
    Found::Unfinished
}

#[test]
fn only_crlf_dot_crlf_ends_the_text() {
    type Case = (&'static [u8], Option<&'static [u8]>, &'static [u8]);
    let cases: &[Case] = &[
        // input, text where line ends are refused, text where they are normalised
        (b".\r\n", Some(b""), b""),
        (b"a\r\n.\r\n", Some(b"a\r\n"), b"a\r\n"),
        (b"\r\n.\r\n", Some(b"\r\n"), b"\r\n"),
        (b"..\r\n.\r\n", Some(b".\r\n"), b".\r\n"),
        (b"...\r\n.a\r\na.\r\n.\r\n", Some(b"..\r\na\r\na.\r\n"), b"..\r\na\r\na.\r\n"),
        (b"a\n.\nb\r\n.\r\n", None, b"a\r\n.\r\nb\r\n"),
        (b"a\n.\r\nb\r\n.\r\n", None, b"a\r\n.\r\nb\r\n"),
        (b"a\r\n.\nb\r\n.\r\n", None, b"a\r\n\r\nb\r\n"),
        (b"a\r.\rb\r\n.\r\n", None, b"a\r\n.\r\nb\r\n"),
        (b"a\r.\r\nb\r\n.\r\n", None, b"a\r\n.\r\nb\r\n"),
        (b"a\n.\rb\r\n.\r\n", None, b"a\r\n.\r\nb\r\n"),
        (b"a\r\n.\r\r\nb\r\n.\r\n", None, b"a\r\n\r\n\r\nb\r\n"),
        (b"a\r\n\0.\r\nb\r\n.\r\n", None, b"a\r\n.\r\nb\r\n"),
        (b"a\r\n.\0\r\nb\r\n.\r\n", None, b"a\r\n\r\nb\r\n"),
        (b"a\r\r\n.\r\n", None, b"a\r\n\r\n"),
        (b"a\n\r\n.\r\n", None, b"a\r\n\r\n"),
    ];
    for (input, refused, normalised) in cases {
        for cut in 0..=input.len() {
            let found = dotted(&config(LineEnds::Refuse, 1000, 1000), input, &[cut]);
            let expected = match refused {
                Some(text) => Found::Text(text.to_vec(), vec![]),
                None => Found::Fault(Reason::LineEnds, vec![]),
            };
            assert_eq!(found, expected, "{:?} cut at {cut}", input.escape_ascii().to_string());
            let found = dotted(&config(LineEnds::Normalise, 1000, 1000), input, &[cut]);
            assert_eq!(found, Found::Text(normalised.to_vec(), vec![]), "{:?}", input.escape_ascii().to_string());
        }
    }
}

#[test]
fn text_without_anything_to_remove_is_a_slice_of_the_input() {
    let mut text = Text::dotted(&config(LineEnds::Refuse, 1000, 1000));
    let mut input = BytesMut::from(&b"Subject: x\r\n\r\nbody\r\n.\r\nQUIT\r\n"[..]);
    let address = input.as_ptr();
    let chunk = text.take(&mut input).chunk.unwrap();
    assert_eq!(
        (chunk.as_ptr(), &chunk[..], &input[..]),
        (address, &b"Subject: x\r\n\r\nbody\r\n"[..], &b"QUIT\r\n"[..])
    );
}

#[test]
fn chunks_count_octets_and_keep_a_line_end_that_was_cut() {
    type Case = (&'static [&'static str], Option<&'static str>, &'static str);
    let cases: &[Case] = &[
        // chunks, text where line ends are refused, text where they are normalised
        (&["a\r\n"], Some("a\r\n"), "a\r\n"),
        (&["a\r", "\nb\r\n"], Some("a\r\nb\r\n"), "a\r\nb\r\n"),
        (&["a\r", "", "\n"], Some("a\r\n"), "a\r\n"),
        (&["a\r\n.\r\n", ".\r\n"], Some("a\r\n.\r\n.\r\n"), "a\r\n.\r\n.\r\n"),
        (&["abc"], Some("abc\r\n"), "abc\r\n"),
        (&["abc", ""], Some("abc\r\n"), "abc\r\n"),
        (&["abc\r\n", ""], Some("abc\r\n"), "abc\r\n"),
        (&[""], Some(""), ""),
        (&["a\r", "b\r\n"], None, "a\r\nb\r\n"),
        (&["a\r"], None, "a\r\n"),
        (&["a\r", ""], None, "a\r\n"),
        (&["a\nb\r\n"], None, "a\r\nb\r\n"),
        (&["a\n"], None, "a\r\n"),
        (&["\0"], None, ""),
    ];
    for (chunks, refused, normalised) in cases {
        for (ends, expected) in [(LineEnds::Refuse, *refused), (LineEnds::Normalise, Some(*normalised))] {
            for step in [1, 2, 100] {
                let mut text = Text::chunked(&config(ends, 1000, 1000));
                let mut out = Vec::new();
                for (number, chunk) in chunks.iter().enumerate() {
                    text.begin_chunk(chunk.len() as u64, number + 1 == chunks.len());
                    let mut buffer = BytesMut::new();
                    let mut taken = text.take(&mut buffer);
                    for piece in chunk.as_bytes().chunks(step) {
                        assert!(!taken.end);
                        buffer.extend_from_slice(piece);
                        taken = text.take(&mut buffer);
                        out.extend_from_slice(taken.chunk.as_deref().unwrap_or_default());
                    }
                    if chunk.is_empty() {
                        out.extend_from_slice(taken.chunk.as_deref().unwrap_or_default());
                    }
                    assert!(taken.end && buffer.is_empty(), "{chunks:?}");
                }
                let found = text.fault().is_none().then(|| String::from_utf8(out).unwrap());
                assert_eq!(found.as_deref(), expected, "{chunks:?} {ends:?} by {step}");
            }
        }
    }
}

#[test]
fn a_chunk_leaves_what_follows_it_alone() {
    let mut text = Text::chunked(&config(LineEnds::Refuse, 1000, 1000));
    text.begin_chunk(5, true);
    let mut input = BytesMut::from(&b"abc\r\nQUIT\r\n"[..]);
    let taken = text.take(&mut input);
    assert_eq!((taken.chunk.as_deref(), taken.end, &input[..]), (Some(&b"abc\r\n"[..]), true, &b"QUIT\r\n"[..]));
}

#[test]
fn lines_and_messages_have_a_longest() {
    for (line_max, octets_max, input, expected) in [
        (10, 100, "12345678\r\n.\r\n", None),
        (10, 100, "123456789\r\n.\r\n", Some(Reason::LineTooLong)),
        (10, 100, ".12345678\r\n.\r\n", None),
        (10, 100, "1\r\n123456789\n\r\n.\r\n", Some(Reason::LineTooLong)),
        (100, 10, "12345678\r\n.\r\n", None),
        (100, 10, "12345678\r\n\r\n.\r\n", Some(Reason::TooLarge)),
        (100, 10, "123456789012\n\r\n.\r\n", Some(Reason::TooLarge)),
        (100, 10, "..12345.\r\n.\r\n", None),
        (100, 0, "12345678901234567890\r\n.\r\n", None),
    ] {
        for cut in 0..input.len() {
            match dotted(&config(LineEnds::Refuse, line_max, octets_max), input.as_bytes(), &[cut]) {
                Found::Text(..) => assert_eq!(None, expected, "{input:?}"),
                Found::Fault(reason, _) => assert_eq!(Some(reason), expected, "{input:?} cut at {cut}"),
                Found::Unfinished => panic!("{input:?} has an end"),
            }
        }
    }
}

/// Not a test of speed but of order: scanning must not become quadratic or go octet by octet. The benchmark measures.
#[test]
fn a_long_text_is_scanned_in_one_look() {
    let line = [&b"x".repeat(76)[..], b"\r\n"].concat();
    let mut input = BytesMut::from(&line.repeat(50_000)[..]);
    let octets = input.len();
    input.extend_from_slice(b".\r\n");
    let mut text = Text::dotted(&config(LineEnds::Refuse, 1000, 1 << 30));
    let taken = text.take(&mut input);
    assert_eq!((taken.chunk.map(|chunk| chunk.len()), taken.end), (Some(octets), true));
}

fn texts() -> impl Strategy<Value = Vec<u8>> {
    let octet = prop_oneof![3 => Just(b'\r'), 3 => Just(b'\n'), 3 => Just(b'.'), 4 => Just(b'a'), 1 => Just(0)];
    let piece = prop_oneof![
        3 => octet.prop_map(|b| vec![b]),
        2 => Just(b"\r\n".to_vec()),
        1 => Just(b"\r\n.".to_vec()),
        1 => Just(b"text".to_vec()),
    ];
    proptest::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn scanning_agrees_with_the_book_however_it_is_cut(
        mut input in texts(), normalise in any::<bool>(), line_max in 4usize..60, octets_max in 1u64..120,
        mut cuts in proptest::collection::vec(0usize..200, 0..6),
    ) {
        input.extend_from_slice(b"\r\n.\r\nQUIT");
        let ends = if normalise { LineEnds::Normalise } else { LineEnds::Refuse };
        let config = config(ends, line_max, octets_max);
        cuts.iter_mut().for_each(|cut| *cut = (*cut).min(input.len()));
        cuts.sort_unstable();
        let expected = by_the_book(&config, &input);
        prop_assert_eq!(dotted(&config, &input, &[]), expected.clone());
        prop_assert_eq!(dotted(&config, &input, &cuts), expected.clone());
        let every: Vec<usize> = (0..input.len()).collect();
        prop_assert_eq!(dotted(&config, &input, &every), expected);
    }
}
