//! Templates in both engines, ours and the stock one, with the same data.

use std::collections::BTreeMap;

use minijinja::{Environment, UndefinedBehavior, Value as StockValue};
use serde_json::{Value, json};
use sluice_core::template::{Context, Mode, OnMissing, Template, headers_value, map_value, value_from_json};

pub(crate) const BODY: &str = concat!(
    r#"{"action":"order.received","label":"Order received in the shop","order":{"number":"{{ request.body.order_number }}","#,
    r#""currency":"{{ request.body.currency }}","total":{{ request.body.total }},"shipping":{{ request.body.shipping }},"#,
    r#""paidAt":"{{ request.body.paid_at }}","coupon":"{{ request.body.coupon|default("none") }}"},"#,
    r#""client":{"email":"{{ request.body.customer.email|lower }}","firstName":"{{ request.body.customer.first_name }}","#,
    r#""lastName":"{{ request.body.customer.last_name }}","phone":"{{ request.body.customer.phone }}","#,
    r#""kind":"{% if request.body.customer.vip %}gold{% else %}standard{% endif %}"},"#,
    r#""address":{"street":"{{ request.body.address.street }}","city":"{{ request.body.address.city }}","#,
    r#""zip":"{{ request.body.address.zip }}"},{% if request.body.note %}"note":{{ request.body.note|tojson }},{% endif %}"#,
    r#""items":[{% for p in request.body.products %}{"sku":"{{ p.id }}","name":"{{ p.name }}","price":{{ p.price }}}"#,
    r#"{% if not loop.last %},{% endif %}{% endfor %}],"trace":{"id":"{{ request.headers["X-Request-ID"] }}","#,
    r#""time":{{ request.time }}},"source":"webshop-eu-central","schema":"https://schemas.example/order/v2.json"}"#,
);

pub(crate) fn order() -> Value {
    let product = |n: u32, name: &str| json!({"id": format!("sku-{n}"), "name": name, "qty": n, "price": 12.5});
    json!({
        "order_number": "A-1001", "currency": "EUR", "total": 37.5, "shipping": 4.99, "paid_at": "2024-06-10T09:15:30Z",
        "customer": {"email": "Ewa@Example.com", "first_name": "Ewa", "last_name": "Nowak", "phone": "+48111222333", "vip": true},
        "address": {"street": "Main Street 7/12", "city": "Krakow", "zip": "30-001"}, "note": "Ring twice, leave at the door",
        "products": [product(1, "Green tea"), product(2, "Mug"), product(3, "Kettle"), product(4, "Strainer"), product(5, "Spoon")],
    })
}

/// A template in both engines, with the same data.
pub(crate) struct Case {
    pub(crate) text: Template,
    pub(crate) json: Template,
    stock: Environment<'static>,
    context: Context,
    stock_context: StockValue,
}

impl Case {
    pub(crate) fn new(source: &'static str, body: &Value) -> Self {
        let request = map_value([
            ("body", value_from_json(body)),
            ("headers", headers_value([("X-Request-ID", "r-1")].into_iter())),
            ("time", sluice_core::template::Value::from(1_718_010_931_000_i64)),
        ]);
        let mut context = Context::new();
        context.set("request", request);
        let of_stock =
            json!({"request": {"body": body, "headers": {"X-Request-ID": "r-1"}, "time": 1_718_010_931_000_i64}});
        let mut stock = Environment::new();
        stock.set_undefined_behavior(UndefinedBehavior::Chainable);
        stock.add_template("body", source).expect("stock minijinja reads it");
        let compile = |mode| Template::compile(source, mode).expect("it is of the dialect");
        Self {
            text: compile(Mode::Text),
            json: compile(Mode::Json),
            stock,
            context,
            stock_context: stock_value(&of_stock),
        }
    }

    pub(crate) fn ours(&self, template: &Template) -> String {
        template.render(&self.context, OnMissing::Empty).expect("it renders").text
    }

    pub(crate) fn stock(&self) -> String {
        self.stock.get_template("body").and_then(|template| template.render(&self.stock_context)).expect("it renders")
    }
}

/// Values as the stock engine likes them best: its own numbers, not texts.
fn stock_value(json: &Value) -> StockValue {
    match json {
        Value::Null => StockValue::from(()),
        Value::Bool(truth) => StockValue::from(*truth),
        Value::Number(number) => {
            number.as_i64().map_or_else(|| StockValue::from(number.as_f64().unwrap_or_default()), StockValue::from)
        }
        Value::String(text) => StockValue::from(text.as_str()),
        Value::Array(list) => list.iter().map(stock_value).collect(),
        Value::Object(map) => {
            let entries = map.iter().map(|(key, inner)| (key.clone(), stock_value(inner)));
            StockValue::from(entries.collect::<BTreeMap<String, StockValue>>())
        }
    }
}
