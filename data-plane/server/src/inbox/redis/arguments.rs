//! The arguments of a script: small things together, as a script takes them apart at once (MessagePack), and after them payloads, each
//! by itself. Each argument costs Redis an object of its own, and each byte of one that Lua sees.

use bytes::Bytes;

/// What is said to a script, one after the other.
#[derive(Debug)]
pub(super) struct Arguments {
    /// A list.
    words: Vec<u8>,
    count: u32,
    values: Vec<Bytes>,
}

/// Where the number of a list is written when it is known.
const HEAD: usize = 5;

impl Arguments {
    pub(super) fn new() -> Self {
        Self { words: vec![0; HEAD], count: 0, values: Vec::new() }
    }

    /// The command that says it all.
    pub(super) fn say(mut self, mut command: ::redis::Cmd) -> ::redis::Cmd {
        let head: [u8; HEAD] = list_of(self.count);
        self.words.splice(..HEAD, head);
        command.arg(self.words);
        for value in self.values {
            command.arg(&value[..]);
        }
        command
    }

    /// A text, of whatever bytes.
    pub(super) fn word(&mut self, word: impl AsRef<[u8]>) -> &mut Self {
        self.count += 1;
        self.push(word.as_ref());
        self
    }

    /// A number that a script reckons with: in doubles.
    pub(super) fn number(&mut self, number: impl TryInto<i64>) -> &mut Self {
        let number = number.try_into().unwrap_or(i64::MAX);
        self.count += 1;
        match u8::try_from(number) {
            Ok(small @ 0..=0x7f) => self.words.push(small),
            _ => {
                self.words.push(0xd3);
                self.words.extend(number.to_be_bytes());
            }
        }
        self
    }

    /// A number that a script hands on, and must not round.
    pub(super) fn digits(&mut self, number: impl std::fmt::Display) -> &mut Self {
        self.word(number.to_string())
    }

    /// Texts together, as one thing that is said.
    pub(super) fn words(&mut self, words: impl Iterator<Item = impl AsRef<[u8]>>) -> &mut Self {
        let at = self.words.len();
        self.words.extend([0; HEAD]);
        let mut count = 0;
        for word in words {
            self.push(word.as_ref());
            count += 1;
        }
        self.words.splice(at..at + HEAD, list_of(count));
        self.count += 1;
        self
    }

    /// Bytes that may be many.
    pub(super) fn value(&mut self, value: &Bytes) -> &mut Self {
        self.values.push(value.clone());
        self
    }

    fn push(&mut self, word: &[u8]) {
        match word.len() {
            length @ 0..=0x1f => self.words.push(0xa0 | length.to_le_bytes()[0]),
            length => {
                self.words.push(0xdb);
                self.words.extend(u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
            }
        }
        self.words.extend(word);
    }
}

fn list_of(count: u32) -> [u8; HEAD] {
    let [a, b, c, d] = count.to_be_bytes();
    [0xdd, a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_things_are_one_argument_and_payloads_one_each() {
        let mut arguments = Arguments::new();
        arguments.word("A").number(127).number(128).number(-1i64).number(u128::MAX).digits(1u64 << 60);
        arguments.words(["x", "yz"].iter()).value(&Bytes::from_static(b"many")).word([b'l'; 32]);
        let command = arguments.say(::redis::Cmd::new());
        let mut said: Vec<u8> = vec![0xdd, 0, 0, 0, 8, 0xa1, b'A', 127];
        for number in [128, -1, i64::MAX] {
            said.push(0xd3);
            said.extend(number.to_be_bytes());
        }
        said.extend(b"\xb31152921504606846976");
        said.extend(b"\xdd\0\0\0\x02\xa1x\xa2yz\xdb\0\0\0\x20");
        said.extend([b'l'; 32]);
        let all: Vec<::redis::Arg<&[u8]>> = command.args_iter().collect();
        assert!(matches!(&all[..], [::redis::Arg::Simple(words), ::redis::Arg::Simple(b"many")] if words == &said));
    }
}
