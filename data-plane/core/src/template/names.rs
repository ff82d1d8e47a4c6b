//! Which names a template uses and sets itself, and which it therefore takes from the context. Hides that names become
//! numbers.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::ast::{LOOP, NameId, Span};
use super::error::{ErrorCode, Problems};
use super::functions::{self, Function};
use super::limits;

/// What templates call the form they are filled in with (R081).
pub(super) const FORM: &str = "context";

/// A name, and where it is used first.
pub(super) type Use = (NameId, Span);

pub(super) struct Names {
    ids: HashMap<Arc<str>, NameId>,
    list: Vec<Arc<str>>,
    /// One list for each block that is open. A name set in a block counts as set in that block only: the block may not
    /// run, and then the name is the context's.
    bound: Vec<Vec<NameId>>,
    roots: Vec<Use>,
    rooted: HashSet<u32>,
    called: Vec<Use>,
    macros: HashSet<u32>,
    /// Fields of the form, by their places (`{% context id %}`, `context.id`).
    fields: Vec<Use>,
}

impl Names {
    pub(super) fn new() -> Names {
        let mut names = Names {
            ids: HashMap::new(),
            list: Vec::new(),
            bound: vec![Vec::new()],
            roots: Vec::new(),
            rooted: HashSet::new(),
            called: Vec::new(),
            macros: HashSet::new(),
            fields: Vec::new(),
        };
        let first = names.id(&"loop".into());
        debug_assert_eq!(first, LOOP);
        names
    }

    pub(super) fn id(&mut self, name: &Arc<str>) -> NameId {
        if let Some(id) = self.ids.get(name) {
            return *id;
        }
        let id = NameId(self.list.len() as u32);
        self.list.push(name.clone());
        self.ids.insert(name.clone(), id);
        id
    }

    pub(super) fn used(&mut self, name: NameId, at: Span) {
        let bound = self.bound.iter().flatten().any(|bound| *bound == name);
        // One more than allowed is enough to know that there are too many.
        if !bound && self.roots.len() <= limits::ROOTS && self.rooted.insert(name.0) {
            self.roots.push((name, at));
        }
    }

    pub(super) fn field(&mut self, field: &str, at: Span) {
        let field = self.id(&field.into());
        if self.fields.len() < limits::ROOTS && !self.fields.iter().any(|(known, _)| *known == field) {
            self.fields.push((field, at));
        }
    }

    /// A field of what is called so: of the form, when that is its name.
    pub(super) fn field_of(&mut self, name: NameId, field: &str, at: Span) {
        let is_form = self.list.get(name.0 as usize).is_some_and(|name| **name == *FORM);
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
        self.macros.insert(name.0);
    }

    /// Reports what can only be known at the end: calls of macros that nobody has written, and too many names.
    pub(super) fn check(&self, problems: &mut Problems) {
        let known = |id: &NameId| self.list.get(id.0 as usize).map_or("", |name| &**name);
        let macros: Vec<NameId> = self.macros.iter().map(|id| NameId(*id)).collect();
        let mut names: Vec<&str> = macros.iter().map(known).chain(Function::NAMES.iter().copied()).collect();
        names.extend(functions::FILTERS);
        names.sort_unstable();
        for (name, at) in &self.called {
            let caller = known(name) == "caller" && !macros.is_empty();
            if !self.macros.contains(&name.0) && !caller {
                problems.unknown(ErrorCode::UnknownFunction, *at, "function", known(name), &names);
            }
        }
        if let Some((_, at)) = self.roots.get(limits::ROOTS) {
            problems.add(ErrorCode::Limit, *at, format!("more than {} names from the context", limits::ROOTS));
        }
    }

    /// All names, those from the context, and the fields of the form, with their places.
    pub(super) fn into_parts(self) -> (Vec<Arc<str>>, Vec<Use>, Vec<Use>) {
        (self.list, self.roots, self.fields)
    }
}
