//! Style checks as a test, like `tidy.zig` of TigerBeetle, for remarks that reviewers would repeat.
//!
//! There are two kinds of checks. The checks in [`RULES`] look at one source file each, and each
//! has a sample that breaks it, so that a rule without effect is detected. The other checks compare
//! the documents with the code: an undocumented flag, parameter, metric or module fails here.
//!
//! A fault is printed as `file:line: what to do`. Functions are found by the indentation of
//! rustfmt, so run `cargo fmt` first. Production code is everything before the test module of a
//! file, except in folders called tests and files called tests.rs. Checks that clippy has are left
//! to clippy.
#![expect(clippy::expect_used, reason = "a panic is the failure of a test")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use openports::api::Route;
use openports::api::problem::Cause;

const LINE_CHARS_MAX: usize = 100;
const FUNCTION_LINES_MAX: usize = 70;
const MODULE_LINES_MAX: usize = 500;
const HEADER_LINES_MAX: usize = 25;

/// The permitted names at the top level, except for dot files.
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

/// A file of the project.
struct Source {
    /// The path relative to the top of the project, with slashes.
    path: String,
    text: String,
}

/// A line number, counted from 1, and the advice for this line.
type Fault = (usize, String);

/// A rule for single source files, and a sample that breaks it.
struct Rule {
    applies: fn(&Source) -> bool,
    check: fn(&Source) -> Vec<Fault>,
    /// The path and the text of a file that breaks the rule.
    sample: (&'static str, &'static str),
    /// The lines of the sample that break the rule.
    lines: &'static [usize],
}

const RULES: [Rule; 14] = [
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
        lines: &[2],
    },
    Rule {
        applies: Source::is_rust,
        check: check_header,
        sample: ("src/a.rs", "use std::fmt;\n"),
        lines: &[1],
    },
    Rule {
        applies: Source::is_production,
        check: check_length,
        sample: ("src/a.rs", "#[cfg(test)]\nmod tests {\n}\n\nfn late() {}\n"),
        lines: &[5],
    },
    Rule {
        applies: Source::is_production,
        check: check_functions,
        sample: ("src/a.rs", "//! A.\nimpl A {\n    fn get_tick(&self) {\n    }\n}\n"),
        lines: &[3],
    },
    Rule {
        applies: Source::is_production,
        check: check_imports,
        sample: ("src/timers.rs", "//! T.\n\nuse crate::slots::Key;\nuse crate::scan::Scan;\n"),
        lines: &[4],
    },
    Rule {
        applies: |source| source.is_production() && source.path.starts_with("src/core/"),
        check: check_core_imports,
        sample: (
            "src/core/clients.rs",
            concat!(
                "//! C.\n\nuse super::client::C;\nuse super::jobs::J;\n\n",
                "use super::responder::R;\n",
                "use super::{\n    client::{self, A},\n    responder::R,\n};\n",
            ),
        ),
        lines: &[6, 7],
    },
    Rule {
        applies: |source| source.is_production() && source.module() != "sys",
        check: |source| {
            let words = ["unsafe ", "unsafe_code"];
            keep_out(source, &[], &words, "unsafe code belongs in src/sys.rs and its submodules")
        },
        sample: ("src/scan.rs", "//! S.\nfn f() {\n    unsafe { g() }\n}\n"),
        lines: &[3],
    },
    Rule {
        applies: Source::is_production,
        check: |source| {
            let api = if source.module() == "api" { source.path.as_str() } else { "" };
            keep_out(source, &[api], &["serde_json"], "JSON belongs in the module `api`")
        },
        sample: ("src/scan.rs", "//! S.\nuse serde_json::Value;\n"),
        lines: &[2],
    },
    Rule {
        applies: Source::is_production,
        check: |source| {
            let shared = ["static mut", "async fn", ".await"];
            keep_out(source, &[], &shared, "one thread owns all state: pass it as `&mut`")
        },
        sample: ("src/scan.rs", "//! S.\nasync fn f() {}\n"),
        lines: &[2],
    },
    Rule {
        applies: Source::is_production,
        check: check_proofs,
        sample: ("src/a.rs", "//! A.\n\nfn f() {\n    g().unwrap();\n}\n"),
        lines: &[4],
    },
    Rule {
        applies: |source| source.path == "src/limits.rs",
        check: check_limits,
        sample: (
            "src/limits.rs",
            "//! L.\n\n/// Why.\npub const A: u8 = 1;\npub const B: u8 = 2;\n",
        ),
        lines: &[5],
    },
    Rule {
        applies: |source| source.path != "Cargo.lock",
        check: check_words,
        sample: ("docs/a.md", concat!("fine\nTO", "DO: more\n")),
        lines: &[2],
    },
    Rule {
        applies: |source| source.path.ends_with(".md"),
        check: check_links,
        sample: ("docs/a.md", "[good](../Cargo.toml)\n\n[bad](nowhere.md)\n"),
        lines: &[3],
    },
    Rule {
        applies: |source| source.path.ends_with(".md"),
        check: check_line_numbers,
        sample: ("docs/a.md", "see `scan.rs`\nsee scan.rs:12\n"),
        lines: &[2],
    },
];

#[test]
fn every_file_follows_every_rule() {
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
fn every_rule_detects_the_fault_in_its_sample() {
    for rule in &RULES {
        let (path, text) = rule.sample;
        let source = Source { path: path.into(), text: text.into() };
        assert!((rule.applies)(&source), "the rule does not apply to {path}:\n{text}");
        let lines: Vec<usize> = (rule.check)(&source).into_iter().map(|(line, _)| line).collect();
        assert_eq!(lines, rule.lines, "in {path}:\n{text}");
    }
}

#[test]
fn the_top_level_has_only_the_permitted_names() {
    let odd = |name: &String| !name.starts_with('.') && !TOP_LEVEL.contains(&name.as_str());
    let top = |path: &str| path.split('/').next().unwrap_or_default().to_owned();
    let names: BTreeSet<String> = paths().iter().map(|path| top(path)).collect();
    let faults = names.into_iter().filter(odd);
    finish(faults.map(|name| format!("{name}:1: move it below src, benches or docs")).collect());
}

#[test]
fn the_map_of_lib_rs_names_every_module_once() {
    let lib = read("src/lib.rs");
    let modules = lib.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'));
    let mut mapped = layers();
    mapped.sort_unstable();
    let mut modules: Vec<&str> = modules.collect();
    modules.sort_unstable();
    assert_eq!(mapped, modules, "the map in src/lib.rs does not match its `pub mod` lines");
}

#[test]
fn the_architecture_names_every_module_and_no_file_that_does_not_exist() {
    let page = read("docs/architecture.md");
    let mut faults = Vec::new();
    for module in layers().iter().filter(|module| !page.contains(&format!("`{module}`"))) {
        faults.push(format!("docs/architecture.md:1: describe `{module}`"));
    }
    for (line, text) in numbered_lines(&page) {
        let named = text.split('`').skip(1).step_by(2).filter(|code| code.ends_with(".rs"));
        for name in named.filter(|name| !root().join("src").join(name).exists()) {
            if !root().join(name).exists() {
                faults.push(format!("docs/architecture.md:{line}: there is no `{name}`"));
            }
        }
    }
    finish(faults);
}

#[test]
fn the_architecture_gives_a_reason_for_every_dependency() {
    let page = read("docs/architecture.md");
    let manifest = read("Cargo.toml");
    let mut is_dependency = false;
    let mut faults = Vec::new();
    for (line, text) in numbered_lines(&manifest) {
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
    finish(faults.map(|flag| format!("docs/operations.md:1: document the flag {flag}")).collect());
}

#[test]
fn the_api_document_names_every_route_parameter_cause_and_metric() {
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
fn the_api_document_names_no_metric_that_does_not_exist() {
    let page = read("docs/api.md");
    let metrics = metrics();
    let mut faults = Vec::new();
    for (line, text) in numbered_lines(&page) {
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
fn the_changelog_has_a_heading_for_this_version() {
    let heading = format!("## [{}]", env!("CARGO_PKG_VERSION"));
    let page = read("docs/changelog.md");
    assert!(page.lines().any(|line| line.starts_with(&heading)), "docs/changelog.md: {heading}");
}

/// Fails with a list of all faults, one per line.
fn finish(faults: Vec<String>) {
    assert!(faults.is_empty(), "{} faults\n{}\n", faults.len(), faults.join("\n"));
}

impl Source {
    fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// Whether the file is part of the library or of the binary.
    fn is_production(&self) -> bool {
        let is_test = self.path.contains("/tests/") || self.path.ends_with("/tests.rs");
        self.is_rust() && self.path.starts_with("src/") && !is_test
    }

    /// The name of the module, for example `scan` for src/scan.rs and src/scan/probes.rs.
    fn module(&self) -> &str {
        let path = self.path.strip_prefix("src/").unwrap_or(&self.path);
        path.split(['/', '.']).next().unwrap_or_default()
    }

    /// The text before the test module.
    fn production(&self) -> &str {
        let end = self.text.find("#[cfg(test)]\n").unwrap_or(self.text.len());
        &self.text[..end]
    }

    /// The production lines without comments.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        numbered_lines(self.production()).filter_map(|(line, text)| {
            let code = text.split(" // ").next().unwrap_or(text);
            (!code.trim_start().starts_with("//")).then_some((line, code))
        })
    }

    /// The production lines without comments, in which each `use` is one line.
    fn joined_code(&self) -> Vec<(usize, String)> {
        let mut joined: Vec<(usize, String)> = Vec::new();
        for (line, code) in self.code() {
            match joined.last_mut() {
                Some((_, text)) if text.starts_with("use ") && !text.ends_with(';') => {
                    text.push_str(code.trim());
                }
                Some(_) | None => joined.push((line, code.to_owned())),
            }
        }
        joined
    }
}

fn numbered_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(index, line)| (index + 1, line))
}

fn check_width(source: &Source) -> Vec<Fault> {
    let wide =
        numbered_lines(&source.text).filter(|(_, text)| text.chars().count() > LINE_CHARS_MAX);
    wide.map(|(line, _)| (line, format!("wrap it at {LINE_CHARS_MAX} characters"))).collect()
}

/// Checks that there is a header and that it is short. The header of lib.rs may be longer, because
/// it is the overview of the crate.
fn check_header(source: &Source) -> Vec<Fault> {
    let len = source.text.lines().take_while(|line| line.starts_with("//!")).count();
    if len == 0 {
        return vec![(
            1,
            "begin with a header of `//!` lines: the purpose of the file and its callers".into(),
        )];
    }
    if len > HEADER_LINES_MAX && source.path != "src/lib.rs" {
        return vec![(len, format!("shorten the header to {HEADER_LINES_MAX} lines"))];
    }
    Vec::new()
}

/// Checks that the file is short, and that its tests are at its end: code after them would not be
/// checked.
fn check_length(source: &Source) -> Vec<Fault> {
    let production = source.production();
    let mut faults = Vec::new();
    let len = production.lines().count();
    if len > MODULE_LINES_MAX {
        faults.push((
            len,
            format!("split the module: it has {len} lines, the limit is {MODULE_LINES_MAX}"),
        ));
    }
    let ends = numbered_lines(&source.text).skip(len).filter(|(_, text)| *text == "}").count();
    if ends > 0 && !source.text.ends_with("\n}\n") || ends > 1 {
        faults.push((source.text.lines().count(), "move the tests to the end of the file".into()));
    }
    faults
}

/// Checks the lengths and the names of functions.
fn check_functions(source: &Source) -> Vec<Fault> {
    let lines: Vec<&str> = source.production().lines().collect();
    let mut faults = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        let Some(name) = function_name(line) else { continue };
        let indent = &line[..line.len() - line.trim_start().len()];
        let end = format!("{indent}}}");
        let len = lines[index..].iter().position(|line| *line == end).map_or(1, |end| end + 1);
        // Functions that a trait declares may have no body.
        let signature_end = lines[index..].iter().find(|line| line.ends_with(['{', '}', ';']));
        let has_body = signature_end.is_some_and(|line| line.ends_with('{'));
        if len > FUNCTION_LINES_MAX && has_body {
            faults.push((index + 1, format!("split `{name}`: it has {len} lines")));
        }
        if name.starts_with("get_") && name != "get_mut" {
            faults.push((index + 1, format!("name `{name}` after its result, without get_")));
        }
    }
    faults
}

/// The name of the function that begins in this line.
fn function_name(line: &str) -> Option<&str> {
    let mut rest = line.trim_start();
    let prefixes = ["pub(crate) ", "pub(super) ", "pub ", "const ", "async ", "unsafe "];
    while let Some(shorter) = prefixes.iter().find_map(|prefix| rest.strip_prefix(prefix)) {
        rest = shorter;
    }
    let name = rest.strip_prefix("fn ")?;
    name.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next()
}

/// Checks that a module imports only modules below it in the map of lib.rs.
fn check_imports(source: &Source) -> Vec<Fault> {
    let layers = layers();
    let own = source.module();
    let mut faults = Vec::new();
    if own == "lib" || own == "main" {
        return faults;
    }
    let layer = layers.iter().position(|module| module == own);
    for (line, code) in source.code() {
        if source.path == format!("src/{own}.rs") && code.contains("super::") {
            faults.push((line, "use a path from the crate: `crate::module::…`".into()));
        }
        for path in code.split("crate::").skip(1) {
            let module = path.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next();
            let module = module.unwrap_or_default();
            let below = layers.iter().position(|name| name == module);
            if module != own && (below.is_none() || below <= layer) {
                faults.push((
                    line,
                    format!("`{own}` must not import `{module}`: see the map in src/lib.rs"),
                ));
            }
        }
    }
    faults
}

/// Checks that a module of the core imports only modules that are listed after it in the header of
/// the core, and never the core itself.
fn check_core_imports(source: &Source) -> Vec<Fault> {
    let layers = core_layers();
    let path = &source.path["src/core/".len()..];
    let own = path.split(['/', '.']).next().unwrap_or_default();
    let Some(layer) = layers.iter().position(|module| module == own) else {
        return vec![(1, format!("list `{own}` in the header of src/core.rs"))];
    };
    // Inside the folder of a module, `super` is this module and `super::super` is the core.
    let core = if path.contains('/') { "super::super::" } else { "super::" };
    let mut faults = Vec::new();
    for (line, code) in source.joined_code() {
        let paths = code.split("crate::core::").skip(1).chain(code.split(core).skip(1));
        for rest in paths {
            let names = imported_modules(rest);
            let is_below = |name: &String| layers.iter().skip(layer + 1).any(|it| it == name);
            if let Some(name) = names.iter().find(|name| !name.is_empty() && !is_below(name)) {
                let fault =
                    format!("`{own}` must not import `{name}`: see the header of src/core.rs");
                faults.push((line, fault));
            }
        }
    }
    faults
}

/// The first name of each path that an import lists after a common prefix.
fn imported_modules(rest: &str) -> Vec<String> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let first = |text: &str| text.trim().split(|c| !is_name(c)).next().map(str::to_owned);
    let Some(list) = rest.strip_prefix('{') else { return first(rest).into_iter().collect() };
    let mut depth = 0;
    let paths = list.split(|c| {
        depth += i32::from(c == '{') - i32::from(c == '}');
        c == ',' && depth == 0
    });
    paths.filter_map(first).collect()
}

/// The modules of the core from top to bottom, in the order of its header.
fn core_layers() -> Vec<String> {
    let text = read("src/core.rs");
    let rest = text.split_once("//! The modules from top to bottom").map_or("", |(_, rest)| rest);
    let list = rest.split("\n//!\n").next().unwrap_or_default();
    list.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The modules of the crate from top to bottom, in the order of the map in lib.rs.
fn layers() -> Vec<String> {
    let lib = read("src/lib.rs");
    let rows = lib.lines().filter_map(|line| line.strip_prefix("//! | [")?.split(" | ").next());
    let names = rows.flat_map(|cell| cell.split('`').skip(1).step_by(2).map(str::to_owned));
    names.collect()
}

/// Checks that the code contains none of `words`, except in the files of `owners`.
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

/// The comment directly above a line.
fn comment_above(lines: &[&str], line: usize) -> String {
    let above = lines[..line - 1].iter().rev().map(|text| text.trim());
    above.take_while(|text| text.starts_with("//") || text.starts_with("#[")).collect()
}

/// Checks that a call that may panic has a comment with the proof that it does not.
fn check_proofs(source: &Source) -> Vec<Fault> {
    let lines: Vec<&str> = source.text.lines().collect();
    let mut faults = Vec::new();
    for (line, code) in source.code() {
        let near = lines[line.saturating_sub(7)..line - 1].join("\n");
        let gives_up = [".unwrap()", ".expect(", "unreachable!()", "panic!()"];
        let has_proof = near.contains("clippy::") || comment_above(&lines, line).contains("//");
        if gives_up.iter().any(|call| code.contains(call)) && !has_proof {
            faults.push((
                line,
                "remove it, or prove in a comment above it that it cannot panic".into(),
            ));
        }
    }
    faults
}

/// Checks that every limit has a doc comment with its reason.
fn check_limits(source: &Source) -> Vec<Fault> {
    let lines: Vec<&str> = source.text.lines().collect();
    let constants = source.code().filter(|(_, code)| code.starts_with("pub const "));
    let bare = constants.filter(|(line, _)| !comment_above(&lines, *line).contains("///"));
    bare.map(|(line, _)| (line, "give the reason of this limit in a doc comment".into())).collect()
}

/// Words that must not occur in any file. They are split here, or this file would break the rule.
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
    for (line, text) in numbered_lines(&source.text) {
        let mut words = text.split(|c: char| !c.is_ascii_alphanumeric());
        if words.any(|word| UNFINISHED.contains(&word)) {
            faults.push((line, "do this now, or delete the remark".into()));
        }
        if HOSTS.iter().any(|host| text.contains(host)) {
            faults.push((
                line,
                "do not name the host of a package registry: its client knows it".into(),
            ));
        }
        if [concat!("/ho", "me/"), concat!("/ro", "ot/"), concat!("/t", "mp/")]
            .iter()
            .any(|path| text.contains(path))
        {
            faults.push((line, "do not name a path of one machine".into()));
        }
    }
    faults
}

/// Checks that relative links lead to existing files and headings.
fn check_links(source: &Source) -> Vec<Fault> {
    let folder = Path::new(&source.path).parent().map_or(root(), |folder| root().join(folder));
    let mut faults = Vec::new();
    for (line, text) in numbered_lines(&source.text) {
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
                faults.push((line, format!("the target of the link {link} does not exist")));
            }
        }
    }
    faults
}

/// The anchors of the headings of a page, in the form that Markdown viewers use.
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

/// Checks that documents contain no line numbers, because these become wrong with the next commit.
fn check_line_numbers(source: &Source) -> Vec<Fault> {
    let is_numbered = |rest: &&str| rest.starts_with(|c: char| c.is_ascii_digit());
    let found = numbered_lines(&source.text)
        .filter(|(_, text)| text.split(".rs:").skip(1).any(|rest| is_numbered(&rest)));
    found
        .map(|(line, _)| (line, "name the type or the function instead of its line".into()))
        .collect()
}

/// The names of the metrics, from the strings of report.rs and its submodules.
fn metrics() -> BTreeSet<String> {
    let is_name = |word: &&str| {
        let is_ours = word.starts_with("openports_") || word.starts_with("process_");
        is_ours && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
    };
    let mut names = BTreeSet::new();
    for path in ["src/report.rs", "src/report/process.rs", "src/report/syns.rs"] {
        let source = Source { path: path.into(), text: read(path) };
        let strings = source.code().flat_map(|(_, code)| code.split('"').skip(1).step_by(2));
        names.extend(strings.filter(is_name).map(str::to_owned));
    }
    names
}

/// The concatenated text of README.md and of all pages in docs.
fn documents() -> String {
    let pages = tracked().into_iter().filter(|source| source.path.ends_with(".md"));
    pages.map(|source| source.text).collect()
}

/// All text files of the project.
fn tracked() -> Vec<Source> {
    let sources = paths().into_iter().filter_map(|path| {
        let text = fs::read_to_string(root().join(&path)).ok()?;
        Some(Source { path, text })
    });
    sources.collect()
}

/// The files that git tracks or would track; without git, all files except the build output.
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
    assert!(paths.iter().any(|path| path == "src/lib.rs"), "src/lib.rs is missing: {paths:?}");
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
