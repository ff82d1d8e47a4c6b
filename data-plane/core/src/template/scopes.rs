//! The names a template has set so far. Hides where each is looked for: in the scope that runs, then in the one around it.
//! `if` opens no scope, so that a `set` inside leaks out; a loop keeps its own from pass to pass; a macro's lies in the
//! scope where the macro was written (Jinjava).

use super::ast::{MacroId, NameId};
use super::error::Fault;
use super::limits;
use super::traced::Traced;

/// A scope that is open, as long as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ScopeId(usize);

pub(super) struct Scopes {
    /// Those of inner scopes come behind those of outer ones.
    names: Vec<(NameId, Traced)>,
    macros: Vec<(NameId, MacroId, ScopeId)>,
    open: Vec<Scope>,
}

struct Scope {
    /// The scope around it.
    around: usize,
    first_name: usize,
    first_macro: usize,
}

impl Scopes {
    pub(super) fn new() -> Scopes {
        Scopes { names: Vec::new(), macros: Vec::new(), open: vec![Scope { around: 0, first_name: 0, first_macro: 0 }] }
    }

    /// The scope that runs.
    pub(super) fn here(&self) -> ScopeId {
        ScopeId(self.open.len() - 1)
    }

    /// Opens a scope in the one that runs.
    pub(super) fn enter(&mut self) {
        self.enter_in(self.here());
    }

    /// Opens a scope in one that is open.
    pub(super) fn enter_in(&mut self, around: ScopeId) {
        let (first_name, first_macro) = (self.names.len(), self.macros.len());
        self.open.push(Scope { around: around.0, first_name, first_macro });
    }

    /// Closes the scope that runs.
    pub(super) fn leave(&mut self) {
        if let Some(scope) = self.open.pop() {
            self.names.truncate(scope.first_name);
            self.macros.truncate(scope.first_macro);
        }
    }

    pub(super) fn get(&self, name: NameId) -> Option<&Traced> {
        let mut scope = self.open.len() - 1;
        loop {
            let end = self.open.get(scope + 1).map_or(self.names.len(), |inner| inner.first_name);
            let names = self.names.get(self.open.get(scope)?.first_name..end)?;
            if let Some((_, value)) = names.iter().rev().find(|(known, _)| *known == name) {
                return Some(value);
            }
            if scope == 0 {
                return None;
            }
            scope = self.open.get(scope)?.around;
        }
    }

    /// Sets a name in the scope that runs.
    pub(super) fn set(&mut self, name: NameId, value: Traced) -> Result<(), Box<Fault>> {
        let first = self.open.last().map_or(0, |scope| scope.first_name);
        let full = self.names.len() == limits::NAMES;
        let here = self.names.get_mut(first..).unwrap_or_default();
        match here.iter_mut().find(|(known, _)| *known == name) {
            Some((_, place)) => *place = value,
            None if full => return Err(limits::over("names", limits::NAMES)),
            None => self.names.push((name, value)),
        }
        Ok(())
    }

    pub(super) fn define(&mut self, name: NameId, id: MacroId) -> Result<(), Box<Fault>> {
        let (here, full) = (self.here(), self.macros.len() == limits::NAMES);
        match self.macros.iter_mut().find(|(known, _, scope)| *known == name && *scope == here) {
            Some((_, place, _)) => *place = id,
            None if full => return Err(limits::over("macros", limits::NAMES)),
            None => self.macros.push((name, id, here)),
        }
        Ok(())
    }

    /// A macro, and the scope where it was written.
    pub(super) fn find_macro(&self, name: NameId) -> Option<(MacroId, ScopeId)> {
        let mut candidates = self.macros.iter().rev().filter(|(known, _, _)| *known == name);
        candidates.find(|(_, _, scope)| self.is_visible(*scope)).map(|(_, id, scope)| (*id, *scope))
    }

    fn is_visible(&self, wanted: ScopeId) -> bool {
        let mut scope = self.open.len() - 1;
        while scope > wanted.0 {
            scope = self.open.get(scope).map_or(0, |scope| scope.around);
        }
        scope == wanted.0
    }
}
