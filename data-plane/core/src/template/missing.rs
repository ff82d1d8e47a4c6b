//! Missing paths (D32). Hides how a path is written down: as the template has it, names only, never values.

use super::ast::{ExprId, ExprKind, Link, Span};
use super::error::{Fault, RenderErrorKind};
use super::evaluator::{Evaluator, Run};
use super::{OnMissing, limits};

impl Evaluator<'_> {
    #[inline(never)]
    pub(super) fn miss(&mut self, base: ExprId, links: &[Link]) -> Run<()> {
        let path = self.path(base, links);
        self.missed(path, self.ast.expr(base).at)
    }

    /// Remembers a missing path, or ends the render where that was asked for.
    pub(super) fn missed(&mut self, path: String, at: Span) -> Run<()> {
        if self.page.on_missing == OnMissing::Fail {
            let message = format!("'{path}' is missing");
            return Err(Fault::new(RenderErrorKind::Missing, message).or_at(at));
        }
        if self.missing.len() < limits::MISSING_PATHS && !self.missing.contains(&path) {
            self.missing.push(path);
        }
        Ok(())
    }

    /// The path as the template has it: names only, never values.
    fn path(&self, base: ExprId, links: &[Link]) -> String {
        let mut path = self.ast.expr(base).at.text(&self.source.text).to_owned();
        for link in links {
            if path.len() > limits::PATH_BYTES {
                break;
            }
            match link {
                Link::Attr(name) => {
                    path.push('.');
                    path.push_str(name.text(&self.source.text));
                }
                Link::Item(key) => self.push_key(*key, &mut path),
                Link::Slice(..) => path.push_str("[:]"),
                Link::Filter { filter, first, count, .. } if filter.is_lookup() => {
                    let keys = self.ast.operands(*first, *count).iter().flatten();
                    keys.for_each(|key| self.push_key(*key, &mut path));
                }
                Link::Filter { at, .. } => {
                    path.push('|');
                    path.push_str(at.text(&self.source.text));
                }
                Link::Test { .. } | Link::Method { .. } => path.push_str("()"),
            }
        }
        if path.len() > limits::PATH_BYTES {
            path.truncate(path.floor_char_boundary(limits::PATH_BYTES));
            path.push('…');
        }
        path
    }

    fn push_key(&self, key: ExprId, path: &mut String) {
        let expr = self.ast.expr(key);
        let name = match expr.kind {
            ExprKind::Const(value) => self.ast.constant(value).as_str(),
            _ => None,
        };
        match name.filter(|name| !name.is_empty() && name.chars().all(|c| c == '_' || c.is_alphanumeric())) {
            Some(name) => {
                path.push('.');
                path.push_str(name);
            }
            None => {
                path.push('[');
                path.push_str(expr.at.text(&self.source.text));
                path.push(']');
            }
        }
    }
}
