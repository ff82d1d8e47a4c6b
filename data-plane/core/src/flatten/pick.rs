//! One value of a body, found in its text: the rest is passed over and never built.

use super::json::Reader;
use crate::path::Segment;

/// The text of the value at the end of these steps (of which none is `[*]`) in a body that was read before. As with
/// [`super::parse_body`], the last of equal keys counts.
pub(crate) fn pick<K: AsRef<str>>(body: &str, steps: impl Iterator<Item = Segment<K>>) -> Option<&str> {
    let mut found = body.trim_ascii();
    for step in steps {
        let mut reader = Reader::of(found);
        found = match step {
            Segment::Key(key) => reader.last_of(key.as_ref())?,
            Segment::Index(index) => reader.nth(index)?,
            Segment::Any => return None,
        };
    }
    Some(found)
}

impl<'b> Reader<'b, false> {
    /// The value of the last of these keys, if an object is here.
    fn last_of(&mut self, wanted: &str) -> Option<&'b str> {
        let mut found = None;
        while self.enters(b'{', b'}') {
            let key = self.key_text().ok()?;
            let value = self.passed();
            if key == wanted {
                found = Some(value);
            }
        }
        found
    }

    /// The value with this number, from 0, if an array is here.
    fn nth(&mut self, wanted: u32) -> Option<&'b str> {
        for _ in 0..wanted {
            if !self.enters(b'[', b']') {
                return None;
            }
            self.passed();
        }
        self.enters(b'[', b']').then(|| self.passed())
    }

    /// Whether another value follows: behind the bracket, or behind a comma.
    fn enters(&mut self, begin: u8, end: u8) -> bool {
        self.skip_space();
        let here = self.peek();
        if here != Some(b',') && (here != Some(begin) || self.at != 0) {
            return false;
        }
        self.at += 1;
        self.skip_space();
        self.peek().is_some_and(|next| next != end)
    }

    /// Goes to the end of a value, and answers its text.
    fn passed(&mut self) -> &'b str {
        let (start, mut open) = (self.at, 0_usize);
        while let Some(byte) = self.peek() {
            match byte {
                b'"' => self.pass_string(),
                b'{' | b'[' => {
                    open += 1;
                    self.at += 1;
                }
                b'}' | b']' if open > 0 => {
                    open -= 1;
                    self.at += 1;
                }
                b',' | b'}' | b']' if open == 0 => break,
                b' ' | b'\t' | b'\n' | b'\r' if open == 0 => break,
                _ => {
                    self.at += 1;
                    continue;
                }
            }
            if open == 0 {
                break;
            }
        }
        &self.text[start..self.at]
    }

    fn pass_string(&mut self) {
        let bytes = self.text.as_bytes();
        self.at += 1;
        while let Some(byte) = bytes.get(self.at) {
            self.at += if *byte == b'\\' { 2 } else { 1 };
            if *byte == b'"' {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::super::{Limits, parse_body};
    use super::*;
    use crate::path::{self, Path, descend_one};

    fn picked(body: &str, path: &str) -> Option<Value> {
        let path: Path = path.parse().unwrap();
        pick(body, path::steps(&path.to_string())).map(|text| parse_body(text.as_bytes(), &Limits::STORED).unwrap())
    }

    #[test]
    fn it_finds_what_building_everything_finds() {
        let bodies = [
            r#" {"a":{"b":[1,{"c":"x"},[],"]"]},"e":1e400,"":null,"q\"\u0062":"\\","a b":[{"c":{}}]} "#,
            r#"{"a":1,"a":{"b":[0,1,2]},"b":"{\"a\":3}"}"#,
            r#"{ "a" : { "b" : [ 1 , 2 , [ 3 ] ] , "c" : "," } , "b" : [ ] , "d" : { } }"#,
            r#"[{"a":1},[2,[3]],"four",-5.0E+1,true]"#,
            "[[[]]]",
            "[]",
            "{}",
            "\"text [ , \\\" ] \"",
            "17",
        ];
        let paths = [
            "body",
            "body.a",
            "body.b",
            "body.c",
            "body.d",
            "body.e",
            "body.a.b",
            "body.a.b[0]",
            "body.a.b[1]",
            "body.a.b[1].c",
            "body.a.b[2]",
            "body.a.b[2][0]",
            "body.a.b[3]",
            "body.a.b[4]",
            "body.a.c",
            "body[\"\"]",
            "body[\"q\\\"b\"]",
            "body[\"a b\"][0].c",
            "body[\"a b\"][0].c.d",
            "body[0]",
            "body[0].a",
            "body[1][1][0]",
            "body[2]",
            "body[3]",
            "body[4]",
            "body[5]",
            "body[0][0]",
            "body[0][0][0]",
            "body.b.a",
        ];
        let mut found = 0;
        for body in bodies {
            let whole = parse_body(body.as_bytes(), &Limits::STORED).unwrap();
            for text in paths {
                let path: Path = text.parse().unwrap();
                let expected = descend_one(&whole, path.segments().iter().cloned());
                assert_eq!(picked(body, text).as_ref(), expected, "{body} {text}");
                found += usize::from(expected.is_some());
            }
        }
        assert!(found > 40, "{found}");
    }

    #[test]
    fn all_is_passed_however_deep_it_is() {
        let deep = format!("{{\"deep\":{}{},\"a\":7}}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(pick(&deep, [Segment::Key("a")].into_iter()), Some("7"));
    }
}
