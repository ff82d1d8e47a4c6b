//! Page sizes and page tokens. A token says where the next page begins and is sealed for one list: it shows nothing, it cannot be
//! made by hand, and one list's token opens for no other (A03).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sluice_core::seal::{self, Aad, DataKey, NONCE_BYTES, Sealed};

use crate::error::Failure;
use crate::secrets::Secrets;

/// Items of a page when the caller does not say.
const SIZE_DEFAULT: i32 = 50;
/// Most items of a page; more is refused, not cut (I9).
const SIZE_MAX: i32 = 1000;
/// Largest page, in bytes: gRPC clients take 4 MiB by default.
const BYTES_MAX: usize = 3 << 20;
/// Longest token that is looked at, in bytes.
const TOKEN_BYTES_MAX: usize = 2048;

/// One list: the method and everything that selects what is in it.
pub(crate) struct List<'a> {
    secrets: &'a Secrets,
    scope: Vec<&'a str>,
}

/// What a caller asked for.
pub(crate) struct Page {
    /// How many items to show.
    size: usize,
    /// Where the page before ended; `None` for the first.
    pub(crate) after: Option<String>,
}

impl Page {
    /// How many items to read: one more than is shown tells whether there is a next page.
    pub(crate) fn limit(&self) -> i64 {
        i64::try_from(self.size).unwrap_or(i64::MAX).saturating_add(1)
    }
}

impl<'a> List<'a> {
    /// The list that `scope` names.
    pub(crate) fn new(secrets: &'a Secrets, scope: &[&'a str]) -> Self {
        Self { secrets, scope: scope.to_vec() }
    }

    /// Reads size and token of a request.
    pub(crate) fn page(&self, size: i32, token: &str) -> Result<Page, Failure> {
        let size = match size {
            0 => SIZE_DEFAULT,
            1..=SIZE_MAX => size,
            _ => {
                let message = format!("is {size}; it must be 0 (for {SIZE_DEFAULT}) to {SIZE_MAX}");
                return Err(Failure::field("page_size", "OUT_OF_RANGE", message));
            }
        };
        let after = if token.is_empty() { None } else { Some(self.open(token).ok_or(Failure::PageToken)?) };
        Ok(Page { size: usize::try_from(size).unwrap_or(1), after })
    }

    /// Cuts `items`, read with [`Page::limit`], to the page and gives the token of the next one, empty on the last.
    ///
    /// A page also ends before the answer grows beyond what clients take by default; `size` is an item's, in bytes.
    pub(crate) fn cut<T>(
        &self,
        page: &Page,
        items: &mut Vec<T>,
        size: impl Fn(&T) -> usize,
        position: impl Fn(&T) -> String,
    ) -> String {
        let mut bytes = 0;
        let fits = |item: &&T| {
            bytes += size(item);
            bytes <= BYTES_MAX
        };
        // An item that is larger than that goes alone.
        let shown = items.iter().take(page.size).take_while(fits).count().max(1);
        if items.len() <= shown {
            return String::new();
        }
        items.truncate(shown);
        items.last().map_or_else(String::new, |last| self.token(&position(last)))
    }

    /// The position a token of this list names; `None` without a token.
    pub(crate) fn position(&self, token: &str, field: &str) -> Result<Option<i64>, Failure> {
        if token.is_empty() {
            return Ok(None);
        }
        let position = self.open(token).and_then(|position| position.parse().ok());
        position.map(Some).ok_or_else(|| Failure::field(field, "TOKEN_INVALID", "is not one of this watch"))
    }

    /// A token that names a position.
    pub(crate) fn token(&self, position: &str) -> String {
        // A nonce made of what it seals: two positions never share one, and a page asked for twice has one token.
        let mac = self.mac(b"page nonce", Some(position));
        let nonce: [u8; NONCE_BYTES] = std::array::from_fn(|index| mac[index]);
        let list = self.name();
        let sealed = seal::seal(&self.key(), Self::aad(&list), position.as_bytes(), &nonce);
        URL_SAFE_NO_PAD.encode(sealed.as_bytes())
    }

    fn open(&self, token: &str) -> Option<String> {
        let bytes = URL_SAFE_NO_PAD.decode(Some(token).filter(|token| token.len() <= TOKEN_BYTES_MAX)?).ok()?;
        let list = self.name();
        let position = seal::open(&self.key(), Self::aad(&list), &Sealed::from_bytes(bytes)).ok()?;
        String::from_utf8(position.to_vec()).ok()
    }

    fn key(&self) -> DataKey {
        DataKey::new(self.secrets.mac(&[b"page key"]))
    }

    fn aad(list: &str) -> Aad<'_> {
        Aad { workspace: "", object: list, field: "page_token", version: 1 }
    }

    /// What its tokens are sealed for. A list of a workspace has the workspace's uid in its scope.
    fn name(&self) -> String {
        hex::encode(self.mac(b"page list", None))
    }

    fn mac(&self, purpose: &[u8], position: Option<&str>) -> [u8; 32] {
        let scope = self.scope.iter().copied().chain(position).map(str::as_bytes);
        self.secrets.mac(&std::iter::once(purpose).chain(scope).collect::<Vec<_>>())
    }
}
