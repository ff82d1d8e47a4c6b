//! Any template with any data, in every kind of field (T30): it is refused, ends with an error, or prints what the field
//! can hold. The first byte chooses the field and what a missing value prints; then come the source, a NUL, and the context
//! as a JSON object.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use serde_json::value::RawValue;
use sluice_core::flatten::{Limits, parse_body};
use sluice_core::template::{Context, Mode, OnMissing, Template, limits, value_from_json};

fuzz_target!(|data: &[u8]| {
    let Some((&choice, rest)) = data.split_first() else { return };
    let Ok(text) = std::str::from_utf8(rest) else { return };
    let (source, json) = text.split_once('\0').unwrap_or((text, ""));
    let mode = [Mode::Text, Mode::Json, Mode::Url, Mode::Header, Mode::Exact][usize::from(choice) % 5];
    let on_missing = [OnMissing::Empty, OnMissing::Null, OnMissing::Fail][usize::from(choice / 5) % 3];
    let Ok(template) = Template::compile(source, mode) else { return };
    let Ok(rendered) = template.render(&context(json), on_missing) else { return };
    let text = rendered.text;
    assert!(text.len() <= limits::OUTPUT_BYTES);
    assert!(rendered.missing.len() <= limits::MISSING_PATHS);
    match mode {
        Mode::Json => assert!(serde_json::from_str::<&RawValue>(&text).is_ok(), "no JSON"),
        Mode::Header => assert!(!text.contains(|c: char| c.is_control() && c != '\t'), "more than a line"),
        Mode::Url => {
            // An empty insert or a comment prints nothing, also there.
            if let Some(published) = authority(source).filter(|published| !published.contains('{')) {
                assert_eq!(authority(&text), Some(published), "another host");
            }
        }
        _ => {}
    }
});

fn context(json: &str) -> Context {
    let mut context = Context::new();
    if let Ok(Value::Object(names)) = parse_body(json.as_bytes(), &Limits::default()) {
        for (name, value) in &names {
            context.set(name, value_from_json(value));
        }
    }
    context
}

/// Scheme, host and port as they are written.
fn authority(url: &str) -> Option<&str> {
    let end = "https://".len() + url.get("https://".len()..)?.find(['/', '?', '#'])?;
    url.get(..end)
}
