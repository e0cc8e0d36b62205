//! Style as a test, after TigerBeetle's `tidy.zig`: what a reviewer would have to say twice.
//!
//! Two kinds of checks. Those of [`RULES`] look at one source file each and stand beside a sample
//! that breaks them, so that a rule that finds nothing is found out. The others hold documents to
//! the code: a flag, a parameter, a metric or a room that nobody wrote down fails here.
//!
//! A fault is printed as `file:line: what to do`. Functions are found by rustfmt's indentation,
//! so run `cargo fmt` first. Production code is what stands before a file's test module, outside
//! of src/tests and of files called tests.rs. What clippy can check is left to clippy.
#![expect(clippy::expect_used, reason = "a test that cannot read its own project has failed")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use openports::api::Route;
use openports::api::problem::Cause;

const LINE_CHARS_MAX: usize = 100;
const FUNCTION_LINES_MAX: usize = 70;
const ROOM_LINES_MAX: usize = 500;
const HEADER_LINES_MAX: usize = 25;
const PARAMETERS_MAX: usize = 4;

/// What may stand at the top level, beside dot files.
const TOP_LEVEL: [&str; 9] = [
    "Cargo.lock",
    "Cargo.toml",
    "Dockerfile",
    "LICENSE",
    "README.md",
    "benches",
    "docs",
    "manifests",
    "src",
];

/// One file of the project.
struct Source {
    /// From the top of the project, with slashes.
    path: String,
    text: String,
}

/// A line, counted from 1, and what to do about it.
type Fault = (usize, String);

/// A rule for one source file, and a sample that breaks it.
struct Rule {
    applies: fn(&Source) -> bool,
    check: fn(&Source) -> Vec<Fault>,
    /// The path and the text of a file that the rule must object to.
    sample: (&'static str, &'static str),
    /// Where in the sample.
    line: usize,
}

const RULES: [Rule; 15] = [
    Rule {
        applies: Source::is_rust,
        check: check_width,
        sample: (
            "src/a.rs",
            concat!(
                "//! A.\n// 34567890123456789012345678901234567890123456789",
                "01234567890123456789012345678901234567890123456789é"
            ),
        ),
        line: 2,
    },
    Rule {
        applies: Source::is_rust,
        check: check_header,
        sample: ("src/a.rs", "use std::fmt;\n"),
        line: 1,
    },
    Rule {
        applies: Source::is_room,
        check: check_length,
        sample: ("src/a.rs", "#[cfg(test)]\nmod tests {\n}\n\nfn late() {}\n"),
        line: 5,
    },
    Rule {
        applies: Source::is_room,
        check: check_functions,
        sample: ("src/a.rs", "//! A.\nimpl A {\n    fn tick(&self, is_late: bool) {\n    }\n}\n"),
        line: 3,
    },
    Rule {
        applies: Source::is_room,
        check: check_imports,
        sample: ("src/timers.rs", "//! T.\n\nuse crate::slots::Key;\nuse crate::scan::Scan;\n"),
        line: 4,
    },
    Rule {
        applies: Source::is_room,
        check: |source| {
            let readers = ["src/server.rs", "src/main.rs"];
            let clock = ["Instant::now", "SystemTime::now", ".elapsed()"];
            keep_out(source, &readers, &clock, "reads the clock: take `now` as a parameter")
        },
        sample: ("src/scan.rs", "//! S.\nfn f() { let now = Instant::now(); }\n"),
        line: 2,
    },
    Rule {
        applies: Source::is_room,
        check: check_unsafe,
        sample: ("src/sys.rs", "//! S.\nfn f() {\n    unsafe { g() }\n}\n"),
        line: 3,
    },
    Rule {
        applies: Source::is_room,
        check: |source| {
            let api = if source.room() == "api" { source.path.as_str() } else { "" };
            keep_out(source, &[api], &["serde_json"], "JSON is a matter of the room `api`")
        },
        sample: ("src/scan.rs", "//! S.\nuse serde_json::Value;\n"),
        line: 2,
    },
    Rule {
        applies: Source::is_room,
        check: |source| {
            let shared = [
                "Rc<",
                "Arc<",
                "RefCell",
                "Cell<",
                "Mutex",
                "RwLock",
                "static mut",
                "thread_local!",
                "std::thread",
                "async fn",
                ".await",
            ];
            keep_out(source, &[], &shared, "one thread owns everything: pass it as `&mut`")
        },
        sample: ("src/scan.rs", "//! S.\nuse std::rc::Rc;\n\nstruct S(Rc<u8>);\n"),
        line: 4,
    },
    Rule {
        applies: Source::is_room,
        check: check_proofs,
        sample: ("src/a.rs", "//! A.\n\nfn f() {\n    g().unwrap();\n}\n"),
        line: 4,
    },
    Rule {
        applies: Source::is_room,
        check: |source| {
            keep_out(source, &["src/lib.rs"], &["pub use "], "re-exports stand in lib.rs only")
        },
        sample: ("src/scan.rs", "//! S.\npub use self::probes::Probe;\n"),
        line: 2,
    },
    Rule {
        applies: |source| source.path == "src/limits.rs",
        check: check_limits,
        sample: (
            "src/limits.rs",
            "//! L.\n\n/// Why.\npub const A: u8 = 1;\npub const B: u8 = 2;\n",
        ),
        line: 5,
    },
    Rule {
        applies: |source| source.path != "Cargo.lock",
        check: check_words,
        sample: ("docs/a.md", concat!("fine\nTO", "DO: more\n")),
        line: 2,
    },
    Rule {
        applies: |source| source.path.ends_with(".md"),
        check: check_links,
        sample: ("docs/a.md", "[good](../Cargo.toml)\n\n[bad](nowhere.md)\n"),
        line: 3,
    },
    Rule {
        applies: |source| source.path.ends_with(".md"),
        check: check_line_numbers,
        sample: ("docs/a.md", "see `scan.rs`\nsee scan.rs:12\n"),
        line: 2,
    },
];

#[test]
fn every_file_keeps_to_every_rule() {
    let mut faults = Vec::new();
    for source in tracked() {
        for rule in RULES.iter().filter(|rule| (rule.applies)(&source)) {
            for (line, what) in (rule.check)(&source) {
                faults.push(format!("{}:{line}: {what}", source.path));
            }
        }
    }
    finish(faults);
}

#[test]
fn every_rule_objects_to_its_sample_where_it_is_broken() {
    for rule in &RULES {
        let (path, text) = rule.sample;
        let source = Source { path: path.into(), text: text.into() };
        assert!((rule.applies)(&source), "the rule is for files like {path}:\n{text}");
        let lines: Vec<usize> = (rule.check)(&source).into_iter().map(|(line, _)| line).collect();
        assert_eq!(lines, [rule.line], "in {path}:\n{text}");
    }
}

#[test]
fn the_top_level_holds_what_was_agreed() {
    let odd = |name: &String| !name.starts_with('.') && !TOP_LEVEL.contains(&name.as_str());
    let top = |path: &str| path.split('/').next().unwrap_or_default().to_owned();
    let names: BTreeSet<String> = paths().iter().map(|path| top(path)).collect();
    let faults = names.into_iter().filter(odd);
    finish(faults.map(|name| format!("{name}:1: move it below src, benches or docs")).collect());
}

#[test]
fn the_map_of_lib_rs_names_every_room_once() {
    let lib = read("src/lib.rs");
    let modules = lib.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'));
    let mut rooms = floors();
    rooms.sort_unstable();
    let mut modules: Vec<&str> = modules.collect();
    modules.sort_unstable();
    assert_eq!(rooms, modules, "the rows of the map in src/lib.rs against its `pub mod` lines");
}

#[test]
fn the_architecture_names_every_room_and_no_other() {
    let page = read("docs/architecture.md");
    let rooms: Vec<String> = tracked()
        .into_iter()
        .filter(Source::is_room)
        .map(|source| source.path["src/".len()..].to_owned())
        .collect();
    let mut faults = Vec::new();
    for room in rooms.iter().filter(|room| !page.contains(&format!("`{room}`"))) {
        faults.push(format!("docs/architecture.md:1: say what `{room}` is"));
    }
    for (line, text) in numbered(&page) {
        let named = text.split('`').skip(1).step_by(2).filter(|code| code.ends_with(".rs"));
        for name in named.filter(|name| !rooms.iter().any(|room| room == name)) {
            if !root().join(name).exists() {
                faults.push(format!("docs/architecture.md:{line}: there is no `{name}`"));
            }
        }
    }
    finish(faults);
}

#[test]
fn the_architecture_gives_the_reason_of_every_dependency() {
    let page = read("docs/architecture.md");
    let manifest = read("Cargo.toml");
    let mut is_dependency = false;
    let mut faults = Vec::new();
    for (line, text) in numbered(&manifest) {
        if text.starts_with('[') {
            is_dependency = text.ends_with("dependencies]");
        } else if is_dependency
            && let Some((name, _)) = text.split_once(" = ")
            && !page.contains(&format!("| `{name}` |"))
        {
            faults.push(format!("Cargo.toml:{line}: give {name} a row in docs/architecture.md"));
        }
    }
    finish(faults);
}

#[test]
fn every_flag_of_the_help_is_documented() {
    let help_of = |command: &str| {
        let help = Command::new(env!("CARGO_BIN_EXE_openports")).args([command, "--help"]).output();
        String::from_utf8(help.expect("the binary starts").stdout).expect("help is UTF-8")
    };
    let help = ["serve", "scan", "healthcheck"].map(help_of).concat();
    let flags: BTreeSet<&str> = help
        .split(|c: char| c.is_whitespace() || ",=[]".contains(c))
        .filter(|word| word.starts_with("--") && word.len() > 2)
        .collect();
    assert!(flags.contains("--listen") && flags.contains("--help"), "{help}");
    let pages = documents();
    let is_named =
        |flag: &&str| ["`", " "].iter().any(|end| pages.contains(&format!("`{flag}{end}")));
    let faults = flags.into_iter().filter(|flag| !is_named(flag));
    finish(faults.map(|flag| format!("README.md:1: document the flag {flag}")).collect());
}

#[test]
fn the_contract_names_every_route_parameter_cause_and_metric() {
    let page = read("docs/api.md");
    let query = read("src/api/query.rs");
    let parameters = query.split("row(\"").skip(1).filter_map(|rest| rest.split('"').next());
    let routes = Route::ALL.into_iter().filter(|route| *route != Route::Unknown);
    let mut words = metrics();
    words.extend(parameters.map(str::to_owned));
    words.extend(routes.map(|route| route.label().to_owned()));
    words.extend(Cause::ALL.map(|cause| cause.label().to_owned()));
    assert!(words.contains("toPort") && words.contains("openports_scans_total"), "{words:?}");
    let faults = words.into_iter().filter(|word| !page.contains(&format!("`{word}`")));
    finish(faults.map(|word| format!("docs/api.md:1: document `{word}`")).collect());
}

#[test]
fn the_contract_names_no_metric_that_does_not_exist() {
    let page = read("docs/api.md");
    let metrics = metrics();
    let mut faults = Vec::new();
    for (line, text) in numbered(&page) {
        for word in text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_') {
            let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| word.strip_suffix(end));
            let is_metric = word.starts_with("openports_");
            if is_metric && !metrics.contains(word) && !base.is_some_and(|it| metrics.contains(it))
            {
                faults.push(format!("docs/api.md:{line}: there is no metric {word}"));
            }
        }
    }
    finish(faults);
}

#[test]
fn the_changelog_knows_this_version() {
    let heading = format!("## [{}]", env!("CARGO_PKG_VERSION"));
    let page = read("docs/changelog.md");
    assert!(page.lines().any(|line| line.starts_with(&heading)), "docs/changelog.md: {heading}");
}

/// Fails with every fault, one a line.
fn finish(faults: Vec<String>) {
    assert!(faults.is_empty(), "{} faults\n{}\n", faults.len(), faults.join("\n"));
}

impl Source {
    fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// True exactly when the file is part of the library or of the binary.
    fn is_room(&self) -> bool {
        let is_test = self.path.starts_with("src/tests/") || self.path.ends_with("/tests.rs");
        self.is_rust() && self.path.starts_with("src/") && !is_test
    }

    /// `scan` for src/scan.rs and src/scan/probes.rs.
    fn room(&self) -> &str {
        let path = self.path.strip_prefix("src/").unwrap_or(&self.path);
        path.split(['/', '.']).next().unwrap_or_default()
    }

    /// What stands before the test module.
    fn production(&self) -> &str {
        let end = self.text.find("#[cfg(test)]\n").unwrap_or(self.text.len());
        &self.text[..end]
    }

    /// The production lines without comments.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        numbered(self.production()).filter_map(|(line, text)| {
            let code = text.split(" // ").next().unwrap_or(text);
            (!code.trim_start().starts_with("//")).then_some((line, code))
        })
    }
}

fn numbered(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(index, line)| (index + 1, line))
}

fn check_width(source: &Source) -> Vec<Fault> {
    let wide = numbered(&source.text).filter(|(_, text)| text.chars().count() > LINE_CHARS_MAX);
    wide.map(|(line, _)| (line, format!("wrap it at {LINE_CHARS_MAX} characters"))).collect()
}

/// A header is there, and short; that of lib.rs is the signboard and may be long.
fn check_header(source: &Source) -> Vec<Fault> {
    let len = source.text.lines().take_while(|line| line.starts_with("//!")).count();
    if len == 0 {
        return vec![(1, "begin with a header of `//!` lines: what this is, who drives it".into())];
    }
    if len > HEADER_LINES_MAX && source.path != "src/lib.rs" {
        return vec![(len, format!("shorten the header to {HEADER_LINES_MAX} lines"))];
    }
    Vec::new()
}

/// The file is short enough, and its tests stand at its end, or code behind them would go unseen.
fn check_length(source: &Source) -> Vec<Fault> {
    let production = source.production();
    let mut faults = Vec::new();
    let len = production.lines().count();
    if len > ROOM_LINES_MAX {
        faults.push((len, format!("split the room: {len} lines, {ROOM_LINES_MAX} are the most")));
    }
    let ends = numbered(&source.text).skip(len).filter(|(_, text)| *text == "}").count();
    if ends > 0 && !source.text.ends_with("\n}\n") || ends > 1 {
        faults.push((source.text.lines().count(), "let the tests be the end of the file".into()));
    }
    faults
}

/// Lengths, names and parameters.
fn check_functions(source: &Source) -> Vec<Fault> {
    let lines: Vec<&str> = source.production().lines().collect();
    let mut faults = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        let Some(name) = function_name(line) else { continue };
        let indent = &line[..line.len() - line.trim_start().len()];
        let end = format!("{indent}}}");
        let len = lines[index..].iter().position(|line| *line == end).map_or(1, |end| end + 1);
        if len > FUNCTION_LINES_MAX && !line.ends_with(['}', ';']) {
            faults.push((index + 1, format!("split `{name}`: it has {len} lines")));
        }
        if name.starts_with("get_") && name != "get_mut" {
            faults.push((index + 1, format!("name `{name}` after what it gives, without get_")));
        }
        let types = parameter_types(&lines[index..].join("\n"));
        if types.len() > PARAMETERS_MAX {
            faults.push((index + 1, format!("`{name}` has {} parameters", types.len())));
        }
        if types.iter().any(|kind| kind == "bool") {
            faults.push((index + 1, format!("give `{name}` an enum in place of a bool")));
        }
    }
    faults
}

/// The name of the function that begins on this line.
fn function_name(line: &str) -> Option<&str> {
    let mut rest = line.trim_start();
    let prefixes = ["pub(crate) ", "pub(super) ", "pub ", "const ", "async ", "unsafe "];
    while let Some(shorter) = prefixes.iter().find_map(|prefix| rest.strip_prefix(prefix)) {
        rest = shorter;
    }
    let name = rest.strip_prefix("fn ")?;
    name.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next()
}

/// The types of a function's parameters but `self`, from the text that begins at its signature.
fn parameter_types(text: &str) -> Vec<String> {
    let mut depth = 0_i32;
    let mut is_within = false;
    let mut parameters = vec![String::new()];
    let mut previous = ' ';
    for character in text.chars().skip_while(|c| !"(<".contains(*c)) {
        match character {
            '(' | '[' | '<' | '{' => depth += 1,
            '>' if previous == '-' => {}
            ')' | ']' | '>' | '}' => depth -= 1,
            _ => {}
        }
        previous = character;
        match (is_within, character) {
            (false, '(') if depth == 1 => is_within = true,
            (true, _) if depth == 0 => break,
            (true, ',') if depth == 1 => parameters.push(String::new()),
            (true, _) => parameters.last_mut().expect("there is one").push(character),
            (false, _) => {}
        }
    }
    let kinds = parameters.iter().filter_map(|parameter| parameter.split_once(": "));
    kinds.map(|(_, kind)| kind.trim().to_owned()).collect()
}

/// Rooms import only rooms that stand below them in the map of lib.rs.
fn check_imports(source: &Source) -> Vec<Fault> {
    let floors = floors();
    let own = source.room();
    let mut faults = Vec::new();
    if own == "lib" || own == "main" {
        return faults;
    }
    let floor = floors.iter().position(|room| room == own);
    for (line, code) in source.code() {
        if source.path == format!("src/{own}.rs") && code.contains("super::") {
            faults.push((line, "name the room: `crate::room::…`".into()));
        }
        for path in code.split("crate::").skip(1) {
            let room = path.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next();
            let room = room.unwrap_or_default();
            let below = floors.iter().position(|name| name == room);
            if room != own && (below.is_none() || below <= floor) {
                faults
                    .push((line, format!("`{own}` must not know `{room}`: see src/lib.rs's map")));
            }
        }
    }
    faults
}

/// The rooms from top to bottom, as the map in lib.rs has them.
fn floors() -> Vec<String> {
    let lib = read("src/lib.rs");
    let rows = lib.lines().filter_map(|line| line.strip_prefix("//! | [")?.split(" | ").next());
    let names = rows.flat_map(|cell| cell.split('`').skip(1).step_by(2).map(str::to_owned));
    names.collect()
}

/// No word of `words` in the code, but in the files of `owners`.
fn keep_out(source: &Source, owners: &[&str], words: &[&str], what: &str) -> Vec<Fault> {
    if owners.contains(&source.path.as_str()) {
        return Vec::new();
    }
    let found = source.code().filter_map(|(line, code)| {
        let word = words.iter().find(|word| code.contains(**word))?;
        Some((line, format!("`{}`: {what}", word.trim())))
    });
    found.collect()
}

/// `unsafe` stands in sys.rs, below a comment that says why it is sound.
fn check_unsafe(source: &Source) -> Vec<Fault> {
    let lines: Vec<&str> = source.text.lines().collect();
    let mut faults = Vec::new();
    for (line, code) in source.code() {
        let is_unsafe = code.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        if !is_unsafe.into_iter().any(|word| word == "unsafe" || word == "unsafe_code") {
            continue;
        }
        if source.path != "src/sys.rs" {
            faults.push((line, "unsafe code stands in src/sys.rs".into()));
        } else if code.contains("unsafe ") && !comment_above(&lines, line).contains("SAFETY: ") {
            faults.push((line, "say above it in a `// SAFETY:` comment why this is sound".into()));
        }
    }
    faults
}

/// The comment that stands directly above a line.
fn comment_above(lines: &[&str], line: usize) -> String {
    let above = lines[..line - 1].iter().rev().map(|text| text.trim());
    above.take_while(|text| text.starts_with("//") || text.starts_with("#[")).collect()
}

/// Whoever gives up has proved that it cannot happen; whoever silences clippy has a reason.
fn check_proofs(source: &Source) -> Vec<Fault> {
    let lines: Vec<&str> = source.text.lines().collect();
    let mut faults = Vec::new();
    for (line, code) in source.code() {
        let near = lines[line.saturating_sub(7)..line - 1].join("\n");
        let gives_up = [".unwrap()", ".expect(", "unreachable!()", "panic!()"];
        let has_proof = near.contains("clippy::") || comment_above(&lines, line).contains("//");
        if gives_up.iter().any(|call| code.contains(call)) && !has_proof {
            faults.push((line, "do without, or prove above it that it cannot happen".into()));
        }
        let silences = ["#[allow(", "#[expect(", "#![allow(", "#![expect("];
        let until = lines.len().min(line + 5);
        let attribute = lines[line - 1..until].join("\n");
        let attribute = attribute.split(")]").next().unwrap_or_default();
        let silences = silences.iter().any(|silence| code.contains(silence));
        if silences && !attribute.contains("reason = ") {
            faults.push((line, "give a `reason = \"…\"`".into()));
        }
    }
    faults
}

/// Every bound says why it is what it is.
fn check_limits(source: &Source) -> Vec<Fault> {
    let lines: Vec<&str> = source.text.lines().collect();
    let constants = source.code().filter(|(_, code)| code.starts_with("pub const "));
    let bare = constants.filter(|(line, _)| !comment_above(&lines, *line).contains("///"));
    bare.map(|(line, _)| (line, "say in a doc comment why this bound is what it is".into()))
        .collect()
}

/// Words that have no business in any file. They are split here so as not to be found here.
fn check_words(source: &Source) -> Vec<Fault> {
    const UNFINISHED: [&str; 4] =
        [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X"), concat!("HA", "CK")];
    const HOSTS: [&str; 8] = [
        concat!("crates", ".io"),
        concat!("py", "pi.org"),
        concat!("npm", "js.org"),
        concat!("proxy.golang", ".org"),
        concat!("docker", ".io"),
        concat!("gh", "cr.io"),
        concat!("quay", ".io"),
        concat!("gcr", ".io"),
    ];
    let mut faults = Vec::new();
    for (line, text) in numbered(&source.text) {
        let mut words = text.split(|c: char| !c.is_ascii_alphanumeric());
        if words.any(|word| UNFINISHED.contains(&word)) {
            faults.push((line, "do it now, or leave it out".into()));
        }
        if HOSTS.iter().any(|host| text.contains(host)) {
            faults.push((line, "name no package registry's host: its client knows it".into()));
        }
        if [concat!("/ho", "me/"), concat!("/ro", "ot/"), concat!("/t", "mp/")]
            .iter()
            .any(|path| text.contains(path))
        {
            faults.push((line, "name no path of one machine".into()));
        }
    }
    faults
}

/// Relative links lead to files that exist, and to headings that they have.
fn check_links(source: &Source) -> Vec<Fault> {
    let folder = Path::new(&source.path).parent().map_or(root(), |folder| root().join(folder));
    let mut faults = Vec::new();
    for (line, text) in numbered(&source.text) {
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.contains("://") {
                continue;
            }
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            let target =
                if file.is_empty() { root().join(&source.path) } else { folder.join(file) };
            let is_there = target.exists()
                && (heading.is_empty() || headings(&target).contains(&heading.to_owned()));
            if !is_there {
                faults.push((line, format!("the link {link} leads nowhere")));
            }
        }
    }
    faults
}

/// The anchors of a page's headings, as Markdown viewers make them.
fn headings(page: &Path) -> Vec<String> {
    let text = fs::read_to_string(page).unwrap_or_default();
    let titles = text.lines().filter(|line| line.starts_with('#'));
    let anchor = |title: &str| {
        let title = title.trim_start_matches('#').trim().to_lowercase();
        let kept = title.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    titles.map(anchor).collect()
}

/// Line numbers are wrong by the next commit.
fn check_line_numbers(source: &Source) -> Vec<Fault> {
    let is_numbered = |rest: &&str| rest.starts_with(|c: char| c.is_ascii_digit());
    let found = numbered(&source.text)
        .filter(|(_, text)| text.split(".rs:").skip(1).any(|rest| is_numbered(&rest)));
    found.map(|(line, _)| (line, "name the type or the function, not its line".into())).collect()
}

/// The metrics of `/metrics`, from the strings of report.rs.
fn metrics() -> BTreeSet<String> {
    let report = Source { path: "src/report.rs".into(), text: read("src/report.rs") };
    let strings = report.code().flat_map(|(_, code)| code.split('"').skip(1).step_by(2));
    let is_name = |word: &&str| {
        let is_ours = word.starts_with("openports_") || word.starts_with("process_");
        is_ours && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
    };
    strings.filter(is_name).map(str::to_owned).collect()
}

/// README.md and every page of docs, one behind the other.
fn documents() -> String {
    let pages = tracked().into_iter().filter(|source| source.path.ends_with(".md"));
    pages.map(|source| source.text).collect()
}

/// Every text file of the project.
fn tracked() -> Vec<Source> {
    let sources = paths().into_iter().filter_map(|path| {
        let text = fs::read_to_string(root().join(&path)).ok()?;
        Some(Source { path, text })
    });
    sources.collect()
}

/// What git tracks or would track; without git, what is there and is no build output.
fn paths() -> Vec<String> {
    let git = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output();
    let listed = git.ok().filter(|output| output.status.success());
    let mut paths: Vec<String> = match listed {
        Some(output) => String::from_utf8_lossy(&output.stdout).lines().map(String::from).collect(),
        None => walk(&root()),
    };
    paths.retain(|path| root().join(path).is_file());
    paths.sort_unstable();
    assert!(paths.iter().any(|path| path == "src/lib.rs"), "the project is there: {paths:?}");
    paths
}

fn walk(folder: &Path) -> Vec<String> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder of the project can be read").flatten() {
        let path = entry.path();
        let name = entry.file_name();
        if name == ".git" || name == "target" {
            continue;
        }
        if path.is_dir() {
            paths.extend(walk(&path));
        } else if let Ok(relative) = path.strip_prefix(root()) {
            paths.push(relative.to_string_lossy().into_owned());
        }
    }
    paths
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}
