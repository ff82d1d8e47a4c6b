//! A value and where its text comes from. Decides what may be written into a JSON body or a URL as it is, and what must
//! be encoded first (D07): data always, the author's own text only where it must be, encoded text never twice.

use minijinja::Value;

/// Where the text of a value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// From the context, or made of anything that is.
    Data,
    /// Only from the template's own text.
    Author,
    /// The author has declared it fit as it is (`|safe`).
    Safe,
    /// A JSON document (`|tojson`).
    Json,
    /// The inside of a JSON string (`|escapejson`).
    JsonContent,
    /// `|urlencode`.
    UrlEncoded,
}

impl Origin {
    /// The origin of a text put together from two. Author's text takes part in whatever it is put next to, apart from
    /// data; all other mixtures count as data.
    pub(super) fn with(self, other: Origin) -> Origin {
        match (self, other) {
            (one, other) if one == other => one,
            (Origin::Author, other) => other,
            (one, Origin::Author) => one,
            _ => Origin::Data,
        }
    }

    /// The origin after a change that may break an encoding but keeps whose text it is.
    pub(super) fn reshaped(self) -> Origin {
        match self {
            Origin::Author | Origin::Safe => self,
            Origin::Data | Origin::Json | Origin::JsonContent | Origin::UrlEncoded => Origin::Data,
        }
    }
}

/// A value with its origin. An undefined value is a missing path, except from [`Origin::Author`], where it is the
/// absent branch of an `a if c`, which prints as nothing everywhere.
#[derive(Clone, Debug)]
pub(super) struct Traced {
    pub(super) value: Value,
    pub(super) origin: Origin,
}

impl Traced {
    pub(super) fn data(value: Value) -> Traced {
        Traced { value, origin: Origin::Data }
    }

    pub(super) fn author(value: Value) -> Traced {
        Traced { value, origin: Origin::Author }
    }

    /// What was found in a value of `origin`. What was not found is missing, whoever wrote the value.
    pub(super) fn found(value: Value, origin: Origin) -> Traced {
        if value.is_undefined() { Traced::data(value) } else { Traced { value, origin } }
    }
}
