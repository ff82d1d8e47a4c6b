//! A JSON document of the context, of which only as much is made into values as is looked into: most templates read a few
//! fields of a body. Hides that the rest stays text. One pass judges all of it and notes where its lists and maps lie, so
//! that looking into one passes over those inside, and no byte is ever read a third time.

use std::sync::Arc;

use minijinja::Value;

use super::containers;
use super::entries::{Entries, Key};
use super::json_text::{Reader, Refused};

/// A text that is JSON, and its lists and maps in the order in which they open.
#[derive(Debug)]
struct Document {
    text: Box<str>,
    places: Box<[Place]>,
}

/// Where a list or map lies in the text.
#[derive(Debug)]
struct Place {
    /// Behind its opening bracket.
    start: u32,
    /// Behind its closing bracket.
    end: u32,
    /// The next one that is not inside.
    next: u32,
    /// How many commas it has of its own.
    commas: u32,
    /// How deep lists and maps are nested in it, itself included.
    height: u32,
}

/// A list or map of a document.
#[derive(Clone, Debug)]
pub(super) struct Part {
    document: Arc<Document>,
    place: u32,
}

/// Reads one document of at most `depth` levels. Of a key that comes twice the last value wins. The text is known to be
/// JSON, but for half surrogates.
pub(super) fn read(text: &str, depth: usize) -> Result<Value, Refused> {
    // Places are kept short; nobody sends what is longer.
    if u32::try_from(text.len()).is_err() {
        return Err(Refused::TooDeep);
    }
    let places = places(text, depth)?;
    let mut reader = Reader::of(text);
    match reader.next() {
        Some(bracket @ (b'[' | b'{')) => {
            let document = Arc::new(Document { text: text.into(), places: places.into() });
            Ok(Part { document, place: 0 }.into_value(bracket))
        }
        Some(first) => reader.leaf(first),
        None => Err(Refused::NotJson),
    }
}

/// Where the lists and maps of a text lie.
fn places(text: &str, depth: usize) -> Result<Vec<Place>, Refused> {
    let mut reader = Reader::of(text);
    let (mut places, mut open) = (Vec::<Place>::new(), Vec::<usize>::new());
    while let Some(byte) = reader.next() {
        match byte {
            b'"' => reader.pass_string()?,
            b'[' | b'{' => {
                open.push(places.len());
                places.push(Place { start: reader.at() as u32, end: 0, next: 0, commas: 0, height: 1 });
                if open.len() > depth {
                    return Err(Refused::TooDeep);
                }
            }
            b']' | b'}' => {
                let next = places.len() as u32;
                let Some(place) = open.pop().and_then(|place| places.get_mut(place)) else { break };
                (place.end, place.next) = (reader.at() as u32, next);
                let height = place.height;
                if let Some(around) = open.last().and_then(|around| places.get_mut(*around)) {
                    around.height = around.height.max(height + 1);
                }
            }
            b',' => {
                if let Some(around) = open.last().and_then(|around| places.get_mut(*around)) {
                    around.commas += 1;
                }
            }
            _ => {}
        }
    }
    if open.is_empty() { Ok(places) } else { Err(Refused::NotJson) }
}

impl Part {
    fn into_value(self, bracket: u8) -> Value {
        if bracket == b'[' { containers::list_of_part(self) } else { containers::map_of_part(self) }
    }

    fn place(&self) -> &Place {
        &self.document.places[self.place as usize]
    }

    /// How deep lists and maps are nested in it, itself included.
    pub(super) fn height(&self) -> u32 {
        self.place().height
    }

    /// What the list holds.
    pub(super) fn items(&self) -> Vec<Value> {
        let (mut inside, most) = self.inside();
        let mut items = Vec::with_capacity(most);
        while let Some(value) = inside.value() {
            items.push(value);
        }
        items
    }

    /// What the map holds.
    pub(super) fn entries(&self) -> Entries {
        let (mut inside, most) = self.inside();
        let mut entries = Entries::with_capacity(most);
        while let Some((key, value)) = inside.key().zip(inside.value()) {
            entries.insert(key, value);
        }
        entries
    }

    /// At its beginning, and how much there is at most.
    fn inside(&self) -> (Inside<'_>, usize) {
        let Place { start, commas, .. } = *self.place();
        let mut reader = Reader::of(&self.document.text);
        reader.go_to(start as usize);
        (Inside { document: &self.document, reader, next: self.place + 1 }, commas as usize + 1)
    }
}

/// What is read of a list or map.
struct Inside<'d> {
    document: &'d Arc<Document>,
    reader: Reader<'d>,
    /// The next list or map.
    next: u32,
}

impl Inside<'_> {
    /// How the next key or value begins.
    fn first(&mut self) -> Option<u8> {
        let byte = self.reader.next()?;
        let byte = if matches!(byte, b',' | b':') { self.reader.next()? } else { byte };
        (!matches!(byte, b']' | b'}')).then_some(byte)
    }

    fn key(&mut self) -> Option<Key> {
        self.first()?;
        self.reader.string().ok().map(|key| (&*key).into())
    }

    fn value(&mut self) -> Option<Value> {
        let first = self.first()?;
        if !matches!(first, b'[' | b'{') {
            return self.reader.leaf(first).ok();
        }
        let Place { end, next, .. } = *self.document.places.get(self.next as usize)?;
        let part = Part { document: Arc::clone(self.document), place: self.next };
        self.reader.go_to(end as usize);
        self.next = next;
        Some(part.into_value(first))
    }
}
