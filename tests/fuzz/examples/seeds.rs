//! Seeds of the fuzz targets, made of the golden files: `seeds <golden folder> <corpus folder>`.

use std::fs;
use std::io;
use std::path::Path;

use prost::Message as _;
use serde_json::Value;
use sluice_core::flatten::{Limits, parse_body};
use sluice_proto::admin::v1 as admin;
use sluice_proto::admin::v1::filter::Kind;

fn main() -> io::Result<()> {
    let folders: Vec<String> = std::env::args().skip(1).collect();
    let [golden, corpus] = folders.as_slice() else { panic!("usage: seeds <golden folder> <corpus folder>") };
    let (golden, corpus) = (Path::new(golden), Path::new(corpus));
    write(&corpus.join("template"), templates(golden)?)?;
    write(&corpus.join("curl"), commands(golden)?)?;
    write(&corpus.join("flatten"), bodies(golden)?)?;
    write(&corpus.join("filter"), filters(golden)?)?;
    write(&corpus.join("signature"), signatures(golden)?)?;
    write(&corpus.join("token"), tokens(golden)?)?;
    write(&corpus.join("url"), urls(golden)?)
}

fn write(folder: &Path, seeds: Vec<Vec<u8>>) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    for (index, seed) in seeds.iter().enumerate() {
        fs::write(folder.join(format!("golden-{index:04}")), seed)?;
    }
    println!("{}: {} seeds", folder.display(), seeds.len());
    Ok(())
}

/// Every case of every `.jsonl` of a folder.
fn cases(folder: &Path) -> io::Result<Vec<Value>> {
    let mut cases = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "jsonl") {
            let text = fs::read_to_string(path)?;
            cases.extend(text.lines().filter_map(|line| parse_body(line.as_bytes(), &Limits::STORED).ok()));
        }
    }
    Ok(cases)
}

fn templates(golden: &Path) -> io::Result<Vec<Vec<u8>>> {
    let mut seeds = Vec::new();
    for case in cases(&golden.join("template"))?.iter().chain(&cases(&golden.join("hostile"))?) {
        let Some(source) = case["template"].as_str() else { continue };
        let choice = match case["mode"].as_str().or(case["category"].as_str()).unwrap_or("json") {
            "json" | "http:json-body" => 1,
            "url" | "http:url" => 2,
            "header" | "http:header" => 3,
            "exact" => 4,
            _ => 0,
        };
        let context = if case["context"].is_null() { "{}".to_owned() } else { case["context"].to_string() };
        seeds.push([&[choice], source.as_bytes(), &[0], context.as_bytes()].concat());
    }
    Ok(seeds)
}

fn commands(golden: &Path) -> io::Result<Vec<Vec<u8>>> {
    let cases = cases(&golden.join("curl"))?;
    Ok(cases.iter().filter_map(|case| case["command"].as_str().map(|text| text.as_bytes().to_vec())).collect())
}

fn bodies(golden: &Path) -> io::Result<Vec<Vec<u8>>> {
    let cases =
        [cases(&golden.join("flatten"))?, cases(&golden.join("data"))?, cases(&golden.join("hostile"))?].concat();
    let own = cases
        .iter()
        .filter_map(|case| case["text"].as_str().or(case["body"].as_str()).map(|text| text.as_bytes().to_vec()));
    let values =
        cases.iter().filter(|case| !case["value"].is_null()).map(|case| case["value"].to_string().into_bytes());
    Ok(own.chain(values).collect())
}

fn signatures(golden: &Path) -> io::Result<Vec<Vec<u8>>> {
    let cases = cases(&golden.join("meta"))?;
    let seed = |case: &Value| match case["query"].as_str() {
        Some(query) => query.as_bytes().to_vec(),
        None => format!(
            "{}\n{}",
            case["headers"][0].as_str().unwrap_or_default(),
            case["body"].as_str().unwrap_or_default()
        )
        .into(),
    };
    Ok(cases.iter().map(seed).collect())
}

/// Headers and claims as the golden file has them, at the time of the target, and the documents of keys.
fn tokens(golden: &Path) -> io::Result<Vec<Vec<u8>>> {
    const NOW: i64 = 1_800_000_000;
    let at = |text: &str| {
        let mut parts = text.split("{now");
        let mut whole = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let (offset, rest) = part.split_once('}').unwrap_or((part, ""));
            whole.push_str(&(NOW + offset.parse::<i64>().unwrap_or_default()).to_string());
            whole.push_str(rest);
        }
        whole
    };
    let seed = |case: &Value| match (case["header"].as_str(), case["claims"].as_str()) {
        (Some(header), Some(claims)) => Some(format!("{}\n{}", at(header), at(claims)).into_bytes()),
        _ => case["document"].as_str().or(case["token"].as_str()).map(|text| text.as_bytes().to_vec()),
    };
    Ok(cases(&golden.join("jwt"))?.iter().filter_map(seed).collect())
}

fn urls(golden: &Path) -> io::Result<Vec<Vec<u8>>> {
    let cases = cases(&golden.join("address"))?;
    let text = |case: &Value| case["url"].as_str().or(case["ip"].as_str()).unwrap_or_default().as_bytes().to_vec();
    let same = |case: &Value| case["accepted"].as_str().map(|url| format!("{url}\n{url}").into_bytes());
    Ok(cases.iter().map(text).chain(cases.iter().filter_map(same)).collect())
}

fn filters(golden: &Path) -> io::Result<Vec<Vec<u8>>> {
    let mut seeds = Vec::new();
    for case in cases(&golden.join("filter"))? {
        let body = case["body"].as_str().unwrap_or_default().as_bytes();
        let lists = ["passes", "fails"].into_iter().filter_map(|side| case[side].as_array()).flatten();
        for json in lists.chain(Some(&case["refused"])).filter(|json| json.is_object()) {
            let filter = filter(json).encode_to_vec();
            let length = u16::try_from(filter.len()).unwrap_or_default().to_be_bytes();
            seeds.push([&length, filter.as_slice(), body].concat());
        }
    }
    Ok(seeds)
}

/// A filter of the golden file as the wire has it.
fn filter(json: &Value) -> admin::Filter {
    let group =
        |list: &Value| admin::FilterGroup { filters: list.as_array().into_iter().flatten().map(filter).collect() };
    let Some((name, operand)) = json.as_object().and_then(|object| object.iter().next_back()) else {
        return admin::Filter::default();
    };
    let kind = match name.as_str() {
        "all" => Kind::All(group(operand)),
        "any" => Kind::Any(group(operand)),
        "not" => Kind::Not(Box::new(filter(operand))),
        operator => Kind::Condition(condition(json, operator, operand)),
    };
    admin::Filter { kind: Some(kind) }
}

fn condition(json: &Value, operator: &str, operand: &Value) -> admin::Condition {
    let name = match operator {
        "does_not_contain" => "NOT_CONTAINS".to_owned(),
        "does_not_exist" => "NOT_EXISTS".to_owned(),
        other => other.to_ascii_uppercase(),
    };
    let operands = match (operand, operator) {
        (Value::Array(list), "in" | "not_in" | "between") => list.iter().map(Value::to_string).collect(),
        (_, "exists" | "does_not_exist" | "is_null" | "is_true" | "is_false") => Vec::new(),
        (operand, _) => vec![operand.to_string()],
    };
    let operator = admin::Operator::from_str_name(&name).unwrap_or_default();
    admin::Condition { path: json["path"].as_str().unwrap_or_default().to_owned(), operator: operator.into(), operands }
}
