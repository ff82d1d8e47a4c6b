//! Templates made to hurt the process (T01–T30): each is refused, or ends with a clean error, soon, in little memory and on
//! a small stack.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use minijinja::value::{Object, ObjectRepr};
use serde_json::Value as Json;

use super::super::*;
use super::{context, golden, nonsense, worked};

/// They run in a process of their own, so that what is measured is theirs and no other test's.
#[test]
fn attacks_are_refused_or_end_cleanly() {
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "template::tests::attacks::every_row_of_the_attack_table", "--ignored", "--nocapture"])
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&child.stdout);
    // An overflown stack ends the process without a word of the test's.
    assert!(child.status.success(), "{}: {printed}{}", child.status, String::from_utf8_lossy(&child.stderr));
    let measured = |name: &str| -> u64 {
        let line = printed.lines().find_map(|line| line.strip_prefix(name)).expect("the measurement is printed");
        line.split_whitespace().next().unwrap().parse().unwrap()
    };
    assert!(measured("slowest: ") < 1_000, "ms: {printed}");
    if cfg!(target_os = "linux") {
        assert!(measured("memory: ") < 16 * 1024, "KiB: {printed}");
    }
}

/// What `attacks_are_refused_or_end_cleanly` runs, and nothing beside it.
#[test]
#[ignore = "measured in a process of its own by attacks_are_refused_or_end_cleanly"]
fn every_row_of_the_attack_table() {
    let rows = golden("attacks.jsonl");
    let seen: BTreeSet<&str> = rows.iter().filter_map(|row| row["row"].as_str()?.split(' ').next()).collect();
    // T29 is a test of its own below; T30 is nonsense.
    for row in (1..=28).map(|row| format!("T{row:02}")) {
        assert!(seen.contains(&*row), "no case for {row}");
    }
    let run = move || {
        let before = status("VmRSS:");
        let mut failures = Vec::new();
        let mut slowest = (Duration::ZERO, String::new());
        for row in &rows {
            for source in sources(row) {
                let started = worked();
                let outcome = attack(row, &source);
                slowest = slowest.max((worked() - started, row["row"].to_string()));
                if row["ends"] != *outcome {
                    failures.push(format!("{} ends with {outcome}, not {}", row["row"], row["ends"]));
                }
            }
        }
        assert!(failures.is_empty(), "{}", failures.join("\n"));
        let (_, nonsense) = nonsense(2_000);
        slowest = slowest.max(nonsense);
        println!("\nslowest: {} ms, {}", slowest.0.as_millis(), slowest.1);
        if let (Some(before), Some(most)) = (before, status("VmHWM:")) {
            println!("memory: {} KiB more than before", most.saturating_sub(before));
        }
    };
    std::thread::Builder::new().stack_size(ATTACK_STACK_BYTES).spawn(run).unwrap().join().unwrap();
}

/// The template of a row, or so many of them that are all different.
fn sources(row: &Json) -> impl Iterator<Item = String> {
    let unit = row["repeat"].as_str().map(|part| part.repeat(row["times"].as_u64().unwrap() as usize));
    let source = row["template"].as_str().unwrap().replace("@@", unit.as_deref().unwrap_or_default());
    (0..row["distinct"].as_u64().unwrap_or(1)).map(move |n| source.replace("@n", &n.to_string()))
}

fn attack(row: &Json, source: &str) -> String {
    let mut snippets = Snippets::new();
    for (id, text) in row["snippets"].as_object().into_iter().flatten() {
        snippets.set(id, text.as_str().unwrap());
    }
    // Names that somebody chose are in messages, and messages are shown in terminals and written into logs (T27).
    let is_plain = |message: &str| assert!(!message.contains(char::is_control), "{}: {message:?}", row["row"]);
    match Template::compile_with(source, Mode::Text, &snippets) {
        Err(errors) => {
            errors.iter().for_each(|error| is_plain(&error.message));
            format!("{:?}", errors[0].code)
        }
        Ok(template) => {
            let context = context(&row["context"]);
            let render = || match template.render(&context, OnMissing::Empty) {
                Ok(rendered) => format!("printed {}", rendered.text),
                Err(unrendered) => {
                    let error = unrendered.into_error();
                    is_plain(&error.message);
                    format!("{:?}", error.kind)
                }
            };
            // Nothing a render sets or uses up is there for the next one (T23).
            let first = render();
            assert_eq!(render(), first, "{}", row["row"]);
            first
        }
    }
}

/// What Linux says of the process's memory, in KiB.
fn status(name: &str) -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Far less than any thread we render on has. A debug build needs half of it.
const ATTACK_STACK_BYTES: usize = 256 * 1024;

/// A map that, while it is asked for an entry, renders another template on the same thread, and says so when that one comes
/// out otherwise than alone.
#[derive(Debug)]
struct Other {
    template: Option<Template>,
    alone: Result<(String, usize), String>,
}

impl Object for Other {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Map
    }

    fn get_value(self: &Arc<Self>, _key: &Value) -> Option<Value> {
        let same = self.template.as_ref().is_none_or(|template| outcome(template, &Context::new()) == self.alone);
        Some(Value::from(if same { "<as alone>" } else { "<otherwise>" }))
    }
}

/// The text and what it cost, or the error.
fn outcome(template: &Template, context: &Context) -> Result<(String, usize), String> {
    let rendered = template.render(context, OnMissing::Empty);
    rendered.map(|rendered| (rendered.text, rendered.steps)).map_err(|unrendered| unrendered.to_string())
}

/// Two renders that take turns on one thread know nothing of each other (T29): what each prints, costs and ends with is
/// the same as alone, right up to the limits. Each is half done when the other begins.
#[test]
fn renders_that_take_turns_share_nothing() {
    let sources = [
        "",
        "{{ missing.path }}{% set x = 1 %}{{ x }}",
        "{% set x = 2 %}{% macro m() %}{{ caller() }}{% endmacro %}{% call m() %}{{ x }}{% endcall %}",
        "{% for i in range(1000) %}{{ i }}{% endfor %}",
        "{% for i in range(7) %}{% for j in range(1000) %}{{ j }}{% endfor %}{% endfor %}",
        "{% for i in range(15) %}{% for j in range(1000) %}{{ j }}{% endfor %}{% endfor %}",
        "{% for i in range(16) %}{% for j in range(1000) %}{{ j }}{% endfor %}{% endfor %}",
        "{% for i in [1,2,3] %}{% set s = 'x'.repeat(1048576) %}{% endfor %}",
        "{% for i in [1,2,3,4,5,6,7] %}{% set s = 'x'.repeat(1048576) %}{% endfor %}",
        "{% for i in [1,2,3,4,5,6,7,8,9] %}{% set s = 'x'.repeat(1048576) %}{% endfor %}",
        "{% macro m(n) %}{{ m(n - 1) if n > 1 }}{% endmacro %}{{ m(19) }}",
        "{% macro m(n) %}{{ m(n - 1) if n > 1 }}{% endmacro %}{{ m(21) }}",
        "{{ 1 // 0 }}",
    ];
    let compile = |source: &str| Template::compile(source, Mode::Text).unwrap();
    for outer in sources {
        let around = compile(&format!("{outer}{{{{ other.turn }}}}{outer}"));
        for inner in sources {
            let alone = outcome(&compile(inner), &Context::new());
            let with = |template| {
                let mut context = Context::new();
                context.set("other", Value::from_object(Other { template, alone: alone.clone() }));
                outcome(&around, &context)
            };
            let (together, apart) = (with(Some(compile(inner))), with(None));
            assert_eq!(together, apart, "{outer} around {inner}");
            assert!(together.is_err() || together.is_ok_and(|(text, _)| text.contains("<as alone>")));
        }
    }
}
