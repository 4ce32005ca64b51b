//! The text of a message on its way into a file or a program: chunks in, local form (LF line ends) out.

use std::collections::VecDeque;
use std::io::{self, Read, Write};

use bytes::{Bytes, BytesMut};
use tokio::sync::mpsc;

/// Octets that are read from a helper's stdin at a time.
const CHUNK_OCTETS: usize = 64 << 10;

/// Gives a text chunk by chunk to code that blocks.
pub(crate) trait Source {
    /// The next chunk; `None` after the last one. An error means that the text is not whole: what was written of it
    /// must not be taken for a message.
    fn next(&mut self) -> io::Result<Option<Bytes>>;
}

/// Chunks that are here, then those that come through a channel.
pub(crate) struct Chunks {
    ready: VecDeque<Bytes>,
    more: Option<mpsc::Receiver<Bytes>>,
    left: u64,
}

impl Chunks {
    /// `octets` in all; a channel that ends before them makes an error.
    pub(crate) fn new(
        ready: impl IntoIterator<Item = Bytes>,
        more: Option<mpsc::Receiver<Bytes>>,
        octets: u64,
    ) -> Self {
        Self { ready: ready.into_iter().filter(|chunk| !chunk.is_empty()).collect(), more, left: octets }
    }
}

impl Source for Chunks {
    fn next(&mut self) -> io::Result<Option<Bytes>> {
        let chunk = match (self.ready.pop_front(), &mut self.more) {
            (Some(chunk), _) => Some(chunk),
            (None, Some(more)) => more.blocking_recv(),
            (None, None) => None,
        };
        count(chunk, &mut self.left)
    }
}

/// Reads a known number of octets, as a helper does from its stdin.
pub(crate) struct Counted<R> {
    reader: R,
    left: u64,
}

impl<R: Read> Counted<R> {
    pub(crate) fn new(reader: R, octets: u64) -> Self {
        Self { reader, left: octets }
    }
}

impl<R: Read> Source for Counted<R> {
    fn next(&mut self) -> io::Result<Option<Bytes>> {
        let wanted = usize::try_from(self.left).map_or(CHUNK_OCTETS, |left| left.min(CHUNK_OCTETS));
        let mut chunk = BytesMut::zeroed(wanted);
        let read = if wanted == 0 { 0 } else { self.reader.read(&mut chunk)? };
        chunk.truncate(read);
        count((read > 0).then(|| chunk.freeze()), &mut self.left)
    }
}

fn count(chunk: Option<Bytes>, left: &mut u64) -> io::Result<Option<Bytes>> {
    match &chunk {
        Some(some) => {
            let octets = some.len() as u64;
            *left =
                left.checked_sub(octets).ok_or_else(|| io::Error::other("the message is longer than it should be"))?;
        }
        None if *left > 0 => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the message came only in part")),
        None => {}
    }
    Ok(chunk)
}

/// Copies a whole text.
pub(crate) fn copy(source: &mut dyn Source, out: &mut impl Write) -> io::Result<()> {
    while let Some(chunk) = source.next()? {
        out.write_all(&chunk)?;
    }
    Ok(())
}

/// Writes CRLF as LF, as mailbox files and programs have it; other CRs stay.
pub(crate) struct LocalForm<W> {
    out: W,
    /// A CR was the last octet: whether it stays is said by the next one.
    cr: bool,
    written: u64,
}

impl<W: Write> LocalForm<W> {
    pub(crate) fn new(out: W) -> Self {
        Self { out, cr: false, written: 0 }
    }

    /// Writes what was held back and gives the writer and the octets that went to it.
    pub(crate) fn finish(mut self) -> io::Result<(W, u64)> {
        if std::mem::take(&mut self.cr) {
            self.put(b"\r")?;
        }
        Ok((self.out, self.written))
    }

    /// What is written to.
    pub(crate) fn get_mut(&mut self) -> &mut W {
        &mut self.out
    }

    fn put(&mut self, octets: &[u8]) -> io::Result<()> {
        self.written += octets.len() as u64;
        self.out.write_all(octets)
    }
}

impl<W: Write> Write for LocalForm<W> {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        let Some(first) = octets.first() else { return Ok(0) };
        if std::mem::take(&mut self.cr) && *first != b'\n' {
            self.put(b"\r")?;
        }
        let mut start = 0;
        for at in memchr::memchr_iter(b'\r', octets) {
            match octets.get(at + 1) {
                Some(b'\n') => {
                    self.put(&octets[start..at])?;
                    start = at + 1;
                }
                Some(_) => {}
                None => {
                    self.put(&octets[start..at])?;
                    start = at + 1;
                    self.cr = true;
                }
            }
        }
        self.put(&octets[start..])?;
        Ok(octets.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crlf_becomes_lf_wherever_the_chunks_are_cut() {
        let text = b"a\r\nb\rc\r\r\n\r\n\nlast\r";
        let expected = b"a\nb\rc\r\n\n\nlast\r";
        for first in 0..=text.len() {
            for second in first..=text.len() {
                let mut out = LocalForm::new(Vec::new());
                for piece in [&text[..first], &text[first..second], &text[second..]] {
                    out.write_all(piece).unwrap();
                }
                let (out, written) = out.finish().unwrap();
                assert_eq!(out, expected, "cut at {first} and {second}");
                assert_eq!(written, expected.len() as u64);
            }
        }
    }

    #[test]
    fn a_text_that_is_not_whole_is_an_error() {
        let (sender, receiver) = mpsc::channel(1);
        drop(sender);
        let mut cut = Chunks::new([Bytes::from_static(b"abc")], Some(receiver), 5);
        assert_eq!(copy(&mut cut, &mut Vec::new()).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        let mut long = Chunks::new([Bytes::from_static(b"abc")], None, 2);
        assert!(copy(&mut long, &mut Vec::new()).is_err());
        assert!(copy(&mut Counted::new(&b"abc"[..], 4), &mut Vec::new()).is_err());
        let mut out = Vec::new();
        copy(&mut Counted::new(&b"abcd"[..], 3), &mut out).unwrap();
        assert_eq!(out, b"abc", "what follows is not part of it");
    }
}
