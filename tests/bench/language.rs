//! What a template and a cURL import cost, next to the stock engine in the same run.
//!
//! `cargo bench -p sluice-tests --bench language`. Stock minijinja prints the same template text without JSON safety, without
//! limits on what it builds and without a record of missing paths; ours has all three. What must hold: JSON-safe
//! rendering is not slower than stock without it.
//!
//! | Group | What |
//! |---|---|
//! | complaint | the complaint that becomes a ticket (P1): 7 outputs, a branch and a loop of 2 |
//! | body of 1 KB | an order of 5 items: 19 placeholders, 31 outputs, 2 branches, 1 KB of template |
//! | compile | the body of 1 KB, from text to what is rendered |
//! | inline | the dearest templates that a delivery renders without giving up its worker (`QUICK_STEPS`, `QUICK_BYTES`), with reading the stored trigger (under 10 ms; the dearest are listed) |
//! | import | a cURL command of 100 KB: a JSON body in single quotes, with quotes in it, and 20 headers (under 10 ms) |

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use minijinja::Environment;
use serde_json::{Value, json};
use sluice_core::envelope::{Envelope, Headers};
use sluice_core::model::{Action, Step, Workflow};
use sluice_core::template::{Mode, OnMissing, Rendered, Template, Unrendered};
use sluice_data_plane::aside::{QUICK_BYTES, QUICK_STEPS};

use crate::engines::{BODY, Case, order};

mod engines;

/// As in the binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const COMPLAINT: &str = concat!(
    r#"{% set c = request.body.complaint %}{"title":"[{{ c.priority|upper }}] {{ c.issueType|replace('_',' ') }}","#,
    r#""requester":{"name":"{{ c.customer.firstName }}{{ ' ' ~ c.customer.lastName if c.customer.lastName }}","#,
    r#""email":"{{ c.customer.email|lower }}"},"severity":{% if c.priority == 'high' %}1{% elif c.priority == 'normal' %}2"#,
    r#"{% else %}3{% endif %},"text":{{ c.description|tojson }},"links":[{% for a in c.attachments %}"#,
    r#"{{ a.fileUrl|tojson }}{{ ',' if not loop.last }}{% endfor %}],"trace":"{{ request.headers["X-Request-ID"] }}"}"#,
);

const TICKET: &str = concat!(
    r#"{"title":"[HIGH] product defect","requester":{"name":"Jo","email":"jo@shop.example"},"severity":1,"#,
    r#""text":"Lid \"broke\"\nafter 2 days","links":["https://f.example/a.jpg","https://f.example/b.jpg"],"trace":"r-1"}"#,
);

fn complaint() -> Value {
    json!({"complaint": {
        "id": "cmp-77", "customer": {"id": "c9", "firstName": "Jo", "email": "Jo@Shop.example", "phone": "+48111222333"},
        "dateReceived": "2024-06-10T09:15:30Z", "orderId": "o-5", "issueType": "product_defect",
        "description": "Lid \"broke\"\nafter 2 days", "priority": "high", "attachments": [
            {"fileName": "a.jpg", "fileUrl": "https://f.example/a.jpg"},
            {"fileName": "b.jpg", "fileUrl": "https://f.example/b.jpg"}]},
        "source": "portal"})
}

fn measure(case: &Case, criterion: &mut Criterion, name: &str) {
    let mut group = criterion.benchmark_group(name);
    group.bench_function("stock minijinja", |bencher| bencher.iter(|| black_box(case.stock())));
    group.bench_function("Sluice, as text", |bencher| bencher.iter(|| black_box(case.ours(&case.text))));
    group.bench_function("Sluice, JSON-safe", |bencher| bencher.iter(|| black_box(case.ours(&case.json))));
    group.finish();
}

fn render(criterion: &mut Criterion) {
    let value = |text: &str| serde_json::from_str::<Value>(text).expect("JSON");
    let ticket = Case::new(COMPLAINT, &complaint());
    assert_eq!(ticket.ours(&ticket.text), TICKET);
    assert_eq!(ticket.ours(&ticket.json), TICKET);
    assert_eq!(value(&ticket.stock()), value(TICKET));
    measure(&ticket, criterion, "complaint");
    let body = Case::new(BODY, &order());
    assert_eq!(body.ours(&body.json), body.ours(&body.text));
    assert_eq!(value(&body.stock()), value(&body.ours(&body.json)));
    measure(&body, criterion, "body of 1 KB");
}

fn compile(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("compile");
    group.bench_function("stock minijinja", |bencher| {
        bencher.iter(|| {
            let mut stock = Environment::empty();
            black_box(stock.add_template("body", black_box(BODY))).expect("it is read");
        });
    });
    for (name, mode) in [("Sluice, as text", Mode::Text), ("Sluice, JSON-safe", Mode::Json)] {
        group.bench_function(name, |bencher| bencher.iter(|| black_box(Template::compile(black_box(BODY), mode))));
    }
    group.finish();
}

/// Bodies of nearly `QUICK_BYTES`: what text is slow with, and lists.
fn large_bodies() -> [(&'static str, Value); 5] {
    let list = |item: &dyn Fn(usize) -> Value| (0..1_990).map(item).collect::<Vec<_>>();
    [
        ("letters", json!({"s": "x".repeat(126_000)})),
        ("two-byte letters", json!({"s": "ż".repeat(63_000)})),
        ("control characters", json!({"s": "\u{1}".repeat(21_000)})),
        ("list of maps", json!({"s": "a", "l": list(&|n| json!({"k": format!("{:053}", n * 7_919 % 1_990)}))})),
        ("list of numbers", json!({"s": "a", "l": list(&|n| json!(format!("1{n:058}")))})),
    ]
}

/// The dearest for each step, of some three hundred operations that were tried; each goes on until its steps are used up.
const DEAREST: [(&str, &str); 16] = [
    ("large regular expression", "s[0:900]|regex_replace('(x|ż|.){400}z', 'y')"),
    ("regular expression", "s[0:1000]|regex_replace('(x|ż|.){100}z', 'y')"),
    ("small regular expression", "s[0:8000]|regex_replace('(x|ż|.){10}z', 'y')"),
    ("sort of a text", "s|sort"),
    ("sort of a list", "l|sort(attribute='k')"),
    ("sum", "l|sum"),
    ("join", "l|join(',')"),
    ("replace", "s|replace('x', 'y')"),
    ("compare without case", "s.equalsIgnoreCase(s)"),
    ("wrap words", "s|wordwrap(1)"),
    ("count words", "s|wordcount"),
    ("escape for JSON", "s|escapejson"),
    ("center", "s|center(200000)"),
    ("title", "s|title"),
    ("date", "i|datetimeformat('%A %B %c %x %X')"),
    ("number", "i"),
];

/// What a delivery does without giving up its worker, at its worst: reads the stored trigger and renders within
/// `QUICK_STEPS`. What ends at the limit counts too: it has held up the worker all the same.
#[allow(clippy::print_stdout, reason = "what it measures is for people to read")]
fn inline(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("inline");
    group.sample_size(10).warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_millis(500));
    let mut costs = Vec::new();
    for (body_name, body) in large_bodies() {
        let stored = stored(&body);
        assert!((QUICK_BYTES - 8 * 1024..=QUICK_BYTES).contains(&stored.len()), "{body_name}: {}", stored.len());
        let each = DEAREST.map(|(name, expression)| {
            let names = "{% set s = request.body.s %}{% set l = request.body.l %}";
            let source = format!("{names}{{% for i in range(1000) %}}{{% set y = {expression} %}}{{% endfor %}}");
            (name, Template::compile(&source, Mode::Text).expect("it is of the dialect"))
        });
        let whole = [("into JSON", format!("[{}1]", "\"{{ request.body.s }}\",".repeat(7)))]
            .map(|(name, source)| (name, Template::compile(&source, Mode::Json).expect("it is of the dialect")));
        for (name, template) in each.iter().chain(&whole) {
            let (mut least, mut most) = (Duration::MAX, Duration::ZERO);
            group.bench_function(format!("{name}, {body_name}"), |bencher| {
                bencher.iter_custom(|times| {
                    let once = |_| {
                        let started = Instant::now();
                        let _ = black_box(delivered(&stored, template));
                        let took = started.elapsed();
                        (least, most) = (least.min(took), most.max(took));
                        took
                    };
                    (0..times).map(once).sum()
                });
            });
            costs.push((least, most, format!("{name}, {body_name}")));
        }
    }
    group.finish();
    costs.sort();
    println!("the dearest inline renders, with the longest single one of each on this machine:");
    for (least, most, what) in costs.iter().rev().take(5) {
        println!("  {least:.1?}, {most:.1?}: {what}");
    }
}

/// A trigger as a job keeps it.
fn stored(body: &Value) -> Vec<u8> {
    let envelope = Envelope {
        body: body.clone().into(),
        business_profile_id: 7,
        endpoint_id: "ep".into(),
        event_id: "ev".into(),
        headers: [("X-Request-ID", "r-1")].into_iter().collect::<Headers>(),
        method: "POST".into(),
        time: 1_718_010_931_000,
    };
    envelope.to_json()
}

fn delivered(stored: &[u8], template: &Template) -> Result<Rendered, Unrendered> {
    let envelope = Envelope::from_json(stored).expect("it was written by us");
    let step =
        Step { id: "s1".into(), name: "Send".into(), action: Action::Outgoing("x".into()), form_values: Vec::new() };
    let workflow = Workflow {
        name: "workspaces/acme/workflows/flow".into(),
        uid: "u1".into(),
        display_name: "Flow".into(),
        version: 1,
        triggers: vec![],
        steps: vec![],
    };
    let mut context = sluice_core::request::context(&envelope, &workflow, &step, "e1");
    context.limit_steps(QUICK_STEPS);
    template.render(&context, OnMissing::Empty)
}

fn import(criterion: &mut Criterion) {
    let item = r#"{"name":"it'\''s \"quoted\"","price":12.50,"tags":["a","b"]},"#;
    let headers: String = (0..20).map(|n| format!(" -H 'X-Header-{n}: value {n}'")).collect();
    let items = item.repeat((100 * 1024 - headers.len()) / item.len());
    let command = format!("curl 'https://api.example.com/orders'{headers} --json '[{items}null]'");
    let imported = sluice_core::curl::import(&command).expect("it can be imported");
    assert!(imported.request.body.is_some_and(|body| body.len() > 90 * 1024));
    criterion.bench_function(&format!("import/{} bytes", command.len()), |bencher| {
        bencher.iter(|| black_box(sluice_core::curl::import(black_box(&command))));
    });
}

criterion_group! {
    name = language;
    config = Criterion::default().warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(3));
    targets = render, compile, inline, import
}
criterion_main!(language);
