//! Keeps the beginning and the end of an output.

use std::collections::VecDeque;

use crate::output::Output;

/// Collects an output, in memory that does not grow beyond what is kept.
#[derive(Debug)]
pub(crate) struct Capture {
    head_max: usize,
    tail_max: usize,
    head: Vec<u8>,
    tail: VecDeque<u8>,
    bytes_total: u64,
}

impl Capture {
    /// Keeps at most `bytes_max`, half of them of the beginning.
    pub(crate) fn new(bytes_max: usize) -> Self {
        let head_max = bytes_max.div_ceil(2);
        Self {
            head_max,
            tail_max: bytes_max - head_max,
            head: Vec::new(),
            tail: VecDeque::new(),
            bytes_total: 0,
        }
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.bytes_total = self.bytes_total.saturating_add(bytes.len() as u64);
        let room = self.head_max - self.head.len();
        let (head, rest) = bytes.split_at(room.min(bytes.len()));
        self.head.extend_from_slice(head);
        let rest = rest.get(rest.len().saturating_sub(self.tail_max)..).unwrap_or_default();
        let excess = (self.tail.len() + rest.len()).saturating_sub(self.tail_max);
        self.tail.drain(..excess);
        self.tail.extend(rest);
    }

    pub(crate) fn finish(self) -> Output {
        Output { head: self.head, tail: self.tail.into(), bytes_total: self.bytes_total }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn captured(bytes_max: usize, pieces: &[&[u8]]) -> Output {
        let mut capture = Capture::new(bytes_max);
        for piece in pieces {
            capture.push(piece);
        }
        capture.finish()
    }

    #[test]
    fn what_fits_is_kept_whole() {
        let output = captured(8, &[b"abc", b"defgh"]);
        assert_eq!((output.bytes_left_out(), output.text()), (0, "abcdefgh".to_owned()));
    }

    #[test]
    fn beginning_and_end_are_kept_of_what_does_not_fit() {
        for pieces in [vec![&b"0123456789abcdef"[..]], vec![b"0", b"123456789a", b"b", b"cdef"]] {
            let output = captured(8, &pieces);
            assert_eq!((&output.head[..], &output.tail[..]), (&b"0123"[..], &b"cdef"[..]));
            assert_eq!((output.bytes_total, output.bytes_left_out()), (16, 8));
            assert_eq!(output.text(), "0123\n[8 bytes left out]\ncdef");
        }
    }

    #[test]
    fn memory_does_not_grow_with_the_output() {
        let mut capture = Capture::new(1024);
        for _ in 0..10_000 {
            capture.push(&[b'y'; 4096]);
        }
        assert!(capture.head.capacity() <= 4096 && capture.tail.capacity() <= 4096);
        assert_eq!(capture.finish().bytes_total, 40_960_000);
    }

    #[test]
    fn a_cap_of_nothing_keeps_nothing() {
        let output = captured(0, &[b"abc"]);
        assert_eq!((output.head.len(), output.tail.len(), output.bytes_total), (0, 0, 3));
    }
}
