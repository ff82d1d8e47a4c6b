//! Makes API keys. What they look like is [`sluice_core::api_key`]'s business: data planes read them, too.

pub(crate) use sluice_core::api_key::{ApiKey as Key, KEY_BYTES, NoKey, prefix};
use zeroize::Zeroizing;

use crate::secrets::random;

/// A new key.
pub(crate) fn generate() -> Result<Key, getrandom::Error> {
    Ok(Key::new(random()?, &Zeroizing::new(random()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn k14_no_key_is_made_twice() {
        let (one, other) = (generate().unwrap(), generate().unwrap());
        assert!(one.is(&one.hash()) && !one.is(&other.hash()));
        assert_eq!(Key::parse(&one.text()).unwrap().hash(), one.hash());
    }
}
