//! Any pasted command (C05): it is refused, or it is a request whose export is imported again without a change (C14).
#![no_main]

use libfuzzer_sys::fuzz_target;
use sluice_core::curl::{Reason, export, import};

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(import) = import(text) else { return };
    assert!(!import.request.method.is_empty() && !import.request.url.is_empty());
    let applied = import.applied_to(&import.request);
    let Ok(command) = export(&applied) else { return };
    let again = match sluice_core::curl::import(&command) {
        Ok(again) => again,
        // A placeholder may be longer than the secret it stands for.
        Err(refusal) if refusal.reason == Reason::TooLarge => return,
        Err(refusal) => panic!("an export cannot be imported: {:?}", refusal.reason),
    };
    let changes = again.changes(&applied, None);
    assert!(changes.is_empty(), "{} changes", changes.rows().len());
});
