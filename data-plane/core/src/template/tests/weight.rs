//! What a compiled template takes of the memory of a data plane, which keeps all that it serves.

use super::super::ast::{Argument, Ast, Compound, Macro, More, Node, Tag, Target};
use super::*;

/// A body as integrations have it: texts, values, filters, branches and a loop.
const ORDER: &str = concat!(
    r#"{"action":"order.received","order":{"number":"{{ request.body.order_number }}","total":{{ request.body.total }},"#,
    r#""currency":"{{ request.body.currency }}","paidAt":"{{ request.body.paid_at }}","#,
    r#""coupon":"{{ request.body.coupon|default("none") }}"},"client":{"email":"{{ request.body.customer.email|lower }}","#,
    r#""firstName":"{{ request.body.customer.first_name }}","lastName":"{{ request.body.customer.last_name }}","#,
    r#""kind":"{% if request.body.customer.vip %}gold{% else %}standard{% endif %}"},"address":{"#,
    r#""street":"{{ request.body.address.street }}","city":"{{ request.body.address.city }}"},"#,
    r#"{% if request.body.note %}"note":{{ request.body.note|tojson }},{% endif %}"items":["#,
    r#"{% for p in request.body.products %}{"sku":"{{ p.id }}","name":"{{ p.name }}","price":{{ p.price }}}"#,
    r#"{% if not loop.last %},{% endif %}{% endfor %}],"trace":"{{ request.headers["X-Request-ID"] }}"}"#,
);

#[test]
fn a_compiled_template_is_small_beside_its_source() {
    let weight = |source: &str| bytes(&Template::compile(source, Mode::Json).unwrap()) as f64 / source.len() as f64;
    let field = |at: usize| format!(r#""field{at}":"some text {{{{ request.body.value{at} }}}} and more of it","#);
    let fields: String = (0..18).map(field).collect();
    let (order, flat) = (weight(ORDER), weight(&format!(r#"{{{fields}"number":1}}"#)));
    assert!(order < 2.9, "{order:.2} times its source");
    assert!(flat < 1.8, "{flat:.2} times its source");
}

/// Names and most values of headers are such.
#[test]
fn a_text_alone_takes_nothing_beside_its_source() {
    let source = "application/json; charset=utf-8";
    let template = Template::compile(source, Mode::Header).unwrap();
    assert_eq!((size_of::<Template>(), bytes(&template)), (48, 48 + source.len()));
}

/// All that was asked of the allocator for it.
fn bytes(template: &Template) -> usize {
    let Template { source, mode: _, ast } = template;
    size_of_val(template) + source.heap_bytes() + ast.as_deref().map_or(0, of_ast)
}

fn of_ast(ast: &Ast) -> usize {
    let Ast { exprs, starts, nodes, blocks, names, roots, more, root: _, changes: _ } = ast;
    let frequent = size_of_val(&**exprs) + size_of_val::<[Node]>(nodes) + size_of_val(&**starts);
    let known = size_of_val(&**blocks) + size_of_val(&**names) + size_of_val(&**roots);
    size_of_val(ast) + frequent + known + more.as_deref().map_or(0, of_more)
}

fn of_more(more: &More) -> usize {
    let More { compounds, links, operands, constants, tags, macros, fields } = more;
    let code = size_of_val(&**compounds) + size_of_val(&**links) + size_of_val(&**operands);
    // What constants refer to is left out: long texts and regular expressions.
    let known = size_of_val(&**constants) + size_of_val(&**tags) + size_of_val(&**macros) + size_of_val(&**fields);
    let inside = compounds.iter().map(of_compound).sum::<usize>() + tags.iter().map(of_tag).sum::<usize>();
    let parameters = |one: &Macro| size_of_val(&*one.parameters);
    size_of_val(more) + code + known + inside + macros.iter().map(parameters).sum::<usize>()
}

fn of_compound(compound: &Compound) -> usize {
    let named = |argument: &Argument| argument.name.as_deref().map_or(0, shared);
    let given = |args: &[Argument]| size_of_val(args) + args.iter().map(named).sum::<usize>();
    match compound {
        Compound::List { .. } | Compound::Field { .. } | Compound::Choice { .. } | Compound::Postfix { .. } => 0,
        Compound::Dict(entries) => grown(entries) + entries.iter().map(|(key, _)| shared(key)).sum::<usize>(),
        Compound::Function(call) => size_of_val(&**call) + given(&call.1),
        Compound::Call(call) => size_of_val(&**call) + given(&call.1),
        Compound::Chain { rest, .. } => grown(rest),
        Compound::Logic { operands, .. } => grown(operands),
    }
}

fn of_tag(tag: &Tag) -> usize {
    let field = |target: &Target| if let Target::Field(_, field) = target { shared(field) } else { 0 };
    match tag {
        Tag::If { arms, .. } => size_of_val(&**arms),
        Tag::For { names, .. } => size_of_val(&**names),
        Tag::Set { targets, values } => {
            size_of_val(&**targets) + size_of_val(&**values) + targets.iter().map(field).sum::<usize>()
        }
        Tag::SetBlock(set) => size_of_val(&**set) + field(&set.target),
        Tag::Cycle { values, .. } => size_of_val(&**values),
        Tag::Break(_)
        | Tag::Continue(_)
        | Tag::Do(_)
        | Tag::DoBlock(_)
        | Tag::IfChanged { .. }
        | Tag::AutoEscape { .. }
        | Tag::Macro(_)
        | Tag::Call { .. }
        | Tag::With { .. }
        | Tag::Kill(_) => 0,
    }
}

fn grown<T>(list: &Vec<T>) -> usize {
    size_of_val(list) + list.capacity() * size_of::<T>()
}

/// A text behind two counters.
fn shared(text: &str) -> usize {
    text.len() + 2 * size_of::<usize>()
}
