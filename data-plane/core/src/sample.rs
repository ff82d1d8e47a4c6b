//! What of a captured request can be chosen later: for deduplication and for filters (R159, R168).
//!
//! A place in an array stands for all of them: who has seen `products[0].id` may choose `products[3].id` and `products[*].id`. What
//! holds something that was seen was seen itself.

use std::collections::HashSet;

use sluice_proto::admin::v1::{ParameterKind, Sample};

use crate::filter::{Clause, Filter};
use crate::flatten::Leaf;
use crate::path::{Path, Root, Segment};

/// The parameters of a confirmed sample.
#[derive(Debug, Default)]
pub struct Seen {
    /// Where every value of the body is, and all that holds it.
    places: HashSet<Vec<Segment>>,
    /// In lower case.
    headers: HashSet<String>,
}

/// The steps to a place of the body, whichever element of an array.
fn steps(path: &Path) -> Vec<Segment> {
    let step = |segment: &Segment| match segment {
        Segment::Key(_) | Segment::Any => segment.clone(),
        Segment::Index(_) => Segment::Any,
    };
    path.segments().iter().map(step).collect()
}

impl Seen {
    /// Reads a sample.
    pub fn of(sample: &Sample) -> Self {
        let mut seen = Self::default();
        for path in sample.parameters.iter().filter_map(|parameter| parameter.path.parse::<Path>().ok()) {
            if let Some(name) = path.header() {
                seen.headers.insert(name.to_ascii_lowercase());
                continue;
            }
            if path.root() == Root::Body {
                let mut steps = steps(&path);
                while seen.places.insert(steps.clone()) && steps.pop().is_some() {}
            }
        }
        seen
    }

    /// Whether this was seen.
    pub fn has(&self, path: &Path) -> bool {
        match path.header() {
            Some(name) => self.has_header(name),
            // All requests have these.
            None if path.root() != Root::Body => true,
            None => self.places.contains(&steps(path)),
        }
    }

    /// Whether a header of this name was seen.
    pub fn has_header(&self, name: &str) -> bool {
        self.headers.contains(&name.to_ascii_lowercase())
    }

    /// What a filter looks at and was not seen, in order and each once.
    pub fn unseen<'f>(&self, filter: &'f Filter) -> Vec<&'f Path> {
        let mut unseen = Vec::new();
        self.walk(filter.clause(), &mut unseen);
        unseen
    }

    fn walk<'f>(&self, clause: &'f Clause, unseen: &mut Vec<&'f Path>) {
        match clause {
            Clause::All(members) | Clause::Any(members) => members.iter().for_each(|member| self.walk(member, unseen)),
            Clause::Not(inner) => self.walk(inner, unseen),
            Clause::Condition { path, .. } => {
                if !self.has(path) && !unseen.contains(&path) {
                    unseen.push(path);
                }
            }
        }
    }
}

/// The kind of a value, as samples name it.
pub fn kind(leaf: &Leaf<'_>) -> ParameterKind {
    match leaf {
        Leaf::Null => ParameterKind::Null,
        Leaf::Boolean(_) => ParameterKind::Boolean,
        Leaf::Number(_) => ParameterKind::Number,
        Leaf::Text(_) => ParameterKind::Text,
        Leaf::EmptyObject => ParameterKind::EmptyObject,
        Leaf::EmptyArray => ParameterKind::EmptyArray,
    }
}

#[cfg(test)]
mod tests {
    use sluice_proto::admin::v1::SampleParameter;

    use super::*;

    #[test]
    fn what_was_seen_can_be_chosen_and_nothing_else() {
        let paths = ["body.order.id", "body.products[0].name", r#"headers["X-Shop"]"#, "body.tags", "method"];
        let parameter = |path: &str| SampleParameter { path: path.to_owned(), ..Default::default() };
        let sample = Sample { parameters: paths.map(parameter).into(), ..Default::default() };
        let seen = Seen::of(&sample);
        let has = |path: &str| seen.has(&path.parse().unwrap());
        for path in [
            "body",
            "body.order",
            "body.order.id",
            "body.products",
            "body.products[7]",
            "body.products[7].name",
            "body.products[*].name",
            "body.tags",
            r#"headers["x-shop"]"#,
            "method",
            "time",
        ] {
            assert!(has(path), "{path}");
        }
        for path in [
            "body.order.no",
            "body.order.id.more",
            "body.products.name",
            "body.products[0].price",
            "body.tags[0]",
            "body.Order",
            r#"headers["X-Other"]"#,
        ] {
            assert!(!has(path), "{path}");
        }
        assert!(!Seen::default().has(&"body".parse().unwrap()));
    }
}
