//! Which names a template uses and sets itself, and which it therefore takes from the context. Hides that names become
//! numbers.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::ast::{LOOP, Name, NameId, Span, Use};
use super::error::{ErrorCode, Problems};
use super::functions::{self, Function};
use super::limits;

/// What templates call the form they are filled in with (R081).
pub(super) const FORM: &str = "context";

pub(super) struct Names {
    ids: HashMap<Arc<str>, NameId>,
    texts: Vec<Arc<str>>,
    /// How each of them is known when all is read.
    list: Vec<Name>,
    too_many: Option<Span>,
    /// One list for each block that is open. A name set in a block counts as set in that block only: the block may not
    /// run, and then the name is the context's.
    bound: Vec<Vec<NameId>>,
    roots: Vec<Use>,
    rooted: HashSet<NameId>,
    called: Vec<Use>,
    macros: HashSet<NameId>,
    /// Fields of the form, by their places (`{% context id %}`, `context.id`), and which those are.
    fields: Vec<Span>,
    known_fields: HashSet<Box<str>>,
}

impl Names {
    pub(super) fn new() -> Names {
        let mut names = Names {
            ids: HashMap::new(),
            texts: Vec::new(),
            list: Vec::new(),
            too_many: None,
            bound: vec![Vec::new()],
            roots: Vec::new(),
            rooted: HashSet::new(),
            called: Vec::new(),
            macros: HashSet::new(),
            fields: Vec::new(),
            known_fields: HashSet::new(),
        };
        let first = names.own("loop");
        debug_assert_eq!(first, LOOP);
        names
    }

    /// A name that is written at `at`.
    pub(super) fn id(&mut self, name: &str, at: Span) -> NameId {
        self.known_as(name, Name::Written(at))
    }

    /// A name that the language has itself.
    pub(super) fn own(&mut self, name: &'static str) -> NameId {
        self.known_as(name, Name::Own(name))
    }

    fn known_as(&mut self, text: &str, name: Name) -> NameId {
        if let Some(id) = self.ids.get(text) {
            return *id;
        }
        let next = u16::try_from(self.list.len()).ok().filter(|next| usize::from(*next) < limits::NAMES_WRITTEN);
        let Some(id) = next.map(NameId) else {
            // That is reported at the end.
            let at = if let Name::Written(at) = name { at } else { Span::default() };
            self.too_many.get_or_insert(at);
            return LOOP;
        };
        let text: Arc<str> = text.into();
        self.texts.push(text.clone());
        self.list.push(name);
        self.ids.insert(text, id);
        id
    }

    pub(super) fn used(&mut self, name: NameId, at: Span) {
        let bound = self.bound.iter().flatten().any(|bound| *bound == name);
        // One more than allowed is enough to know that there are too many.
        if !bound && self.roots.len() <= limits::ROOTS && self.rooted.insert(name) {
            self.roots.push((name, at));
        }
    }

    /// A field of the form, which is named at `at`: as it is, or in quotes.
    pub(super) fn field(&mut self, field: &str, at: Span) {
        if self.fields.len() < limits::ROOTS && self.known_fields.insert(field.into()) {
            self.fields.push(at);
        }
    }

    /// A field of what is called so: of the form, when that is its name.
    pub(super) fn field_of(&mut self, name: NameId, field: &str, at: Span) {
        let is_form = self.texts.get(name.0 as usize).is_some_and(|name| **name == *FORM);
        if is_form && !self.bound.iter().flatten().any(|bound| *bound == name) {
            self.field(field, at);
        }
    }

    pub(super) fn bind(&mut self, name: NameId) {
        if let Some(block) = self.bound.last_mut()
            && !block.contains(&name)
        {
            block.push(name);
        }
    }

    pub(super) fn enter(&mut self) {
        self.bound.push(Vec::new());
    }

    /// What the block has set is not known to be set after it.
    pub(super) fn leave(&mut self) {
        self.bound.pop();
    }

    /// What one arm has set is not known to be set in the next.
    pub(super) fn next_arm(&mut self) {
        if let Some(block) = self.bound.last_mut() {
            block.clear();
        }
    }

    pub(super) fn calls(&mut self, name: NameId, at: Span) {
        self.called.push((name, at));
    }

    pub(super) fn defines(&mut self, name: NameId) {
        self.macros.insert(name);
    }

    /// Reports what can only be known at the end: calls of macros that nobody has written, and too many names.
    pub(super) fn check(&self, problems: &mut Problems) {
        let known = |id: &NameId| self.texts.get(id.0 as usize).map_or("", |name| &**name);
        let mut names: Vec<&str> = self.macros.iter().map(known).chain(Function::NAMES.iter().copied()).collect();
        names.extend(functions::FILTERS);
        names.sort_unstable();
        for (name, at) in &self.called {
            let caller = known(name) == "caller" && !self.macros.is_empty();
            if !self.macros.contains(name) && !caller {
                problems.unknown(ErrorCode::UnknownFunction, *at, "function", known(name), &names);
            }
        }
        if let Some((_, at)) = self.roots.get(limits::ROOTS) {
            problems.add(ErrorCode::Limit, *at, format!("more than {} names from the context", limits::ROOTS));
        }
        if let Some(at) = self.too_many {
            problems.add(ErrorCode::Limit, at, format!("more than {} different names", limits::NAMES_WRITTEN));
        }
    }

    /// All names, those from the context, and the fields of the form, with their places.
    pub(super) fn into_parts(self) -> (Vec<Name>, Vec<Use>, Vec<Span>) {
        (self.list, self.roots, self.fields)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Written out, so that a limit that moves is noticed. A source can only just hold so many.
    #[test]
    fn more_names_than_there_are_numbers_are_refused() {
        let mut names = Names::new();
        let problems = |names: &Names| {
            let mut problems = Problems::default();
            names.check(&mut problems);
            !problems.is_empty()
        };
        // One of them is `loop`.
        for number in 1..65_535 {
            names.id(&format!("n{number}"), Span::new(number, number));
        }
        assert!(!problems(&names));
        names.id("n1", Span::default());
        assert!(!problems(&names), "it is known");
        names.id("one_more", Span::default());
        assert!(problems(&names));
    }
}
