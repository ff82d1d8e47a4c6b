//! Against a real bash, in which `curl` prints its arguments: an export runs to the bytes it was made of (C12), and what is
//! read as words is what bash reads.

use std::process::Command;

use super::Dice;
use crate::curl::{Header, Request, export, posix};

/// The arguments curl gets from each command.
fn arguments(commands: &[String], variables: &[(&str, &str)]) -> Vec<Vec<Vec<u8>>> {
    let folder = std::env::temp_dir();
    // Nothing else can be found, should a command begin another one.
    let script = "PATH=; curl() { printf '%s\\0' \"$@\"; }; set -f; for c; do printf '<\\0'; eval \"$c\" 2>&- || printf 'FAILED\\0'; done";
    let output = Command::new("bash")
        .args(["--noprofile", "--norc", "-c", script, "bash"])
        .args(commands)
        .env_clear()
        .envs(variables.iter().copied())
        .env("LC_ALL", "C.UTF-8")
        .current_dir(folder)
        .output()
        .expect("bash runs");
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut all: Vec<Vec<Vec<u8>>> = Vec::new();
    let text = output.stdout.strip_suffix(b"\0").unwrap();
    for argument in text.split(|byte| *byte == 0) {
        match all.last_mut() {
            _ if argument == b"<" => all.push(Vec::new()),
            Some(last) => last.push(argument.to_vec()),
            None => panic!("output before the first command"),
        }
    }
    assert_eq!(all.len(), commands.len());
    all
}

fn request(header: &str, body: &str) -> Request {
    Request {
        method: "POST".to_owned(),
        url: "https://a.example/'x'?a=$(id)&b={{ y }}!".to_owned(),
        headers: vec![
            Header { name: "Content-Type".to_owned(), value: "text/plain".to_owned() },
            Header { name: "X-A".to_owned(), value: header.to_owned() },
        ],
        body: Some(body.to_owned()),
    }
}

#[test]
fn bash_runs_an_export_to_the_same_bytes() {
    let mut texts: Vec<String> = [
        "'; rm -rf ~ #",
        "$(id)",
        "`id`",
        "a\nb",
        "a\r\nb\rc",
        "!",
        "!!",
        "\u{80}\u{ff}",
        "zażółć 🦀",
        "\u{1}\u{7f}\u{1b}[0m",
        "\u{85}\u{2028}\u{2029}\u{feff}",
        "\\",
        "\\'",
        "$'\\x41'",
        "\\n",
        "\"",
        "\"$HOME\"",
        "${SLUICE_SECRET_X}",
        "$SLUICE_SECRET_X",
        "",
        "-d",
        "@/etc/passwd",
        "\t",
        "a\tb",
        "\u{1}41",
        "{a,b}",
        "~",
        "a'\u{1}'b",
    ]
    .map(str::to_owned)
    .to_vec();
    let pieces =
        ["'", "\\", "\n", "$", "x", "!", "`", "\"", "\u{1}", "41", "é", " ", "#", "\u{85}", "{", "}", ",", "~"];
    texts.extend((1..300).map(|seed| Dice::new(seed).text(&pieces, 10)));
    let requests: Vec<Request> = texts
        .iter()
        .map(|text| {
            let header: String = text.chars().filter(|c| !c.is_control()).collect();
            request(if header.trim().is_empty() { "x" } else { header.trim_matches([' ', '\t']) }, text)
        })
        .collect();
    let commands: Vec<String> = requests.iter().map(|request| export(request).unwrap()).collect();
    for (request, arguments) in requests.iter().zip(arguments(&commands, &[])) {
        let header = format!("X-A: {}", request.headers[1].value);
        let expected = [
            "--request",
            "POST",
            "--globoff",
            "--url",
            &request.url,
            "--header",
            "Content-Type: text/plain",
            "--header",
            &header,
            "--data-raw",
            request.body.as_deref().unwrap(),
        ];
        let expected: Vec<&[u8]> = expected.iter().map(|text| text.as_bytes()).collect();
        assert_eq!(arguments, expected, "{request:?}");
    }
}

/// With the variable set, the bytes are those of the request; without it, nothing of the secret is there (C13).
#[test]
fn bash_fills_placeholders_in() {
    let mut request = request("x", "y");
    request.url = "https://a.example/?api_key=k-123&x=1".to_owned();
    request.headers = vec![Header { name: "Authorization".to_owned(), value: "Bearer s3cr3t 'x'".to_owned() }];
    let command = export(&request).unwrap();
    assert!(!command.contains("s3cr3t") && !command.contains("k-123"), "{command}");
    let variables = [("SLUICE_SECRET_AUTHORIZATION", "Bearer s3cr3t 'x'"), ("SLUICE_SECRET_API_KEY", "k-123")];
    let arguments = &arguments(&[command], &variables)[0];
    assert!(arguments.contains(&b"Authorization: Bearer s3cr3t 'x'".to_vec()));
    assert!(arguments.contains(&request.url.into_bytes()));
}

#[test]
fn words_are_those_of_bash() {
    let pieces = [
        "a", "b ", " ", "'", "'", "\"", "\"", "\\", "\\\n", "\n", "$", "$'", "$\"", "{", "}", ",", "..", "!", "#",
        " #", "=", "~", "é", "\\x4", "\\n", "\\u00e9", "\\101", "\\c", "\t", "%", "^", "*", "[", "1", "\\'", "\\e",
        "\\8", "\\U",
    ];
    let mut commands = Vec::new();
    let mut expected = Vec::new();
    for seed in 1..30_000 {
        let text = format!("curl {}", Dice::new(seed).text(&pieces, 9));
        // `eval` keeps a backslash at the very end, a script drops it, and so do we.
        if !text.ends_with('\\')
            && let Ok(command) = posix::split(&text, 0)
            && !command.line_breaks_normalised
        {
            let words = command.words.iter().skip(1).map(|word| word.text.clone().into_bytes());
            expected.push(words.collect::<Vec<_>>());
            commands.push(text);
        }
    }
    assert!(commands.len() > 5_000, "{}", commands.len());
    for (commands, expected) in commands.chunks(2_000).zip(expected.chunks(2_000)) {
        for ((command, words), expected) in commands.iter().zip(arguments(commands, &[])).zip(expected) {
            // A function without arguments prints one empty string.
            let words = if words == [Vec::<u8>::new()] && expected.is_empty() { Vec::new() } else { words };
            let shown = |words: &[Vec<u8>]| {
                words.iter().map(|word| String::from_utf8_lossy(word).into_owned()).collect::<Vec<_>>()
            };
            assert_eq!(shown(&words), shown(expected), "{command:?}");
        }
    }
}
