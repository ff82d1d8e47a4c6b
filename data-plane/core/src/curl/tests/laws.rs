//! Laws: importing an export changes nothing (C14); reading never panics and takes time in proportion (C05, C15).

use std::time::{Duration, Instant};

use super::Dice;
use crate::address::MAX_URL_BYTES;
use crate::curl::limits::COMMAND_BYTES;
use crate::curl::{ExportError, Header, Request, export, import};

const CASES: u64 = 12_000;

/// Pieces that have meant something to some shell, to curl, to a URL or to the template language.
#[rustfmt::skip]
const HOSTILE: [&str; 46] = [
    "a", "Z", "0", " ", "\t", "'", "\"", "\\", "\\\\", "`", "$", "$(id)", "${HOME}", "$x", "!", "#", "&", "|", ";",
    "<", ">", "(", ")", "*", "?", "[", "]", "{", "}", "~", "^", "%", "%2e", "@", "=", ",", "..", "é", "🦀", "\u{2028}",
    "\u{a0}", "“", "–", "{{ x }}", "{% if a == '}}' %}", "{# ' #}",
];

#[rustfmt::skip]
const HEADER_NAMES: [&str; 15] = [
    "X-A", "x-a", "Accept", "Content-Type", "content-type", "Authorization", "Cookie", "X-Api-Key", "X_Api_Key",
    "{{ name }}", "X-{{ a ? ':' : ';' }}", "User-Agent", "Accept-Encoding", " Referer ", "A!#$%&'*+-.^_`|~9",
];

const HEADER_VALUES: [&str; 10] =
    ["application/json", "Bearer t", "{{ v }}", "", " ", "a\tb", "  x  ", "@file", "a: b; c", "text/plain"];

fn header(dice: &mut Dice) -> Header {
    if dice.below(6) == 0 {
        let name = dice.one_of(&["Authorization", "cookie", "X-Api-Key", "x_api_key"]);
        return Header { name: name.to_owned(), value: "Bearer s3cr3t'".to_owned() };
    }
    let value = if dice.below(3) == 0 { dice.text(&HOSTILE, 6) } else { dice.one_of(&HEADER_VALUES).to_owned() };
    Header { name: dice.one_of(&HEADER_NAMES).to_owned(), value }
}

fn draft(dice: &mut Dice) -> Request {
    let hosts = ["a.example", "A.Example", "a.example:8443", "bücher.example", "a.example:443"];
    let methods = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"];
    let path = [
        "/",
        "a",
        "B",
        "~u",
        "%20",
        "{{ x }}",
        "{{ x | default('a b?#&') }}",
        "[1]",
        "{a}",
        "é",
        "'",
        ";v=1",
        "(",
        "!",
    ];
    let names = ["a", "api_key", "token", "b[]", "{{ n }}", "key", "é", "x'y"];
    let mut url = format!("https://{}", dice.one_of(&hosts));
    if dice.below(8) > 0 {
        url.push('/');
        url.push_str(&dice.text(&path, 5));
        for index in 0..dice.below(4) {
            url.push(if index == 0 { '?' } else { '&' });
            let name = dice.one_of(&names);
            url.push_str(name);
            if ["api_key", "token", "key"].contains(&name) && dice.below(2) == 0 {
                url.push_str("=s3cr3t");
                continue;
            }
            url.push_str(dice.one_of(&["", "=", "=1", "={{ v }}", "=a+b%26", "='", "=${x}"]));
        }
        url.push_str(dice.one_of(&["", "", "", "#frag", "?", "/../b", "/%2E%2e/b"]));
    }
    let headers = (0..dice.below(5)).map(|_| header(dice)).collect();
    let body = match dice.below(4) {
        0 => None,
        1 => Some(String::new()),
        _ => {
            let mut text = dice.text(&HOSTILE, 12);
            text.push_str(dice.one_of(&["", "\n", "\r\n", "\u{1}", "\u{85}", "@x", "{\"a\": 1}"]));
            Some(text + &dice.text(&HOSTILE, 3))
        }
    };
    Request { method: dice.one_of(&methods).to_owned(), url, headers, body }
}

#[test]
fn importing_an_export_changes_nothing() {
    let mut not_written = 0;
    for seed in 1..=CASES {
        let draft = draft(&mut Dice::new(seed));
        let command = match export(&draft) {
            Ok(command) => command,
            // Such drafts cannot be saved, or would never be sent.
            Err(ExportError::Header(_) | ExportError::Url(..)) => {
                not_written += 1;
                continue;
            }
            Err(error) => panic!("seed {seed}: {error}: {draft:?}"),
        };
        assert!(!command.contains("s3cr3t"), "seed {seed}: {command}");
        let import = import(&command).unwrap_or_else(|refusal| panic!("seed {seed}: {refusal}\n{command}\n{draft:?}"));
        let changes = import.changes(&draft, Some("workspaces/w/connections/c"));
        assert_eq!(changes.to_string(), "No changes", "seed {seed}\n{command}\n{draft:?}");
        assert_eq!(import.applied_to(&draft), draft, "seed {seed}\n{command}");
    }
    assert!(CASES - not_written >= 10_000, "{not_written} of {CASES} drafts have no command");
}

/// What stands for a secret is longer than the secret, and the URL's limit is not for it.
#[test]
fn a_url_full_of_secrets_comes_back() {
    let mut url = "https://a.example/?key=0".to_owned();
    while url.len() + "&token={{ v }}".len() <= MAX_URL_BYTES - 20 {
        url.push_str("&key=1&token=2");
    }
    let secrets = [url.clone(), format!("{url}&token={{{{ v }}}}")];
    for url in secrets {
        let draft = Request { method: "GET".to_owned(), url, headers: Vec::new(), body: None };
        let command = export(&draft).unwrap();
        assert!(command.len() > 2 * MAX_URL_BYTES, "{}", command.len());
        let import = import(&command).unwrap_or_else(|refusal| panic!("{refusal}"));
        assert_eq!(import.changes(&draft, None).to_string(), "No changes");
        assert_eq!(import.applied_to(&draft), draft);
    }
}

#[test]
fn reading_never_panics() {
    const WORDS: [&str; 34] = [
        "curl",
        "curl ",
        "-H",
        " -H ",
        "-d",
        " -d ",
        "-G",
        " --json ",
        " --data-urlencode ",
        " --url-query ",
        " -u ",
        "https://a.example/",
        "https://u:p@a.example",
        "\n",
        "\r\n",
        " \\\n",
        " ^\n",
        "^\"",
        "$'",
        "\\x",
        "\\u00e9",
        "\\c",
        "<<E\n",
        "<<< ",
        "E\n",
        "--",
        "-XPOST",
        "-b",
        "Authorization: ",
        ": ",
        "Host: a.example",
        "@-",
        "`",
        "\u{feff}",
    ];
    let mut accepted = 0;
    for seed in 1..=CASES {
        let mut dice = Dice::new(seed);
        let mut text = if dice.below(4) == 0 { String::new() } else { "curl https://a.example/".to_owned() };
        for _ in 0..dice.below(14) {
            text.push_str(if dice.below(2) == 0 { dice.one_of(&WORDS) } else { dice.one_of(&HOSTILE) });
        }
        match import(&text) {
            Ok(import) => {
                accepted += 1;
                // What was imported can be written and read again, but for what such a text can hold and a draft cannot.
                if let Ok(command) = export(&import.request) {
                    let again = self::import(&command).unwrap_or_else(|refusal| panic!("{refusal}\n{text}\n{command}"));
                    assert_eq!(again.changes(&import.request, None).to_string(), "No changes", "{text}\n{command}");
                }
            }
            Err(refusal) => assert!(!refusal.to_string().is_empty()),
        }
    }
    assert!(accepted > 500, "only {accepted} texts were read: the law says little");
}

/// Texts of the greatest length, each made so that going back over it would show: quadratic time is minutes here.
#[test]
fn reading_takes_time_in_proportion() {
    let url = "curl -g https://a.example/";
    let shapes = [
        (format!("{url} -d '"), "{{ ", "'"),
        (format!("{url} -d '"), "{{ x }}", "'"),
        (format!("{url} -d '"), "{{ '", "'"),
        (format!("{url} -H 'A: "), "{% a %}{", "'"),
        (format!("{url} -H '"), "{#", "'"),
        (url.to_owned(), "{{x}}/", ""),
        (format!("{url}?"), "a=1&", ""),
        (format!("{url}?"), "{{a}}=&", ""),
        (format!("{url} -d "), "\\\n", "x"),
        (format!("{url} -d "), "''", ""),
        (format!("{url} -d "), "$'\\x41'", ""),
        (format!("{url} -d \""), "\\\"", "\""),
        (format!("{url} -d \""), "$ ", "\""),
        (format!("{url} -d "), "{", ""),
        (format!("{url} -d "), "{a}", ""),
        (format!("{url} -d @- <<E\n"), "a\n", "E\n"),
        (format!("{url} -d @- <<E\n"), "$ \\x\n", "E\n"),
        (format!("{url} -d ^\""), "^\\^\"", "^\""),
        (format!("{url} -d ^\""), "\\", "^\""),
        (format!("{url} -d ^\""), "%", "^\""),
        (format!("{url} --data-urlencode '"), "é ", "'"),
        (format!("{url} "), "-s ", ""),
        (format!("{url} "), "-H A:b ", ""),
        (format!("{url} -"), "s", ""),
        (String::new(), "#\n", "curl"),
        (String::new(), "\r\n", "curl"),
        ("curl '".to_owned(), "a", ""),
        ("curl --".to_owned(), "a", ""),
    ];
    for (start, repeated, end) in &shapes {
        let times = (COMMAND_BYTES - start.len() - end.len()) / repeated.len();
        let text = format!("{start}{}{end}", repeated.repeat(times));
        let began = Instant::now();
        let outcome = import(&text);
        if let Ok(import) = &outcome {
            assert_eq!(import.changes(&import.request, None).to_string(), "No changes");
        }
        let taken = began.elapsed();
        assert!(taken < Duration::from_secs(4), "{taken:?} for {start:?} and {times} times {repeated:?}");
    }
}
